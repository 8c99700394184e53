"""The training step of models of a few channels; most tests share two compiled programs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segjax.training.mesh import BatchPlacement
from segjax.training.step import augmented, make_train_step, microbatches
from segjax.transforms.augment import Augmentation
from segjax.transforms.normalize import Normalization
from tests.training.toys import (
    CROP,
    FIXED,
    KEY,
    MEAN,
    MOVING,
    RATE,
    SIZE,
    STD,
    VIEWS,
    WEIGHTS,
    Fragile,
    K,
    N,
    Normalised,
    Plain,
    make_batch,
    new_state,
    numpy_confusion,
)


@pytest.fixture(scope="module")
def compiled():
    """compiled(model, objective): the jitted training step, compiled once."""
    known = {}

    def get(model, objective):
        if (model, objective) not in known:
            schedule = optax.linear_schedule(RATE, 0.0, 10)
            step = make_train_step(model, optax.sgd(RATE, 0.9), schedule, objective, KEY)
            known[model, objective] = jax.jit(step)
        return known[model, objective]

    return get


def assert_close(a, b, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), a, b)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def differ(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(bool(np.any(x != y)) for x, y in pairs)


@functools.partial(jax.jit, static_argnums=(0, 3))
def by_hand(model, params, batch, objective):
    """Loss and gradient of one unaugmented batch: a mean over its labelled pixels."""
    images = (batch["image"] / 255.0 - jnp.array(MEAN)) / jnp.array(STD)
    labels = batch["label"].astype(jnp.int32)

    def loss(params):
        outputs = model.apply({"params": params}, images, train=True)
        total = 0.0
        for name, factor in (("logits", 1.0), ("aux", objective.aux_weight)):
            if name in outputs:
                chosen = jax.nn.log_softmax(outputs[name])
                chosen = jnp.take_along_axis(chosen, jnp.minimum(labels, K - 1)[..., None], -1)
                weights = jnp.array(objective.class_weights or (1.0,) * K)
                weights = jnp.where(labels < K, weights[jnp.minimum(labels, K - 1)], 0)
                total -= factor * jnp.sum(weights * chosen[..., 0])
        return total / jnp.sum(labels < K)

    return jax.value_and_grad(loss)(params)


@pytest.mark.versions
@pytest.mark.parametrize("aux_weight, weights", [(0.0, None), (1.5, WEIGHTS)])
def test_one_step_is_the_gradient_of_the_mean_loss(compiled, aux_weight, weights):
    model, batch = Plain(aux=True), make_batch()
    objective = dataclasses.replace(FIXED, aux_weight=aux_weight, class_weights=weights)
    state = new_state(model)
    after, metrics = compiled(model, objective)(state, batch)
    loss, gradient = by_hand(model, state.params, batch, objective)
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-5)
    expected = jax.tree.map(lambda p, g: p - RATE * g, state.params, gradient)
    assert_close(after.params, expected)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient)))
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-4)
    assert float(metrics["learning_rate"]) == pytest.approx(RATE)
    assert int(after.step) == 1
    # An auxiliary head of weight 0 learns nothing.
    assert differ(after.params["aux"], state.params["aux"]) == (aux_weight > 0)
    images = (batch["image"] / 255.0 - jnp.array(MEAN)) / jnp.array(STD)
    logits = model.apply({"params": state.params}, images, train=False)["logits"]
    counts = numpy_confusion(np.asarray(batch["label"]), np.argmax(logits, -1))
    np.testing.assert_array_equal(metrics["confusion"], counts)
    assert float(metrics["accuracy"]) == pytest.approx(np.trace(counts) / counts.sum())


def test_microbatches_take_rows_in_turn():
    np.testing.assert_array_equal(microbatches(jnp.arange(6), 3), [[0, 3], [1, 4], [2, 5]])


@pytest.mark.parametrize("skips", [False, True])
def test_skip_nonfinite_leaves_the_state_as_it_was(compiled, skips):
    objective = dataclasses.replace(FIXED, skip_nonfinite=skips, ema_decay=0.5)
    batch, state = make_batch(), new_state(Fragile(), ema=True)
    step = compiled(Fragile(), objective)
    grey = dict(batch, image=jnp.full_like(batch["image"], 7), label=batch["label"] * 0)
    after, metrics = step(state, grey)
    assert np.isnan(metrics["loss"])
    assert int(after.step) == 1
    assert float(metrics["skipped"]) == skips
    if skips:
        assert_equal(after, state.replace(step=after.step))
        fine, metrics = step(after, batch)
        assert float(metrics["skipped"]) == 0
        assert differ(fine.params["Conv_0"]["kernel"], state.params["Conv_0"]["kernel"])
    else:
        assert np.isnan(jax.tree.leaves(after.params)[0]).any()


@pytest.mark.versions
@pytest.mark.parametrize("count", [2, 4])
def test_accumulation_changes_nothing_though_labels_are_uneven(compiled, count):
    model, batch = Plain(), make_batch()
    objective = dataclasses.replace(MOVING, class_weights=WEIGHTS)
    whole, whole_metrics = compiled(model, objective)(new_state(model), batch)
    objective = dataclasses.replace(objective, accumulate=count)
    parts, metrics = compiled(model, objective)(new_state(model), batch)
    assert differ(whole.params, new_state(model).params)
    assert_close(parts.params, whole.params)
    assert_close(metrics, whole_metrics, atol=1e-5)


def test_rows_without_labels_change_nothing(compiled):
    model, batch = Plain(), make_batch(ignored=(0.1, 0.3, 1.0, 1.0))
    other = dict(batch, image=batch["image"].at[2:].set(0), index=batch["index"].at[2:].set(-1))
    step = compiled(model, dataclasses.replace(MOVING, class_weights=WEIGHTS))
    results = [step(new_state(model), each) for each in (batch, other)]
    assert_equal(*results)
    assert differ(results[0][0].params, new_state(model).params)
    nothing = dict(batch, label=jnp.full_like(batch["label"], 255))
    after, metrics = step(new_state(model), nothing)
    assert_equal(after.params, new_state(model).params)
    assert float(metrics["loss"]) == float(metrics["accuracy"]) == 0


def test_views_belong_to_the_example_and_not_to_its_place():
    batch, places = make_batch(), np.array([2, 0, 3, 1])
    view = jax.jit(lambda key, batch: augmented(key, batch, MOVING))
    images, labels = view(KEY, batch)
    assert images.shape == (N, *CROP, 3)
    assert labels.dtype == jnp.int32
    assert_equal(
        view(KEY, {k: v[places] for k, v in batch.items()}), (images[places], labels[places])
    )
    # Equal examples with other indices get other views, and so does another step.
    alike = {k: v[jnp.zeros(N, int)] for k, v in batch.items()} | {"index": batch["index"]}
    images, labels = view(KEY, alike)
    assert differ(images[0], images[1])
    assert differ(labels[0], labels[1])
    assert differ(view(jax.random.fold_in(KEY, 1), alike)[0], images)


@pytest.mark.slow
def test_devices_of_pmap_mix_the_images_of_all_of_them():
    views = dataclasses.replace(VIEWS, cutmix=0.5, classmix=0.5)
    objective, batch = dataclasses.replace(MOVING, augmentation=views), make_batch()
    images, labels = jax.jit(lambda batch: augmented(KEY, batch, objective))(batch)
    shards = jax.tree.map(lambda x: x.reshape(4, 1, *x.shape[1:]), batch)  # one image each
    shared = jax.pmap(
        lambda batch: augmented(KEY, batch, objective, "data"),
        "data",
        devices=jax.devices()[:4],
    )(shards)
    np.testing.assert_allclose(shared[0][:, 0], images, atol=1e-5)
    np.testing.assert_array_equal(shared[1][:, 0], labels)
    plain = jax.jit(lambda batch: augmented(KEY, batch, MOVING))(batch)
    assert differ(labels, plain[1])
    # The step hands its axis on: without it, no device would have another image to take from.
    placement = BatchPlacement(axis_name="data")
    model, schedule = Plain(), optax.constant_schedule(RATE)
    step = make_train_step(model, optax.sgd(RATE, 0.9), schedule, objective, KEY, placement)
    step = jax.pmap(step, "data", in_axes=(None, 0), out_axes=None, devices=jax.devices()[:4])
    alone = make_train_step(model, optax.sgd(RATE, 0.9), schedule, objective, KEY)
    after, expected = step(new_state(model), shards)[0], jax.jit(alone)(new_state(model), batch)[0]
    assert_close(after.params, expected.params, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"rotate": 30.0, "blur": 1.0, "brightness": 0.5}])
@pytest.mark.parametrize("local_contrast", [0, 5])
def test_what_lies_outside_the_image_is_zero_after_normalisation(options, local_contrast):
    far = Augmentation(crop_size=(40, 40), scale=(1.0, 1.0), **options)
    normalization = Normalization(MEAN, STD, local_contrast)
    objective = dataclasses.replace(MOVING, augmentation=far, normalization=normalization)
    batch = make_batch(ignored=(0.0,) * N)
    images, labels = jax.jit(lambda batch: augmented(KEY, batch, objective))(batch)
    outside = np.asarray(labels) == 255
    assert np.sum(~outside) == pytest.approx(N * SIZE[0] * SIZE[1], rel=0.2)
    np.testing.assert_array_equal(np.asarray(images)[outside], 0)
    assert np.mean(np.any(np.asarray(images)[~outside] != 0, -1)) > 0.9


def test_the_step_number_and_lr_scale(compiled):
    """The step changes the views and the scheduled rate, `lr_scale` the rate alone."""
    model, batch = Plain(), make_batch()
    step = compiled(model, dataclasses.replace(MOVING, class_weights=WEIGHTS))
    state = new_state(model)
    first, metrics = step(state, batch)
    assert float(metrics["learning_rate"]) == pytest.approx(RATE)
    assert_equal(step(state, batch)[0].params, first.params)

    later, metrics = step(state.replace(step=jnp.int32(5)), batch)
    assert differ(later.params, first.params)
    assert int(later.step) == 6
    assert float(metrics["learning_rate"]) == pytest.approx(RATE / 2)

    part, metrics = step(state.replace(lr_scale=jnp.float32(0.2)), batch)
    expected = jax.tree.map(lambda p, q: p + 0.2 * (q - p), state.params, first.params)
    assert_close(part.params, expected)
    assert float(metrics["learning_rate"]) == pytest.approx(0.2 * RATE)
    assert_equal(part.opt_state[0], first.opt_state[0])  # momentum sums gradients, not updates
    assert float(part.lr_scale) == pytest.approx(0.2)


def test_batch_statistics_move_and_the_average_follows(compiled):
    model, batch = Normalised(), make_batch()
    objective = dataclasses.replace(MOVING, ema_decay=0.9, accumulate=2)
    state = new_state(model, ema=True)
    assert_equal(state.ema, {"params": state.params, "batch_stats": state.batch_stats})
    first, _ = compiled(model, objective)(state, batch)
    second, _ = compiled(model, objective)(first, make_batch(1))
    for before, after in ((state, first), (first, second)):
        assert differ(before.batch_stats, after.batch_stats)
        now = {"params": after.params, "batch_stats": after.batch_stats}
        expected = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, before.ema, now)
        assert_close(after.ema, expected)
    assert second.eval_variables() is second.ema
    plain = new_state(model)
    assert plain.eval_variables() == {"params": plain.params, "batch_stats": plain.batch_stats}


@pytest.mark.parametrize("ema_decay, expected", [(0.999, (2 / 11, 3 / 12)), (0.2, (2 / 11, 0.2))])
def test_average_with_warm_up_forgets_the_start(compiled, ema_decay, expected):
    """The decay of the t-th update is (1 + t) / (10 + t), until it reaches `ema_decay`."""
    model, batch = Normalised(), make_batch()
    objective = dataclasses.replace(MOVING, ema_decay=ema_decay, ema_warmup=True)
    state = new_state(model, ema=True)
    for decay in expected:
        before, (state, _) = state, compiled(model, objective)(state, batch)
        now = {"params": state.params, "batch_stats": state.batch_stats}
        mixed = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * new, before.ema, now)
        assert_close(state.ema, mixed)


def test_bfloat16_model_keeps_float32_parameters(compiled):
    batch, objective = make_batch(), dataclasses.replace(MOVING, class_weights=WEIGHTS)
    model = Plain(dtype=jnp.bfloat16)
    after, metrics = compiled(model, objective)(new_state(model), batch)
    exact, _ = compiled(Plain(), objective)(new_state(model), batch)
    metrics.pop("confusion")
    for leaf in jax.tree.leaves((after.params, after.opt_state, metrics)):
        assert leaf.dtype == jnp.float32
    assert differ(after.params, exact.params)
    assert_close(after.params, exact.params, atol=5e-3)
