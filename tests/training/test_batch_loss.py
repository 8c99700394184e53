"""Losses of whole batches: devices, micro-batches and padding change neither value nor gradient."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segjax.layers.checkpoint_names import block_output
from segjax.losses.table import LOSSES
from segjax.losses.terms import parse_aux_terms, parse_terms
from segjax.training.batch_loss import BatchLoss, from_microbatches, microbatches
from segjax.training.head import SOFTMAX
from segjax.training.mesh import ON_ONE_DEVICE, make_devices
from segjax.training.step import (
    make_forward,
    make_loss_sum,
    make_train_step,
    sum_over_microbatches,
)
from tests.training.toys import (
    FIXED,
    KEY,
    MEAN,
    RATE,
    STD,
    WEIGHTS,
    K,
    N,
    Normalised,
    Plain,
    make_batch,
    new_state,
)

SUMS = [
    ("cross_entropy(label_smoothing=0.1) + 0.5 * lovasz", "cross_entropy(divide_by=weights)"),
    (
        "0.1*boundary_cross_entropy(sigma=1, divide_by=all) + lovasz(per_image=True)"
        " + 2*focal(divide_by=weights) + dice(per_image=True, smooth=1, absent=count)"
        " + ohem(threshold=0.4, min_kept=20)",
        "",
    ),
    ("jaccard", "dice + 0.01 * cross_entropy(divide_by=none)"),
]
# Options of `parallel`, and micro-batches. Four examples on 8 or 3 devices are padded.
PLACES = [
    ({}, 1),
    ({}, 2),
    ({"data": 8}, 1),
    ({"data": 3}, 2),
    ({"data": 2, "space": 2}, 1),
    ({"mode": "pmap", "data": 4}, 1),
    ({"mode": "pmap", "data": 2}, 2),
]
# Each sum once: with padding, on devices of pmap, on shared rows; the others are slow.
QUICK = {(0, 3), (1, 6), (2, 4)}


def objective_of(terms, aux_terms="", **options):
    return dataclasses.replace(
        FIXED,
        terms=parse_terms(terms),
        aux_terms=parse_aux_terms(aux_terms),
        class_weights=WEIGHTS,
        **options,
    )


def total(terms, logits, labels):
    """The sum of terms, and each one's value, of a whole batch."""
    values = []
    for term in terms:
        row = LOSSES[term.name]
        weights = (jnp.array(WEIGHTS),) if row.takes_class_weights else ()
        values.append(row.function(logits, labels, *weights, **dict(term.options)))
    return sum(term.factor * value for term, value in zip(terms, values, strict=True)), values


@functools.cache
def by_hand(objective):
    """Loss, values of the main head's terms, and gradient of one unaugmented batch."""
    model, batch = Plain(aux=True), make_batch()
    images = (batch["image"] / 255.0 - jnp.array(MEAN)) / jnp.array(STD)
    labels = batch["label"].astype(jnp.int32)

    def loss(params):
        outputs = model.apply({"params": params}, images, train=True)
        main, values = total(objective.terms, outputs["logits"], labels)
        aux, _ = total(objective.aux_terms or objective.terms, outputs["aux"], labels)
        return main + objective.aux_weight * aux, values

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(new_state(model).params)


def one_step(objective, parallel):
    """The parameters after a step of the same batch on these devices, and its metrics."""
    model, batch = Plain(aux=True), jax.device_get(make_batch())
    config = {"mode": "jit", "data": 1, "space": 1, "shard_optimizer": False, **parallel}
    devices = make_devices(config)
    rows = devices.padded_size(N, objective.accumulate) - N
    fill = {"image": 77, "label": 255, "index": -1}
    batch = {
        name: np.concatenate([x, np.full((rows, *x.shape[1:]), fill[name], x.dtype)])
        for name, x in batch.items()
    }
    placement = devices.batch_placement(N, objective.accumulate)
    assert placement.padded == (rows > 0)
    schedule = optax.constant_schedule(RATE)
    step = make_train_step(model, optax.sgd(RATE, 0.9), schedule, objective, KEY, placement)
    state = devices.replicate(jax.device_get(new_state(model)))
    return jax.device_get(devices.compile_train(step, state)(state, devices.put(batch)))


def check(objective, parallel):
    (loss, values), gradient = by_hand(objective)
    after, metrics = one_step(objective, parallel)
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=2e-6)
    logged = {name: value for name, value in metrics.items() if name.startswith("loss_")}
    assert len(logged) == (len(values) if len(values) > 1 else 0)
    if logged:
        names = [f"loss_{term.name}" for term in objective.terms]
        assert logged == pytest.approx(dict(zip(names, map(float, values), strict=True)), rel=2e-6)
    norm = float(optax.tree.norm(gradient))
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-5)
    before = jax.device_get(new_state(Plain(aux=True)).params)
    expected = jax.tree.map(lambda p, g: p - RATE * g, before, gradient)
    for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * RATE * norm + 2e-7)


@pytest.mark.versions
@pytest.mark.parametrize(
    ("sums", "parallel", "accumulate"),
    [
        pytest.param(sums, *place, marks=() if (sums, i) in QUICK else pytest.mark.slow)
        for sums in range(len(SUMS))
        for i, place in enumerate(PLACES)
    ],
    ids=str,
)
def test_the_loss_is_that_of_the_whole_batch(sums, parallel, accumulate):
    check(objective_of(*SUMS[sums], accumulate=accumulate), parallel)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, row in LOSSES.items() if row.head == "softmax"])
def test_each_loss_alone_on_devices_with_microbatches(name):
    check(objective_of(name, accumulate=2), {"mode": "pmap", "data": 2})


def test_terms_with_names_twice():
    objective = objective_of("dice + focal + dice(smooth=1)", aux_weight=0.0)
    _, metrics = one_step(objective, {})
    names = [name for name in metrics if name.startswith("loss_")]
    assert set(names) == {"loss_dice", "loss_focal", "loss_dice_2"}
    assert sum(float(metrics[name]) for name in names) == pytest.approx(float(metrics["loss"]))


class Marked(nn.Module):
    """Marks for rematerialisation, batch normalisation and dropout."""

    num_classes: int = K

    @nn.compact
    def __call__(self, images, *, train):
        x = block_output(nn.relu(nn.Conv(4, (3, 3))(images)))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = nn.Dropout(0.3)(x, deterministic=not train)
        x = block_output(nn.relu(nn.Conv(4, (1, 1))(x)))
        return {"logits": nn.Conv(K, (1, 1))(x)}


@pytest.mark.parametrize(
    ("model", "remat"),
    [
        pytest.param(Normalised(), "none", id="plain", marks=pytest.mark.slow),
        pytest.param(Marked(), "none", id="marked", marks=pytest.mark.slow),
        pytest.param(Marked(), "blocks", id="remat"),
    ],
)
def test_microbatches_go_backward_as_they_went_forward(model, remat):
    """With batch normalisation and dropout, which see one micro-batch at a time."""
    batch, state, keys = make_batch(), new_state(model), jax.random.split(KEY, 2)
    images = (batch["image"] / 255.0 - jnp.array(MEAN)) / jnp.array(STD)
    labels, index = batch["label"].astype(jnp.int32), batch["index"]
    terms = parse_terms("dice + cross_entropy(divide_by=all)")
    batch_loss = BatchLoss(terms, class_weights=WEIGHTS)
    forward = make_forward(model, ON_ONE_DEVICE)

    def by_hand(params):
        stats, outputs = state.batch_stats, []
        for part in (0, 1):
            rows = (microbatches(x, 2)[part] for x in (images, index))
            output, stats = forward(params, stats, *rows, keys[part])
            outputs.append(output["logits"])
        return total(terms, from_microbatches(jnp.stack(outputs)), labels)[0], stats

    def in_parts(params):
        examples, divisors = (images, labels, index), batch_loss.divisors(labels, K)
        run = functools.partial(forward, params)
        whole = batch_loss.of_whole_batch(run, state.batch_stats, examples, keys)
        loss_sum = make_loss_sum(forward, batch_loss, SOFTMAX, K, remat)
        sums, stats = sum_over_microbatches(
            loss_sum, state, examples, keys, whole, divisors, batch_loss.names, (K, K)
        )
        unit = batch_loss.unit(divisors)
        return (sums.loss / unit, stats), jax.tree.map(lambda g: g / unit, sums.gradients)

    (loss, stats), gradient = jax.jit(jax.value_and_grad(by_hand, has_aux=True))(state.params)
    (found, found_stats), found_gradient = jax.jit(in_parts)(state.params)
    assert float(found) == pytest.approx(float(loss), rel=1e-6)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), found_stats, stats)
    norm = float(optax.tree.norm(gradient))
    assert norm > 0.01
    for a, b in zip(jax.tree.leaves(found_gradient), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * norm)


def test_microbatches_join_again():
    x = np.arange(12).reshape(6, 2)
    np.testing.assert_array_equal(from_microbatches(microbatches(jnp.array(x), 3)), x)


def test_what_is_not_finite_reaches_the_loss():
    """A step with a NaN must be seen as such under micro-batches too."""
    objective = objective_of("dice", accumulate=2)
    batch = make_batch()
    model = Plain()
    state = new_state(model)
    broken = state.replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))
    step = make_train_step(model, optax.sgd(RATE, 0.9), lambda _: RATE, objective, KEY)
    _, metrics = jax.jit(step)(broken, batch)
    assert np.isnan(metrics["loss"])
    assert np.isnan(metrics["grad_norm"])
