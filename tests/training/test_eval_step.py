"""The forward pass, and the evaluation step: counts per image, at the labels' size."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.losses.pixelwise import cross_entropy_sum
from segjax.training.forward import logits_fn
from segjax.training.step import augmented, make_eval_step
from segjax.transforms.normalize import Normalization
from tests.training.toys import (
    FIXED,
    KEY,
    MEAN,
    NORMALIZATION,
    SIZE,
    STD,
    K,
    N,
    Plain,
    make_batch,
    new_state,
    numpy_confusion,
)

pytestmark = pytest.mark.versions


class Noisy(nn.Module):
    """Dropout, batch normalisation and a classifier."""

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.BatchNorm(use_running_average=not train)(images)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return {"logits": nn.Dense(4)(x)}


def test_logits_of_uint8_images():
    """Images are normalised, pixels outside become 0, and `train` draws dropout from the keys."""
    normalization = Normalization((0.2, 0.3, 0.4), (0.5, 0.6, 0.7))
    images = np.random.default_rng(4).integers(0, 256, (2, 6, 8, 3)).astype(np.uint8)
    x = (images / np.float32(255) - np.float32([0.2, 0.3, 0.4])) / np.float32([0.5, 0.6, 0.7])
    model = Noisy()
    variables = model.init(jax.random.key(0), x, train=False)
    expected = model.apply(variables, x, train=False)["logits"]
    forward = jax.jit(logits_fn(model, normalization))
    np.testing.assert_allclose(forward(variables, images), expected, atol=1e-5)
    inside = np.arange(8) < np.array([5, 8])[:, None, None] + np.zeros((2, 6, 1))
    x = x * inside[..., None]
    expected = model.apply(variables, x, train=False)["logits"]
    np.testing.assert_allclose(forward(variables, images, inside=inside), expected, atol=1e-5)
    noisy = jax.jit(logits_fn(model, normalization, train=True))
    one, two, again = (noisy(variables, images, {"dropout": jax.random.key(k)}) for k in (0, 1, 0))
    assert one.shape == (2, 6, 8, 4)
    assert np.abs(one - two).max() > 1e-3
    np.testing.assert_array_equal(one, again)


def test_eval_step_counts_each_image():
    model, label_size = Plain(), SIZE
    variables = new_state(model).eval_variables()
    random = np.random.default_rng(2)
    labels = random.integers(0, K, (N, *label_size)).astype(np.uint8)
    labels[random.random(labels.shape) < 0.2] = 255
    labels[-1] = 255  # a row of padding
    image = np.asarray(make_batch()["image"])
    rows, sums = jax.jit(make_eval_step(model, NORMALIZATION))(
        variables, {"image": jnp.array(image), "label": jnp.array(labels)}
    )
    outputs = rows | sums
    normalised = jnp.array((image / 255 - np.array(MEAN)) / np.array(STD), jnp.float32)
    logits = model.apply(variables, normalised, train=False)["logits"]
    predictions = np.argmax(logits, -1)
    assert outputs["confusion"].shape == (N, K, K)
    for image_counts, label, prediction in zip(
        outputs["confusion"], labels, predictions, strict=True
    ):
        difference = np.abs(np.asarray(image_counts) - numpy_confusion(label, prediction))
        assert difference.sum() <= 2  # a tie broken by rounding
    assert int(outputs["confusion"][-1].sum()) == 0
    assert int(outputs["pixels"]) == np.sum(labels < K) == int(outputs["confusion"].sum())
    expected, _ = cross_entropy_sum(logits[:-1], jnp.array(labels[:-1], jnp.int32))
    assert float(outputs["loss_sum"]) == pytest.approx(float(expected), rel=1e-5)


def test_training_and_evaluation_see_the_same_local_contrast():
    normalization = Normalization(MEAN, STD, 5)
    objective = dataclasses.replace(FIXED, normalization=normalization)
    batch = make_batch(ignored=(0.0,) * N)
    images, _ = jax.jit(lambda batch: augmented(KEY, batch, objective))(batch)

    class Seen(nn.Module):
        """Returns its input."""

        num_classes: int = 3

        @nn.compact
        def __call__(self, images, *, train):
            return {"logits": images}

    _, outputs = jax.jit(make_eval_step(Seen(), normalization))({}, batch)
    expected, _ = cross_entropy_sum(images, batch["label"].astype(jnp.int32))
    assert float(outputs["loss_sum"]) == pytest.approx(float(expected), rel=1e-5)
    _, plain = jax.jit(make_eval_step(Seen(), NORMALIZATION))({}, batch)
    assert abs(float(plain["loss_sum"]) - float(expected)) > 1
