"""Batch normalisation folded into the convolution before it, for inference."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from segjax.layers import Conv, ConvTranspose

Path = tuple[str, ...]
CONVOLUTIONS = (Conv, ConvTranspose, nn.Conv)


@dataclasses.dataclass(frozen=True)
class FoldedModel:
    """A model that skips the normalisations whose work its convolutions do; made by `fold`.

    Used as the model it wraps, in evaluation only: `apply(variables, images, train=False)`.

    Attributes:
      model: as it was.
      absorbed: normalisations that do nothing any more.
      shifts: normalisations that add their `bias` and nothing else (their convolution has none).
    """

    model: nn.Module
    absorbed: frozenset[Path]
    shifts: frozenset[Path]

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    def apply(
        self, variables: Mapping[str, Any], images: Float[Array, "n H W c"], *, train: bool = False
    ) -> dict[str, Float[Array, "n H W k"]]:
        """As the model's; `variables` are those that `fold` returned.

        Raises:
          ValueError: for train=True.
        """
        if train:
            raise ValueError("a folded model has no statistics to train; use the model it was")

        def normalize(next_function, args, kwargs, context):
            module = context.module
            if not isinstance(module, nn.BatchNorm) or context.method_name != "__call__":
                return next_function(*args, **kwargs)
            if module.path in self.absorbed:
                return args[0]
            if module.path in self.shifts:
                bias = module.get_variable("params", "bias")
                return args[0] + bias.astype(args[0].dtype)
            return next_function(*args, **kwargs)

        with nn.intercept_methods(normalize):
            return self.model.apply(variables, images, train=False)


def fold(
    model: nn.Module, variables: Mapping[str, Any], channels: int = 3
) -> tuple[FoldedModel, dict[str, Any]]:
    """Folds every batch normalisation that directly follows a convolution into it.

    scale * (conv(x) - mean) / sqrt(var + epsilon) + bias is again a convolution, with its kernel
    times scale / sqrt(var + epsilon) per output channel, and a bias. Computed in float64, rounded
    once. A normalisation that follows an activation (the notebooks' conv-ReLU-norm blocks) stays.

    On the CPU this gains nothing (0.99 to 1.02 of the time of SegNet, PSPNet and DeepLabV3): there
    XLA makes one pass over the map of normalisation and ReLU together, and a bias and a ReLU take
    one too. It leaves a plain network of convolutions and biases, for export to other runtimes.
    `benchmarks/folding.py` measures it on other devices.

    Args:
      model, variables: {"params", "batch_stats"} as trained, evaluated with running statistics.
      channels: of the images.

    Returns:
      The model to apply from now on, and its variables, float32; statistics that are folded are
      no longer among them.

    Reference: Badrinarayanan et al.'s SegNet release does so before testing (BN-absorber).
    """
    pairs = foldable(model, variables, channels)
    params = {path: np.asarray(leaf) for path, leaf in flatten_dict(variables["params"]).items()}
    stats = {k: np.asarray(v) for k, v in flatten_dict(variables.get("batch_stats", {})).items()}
    absorbed, shifts = set(), set()
    for norm, (conv, epsilon) in pairs.items():
        mean, variance = (stats.pop((*norm, name)).astype(np.float64) for name in ("mean", "var"))
        scale = params.pop((*norm, "scale"), np.ones_like(mean)) / np.sqrt(variance + epsilon)
        shift = params.pop((*norm, "bias"), np.zeros_like(mean)) - mean * scale
        kernel = params[(*conv, "kernel")]
        params[(*conv, "kernel")] = (kernel * scale).astype(np.float32)
        if (*conv, "bias") in params:
            shift = shift + params[(*conv, "bias")] * scale
            params[(*conv, "bias")] = shift.astype(np.float32)
            absorbed.add(norm)
        else:
            params[(*norm, "bias")] = shift.astype(np.float32)
            shifts.add(norm)
    folded = {"params": unflatten_dict(params), "batch_stats": unflatten_dict(stats)}
    return (
        FoldedModel(model, frozenset(absorbed), frozenset(shifts)),
        jax.tree.map(jnp.asarray, folded),
    )


def foldable(
    model: nn.Module, variables: Mapping[str, Any], channels: int = 3
) -> dict[Path, tuple[Path, float]]:
    """{normalisation: (the convolution whose output it takes as it is, epsilon)}, as paths.

    Found in an abstract forward pass: nothing is computed. Convolution and normalisation must be
    called once each.
    """
    outputs: dict[int, tuple[Path, Any]] = {}  # the array is kept, so that its id stays its own
    calls: dict[Path, int] = {}
    pairs: dict[Path, tuple[Path, float]] = {}

    def watch(next_function, args, kwargs, context):
        module, out = context.module, next_function(*args, **kwargs)
        if context.method_name != "__call__":
            return out
        calls[module.path] = calls.get(module.path, 0) + 1
        if isinstance(module, CONVOLUTIONS):
            outputs[id(out)] = module.path, out
        elif isinstance(module, nn.BatchNorm) and id(args[0]) in outputs:
            pairs[module.path] = outputs[id(args[0])][0], module.epsilon
        return out

    def forward(variables, images):
        with nn.intercept_methods(watch):
            return model.apply(variables, images, train=False)

    jax.eval_shape(forward, dict(variables), jnp.zeros((1, 64, 64, channels)))
    once = {path for path, count in calls.items() if count == 1}
    return {norm: pair for norm, pair in pairs.items() if norm in once and pair[0] in once}
