"""Monte Carlo dropout and ensembles, against the definitions over stored samples."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.inference import uncertainty
from segjax.inference.uncertainty import (
    MEASURES,
    Samples,
    check_dropout,
    dropout_layers,
    mc_dropout,
)
from segjax.layers import resize_bilinear
from segjax.models import build

sample_logits = jax.jit(uncertainty.sample_logits, static_argnums=0)


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_measures_against_stored_samples():
    """Against the definitions in float64, over all samples at once."""
    logits = 4 * np.random.default_rng(0).standard_normal((7, 2, 3, 4, 5))
    logits[:, 0, 0, 0] = [40, 0, 0, 0, 0]  # all sure, all the same
    sums = Samples.none(logits.shape[1:])
    for sample in logits:
        sums = sums.add(jnp.asarray(sample, jnp.float32))
    ours = sums.summary()
    p = softmax(logits)
    mean = p.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(mean * np.log(mean), -1)
        each = -np.nansum(p * np.log(p), -1)
    np.testing.assert_allclose(ours.probabilities, mean, atol=1e-6)
    np.testing.assert_allclose(ours.entropy, entropy, atol=1e-5)
    np.testing.assert_allclose(ours.mutual_information, entropy - each.mean(0), atol=1e-5)
    # test_bayesian_segnet.py of its authors: np.var over the samples, np.mean over the classes.
    np.testing.assert_allclose(ours.variance, p.var(0).mean(-1), atol=1e-7)
    assert ours.mutual_information[0, 0, 0] == ours.variance[0, 0, 0] == 0


def test_largest_uncertainties():
    """Samples that are each sure of another of 4 classes have the largest of all measures.
    Undecided samples have the largest entropy and no disagreement."""
    apart = Samples.none((1, 1, 1, 4))
    undecided = Samples.none((1, 1, 1, 4))
    for k in range(4):
        apart = apart.add(200 * jax.nn.one_hot(k, 4)[None, None, None])
        undecided = undecided.add(jnp.zeros((1, 1, 1, 4)))
    for name in MEASURES:
        assert apart.summary().scores()[name].item() == pytest.approx(1, abs=1e-5)
    scores = {name: score.item() for name, score in undecided.summary().scores().items()}
    assert scores == pytest.approx({"entropy": 1, "mutual_information": 0, "variance": 0}, abs=1e-3)
    assert apart.summary().mutual_information.item() == pytest.approx(np.log(4), rel=1e-6)
    assert apart.summary().variance.item() == pytest.approx(3 / 16)


class Dropped(nn.Module):
    """Normalises ones to 4 by the running statistics (the batch's would give 0), then drops."""

    rate: float = 0.25
    broadcast: tuple = ()

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.BatchNorm(use_running_average=not train, epsilon=0.0, name="norm")(x)
        return {"logits": nn.Dropout(self.rate, self.broadcast, deterministic=not train)(x)}


def forward_of(model):
    """As `logits_fn` without normalisation."""
    return lambda variables, x, rngs: model.apply(variables, x, train=False, rngs=rngs)["logits"]


STATS = {
    "params": {"norm": {"scale": jnp.ones(2), "bias": jnp.zeros(2)}},
    "batch_stats": {"norm": {"mean": jnp.full(2, -3.0), "var": jnp.ones(2)}},
}


def test_dropout_is_on_and_normalisation_in_evaluation():
    x = jnp.ones((3, 40, 50, 2))
    logits = sample_logits(forward_of(Dropped()), STATS, x, jax.random.key(0), jnp.arange(3))
    values, counts = np.unique(np.round(logits, 4), return_counts=True)
    np.testing.assert_allclose(values, [0, 4 / 0.75], rtol=1e-4)
    # 12,000 draws: the share's standard deviation is 0.004.
    assert counts[0] / counts.sum() == pytest.approx(0.25, abs=0.02)
    other = sample_logits(forward_of(Dropped()), STATS, x, jax.random.key(1), jnp.arange(3))
    assert np.mean(np.asarray(other) == np.asarray(logits)) < 0.75
    assert np.any(logits[0] != logits[1])
    whole = sample_logits(
        forward_of(Dropped(0.5, (1, 2))), STATS, x, jax.random.key(0), jnp.arange(3)
    )
    assert {len(np.unique(image[..., c])) for image in np.asarray(whole) for c in (0, 1)} == {1}


def test_an_images_masks_depend_on_its_index_alone():
    x = jnp.ones((3, 8, 9, 2))
    key = jax.random.key(0)
    all_three = sample_logits(forward_of(Dropped()), STATS, x, key, jnp.array([4, 7, 9]))
    alone = sample_logits(forward_of(Dropped()), STATS, x[:1], key, jnp.array([7]))
    np.testing.assert_array_equal(all_three[1], alone[0])


class Small(nn.Module):
    """Convolution, normalisation, dropout, classifier; resized to the image's size."""

    num_classes: int = 4

    @nn.compact
    def __call__(self, x, *, train):
        size = x.shape[1:3]
        x = nn.Conv(5, (3, 3), strides=2)(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        x = nn.Dense(self.num_classes)(x)
        return {"logits": resize_bilinear(x, size)}


@pytest.fixture(scope="module")
def small():
    images = jnp.asarray(np.random.default_rng(0).standard_normal((2, 12, 18, 3)), jnp.float32)
    init = jax.jit(functools.partial(Small().init, train=False))
    return forward_of(Small()), init(jax.random.key(0), images), images


@pytest.mark.versions
def test_mc_dropout_is_the_mean_of_its_samples(small):
    forward, variables, images = small
    key, index, size = jax.random.key(3), jnp.array([5, 6]), (15, 20)
    resize = functools.partial(resize_bilinear, size=size)
    result = jax.jit(
        lambda v: mc_dropout(forward, v, images, key, samples=4, index=index, resize=resize)
    )(variables)
    stored = [
        sample_logits(forward, variables, images, jax.random.fold_in(key, t), index)
        for t in range(4)
    ]
    p = softmax(np.stack([np.asarray(resize_bilinear(s, size), np.float64) for s in stored]))
    np.testing.assert_allclose(result.probabilities, p.mean(0), atol=1e-5)
    np.testing.assert_allclose(result.variance, p.var(0).mean(-1), atol=1e-6)
    assert result.variance.max() > 1e-3
    assert result.entropy.shape == (2, 15, 20)


def test_memory_does_not_grow_with_the_samples(small):
    forward, variables, images = small

    def temporaries(samples):
        run = jax.jit(lambda v, x: mc_dropout(forward, v, x, jax.random.key(0), samples))
        return run.lower(variables, images).compile().memory_analysis().temp_size_in_bytes

    probabilities = 2 * 12 * 18 * 4 * 4
    assert temporaries(200) - temporaries(2) < probabilities


def bayesian(rate):
    """SegNet-Basic and its variables, abstract."""
    model = build({"name": "segnet_basic", "features": 3, "dropout_rate": rate}, 4)
    init = lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 48, 3)), train=False)  # noqa: E731
    return model, jax.eval_shape(init)


def test_which_models_have_dropout():
    model, variables = bayesian(0.5)
    places = {f"{place}{s}": 0.5 for place in ("encdrop", "decdrop") for s in (3, 4)}
    assert dropout_layers(model, variables) == places
    model, variables = bayesian(0.0)
    with pytest.raises(
        ValueError,
        match=r"segnet_basic has no dropout .*model.dropout_rate=0\).*configs/segnet.py:bayesian"
        r".* of segnet, segnet_basic, fcn, pspnet.*several workdirs",
    ):
        check_dropout(model, variables)


def test_dropout_of_the_auxiliary_head_does_not_count():
    model = build({"name": "deeplabv3", "encoder": "resnet18", "width": 1 / 16}, 4)
    init = lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)  # noqa: E731
    variables = jax.eval_shape(init)
    assert dropout_layers(model, variables) == {}
    with_dropout = model.clone(dropout_rate=0.5)
    assert list(dropout_layers(with_dropout, variables).values()) == [0.5]
