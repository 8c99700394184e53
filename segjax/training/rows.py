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

from segjax.layers.precision import at_least_float32


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
                counts = index >= 0 if padded else jnp.ones_like(index, bool)
                return _batch_norm(module, args[0], counts, axis_name)
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


def _batch_norm(module: nn.BatchNorm, x, counts, axis_name):
    """Normalises by the statistics of the rows that count, over all devices; moves the running
    ones. In float32 at least, as linen: E[x^2] - E[x]^2."""
    axes = tuple(range(x.ndim - 1))
    wide = at_least_float32(x)
    wide *= counts.reshape(-1, *[1] * (x.ndim - 1))
    cells = jnp.sum(counts) * (x.size / x.shape[0] / x.shape[-1])
    sums = (jnp.sum(wide, axes), jnp.sum(jnp.square(wide), axes), cells)
    if axis_name:
        sums = jax.lax.psum(sums, axis_name)
    first, second, cells = sums
    mean = first / jnp.maximum(cells, 1)
    variance = jnp.maximum(second / jnp.maximum(cells, 1) - jnp.square(mean), 0)
    keep = jnp.where(cells > 0, module.momentum, 1.0)  # padding alone says nothing
    for name, value in (("mean", mean), ("var", variance)):
        running = module.get_variable("batch_stats", name)
        module.put_variable("batch_stats", name, keep * running + (1 - keep) * value)
    factor = jax.lax.rsqrt(variance + module.epsilon)
    if module.use_scale:
        factor *= module.get_variable("params", "scale")
    y = (x - mean) * factor
    if module.use_bias:
        y += module.get_variable("params", "bias")
    return y.astype(module.dtype or x.dtype)
