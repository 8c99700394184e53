"""Checkpoints (Orbax): the latest two, and the best by val mIoU, written in the background."""

import json
import pathlib
import warnings
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

METRIC = "val_miou"


def _val_miou(metrics: dict[str, float]) -> float:
    return metrics[METRIC]


class CheckpointStore:
    """The `checkpoints/` folder of a run.

    A checkpoint holds the device state (a pytree) and the host state (JSON: progress, data
    iterator). It appears whole or not at all: Orbax renames it into place when it is complete. One
    that lacks parts all the same (a copy that was broken off, a full disk) is passed over, as if it
    were not there; when writing, its folder is renamed to STEP.damaged, with a warning.

    Raises:
      ValueError: read-only, if there is no such folder.
    """

    def __init__(self, workdir: str | pathlib.Path, *, read_only: bool = False):
        folder = pathlib.Path(workdir).resolve() / "checkpoints"
        if read_only and not folder.is_dir():
            raise ValueError(f"workdir {workdir} has no checkpoints yet; train first")
        self._damaged = _damaged(folder, rename=not read_only and jax.process_index() == 0)
        options = ocp.CheckpointManagerOptions(
            best_fn=_val_miou,
            best_mode="max",
            # best_fn with max_to_keep alone may drop the latest.
            preservation_policy=AnyPreservationPolicy(
                [
                    LatestN(2),
                    BestN(get_metric_fn=_val_miou, n=1, keep_checkpoints_without_metrics=False),
                ]
            ),
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        try:
            self._manager = ocp.CheckpointManager(folder, options=options)
        except json.JSONDecodeError as error:  # of metrics, which it reads at once
            raise ValueError(
                f"{folder} cannot be read: {error}; remove the damaged checkpoints: "
                f"{sorted(self._damaged)}"
            ) from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.close()  # waits for what is still being written

    def steps(self) -> list[int]:
        """The steps that are stored."""
        return sorted(set(self._manager.all_steps()) - self._damaged.keys())

    def latest_step(self) -> int | None:
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """The step of the best evaluation; the latest one if none was evaluated."""
        best = self._manager.best_step()
        return best if best in self.steps() else self.latest_step()

    def save(self, step: int, state: Any, host: dict[str, Any], val_miou: float | None) -> None:
        """Starts writing; `val_miou` is None between evaluations."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), host=ocp.args.JsonSave(host)
            ),
            metrics=None if val_miou is None else {METRIC: val_miou},
            force=True,
        )

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """Reads the state of `step` into the structure, dtypes and shardings of `like` (arrays or
        jax.ShapeDtypeStruct), and the host state.

        Raises:
          ValueError: if it cannot be read, or holds another structure.
        """
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(like), host=ocp.args.JsonRestore()
                ),
            )
        except Exception as error:  # Orbax and TensorStore raise bare Exception among others
            others = [s for s in self.steps() if s != step]
            remedy = f"remove it to go on from step {others[-1]}" if others else "train anew"
            raise ValueError(
                f"checkpoint {self._manager.directory / str(step)} cannot be read: "
                f"{_first_line(error)}; {remedy}"
            ) from error
        return restored["state"], restored["host"]

    def restore_variables(self, step: int | None = None) -> Any:
        """Reads only what a model is evaluated with: {"params", "batch_stats"} of `step`, or their
        running average where the run kept one.

        Without `step` it is the best one; where that cannot be read, the newest that can be, with
        a warning.

        Raises:
          ValueError: if there is no checkpoint, none of that step, or none that can be read.
        """
        steps, problems = self.steps(), list(self._damaged.values())
        if not steps and problems:
            raise ValueError(f"{'; '.join(problems)}; train anew, or copy the run once more")
        if not steps:
            raise ValueError(f"{self._manager.directory} is empty; train first")
        if step is not None and step not in steps:
            damaged = f" ({self._damaged[step]})" if step in self._damaged else ""
            raise ValueError(f"there is no checkpoint of step {step}{damaged}; there are {steps}")
        best = self.best_step()
        wanted = [best, *(s for s in steps[::-1] if s != best)] if step is None else [step]
        for found in wanted:
            folder = self._manager.directory / str(found)
            try:
                variables = _read_variables(folder / "state")
            except Exception as error:  # Orbax and TensorStore raise bare Exception among others
                problems.append(f"checkpoint {folder} cannot be read: {_first_line(error)}")
                continue
            for problem in problems if step is None else ():
                warnings.warn(f"{problem}; that of step {found} is used", stacklevel=2)
            return variables
        others = [s for s in steps if s not in wanted]
        remedy = f"use another step: {others}" if others else "train anew"
        raise ValueError(f"{'; '.join(problems)}; {remedy}")


def _read_variables(folder) -> Any:
    """The variables in a checkpoint's `state` folder."""
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        metadata = reader.metadata(folder).item_metadata
        if metadata is None:
            raise ValueError("its metadata cannot be read")
        stored = metadata.tree
        names = ("ema",) if stored.get("ema") else ("params", "batch_stats")
        wanted = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
            {name: stored[name] for name in names},
        )
        how = ocp.checkpoint_utils.construct_restore_args(wanted)
        restored = reader.restore(
            folder, args=ocp.args.PyTreeRestore(wanted, restore_args=how, partial_restore=True)
        )
    return restored.get("ema", restored)


# What each checkpoint holds, whatever else; JSON files are looked into.
_PARTS = ("state/_METADATA", "state/manifest.ocdbt", "host/metadata")
_JSON = ("state/_METADATA", "host/metadata", "metrics/metrics")


def _damaged(folder: pathlib.Path, *, rename: bool) -> dict[int, str]:
    """The steps whose checkpoints lack parts, and what is to be said of them. If so wanted, their
    folders are renamed, which is said at once."""
    damaged = {}
    for checkpoint in sorted(folder.iterdir()) if folder.is_dir() else ():
        problem = lacking_part(checkpoint) if checkpoint.name.isdigit() else ""
        if not problem:
            continue
        problem = f"checkpoint {checkpoint} is damaged: {problem}"
        damaged[int(checkpoint.name)] = problem
        if rename:
            aside = checkpoint.with_name(f"{checkpoint.name}.damaged")
            number = 1
            while aside.exists():
                number += 1
                aside = checkpoint.with_name(f"{checkpoint.name}.damaged{number}")
            checkpoint.rename(aside)
            warnings.warn(f"{problem}; set aside as {aside.name}", stacklevel=3)
    return {} if rename else damaged


def lacking_part(checkpoint: pathlib.Path) -> str:
    """What is wrong with a checkpoint's folder as far as a look at its files tells; "" if
    nothing is."""
    for name in _PARTS:
        if not (checkpoint / name).exists():
            return f"there is no {name}"
    for name in _JSON:
        try:
            if (checkpoint / name).exists():
                json.loads((checkpoint / name).read_text())
        except ValueError:
            return f"{name} is cut off"
    return ""


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
