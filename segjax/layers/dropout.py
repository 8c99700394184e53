"""Dropout whose mask belongs to the example, not to its place in a batch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def dropout_by_example(
    module: nn.Dropout, x: Float[Array, "n *rest"], index: Int[Array, "n"]
) -> Float[Array, "n *rest"]:
    """Applies `module` to x with one random mask per example.

    The mask depends on the module's random key and the example's index alone, so it is the same on
    any number of devices and in any batch.

    Args:
      module: while it is applied; its rate, broadcast_dims and random key are used.
      index: of the examples in the data set.
    """
    if module.rate == 0:
        return x
    keys = jax.vmap(jax.random.fold_in, (None, 0))(module.make_rng(module.rng_collection), index)
    shape = [1 if axis in module.broadcast_dims else size for axis, size in enumerate(x.shape)]
    keep = 1 - module.rate
    mask = jax.vmap(lambda key: jax.random.bernoulli(key, keep, shape[1:]))(keys)
    return jnp.where(mask, x / keep, jnp.zeros_like(x))
