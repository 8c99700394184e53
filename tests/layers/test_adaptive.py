"""Adaptive pooling, by means and by maxima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.layers import adaptive_avg_pool, adaptive_avg_pools, adaptive_max_pool

pytestmark = pytest.mark.versions


def test_adaptive_average_equals_torch(torch_adaptive):
    case = torch_adaptive

    @jax.jit
    def pool(x, cotangent):
        y, vjp = jax.vjp(lambda x: adaptive_avg_pool(x, tuple(case["size"])), x)
        return y, vjp(cotangent)[0]

    y, gradient = pool(case["x"], case["cotangent"])
    np.testing.assert_allclose(y, case["y"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, case["gradient"], rtol=1e-5, atol=1e-6)


def test_adaptive_average_sums_in_float32():
    # 1 + 1/128 is the bfloat16 after 1: bfloat16 sums of 4096 of them would be far off.
    x = jnp.full((1, 64, 64, 1), 1 + 1 / 128, jnp.bfloat16)
    y = adaptive_avg_pool(x, (3, 3))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y.astype(jnp.float32), 1 + 1 / 128)


def test_several_sizes_at_once_are_each_by_itself():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 11, 7, 3)), jnp.float32)
    sizes = [(1, 1), (2, 3), (6, 6), (13, 2)]
    y, vjp = jax.vjp(lambda x: adaptive_avg_pools(x, sizes), x)
    total = 0
    for size, found in zip(sizes, y, strict=True):
        wanted, one = jax.vjp(lambda x, size=size: adaptive_avg_pool(x, size), x)
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
        total += one(jnp.cos(wanted))[0]
    np.testing.assert_allclose(vjp([jnp.cos(v) for v in y])[0], total, rtol=1e-5, atol=1e-5)


def maxima(x, size):
    """torch's rule, bin by bin, and where each maximum is."""
    n, height, width, c = x.shape
    out, mask = np.empty((n, *size, c), x.dtype), np.zeros((*size, *x.shape), x.dtype)
    for i in range(size[0]):
        for j in range(size[1]):
            rows = slice(int(np.floor(i * height / size[0])), -(-(i + 1) * height // size[0]))
            columns = slice(int(np.floor(j * width / size[1])), -(-(j + 1) * width // size[1]))
            out[:, i, j] = x[:, rows, columns].max((1, 2))
            mask[i, j][:, rows, columns] = x[:, rows, columns] == out[:, i, j][:, None, None]
    return out, mask


@pytest.mark.parametrize("shape", [(13, 9), (12, 6), (2, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (6, 6)], ids=str)
def test_adaptive_maximum_equals_a_loop_over_the_bins(shape, size):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *shape, 3)).astype(np.float32)
    cotangent = rng.standard_normal((2, *size, 3)).astype(np.float32)
    wanted, mask = maxima(x, size)
    y, vjp = jax.vjp(lambda x: adaptive_max_pool(x, size), x)
    np.testing.assert_array_equal(y, wanted)
    gradient = np.einsum("nijc,ijnhwc->nhwc", cotangent, mask)
    np.testing.assert_allclose(vjp(cotangent)[0], gradient, rtol=1e-5, atol=1e-6)


def test_equal_cells_share_the_derivative_of_their_maximum():
    x = jnp.array([[2.0, 2, 1], [2, 2, 2]])[None, :, :, None]
    gradient = jax.grad(lambda x: adaptive_max_pool(x, (1, 1)).sum())(x)[0, :, :, 0]
    np.testing.assert_allclose(gradient.sum(), 1, rtol=1e-6)
    np.testing.assert_array_equal(gradient > 0, [[True, True, False], [True, True, True]])


def test_adaptive_maximum_neither_gathers_nor_scatters():
    function = jax.grad(lambda x: adaptive_max_pool(x, (6, 6)).sum())
    program = str(jax.make_jaxpr(function)(jnp.zeros((1, 13, 9, 2))))
    assert "gather" not in program
    assert "scatter" not in program
