"""Batch normalisation and dropout of a batch that devices share.

Linen's modules treat the array that they are given as the whole batch. Inside `shared_batch` the
result does not depend on how the batch is placed: under pmap batch normalisation takes its
statistics over all devices, padding rows are no part of them, frozen normalisations use their
running statistics, and an example's dropout mask depends on its index alone.
"""

import contextlib
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from segjax.layers import Conv
from segjax.layers.dropout import dropout_by_example


def shared_batch(
    index: Int[Array, "n"],
    *,
    axis_name: str | None = None,
    padded: bool = False,
    frozen_norms: frozenset[str] = frozenset(),
) -> contextlib.AbstractContextManager:
    """Returns a context for `model.apply(..., train=True)` inside jit or pmap.

    Args:
      index: of the examples in the data set; below 0 for padding rows.
      axis_name: pmap's axis over which the devices share the batch in equal parts; None under jit,
        where XLA sums over devices by itself.
      padded: whether there may be padding rows; jit only. At least one row must be none.
      frozen_norms: paths ("encoder/stem/norm") of the batch norms that normalise by their running
        statistics, and keep them: Keras's `trainable=False`. In torch, `requires_grad=False` alone
        leaves a batch norm to the statistics of the batch, and its running ones move.
    """

    def intercept(next_function, args, kwargs, context):
        module = context.module
        if context.method_name != "__call__":
            return next_function(*args, **kwargs)
        if isinstance(module, nn.Dropout) and not _option(module, "deterministic", kwargs):
            return dropout_by_example(module, args[0], index)
        if isinstance(module, Conv) and "/".join((*module.path[:-1], "norm")) in frozen_norms:
            # Only the batch's own mean takes a bias before it away.
            object.__setattr__(module, "frozen_bias", False)
        if isinstance(module, nn.BatchNorm) and "/".join(module.path) in frozen_norms:
            object.__setattr__(module, "use_running_average", True)
        elif isinstance(module, nn.BatchNorm) and not _option(
            module, "use_running_average", kwargs
        ):
            if axis_name:
                # Set here, so that no model has to hand the axis down to its layers. The module
                # lives no longer than this call of `model.apply`.
                object.__setattr__(module, "axis_name", axis_name)
            if padded:
                mask = (index >= 0).reshape(-1, *[1] * (args[0].ndim - 1))
                kwargs = {**kwargs, "mask": mask}
        return next_function(*args, **kwargs)

    return nn.intercept_methods(intercept)


def norms_of_one_value(
    model: nn.Module, image_shape: tuple[int, int, int, int], frozen_norms: frozenset[str]
) -> list[str]:
    """The paths of the batch norms that take each statistic of a training batch over one value.

    What they normalise is its own mean: their output is their bias whatever the image is, and
    nothing before them gets a gradient through them. Found from shapes; nothing is computed.

    Args:
      image_shape: [n, H, W, C] of a micro-batch over all devices, without padding rows.
      frozen_norms: as in `shared_batch`; these take no statistics.
    """
    found = []

    def intercept(next_function, args, kwargs, context):
        module = context.module
        if isinstance(module, nn.BatchNorm) and context.method_name == "__call__":
            path, count = "/".join(module.path), math.prod(args[0].shape[:-1])
            uses_batch = not _option(module, "use_running_average", kwargs)
            if uses_batch and count == 1 and path not in frozen_norms:
                found.append(path)
        return next_function(*args, **kwargs)

    rngs = {name: jax.random.key(0) for name in ("params", "dropout")}
    with nn.intercept_methods(intercept):
        jax.eval_shape(lambda: model.init(rngs, jnp.zeros(image_shape), train=True))
    return found


def _option(module: nn.Module, name: str, kwargs: dict[str, Any]) -> bool:
    """An option that linen takes as the module's field or as an argument of its call."""
    return nn.merge_param(name, getattr(module, name), kwargs.get(name))
