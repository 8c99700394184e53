"""Pretrained weights: `init_from` is a name, a weight file or the workdir of another run."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import ml_collections
import numpy as np

from segjax import config as configs
from segjax.training.checkpoint import CheckpointStore, has_checkpoint
from segjax.training.state import TrainState
from segjax.weights import Report, hub, load
from segjax.weights.files import WeightFile
from segjax.weights.layout import IMAGENET_MEAN, IMAGENET_STD
from segjax.weights.transfer import abstract_variables


@dataclasses.dataclass(frozen=True)
class Initial:
    """Initial weights that fit the model.

    Attributes:
      arrays: value per leaf ("params/encoder/stem/conv/kernel"). Other leaves keep their random
        values.
      report: which leaves were loaded, stay random, or have no place in the model.
    """

    arrays: Mapping[str, np.ndarray]
    report: Report


def open_weights(path: str | os.PathLike[str], model: nn.Module | None = None) -> WeightFile:
    """Reads a workdir's best checkpoint, or what `segjax.weights.hub` reads.

    Args:
      path: the workdir, the name, the file or the exported folder.
      model: the one that the weights are for, where a name leaves that open.

    Raises:
      ValueError: naming the path, if it is none of these or cannot be read.
      OSError: if the file of a name cannot be fetched.
    """
    if hub.reads(path):
        return hub.open_weights(path, model)
    path = pathlib.Path(path)
    config = configs.load(path)
    with CheckpointStore(path, read_only=True) as store:
        variables = store.restore_variables()
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    model = configs.plain(config["model"])
    classes = configs.load_classes(config, path).names
    model["num_classes"] = len(classes)
    return WeightFile(
        str(path),
        "segjax",
        {leaf: np.asarray(value) for leaf, value in flat.items()},
        {k: tuple(v) if isinstance(v, list) else v for k, v in model.items()},
        tuple(config["data"]["mean"]),
        tuple(config["data"]["std"]),
        classes,
    )


def read_initial(config: Mapping[str, Any], model: nn.Module) -> Initial | None:
    """The weights that `init_from` names; None if it is empty.

    Raises:
      ValueError: if the file cannot be read or does not fit the model.
      OSError: if the file of a name cannot be fetched.
    """
    if not config["init_from"]:
        return None
    channels = config["data"]["channels"]
    try:
        file = open_weights(config["init_from"], model)
        variables, report = load(
            file, model, abstract_variables(model, channels), config["init_parts"]
        )
    except ValueError as error:
        raise ValueError(f"init_from: {error}") from error
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    return Initial({leaf: flat[leaf] for leaf in report.loaded}, report)


def with_normalization(
    config: Mapping[str, Any], initial: Initial | None, workdir: str | pathlib.Path | None
) -> Mapping[str, Any]:
    """The config with `data.mean` and `data.std` filled in, if they are empty.

    The values come from the run in `workdir` if it resumes, else from the network of `init_from`,
    else from ImageNet. Images that are not RGB get 0.5 and 0.25.
    """
    if config["data"]["mean"]:
        return config
    channels = config["data"]["channels"]
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if channels != len(mean):  # only their range is known
        mean, std = (0.5,) * channels, (0.25,) * channels
    if has_checkpoint(workdir):
        saved = configs.load(workdir)["data"]
        mean, std = saved["mean"], saved["std"]
    elif initial and len(initial.report.mean or ()) == channels:
        mean, std = initial.report.mean, initial.report.std
    config = ml_collections.ConfigDict(config).copy_and_resolve_references()
    with config.unlocked():
        config.data.mean, config.data.std = tuple(mean), tuple(std)
    return config


def start_from(state: TrainState, initial: Initial) -> TrainState:
    """The fresh state with the initial weights in its variables and in their running average."""

    def place(name: str, tree: Any) -> Any:
        flat = flax.traverse_util.flatten_dict(tree, sep="/")
        for leaf, old in flat.items():
            if (path := f"{name}/{leaf}") in initial.arrays:
                flat[leaf] = jax.device_put(initial.arrays[path], old.sharding)
        return flax.traverse_util.unflatten_dict(flat, sep="/")

    variables = {
        "params": place("params", state.params),
        "batch_stats": place("batch_stats", state.batch_stats),
    }
    # The average needs its own buffers: the training step donates each buffer of its state once.
    ema = state.ema and jax.tree.map(jax.numpy.copy, variables)
    return state.replace(**variables, ema=ema)
