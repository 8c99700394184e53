"""Compares two runs of the same network, layer by layer, in the order of computation."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float


def layer_outputs(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: Float[Array, "n H W c"],
    *,
    train: bool = False,
) -> dict[str, np.ndarray]:
    """The output of every module of a forward pass, in the order in which they finish.

    Args:
      model, variables, images: as for `model.apply`.
      train: batch statistics of this batch instead of the running ones; dropout draws from key 0.

    Returns:
      Path ("encoder/stem/norm") to output, channels-last, without dropout and modules that return
      no array; a module that is called twice keeps its last output.
    """
    order: list[str] = []

    def run(variables, images):
        outputs = {}

        def record(next_function, args, kwargs, context):
            out = next_function(*args, **kwargs)
            layer = context.method_name == "__call__" and not isinstance(context.module, nn.Dropout)
            if layer and isinstance(out, jax.Array):
                outputs["/".join(context.module.path)] = out
            return out

        with nn.intercept_methods(record):
            model.apply(
                variables,
                images,
                train=train,
                mutable=["batch_stats"] if train else [],
                rngs={"dropout": jax.random.key(0)},
            )
        order[:] = outputs  # compiled functions return dicts in sorted order
        return outputs

    outputs = jax.jit(run)(dict(variables), images)
    return {path: np.asarray(outputs[path]) for path in order}


@dataclasses.dataclass(frozen=True)
class Departures:
    """How far each layer is from its reference.

    Attributes:
      errors: path to the largest absolute difference over the reference's largest absolute value,
        in the order of computation; infinite where shapes differ or a value is not finite.
      first: the first path whose error is above the tolerance; None: all layers agree.
    """

    errors: dict[str, float]
    tolerance: float

    @property
    def first(self) -> str | None:
        return next((p for p, error in self.errors.items() if not error <= self.tolerance), None)

    def __str__(self) -> str:
        if self.first is None:
            worst = max(self.errors.values(), default=0.0)
            return f"{len(self.errors)} layers agree; the largest error is {worst:.1e} of a range"
        at = list(self.errors).index(self.first)
        shown = list(self.errors.items())[max(0, at - 3) : at + 4]
        lines = [
            f"{self.first} is the first of {len(self.errors)} layers to depart, by "
            f"{self.errors[self.first]:.1e} of its range (tolerance {self.tolerance:.0e}); it and "
            "its neighbours:"
        ]
        lines += [f"  {'>' if p == self.first else ' '} {error:.1e}  {p}" for p, error in shown]
        return "\n".join(lines)


def departures(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], tolerance: float = 1e-4
) -> Departures:
    """Compares the layers that both have, in the order of `ours` (see `layer_outputs`).

    Args:
      ours, theirs: path to output, in the same order of axes.
      tolerance: on the largest difference, relative to the largest value of the reference.

    Raises:
      ValueError: if they have no layer in common.
    """
    shared = [path for path in ours if path in theirs]
    if not shared:
        some = [", ".join(list(layers)[:3]) for layers in (ours, theirs)]
        raise ValueError(f"no layer in common: {some[0]}, ... and {some[1]}, ...")
    return Departures({path: _error(ours[path], theirs[path]) for path in shared}, tolerance)


def _error(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return float("inf")
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))
