"""Sorting numbers as integers: against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.losses.sorting import ascending, by_descending

# Equal ones, 0 of both signs, the smallest and the largest there are.
NUMBERS = np.float32([0.5, 1, 0.25, 0, 1e-45, 3e4, 0.5, -0.0, np.inf, 0.75, 1e-38])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_numbers_ascend(dtype):
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray(NUMBERS, dtype)
        np.testing.assert_array_equal(jax.jit(ascending)(x), np.sort(np.asarray(x)))
        assert jax.jit(ascending)(x).dtype == dtype


def test_a_number_that_is_none_comes_last():
    assert jnp.isnan(ascending(jnp.float32([jnp.nan, 1, -jnp.nan, 0]))).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("form", ["cpu", "default"])
def test_values_follow_their_keys(form, monkeypatch):
    if form == "default":
        chosen = lambda *arrays, cpu, default: default(*arrays)  # noqa: E731
        monkeypatch.setattr(jax.lax, "platform_dependent", chosen)
    rng = np.random.default_rng(0)
    keys = np.concatenate([NUMBERS, rng.random(500), np.round(rng.random(500), 1), [-1, -0.5, -1]])
    keys = rng.permutation(keys).astype(np.float32)
    values = np.sort(rng.integers(2**31, 2**32, len(keys))).astype(np.uint32)
    found = jax.jit(by_descending)(keys, values)
    order = np.argsort(-np.maximum(keys, 0) + (keys < 0), kind="stable")
    np.testing.assert_array_equal(found, values[order])
    assert found.dtype == jnp.uint32
