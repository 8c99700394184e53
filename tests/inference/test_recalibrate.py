"""Recomputed statistics against numpy, and against the forward pass of training."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from segjax.inference.recalibrate import even_batches, recomputed_statistics
from segjax.layers import ConvNormAct
from segjax.transforms.normalize import Normalization


class Two(nn.Module):
    """A 1x1 convolution, which numpy can repeat, dropout, and a second block."""

    @nn.compact
    def __call__(self, x, *, train):
        x = ConvNormAct(4, 1, momentum=1 - 1e-9, name="first")(x, train=train)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return {"logits": ConvNormAct(3, 1, name="second")(x, train=train)}


NORMALIZATION = Normalization((0.5,) * 3, (0.1,) * 3)


def drawn():
    rng = np.random.default_rng(0)
    images = rng.normal(128, 25, (7, 5, 6, 3)) + rng.normal(0, 25, (7, 1, 1, 3))
    images = np.clip(images, 0, 255).astype(np.uint8)
    variables = Two().init(jax.random.key(0), normalized(images), train=False)
    return images, variables


def normalized(images):
    return np.asarray(NORMALIZATION(images / np.float32(255)))


def split(images, *sizes):
    return np.split(images, np.cumsum(sizes)[:-1])


@pytest.mark.parametrize("sizes", [(7,), (3, 4), (2, 2, 3)])
def test_the_first_layer_is_numpys(sizes):
    """Mean and variance of all cells of all images, in any batches. The images' means differ, so
    averaged variances of batches would be wrong."""
    images, variables = drawn()
    stats = recomputed_statistics(Two(), NORMALIZATION, variables, split(images, *sizes))
    kernel = np.asarray(variables["params"]["first"]["conv"]["kernel"], np.float64)[0, 0]
    inputs = normalized(images).astype(np.float64) @ kernel
    np.testing.assert_allclose(
        stats["first"]["norm"]["mean"], inputs.mean((0, 1, 2)), rtol=2e-6, atol=1e-6
    )
    np.testing.assert_allclose(stats["first"]["norm"]["var"], inputs.var((0, 1, 2)), rtol=2e-6)


def test_the_second_layer_sees_normalised_batches_without_dropout():
    images, variables = drawn()
    stats = recomputed_statistics(Two(), NORMALIZATION, variables, split(images, 3, 4))
    kernels = [
        np.asarray(variables["params"][n]["conv"]["kernel"], np.float64)[0, 0]
        for n in ("first", "second")
    ]
    maps = []
    for batch in split(normalized(images), 3, 4):
        x = batch @ kernels[0]
        x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
        maps.append(np.maximum(x, 0) @ kernels[1])
    inputs = np.concatenate(maps)
    np.testing.assert_allclose(
        stats["second"]["norm"]["mean"], inputs.mean((0, 1, 2)), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(stats["second"]["norm"]["var"], inputs.var((0, 1, 2)), rtol=1e-4)


@pytest.mark.versions
def test_stale_statistics_become_right():
    """With a momentum of nearly 1 the running statistics stay 0 and 1. Recomputed over one batch,
    they make evaluation equal to training on that batch, dropout apart."""
    images, variables = drawn()
    x = normalized(images)
    _, updated = Two().apply(
        variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
    )
    np.testing.assert_allclose(updated["batch_stats"]["first"]["norm"]["mean"], 0, atol=1e-6)
    stats = recomputed_statistics(Two(), NORMALIZATION, variables, [images])

    def no_dropout(next_function, args, kwargs, context):
        is_dropout = isinstance(context.module, nn.Dropout) and context.method_name == "__call__"
        return args[0] if is_dropout else next_function(*args, **kwargs)

    with nn.intercept_methods(no_dropout):
        train, _ = Two().apply(variables, x, train=True, mutable=["batch_stats"])
    stale = Two().apply(variables, x, train=False)["logits"]
    right = Two().apply({**variables, "batch_stats": stats}, x, train=False)["logits"]
    np.testing.assert_allclose(right, train["logits"], atol=1e-4)
    assert np.abs(np.asarray(stale) - np.asarray(train["logits"])).max() > 0.1


def test_no_normalisation_and_no_images():
    with pytest.raises(ValueError, match="Dense has no batch normalisation"):
        recomputed_statistics(nn.Dense(3), NORMALIZATION, {"params": {}}, [])
    _, variables = drawn()
    with pytest.raises(ValueError, match="no training images"):
        recomputed_statistics(Two(), NORMALIZATION, variables, iter(()))


@pytest.mark.parametrize(
    "length, batch_size, lengths",
    [(8, 4, [4, 4]), (9, 4, [3, 3, 3]), (10, 4, [3, 3, 4]), (3, 8, [3]), (367, 8, None)],
)
def test_even_batches(length, batch_size, lengths):
    batches = even_batches(length, batch_size)
    assert [i for batch in batches for i in batch] == list(range(length))
    sizes = [len(batch) for batch in batches]
    assert lengths is None or sizes == lengths
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-length // batch_size)
