"""Recomputes batch normalisation statistics by one pass over the training images.

Running statistics trail the weights: each training step keeps most of the old statistics, which
come from earlier weights and augmented crops. Recomputed ones belong to the weights as evaluated.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, UInt8

from segjax.training.forward import Forward, logits_fn
from segjax.transforms.normalize import Normalization

Path = tuple[str, ...]


def batch_moments(
    forward: Forward, variables: Mapping[str, Any], images: UInt8[Array, "n H W c"]
) -> dict[Path, dict[str, Float[Array, "_"]]]:
    """Mean and variance of the input of each normalisation, in one forward pass. Jittable.

    The pass normalises by the batch's statistics and drops nothing.

    Args:
      forward: of `segjax.training.forward.logits_fn` with train=True.

    Returns:
      {normalisation's path: {"mean", "var"}}, float32, over images, rows and columns.
    """
    moments = {}

    def watch(next_function, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__" and isinstance(module, nn.Dropout):
            return args[0]
        if context.method_name == "__call__" and isinstance(module, nn.BatchNorm):
            x = args[0].astype(jnp.float32)
            axes = tuple(range(x.ndim - 1))
            mean = jnp.mean(x, axes)
            moments[module.path] = {"mean": mean, "var": jnp.mean(jnp.square(x - mean), axes)}
        return next_function(*args, **kwargs)

    with nn.intercept_methods(watch):
        forward(variables, images)
    return moments


def recomputed_statistics(
    model: nn.Module,
    normalization: Normalization,
    variables: Mapping[str, Any],
    batches: Iterable[UInt8[np.ndarray, "_ _ _ c"]],
) -> dict[str, Any]:
    """The mean and variance of every normalisation's input over all batches: `batch_stats`.

    Sums over a batch are taken on the device in float32, those over batches on the host in float64,
    weighted by the number of images. The variance is that of the whole set, divided by the number
    of cells: the mean of the batches' variances plus the variance of their means. (The SegNet
    authors' compute_bn_statistics.py leaves out the second part, which is small for batches of
    several images.)

    In the pass each layer normalises by the batch, as in training, so the result depends on the
    batch size, except for the first layer. Batches should have (nearly) one size and no padding;
    each size is compiled once.

    Args:
      model, variables: as trained; the statistics in `variables` are not used.
      normalization: of the run.
      batches: of images.

    Raises:
      ValueError: for a model without batch normalisation, or no batches.
    """
    if not variables.get("batch_stats"):
        raise ValueError(
            f"{type(model).__name__} has no batch normalisation; there is nothing to recompute"
        )
    forward = logits_fn(model, normalization, train=True)
    step = jax.jit(lambda variables, images: batch_moments(forward, variables, images))
    sums: dict[Path, np.ndarray] = {}
    count = 0
    for images in batches:
        count += len(images)
        for path, moments in jax.device_get(step(variables, images)).items():
            mean, variance = (np.asarray(moments[name], np.float64) for name in ("mean", "var"))
            first_two = len(images) * np.stack([mean, variance + mean**2])
            sums[path] = sums.get(path, 0) + first_two
    if not count:
        raise ValueError("there are no training images; the statistics need some")
    old: dict[Path, Any] = dict(flatten_dict(variables["batch_stats"]))
    new = {}
    for path, total in sums.items():
        mean, square = total / count
        new[(*path, "mean")] = mean
        new[(*path, "var")] = np.maximum(square - mean**2, 0)
    if new.keys() != old.keys():
        missing = ["/".join(path) for path in sorted(old.keys() ^ new.keys())]
        raise ValueError(f"statistics and normalisations that ran do not match: {missing}")
    return unflatten_dict({path: jnp.asarray(new[path], old[path].dtype) for path in old})


def even_batches(length: int, batch_size: int) -> Sequence[range]:
    """Divides 0..length-1 into as few ranges of at most `batch_size` as possible.

    Their lengths differ by at most one, so that no small last batch distorts the statistics.
    """
    count = math.ceil(length / batch_size)
    edges = [length * i // count for i in range(count + 1)]
    return [range(a, b) for a, b in itertools.pairwise(edges)]
