"""Batch normalisation and dropout of a batch that devices share.

Linen's modules treat the array that they are given as the whole batch. Inside `shared_batch` the
result does not depend on how the batch is placed: under pmap batch normalisation takes its
statistics over all devices, padding rows are no part of them, and an example's dropout mask
depends on its index alone.
"""

import contextlib
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Int

from segjax.layers.dropout import dropout_by_example


def shared_batch(
    index: Int[Array, "n"], *, axis_name: str | None = None, padded: bool = False
) -> contextlib.AbstractContextManager:
    """Returns a context for `model.apply(..., train=True)` inside jit or pmap.

    Args:
      index: of the examples in the data set; below 0 for padding rows.
      axis_name: pmap's axis over which the devices share the batch in equal parts; None under jit,
        where XLA sums over devices by itself.
      padded: whether there may be padding rows; jit only. At least one row must be none.
    """

    def intercept(next_function, args, kwargs, context):
        module = context.module
        if context.method_name != "__call__":
            return next_function(*args, **kwargs)
        if isinstance(module, nn.Dropout) and not _option(module, "deterministic", kwargs):
            return dropout_by_example(module, args[0], index)
        if isinstance(module, nn.BatchNorm) and not _option(module, "use_running_average", kwargs):
            if axis_name:
                # Set here, so that no model has to hand the axis down to its layers. The module
                # lives no longer than this call of `model.apply`.
                object.__setattr__(module, "axis_name", axis_name)
            if padded:
                mask = (index >= 0).reshape(-1, *[1] * (args[0].ndim - 1))
                kwargs = {**kwargs, "mask": mask}
        return next_function(*args, **kwargs)

    return nn.intercept_methods(intercept)


def _option(module: nn.Module, name: str, kwargs: dict[str, Any]) -> bool:
    """An option that linen takes as the module's field or as an argument of its call."""
    return nn.merge_param(name, getattr(module, name), kwargs.get(name))
