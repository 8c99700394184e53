"""What logits mean: decisions, counts, and the options that name the head."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from segjax.data.classes import ClassTable, from_names
from segjax.metrics.multilabel import LabelConfusions
from segjax.models import build, model_defaults
from segjax.training.evaluation import Evaluation
from segjax.training.head import SOFTMAX, Sigmoid, make_head
from segjax.training.step import Objective, make_eval_step, make_train_step
from tests.training.toys import (
    FIXED,
    KEY,
    MEAN,
    NORMALIZATION,
    RATE,
    STD,
    STILL,
    K,
    Plain,
    make_batch,
    new_state,
)

HEAD = Sigmoid((0.3, 0.5, 0.9))
TWO = ClassTable(("crack", "stain"), ((1, 2, 3), (4, 5, 6)), multilabel=True)
ONE = ClassTable(("crack",), ((1, 2, 3),), multilabel=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, np.float64)))


def test_decisions_of_logits_and_of_probabilities_agree():
    logits = jax.random.normal(KEY, (50, 40, K)) * 3
    expected = (sigmoid(logits) > np.array(HEAD.thresholds)) @ [1, 2, 4]
    np.testing.assert_array_equal(HEAD.predict(logits), expected)
    probabilities = HEAD.probabilities(logits)
    np.testing.assert_array_equal(HEAD.decide(probabilities), expected)
    np.testing.assert_allclose(HEAD.scores(probabilities), logits, atol=1e-2)
    weights = jnp.array([0.5, 2.0])[:, None, None, None]
    views = jnp.stack([probabilities, probabilities[::-1]])
    for head, values in ((HEAD, views), (SOFTMAX, jax.nn.softmax(jnp.log(views)))):
        planes = head.planes(values)
        assert planes.shape[-1] == K + head.extra_planes
        mean = head.weighted_mean(jnp.sum(weights * planes, 0))
        np.testing.assert_allclose(mean, (0.5 * values[0] + 2 * values[1]) / 2.5, rtol=1e-5)


@pytest.mark.parametrize("head", [SOFTMAX, HEAD])
def test_mean_scores_are_those_of_the_mean_probabilities(head):

    def mean_scores(*views):
        logarithms = zip(*map(head.logarithms, views), strict=True)
        means = (jax.nn.logsumexp(jnp.stack(x), 0) - np.log(len(views)) for x in logarithms)
        return head.mean_scores(tuple(means))

    views = jax.random.normal(KEY, (3, 5, 4, K)) * 3
    mean = np.mean([head.probabilities(x) for x in views], 0)
    scores = mean_scores(*views)
    np.testing.assert_allclose(scores, head.scores(mean), atol=1e-4)
    np.testing.assert_allclose(head.probabilities(scores), mean, atol=1e-6)
    # Of sure views, whose probabilities round to 0 and 1, too.
    sure = jnp.array([200.0, -200.0, -100.0])
    assert not np.isfinite(head.scores(head.probabilities(sure))).all()
    alike = mean_scores(sure, sure)
    np.testing.assert_allclose(alike - alike[0], sure - sure[0], atol=1e-4)
    between = mean_scores(sure, jnp.zeros(K))
    assert np.isfinite(between).all()
    means = (head.probabilities(sure) + head.probabilities(jnp.zeros(K))) / 2
    np.testing.assert_allclose(head.probabilities(between), means, atol=1e-6)


def bits_batch():
    batch = make_batch()
    return dict(batch, label=jnp.where(batch["label"] == 255, 255, batch["label"] * 3 % 8))


@functools.partial(jax.jit, static_argnums=0)
def logits_of(model, variables, images):
    return model.apply(variables, images, train=False)["logits"]


@pytest.mark.versions
@pytest.mark.parametrize("weights", [None, (2.0, 0.5, 1.0)])
def test_a_step_with_a_sigmoid_head_is_the_gradient_by_hand(weights):
    model, batch, state = Plain(aux=True), bits_batch(), new_state(Plain(aux=True))
    objective = Objective(STILL, NORMALIZATION, HEAD, class_weights=weights, aux_weight=0.5)
    step = make_train_step(model, optax.sgd(RATE, 0.9), lambda _: RATE, objective, KEY)
    after, metrics = jax.jit(step)(state, batch)
    images = (batch["image"] / 255.0 - jnp.array(MEAN)) / jnp.array(STD)
    labels = batch["label"].astype(jnp.int32)
    kept = (labels != 255)[..., None]
    present = labels[..., None] >> jnp.arange(K) & 1

    def loss(params):
        outputs = model.apply({"params": params}, images, train=True)
        total = 0.0
        for name, factor in (("logits", 1.0), ("aux", 0.5)):
            p = jax.nn.sigmoid(outputs[name])
            terms = present * jnp.log(p) * jnp.array(weights or (1.0,) * K)
            terms += (1 - present) * jnp.log(1 - p)
            total -= factor * jnp.sum(terms * kept) / K
        return total / jnp.sum(kept)

    value, gradient = jax.jit(jax.value_and_grad(loss))(state.params)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-4)
    jax.tree.map(
        lambda p, q, g: np.testing.assert_allclose(q, p - RATE * g, atol=1e-5),
        state.params,
        after.params,
        gradient,
    )
    logits = logits_of(model, {"params": state.params}, images)
    right = (sigmoid(logits) > np.array(HEAD.thresholds)) == np.asarray(present)
    assert float(metrics["accuracy"]) == pytest.approx(right[np.asarray(kept)[..., 0]].mean())
    assert metrics["confusion"].shape == (K, 2, 2)
    assert int(metrics["confusion"].sum()) == K * int(kept.sum())


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_accumulation_and_padding_change_nothing(count):
    model, batch = Plain(), bits_batch()
    states = []
    for accumulate in (1, count):
        objective = Objective(STILL, NORMALIZATION, HEAD, accumulate=accumulate)
        step = make_train_step(model, optax.sgd(RATE, 0.9), lambda _: RATE, objective, KEY)
        states.append(jax.jit(step)(new_state(model), batch))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *states)


def test_evaluation_counts_each_image():
    model, batch = Plain(), bits_batch()
    variables = {"params": new_state(model).params}
    step = jax.jit(make_eval_step(model, NORMALIZATION, head=HEAD))
    rows, sums = step(variables, batch)
    assert rows["confusion"].shape == (4, K, 2, 2)
    images = (batch["image"] / 255.0 - jnp.array(MEAN)) / jnp.array(STD)
    logits = logits_of(model, variables, images)
    for label, one, counts in zip(batch["label"], logits, rows["confusion"], strict=True):
        np.testing.assert_array_equal(
            counts, HEAD.counts(label.astype(jnp.int32), HEAD.predict(one), K)
        )
    assert int(sums["pixels"]) == int(jnp.sum(batch["label"] != 255))


def test_an_evaluation_is_saved_and_read(tmp_path):
    counts = np.random.default_rng(0).integers(0, 50, (3, 2, 2, 2))
    evaluation = Evaluation(["a", "b", "c"], LabelConfusions(counts), 0.25)
    evaluation.save(tmp_path / "val.npz")
    read = Evaluation.load(tmp_path / "val.npz")
    np.testing.assert_array_equal(read.confusions.counts, counts)
    assert read.summary() == evaluation.summary()
    np.testing.assert_array_equal(read.image_miou, evaluation.image_miou)
    for wrong in (counts[:2], counts - 1000, counts[..., :1], counts * 0.5):
        np.savez(tmp_path / "bad.npz", names=np.array(["a", "b", "c"]), counts=wrong, loss=0.0)
        with pytest.raises(ValueError, match=r"bad\.npz cannot be read \("):
            Evaluation.load(tmp_path / "bad.npz")


def config_of(**model):
    config = base.get_config()
    config.model.update(model)
    return config


def test_the_config_names_the_head():
    assert make_head(config_of(), from_names(["a", "b"])) is SOFTMAX
    assert make_head(config_of(head="sigmoid"), TWO) == Sigmoid((0.5, 0.5))
    assert make_head(config_of(head="sigmoid", threshold=(0.2,)), TWO) == Sigmoid((0.2, 0.2))
    assert make_head(config_of(head="sigmoid", threshold=[0.2, 0.7]), TWO) == Sigmoid((0.2, 0.7))
    assert make_head(config_of(head="sigmoid", threshold=0.4), ONE) == Sigmoid((0.4,))
    assert "above 0.2, 0.7" in Sigmoid((0.2, 0.7)).rule
    defaults = model_defaults("segnet_basic")
    assert (defaults["head"], defaults["threshold"]) == ("softmax", (0.5,))
    build({**defaults, "head": "sigmoid"}, 1)


@pytest.mark.parametrize(
    "model, classes, words",
    [
        ({"head": "tanh"}, TWO, r"model\.head='tanh' is unknown; use softmax, sigmoid"),
        (
            {},
            from_names(["road"]),
            r"'softmax' with one class \(road\): its probability is 1 .*use model\.head=sigmoid "
            r"with data\.mask_format=bits, .* data\.classes=background,road",
        ),
        ({}, TWO, r"'softmax' gives each pixel one class, but the masks hold any number.*=sigmoid"),
        (
            {"head": "sigmoid"},
            from_names(["a", "b"]),
            r"'sigmoid' with masks of class ids \(a, b\)"
            r"; use data\.name=folder with data\.mask_format=bits or per_class",
        ),
        *(
            ({"head": "sigmoid", "threshold": t}, TWO, r"model\.threshold=.*; use a number between")
            for t in (0.0, 1.0, float("nan"), (0.1, 0.2, 0.3), "high", ())
        ),
    ],
)
def test_heads_that_do_not_fit_are_refused(model, classes, words):
    with pytest.raises(ValueError, match=words):
        make_head(config_of(**model), classes)


@pytest.mark.parametrize("option", ["published", "median_present", "enet"])
def test_counted_class_weights_have_no_meaning_for_labels(option):
    config = config_of(head="sigmoid")
    config.loss.class_weights = option
    with pytest.raises(ValueError, match=rf"loss\.class_weights='{option}' with model\.head='sig"):
        make_head(config, TWO)


def test_the_default_head_is_a_softmax():
    assert FIXED.head is SOFTMAX
