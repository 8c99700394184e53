"""One checkpoint on the disk: how it is found, looked at after a save, and read.

It is a folder, named after its step, with the state (arrays, as Orbax lays them out) and the host
state (JSON). The functions take paths that `plain_path` has made.
"""

import json
import math
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
import tensorstore
from etils import epath

from segjax.training import checksums
from segjax.training.checkpoint_errors import without_late_calls

_STEP = re.compile(r"0|[1-9]\d{0,17}", re.ASCII)


def is_step(name: str) -> bool:
    """Whether a checkpoint may have this name: a number, written as one writes it."""
    return bool(_STEP.fullmatch(name))


def steps_in(folder: str | os.PathLike) -> list[int]:
    """The steps whose checkpoints lie in a folder, ascending."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if is_step(p.name) and p.is_dir())


def earlier_steps(folder: pathlib.Path) -> list[int]:
    """The checkpoints of earlier versions, checkpoints/STEP, the best one first."""

    def val_miou(step: int) -> float:
        try:
            return _score(json.loads((folder / str(step) / "metrics/metrics").read_bytes()))
        except (OSError, ValueError, RecursionError):
            return -1.0

    return sorted(steps_in(folder), key=lambda step: (val_miou(step), step), reverse=True)


def write_checksums(folder: pathlib.Path, step: int, state: Any, host: Mapping[str, Any]) -> None:
    """Opens a checkpoint as a reader does, before it gets its name, and adds the checksums.

    Args:
      state, host: what was given to be saved.

    Raises:
      ValueError: if something else lies there.
    """
    if json.dumps(_read_json(folder)) != json.dumps(host):
        raise ValueError("its host state is another")
    saved = _arrays(state)
    if not _lists(folder, saved):
        stored = _arrays(_metadata(folder))
        if missing := {k: v for k, v in saved.items() if stored.get(k) != v}:
            raise ValueError(f"{len(missing)} of its arrays are missing, such as {min(missing)}")
    checksums.write(folder, step)


def read_host(folder: pathlib.Path) -> dict[str, Any]:
    """The host state.

    Raises:
      ValueError: if it is no JSON, or not what JSON calls an object.
      OSError: if it cannot be read.
    """
    host = _read_json(folder)
    if not isinstance(host, dict):
        raise ValueError(f"its host state is {type(host).__name__}, not an object")
    return host


def read_miou(folder: pathlib.Path) -> float:
    """The val mIoU of a checkpoint in `best`.

    Raises:
      ValueError: if it is no number.
      OSError: if it cannot be read.
    """
    return _score(read_host(folder))


def read_state(folder: pathlib.Path, like: Any) -> Any:
    """The state, in the structure, dtypes and shardings of `like`.

    Raises:
      Exception: of any type, by Orbax and TensorStore.
    """
    like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    # Without a manager, whose barriers would hang if one process cannot read.
    args = ocp.args.StandardRestore(like)
    with without_late_calls():
        return ocp.StandardCheckpointHandler().restore(epath.Path(folder / "state"), args=args)


def read_variables(folder: pathlib.Path) -> dict[str, Any]:
    """The variables to evaluate with, on the first device of this process.

    Raises:
      Exception: of any type, by Orbax and TensorStore.
    """
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    stored = _metadata(folder)
    names = ("ema",) if stored.get("ema") else ("params", "batch_stats")
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        {name: stored[name] for name in names},
    )
    restore_args = ocp.checkpoint_utils.construct_restore_args(like)
    args = ocp.args.PyTreeRestore(like, restore_args=restore_args, partial_restore=True)
    with without_late_calls():
        restored = ocp.PyTreeCheckpointHandler().restore(epath.Path(folder / "state"), args=args)
    return restored.get("ema", restored)


def _metadata(folder: pathlib.Path) -> Any:
    """The structure of the stored state, from its own description and that of each array."""
    with without_late_calls():
        return ocp.PyTreeCheckpointHandler().metadata(epath.Path(folder / "state")).tree


def _lists(folder: pathlib.Path, names: Iterable[str]) -> bool:
    """Whether the description and the index of the arrays have all of these. In a layout that it
    does not know it finds none; `_metadata` always tells, in a third of the time of a save."""
    try:
        described = json.loads((folder / "state" / "_METADATA").read_bytes())["tree_metadata"]
        base = {"driver": "file", "path": f"{folder}/state/"}
        index = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
        found = {key.split(b"/")[0].decode() for key in index.list().result()}
    except (OSError, ValueError, LookupError):
        return False
    return found.issuperset(names) and len(described) >= len(found)


def _arrays(tree: Any) -> dict[str, tuple]:
    """Shape and type of each array in a tree, by a name that is the same before and after."""
    flat = ocp.tree.to_flat_dict(tree, sep=".")
    return {k: (tuple(x.shape), str(x.dtype)) for k, x in flat.items() if hasattr(x, "shape")}


def _read_json(folder: pathlib.Path) -> Any:
    try:
        return json.loads((folder / "host" / "metadata").read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError("its host state is no JSON") from error


def _score(values: Any) -> float:
    score = values.get("val_miou") if isinstance(values, Mapping) else None
    if isinstance(score, int | float) and math.isfinite(score):
        return float(score)
    raise ValueError(f"its val_miou is {score!r}, no number")
