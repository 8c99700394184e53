"""Sorts of numbers from 0 on, as integers: their bits have the same order.

XLA's CPU backend sorts one array of integers by itself. Floats, whose comparison has special cases,
and several arrays it sorts by a function that it calls for each comparison: 4 and 5 times as slow,
a quarter of a training step with Lovasz' loss (`python -m benchmarks.layers sort`).
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt32


def ascending(x: Float[Array, "p"]) -> Float[Array, "p"]:
    """x, of numbers from 0 to infinity, in ascending order; NaN comes last."""
    integer = {2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}[x.dtype.itemsize]
    bits = lax.bitcast_convert_type(jnp.abs(x), integer)  # -0.0 is 0
    return lax.bitcast_convert_type(lax.sort(bits, is_stable=False), x.dtype)


def by_descending(keys: Float[Array, "p"], values: UInt32[Array, "p"]) -> UInt32[Array, "p"]:
    """Values, ascending numbers below 2**32, in the descending order of their keys; those of equal
    keys in their own.

    Keys are numbers from 0 on, or below 0 to come after all of them, in float32.
    """
    bits = lax.bitcast_convert_type(jnp.abs(keys).astype(jnp.float32), jnp.uint32)
    bits = jnp.where(keys < 0, jnp.uint32(2**31), jnp.uint32(2**31 - 1) - bits)
    return lax.platform_dependent(bits, values, cpu=_as_one_array, default=_as_two_arrays)


def _as_one_array(keys, values):
    with jax.enable_x64(True):
        both = (keys.astype(jnp.uint64) << 32) | values
        return lax.sort(both, is_stable=False).astype(jnp.uint32)


def _as_two_arrays(keys, values):
    return lax.sort((keys, values), num_keys=1)[1]
