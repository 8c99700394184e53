"""The precision of sums and losses."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def at_least_float32(x: Shaped[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x in float32, or in its own dtype if that is wider: half precision is too little for sums."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
