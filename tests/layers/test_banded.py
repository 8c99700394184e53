"""Products with banded matrices, by blocks of rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.layers import resize_bilinear
from segjax.layers.banded import _narrow_blocks, _summed, _wide_blocks, banded_matmul
from segjax.layers.resize import interpolation_matrix

pytestmark = pytest.mark.versions


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# The rows before and after, and the blocks that they are divided into.
RATIOS = [
    (8, 64, 8),
    (45, 360, 45),
    (45, 356, 45),  # cropped: 356 rows are 45 of output stride 8
    (90, 713, 45),  # the PSPNet authors' crops, with half-pixel centres
    (48, 32, 16),
    (64, 16, 16),
    (24, 100, 12),
    (256, 360, 16),
    (16, 23, 8),
    (23, 180, 23),
    (23, 40, None),  # a prime number of rows
    (64, 17, None),
    (6, 96, None),  # a pooled map
    (96, 6, None),
]


@pytest.mark.parametrize(("size", "out", "count"), RATIOS)
def test_equals_the_plain_product(size, out, count):
    x, cotangent = normal(2, size, 3, 2), normal(2, out, 3, 2, seed=1)
    for align_corners in (False, True):
        matrix = interpolation_matrix(size, out, align_corners)
        blocks = _wide_blocks(matrix)
        if not align_corners:
            assert (len(blocks.weights) if blocks else None) == count

        @jax.jit
        def product(x, cotangent, matrix=matrix):
            y, vjp = jax.vjp(lambda x: banded_matmul(matrix, x, 1), x)
            return y, vjp(cotangent)[0]

        y, gradient = product(x, cotangent)
        wide = matrix.astype(np.float64)
        np.testing.assert_allclose(y, np.einsum("oh,nhwc->nowc", wide, x), rtol=0, atol=3e-6)
        wanted = np.einsum("oh,nowc->nhwc", wide, cotangent)
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-6 * max(1, out / size) * 10)


@pytest.mark.parametrize(
    ("size", "out", "axis"),
    [(r[0], r[1], 1) for r in RATIOS] + [(33, 513, 1), (2, 60, 1), (8, 64, 2), (48, 32, 2)],
)
def test_sums_of_neighbours_are_the_product(size, out, axis):
    """What GPUs compute, here on a CPU."""
    shape = (2, size, 3, 2) if axis == 1 else (2, 3, size, 2)
    x = normal(*shape)
    cotangent = normal(*shape[:axis], out, *shape[axis + 1 :], seed=1)
    for align_corners in (False, True):
        matrix = interpolation_matrix(size, out, align_corners)
        blocks = _narrow_blocks(matrix)
        if blocks is None:
            assert size > 6 or size * out > 128, "a short sum is one"
            continue

        @jax.jit
        def summed(x, cotangent, blocks=blocks):
            y, vjp = jax.vjp(lambda x: _summed(blocks, x, axis, out), x)
            return y, vjp(cotangent)[0]

        y, gradient = summed(x, cotangent)
        wide = np.moveaxis(np.tensordot(matrix, x.astype(np.float64), (1, axis)), 0, axis)
        np.testing.assert_allclose(y, wide, rtol=0, atol=3e-6)
        wanted = np.moveaxis(np.tensordot(matrix, cotangent, (0, axis)), 0, axis)
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-6 * max(1, out / size) * 10)


@pytest.mark.parametrize("shape", [(40, 30), (64, 64), (24, 100), (9, 8)])
def test_any_matrix(shape):
    """Bands that end anywhere, and rows of zeros."""
    rng = np.random.default_rng(0)
    out, size = shape
    matrix = rng.standard_normal(shape).astype(np.float32)
    distance = np.abs(np.arange(out)[:, None] * size / out - np.arange(size))
    matrix[(distance > rng.integers(1, 4)) | (rng.random((out, 1)) < 0.2)] = 0
    x = normal(1, size, 2, 3)
    found = banded_matmul(matrix, x, 1)
    np.testing.assert_allclose(found, np.einsum("oh,nhwc->nowc", matrix, x), rtol=0, atol=1e-5)
    assert not np.any(banded_matmul(np.zeros_like(matrix), x, 1))


def test_enlargement_equals_jax_image():
    """JAX's own, where the two mean the same."""
    x = normal(2, 24, 10, 3)
    for size in ((192, 80), (100, 17), (36, 10)):
        wanted = jax.image.resize(x, (2, *size, 3), "bilinear")
        np.testing.assert_allclose(resize_bilinear(x, size), wanted, rtol=0, atol=1e-5)


def test_no_value_beyond_the_band_counts():
    """A plain product would multiply the whole column by NaN."""
    x = normal(1, 16, 4, 1)
    x[:, 8] = np.nan
    y = resize_bilinear(x, (128, 4))
    lost = np.flatnonzero(np.isnan(y).any((0, 2, 3)))
    assert lost.min() >= 8 * 7
    assert lost.max() < 8 * 10


def test_derivatives_and_vmap():
    matrix = interpolation_matrix(16, 40, False)
    assert _wide_blocks(matrix) is not None
    x, v = normal(3, 1, 16, 2, 2), normal(1, 16, 2, 2, seed=1)
    product = lambda x: banded_matmul(matrix, x, 1)  # noqa: E731
    np.testing.assert_allclose(jax.vmap(product)(x)[1], product(x[1]), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(jax.jvp(product, (x[0],), (v,))[1], product(v), rtol=1e-6)
    # Of the sum of squares the second derivative is twice the matrix's own square.
    gradient = jax.grad(lambda x: jnp.sum(product(x) ** 2))
    found = jax.jvp(gradient, (x[0],), (v,))[1]
    wanted = 2 * np.einsum("oh,og,ngwc->nhwc", matrix, matrix, v)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    program = str(jax.make_jaxpr(gradient)(x[0]))
    assert "scatter" not in program
    assert "gather" not in program
