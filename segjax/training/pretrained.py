"""Where a run starts from: `init_from`, a weight file or another run of ours."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import ml_collections
import numpy as np

from segjax import config as configs
from segjax.training.checkpoint import CheckpointStore
from segjax.training.checkpoint_folder import stored
from segjax.training.state import TrainState
from segjax.weights import Report, load
from segjax.weights.files import WeightFile, read
from segjax.weights.layout import IMAGENET_MEAN, IMAGENET_STD
from segjax.weights.transfer import abstract_variables


@dataclasses.dataclass(frozen=True)
class Initial:
    """Weights to start from, checked against the model.

    Attributes:
      arrays: leaf ("params/encoder/stem/conv/kernel") to its value; the others are drawn.
      report: what was loaded, kept fresh and left over.
    """

    arrays: Mapping[str, np.ndarray]
    report: Report


def has_checkpoint(workdir: str | pathlib.Path | None) -> bool:
    """Whether a run in `workdir` would go on rather than start."""
    return bool(workdir and stored(pathlib.Path(workdir) / "checkpoints")[0])


def open_weights(path: str | pathlib.Path) -> WeightFile:
    """A weight file, or the best checkpoint of the run in a folder.

    Raises:
      ValueError: naming the path, if there is neither or it cannot be read.
    """
    if not pathlib.Path(path).is_dir():
        return read(path)
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
    """The weights that `init_from` names, if it names any.

    Raises:
      ValueError: for a file that cannot be read or does not fit the model.
    """
    if not config["init_from"]:
        return None
    channels = config["data"]["channels"]
    try:
        file = open_weights(config["init_from"])
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
    """The config with `data.mean` and `data.std` written out where they were left open: as the run
    in `workdir` has them, else as the network of `init_from` was trained, else ImageNet's; 0.5 and
    0.25 for images that are not RGB."""
    if config["data"]["mean"]:
        return config
    channels = config["data"]["channels"]
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if channels != len(mean):  # nothing is known of them but their range
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
    """The fresh state with the initial weights in place, and in its running average too."""

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
    # The average is a copy of its own: the training step gives up each buffer of its state once.
    ema = state.ema and jax.tree.map(jax.numpy.copy, variables)
    return state.replace(**variables, ema=ema)
