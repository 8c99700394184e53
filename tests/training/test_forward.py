"""The forward pass that evaluation, prediction, uncertainty and export share."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from segjax.training.forward import logits_fn
from segjax.transforms.normalize import Normalization

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
