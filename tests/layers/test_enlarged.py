"""A convolution before the enlargement is the convolution after it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.layers import atrous_conv, conv_of_enlarged, resize_bilinear
from segjax.models.notebooks import pad_or_crop


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def afterwards(x, kernel, enlarged, size):
    return atrous_conv(pad_or_crop(resize_bilinear(x, enlarged), size), kernel)


@pytest.mark.parametrize("kernel", [(5, 5), (3, 1), (1, 1)])
@pytest.mark.parametrize(
    ("enlarged", "size"),
    [
        ((12, 16), (12, 16)),
        ((12, 16), (17, 21)),  # framed, an odd number of zeros
        ((12, 16), (9, 11)),  # cropped
        ((13, 9), (18, 4)),  # framed in rows, cropped in columns; no whole ratio
        ((3, 4), (5, 4)),  # not enlarged
    ],
)
def test_values_and_gradients(kernel, enlarged, size):
    x, taps, dy = normal(0, 2, 3, 4, 5), normal(1, *kernel, 5, 6), normal(2, 2, *size, 6)
    results = []
    for function in (conv_of_enlarged, afterwards):
        y, vjp = jax.vjp(lambda x, k, f=function: f(x, k, enlarged, size), x, taps)
        results.append((y, *vjp(dy)))
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_compute_dtype_is_kept():
    x, taps = normal(0, 1, 3, 4, 5).astype(jnp.bfloat16), normal(1, 3, 3, 5, 2).astype(jnp.bfloat16)
    y = conv_of_enlarged(x, taps, (6, 8), (6, 8))
    assert y.dtype == jnp.bfloat16
    wanted = afterwards(x.astype(jnp.float32), taps.astype(jnp.float32), (6, 8), (6, 8))
    np.testing.assert_allclose(y.astype(jnp.float32), wanted, rtol=0.05, atol=0.1)
