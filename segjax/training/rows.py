"""Batch normalisation and dropout of a batch that several programs, or rows of padding, share.

Linen's modules see the array they are given. Inside `whole_batch` they do what they would do on one
device with the whole batch and nothing else: statistics are those of the rows that count, over all
devices, and an example's dropout mask depends on its index alone.
"""

import contextlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from segjax.layers.norm import normalize_batch


def whole_batch(
    index: Int[Array, "n"], *, axis_name: str | None = None, padded: bool = False
) -> contextlib.AbstractContextManager:
    """A context for `model.apply(..., train=True)`, inside jit or pmap.

    Args:
      index: of the examples; below 0 for rows of padding.
      axis_name: of pmap, if the other rows of the batch are in other programs.
      padded: whether there may be rows of padding.
    """

    def intercept(next_function, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__":
            if isinstance(module, nn.Dropout) and not _is_off(module, "deterministic", kwargs):
                return _dropout(module, args[0], index)
            alone = not axis_name and not padded  # then linen's own does it
            norm = isinstance(module, nn.BatchNorm) and not alone
            if norm and not _is_off(module, "use_running_average", kwargs):
                counts = (index >= 0).reshape(-1, *[1] * (args[0].ndim - 1)) if padded else None
                activation = kwargs.get("activation")
                return normalize_batch(
                    module, args[0], mask=counts, activation=activation, axis_name=axis_name
                )
        return next_function(*args, **kwargs)

    return nn.intercept_methods(intercept)


def _is_off(module: nn.Module, switch: str, kwargs: dict[str, Any]) -> bool:
    return nn.merge_param(switch, getattr(module, switch), kwargs.get(switch))


def _dropout(module: nn.Dropout, x: Float[Array, "n *rest"], index: Int[Array, "n"]):
    """Dropout with a mask per example."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(module.make_rng(module.rng_collection), index)
    shape = [1 if axis in module.broadcast_dims else size for axis, size in enumerate(x.shape)]
    kept = 1 - module.rate
    mask = jax.vmap(lambda key: jax.random.bernoulli(key, kept, shape[1:]))(keys)
    return jnp.where(mask, x / kept, jnp.zeros_like(x))
