"""Checkpoints (Orbax): the latest two, and the best by val mIoU, written in the background."""

import pathlib
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
    iterator). It appears whole or not at all: Orbax renames it into place when it is complete.
    """

    def __init__(self, workdir: str | pathlib.Path, *, read_only: bool = False):
        folder = pathlib.Path(workdir).resolve() / "checkpoints"
        if read_only and not folder.is_dir():
            raise ValueError(f"workdir {workdir} has no checkpoints yet; train first")
        self._manager = ocp.CheckpointManager(
            folder,
            options=ocp.CheckpointManagerOptions(
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
            ),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.close()  # waits for what is still being written

    def steps(self) -> list[int]:
        """The steps that are stored."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step of the best evaluation; the latest one if none was evaluated."""
        best = self._manager.best_step()
        return self.latest_step() if best is None else best

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
        jax.ShapeDtypeStruct), and the host state."""
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(like), host=ocp.args.JsonRestore()
            ),
        )
        return restored["state"], restored["host"]

    def restore_variables(self, step: int | None = None) -> Any:
        """Reads only what a model is evaluated with: {"params", "batch_stats"} of `step` (the
        best one by default), or their running average where the run kept one.

        Raises:
          ValueError: if there is no checkpoint, or none of that step.
        """
        if not self.steps():
            raise ValueError(f"{self._manager.directory} is empty; train first")
        step = self.best_step() if step is None else step
        if step not in self.steps():
            raise ValueError(f"there is no checkpoint of step {step}; there are {self.steps()}")
        folder = self._manager.directory / str(step) / "state"
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            stored = reader.metadata(folder).item_metadata.tree
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
