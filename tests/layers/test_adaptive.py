"""Adaptive average pooling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.layers import adaptive_avg_pool, adaptive_avg_pools

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
