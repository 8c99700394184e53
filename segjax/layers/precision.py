"""The precision of sums and losses."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def at_least_float32(x: Shaped[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x in float32; float64 stays float64. For what half precision must not be summed in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
