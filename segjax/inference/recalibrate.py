"""Batch normalisation's statistics, recomputed by a pass over the training images.

Running statistics trail the weights: each step keeps most of the old ones, which other weights
made, on augmented crops. What is evaluated can have those of its own weights instead.
"""

import itertools
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from segjax.training.checkpoint import CheckpointStore

Path = tuple[str, ...]


def batch_moments(
    model: nn.Module, variables: Mapping[str, Any], images: Float[Array, "n H W c"]
) -> dict[Path, dict[str, Float[Array, "channels"]]]:
    """{normalisation: {"mean", "var"}} of what each one is given in a forward pass by the batch's
    own statistics, without dropout: float32, over images, rows and columns. Jittable."""
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
        model.apply(variables, images, train=True, mutable=["batch_stats"])
    return moments


def recomputed_statistics(
    model: nn.Module, variables: Mapping[str, Any], batches: Iterable[Float[Array, "_ _ _ c"]]
) -> dict[str, Any]:
    """The mean and variance of every normalisation's input over all batches: `batch_stats`.

    The sums over a batch are taken on the device in float32, those over batches on the host in
    float64, weighted by the number of images. The variance is that of the whole set, divided by
    the number of cells: the batches' variances averaged, and the variance of their means. (The
    SegNet authors' compute_bn_statistics.py averages the batches' variances and leaves the second
    part out, which for batches of several images is small.)

    Within a pass each layer sees its batch normalised by that batch, as in training; so the result
    depends on the batch size, except for the first layer. Batches should be of (nearly) one size,
    not padded; each size is compiled once.

    Args:
      model, variables: as trained; their statistics are not used.
      batches: normalised images.

    Raises:
      ValueError: for a model without batch normalisation, or no batches.
    """
    if not variables.get("batch_stats"):
        raise ValueError(
            f"{type(model).__name__} has no batch normalisation; there is nothing to recompute"
        )
    step = jax.jit(lambda variables, images: batch_moments(model, variables, images))
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
    old, new = flatten_dict(variables["batch_stats"]), {}
    for path, total in sums.items():
        mean, square = total / count
        new[(*path, "mean")] = mean
        new[(*path, "var")] = np.maximum(square - mean**2, 0)
    if new.keys() != old.keys():
        missing = ["/".join(path) for path in sorted(old.keys() ^ new.keys())]
        raise ValueError(f"these statistics belong to no normalisation that ran: {missing}")
    return unflatten_dict({path: jnp.asarray(new[path], old[path].dtype) for path in old})


def even_batches(length: int, batch_size: int) -> Sequence[range]:
    """0..length-1 in as few ranges of at most `batch_size` as possible, whose lengths differ by
    at most one: none is a small rest with statistics of its own."""
    count = math.ceil(length / batch_size)
    edges = [length * i // count for i in range(count + 1)]
    return [range(a, b) for a, b in itertools.pairwise(edges)]


def copy_checkpoint(
    workdir: str | pathlib.Path,
    output: str | pathlib.Path,
    step: int,
    batch_stats: Mapping[str, Any],
) -> None:
    """Writes a run's checkpoint of `step` into another folder with other statistics: those that it
    is evaluated with, its running average's if it has one. All else is as it was."""
    folder = pathlib.Path(workdir).resolve() / "checkpoints" / str(step)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        stored = reader.metadata(folder / "state").item_metadata.tree
        wanted = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), stored
        )
        how = ocp.checkpoint_utils.construct_restore_args(wanted)
        state = reader.restore(
            folder / "state", args=ocp.args.PyTreeRestore(wanted, restore_args=how)
        )
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        host = reader.restore(folder / "host")
    (state["ema"] if state.get("ema") else state)["batch_stats"] = batch_stats
    with CheckpointStore(output) as store:
        store.save(step, state, host, None)
        if failure := store.finish():
            raise OSError(failure)
