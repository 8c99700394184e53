"""Checkpoints (Orbax): the latest two, and the best by val mIoU, written in the background."""

import contextlib
import itertools
import json
import pathlib
import warnings
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from segjax.training import agreement, checkpoint_folder
from segjax.training.checkpoint_writer import CheckpointWrite

# All processes open stores in the same order, so that a number names one in each.
_numbers = itertools.count()


class CheckpointStore:
    """The `checkpoints/` folder of a run.

    A checkpoint holds the device state (a pytree) and the host state (JSON: progress, data
    iterator). It appears whole or not at all: it is renamed into place when it is complete. One
    that lacks parts all the same (a copy that was broken off) is passed over, as if it were not
    there; when writing, its folder is renamed to STEP.damaged, with a warning.

    A write that the disk refuses (no space, quota) does not end the run: it is said by a warning,
    the older checkpoints stay, and the next save tries again. `finish` says how the last one ended.

    In a run of several processes each of them makes the store, saves and restores at the same
    points; process 0 does what is done once and gives the warnings. The other methods need no
    company.

    Attributes:
      failures: writes that the disk refused.

    Raises:
      ValueError: read-only, if there is no such folder.
      OSError: otherwise, if it cannot be written to.
    """

    def __init__(self, workdir: str | pathlib.Path, *, read_only: bool = False):
        self._folder = pathlib.Path(workdir).resolve() / "checkpoints"
        if read_only and not self._folder.is_dir():
            raise ValueError(f"workdir {workdir} has no checkpoints yet; train first")
        self.failures = 0
        self._read_only = read_only
        self._write: CheckpointWrite | None = None
        self._failure = ""  # of the last save
        if read_only:
            self._paths, self._damaged = checkpoint_folder.stored(self._folder)
            self._mious = checkpoint_folder.val_mious(self._paths)
        else:
            self._paths, self._damaged = {}, {}
            self._mious = _open_for_writing(self._folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Waits for what is still being written, see `wait`."""
        self.wait()
        if self.failures and jax.process_index() == 0:
            with contextlib.suppress(OSError):  # the disk may be gone
                checkpoint_folder.remove_leftovers(self._folder)

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written right now."""
        return self._write is not None and self._write.busy

    def wait(self) -> None:
        """Waits until nothing is being written, and warns if it could not be: of each failure once,
        at the first call after it (all methods but `finish` make it before they answer)."""
        if failure := self._end_of_write():
            _warn(f"{failure}; the run goes on, the next save tries again")

    def finish(self) -> str:
        """Waits like `wait`; says why the last save failed instead of warning of it, "" if it did
        not."""
        self._end_of_write()
        return self._failure

    def _end_of_write(self) -> str:
        """Waits; what is new to say of a failure."""
        write = self._write
        if write is None:
            return ""
        write.wait()
        self._write, self._failure = None, ""
        if write.error:
            raise write.error
        if write.problem:
            self.failures += 1
            self._failure = (
                f"checkpoint of step {write.step} was not written to {self._folder}: "
                f"{write.problem}"
            )
        else:
            self._mious = self._mious_then
        for remark in write.remarks:
            _warn(remark)
        return self._failure

    def steps(self) -> list[int]:
        """The steps that are stored, the one under way among them: its end is waited for."""
        self.wait()
        return sorted(self._mious)

    def latest_step(self) -> int | None:
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """The step of the best evaluation; the latest one if none was evaluated."""
        steps = self.steps()
        best = checkpoint_folder.best(self._mious)
        return max(steps, default=None) if best is None else best

    def save(
        self,
        step: int,
        state: Any,
        host: dict[str, Any],
        val_miou: float | None,
        replace: bool = False,
    ) -> None:
        """Waits for the write before, copies the state, and starts to write it.

        Args:
          step: finished updates; names the checkpoint.
          state: a pytree of NumPy arrays and global JAX arrays, sharded in any way.
          host: what JSON can hold; that of process 0 is written.
          val_miou: None between evaluations.
          replace: whether a checkpoint of the same step may be there, to be replaced. It stays
            until the new one is complete.

        Raises:
          ValueError: if there is a checkpoint of the step and `replace` is not set.
        """
        if self._read_only:
            raise ValueError(f"{self._folder} was opened to be read only")
        if step in self.steps() and not replace:
            raise ValueError(f"there is a checkpoint of step {step} in {self._folder} already")
        texts = {"host/metadata": json.dumps(host)}
        if val_miou is not None:
            texts["metrics/metrics"] = json.dumps({checkpoint_folder.METRIC: val_miou})
        mious = {**self._mious, step: val_miou}
        obsolete = mious.keys() - checkpoint_folder.to_keep(mious) - {step}
        self._mious_then = {s: miou for s, miou in mious.items() if s not in obsolete}
        self._write = CheckpointWrite(self._folder, step, state, texts, obsolete)

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """Reads the state of `step` into the structure, dtypes and shardings of `like` (arrays or
        jax.ShapeDtypeStruct), and the host state.

        Raises:
          ValueError: if it cannot be read, or holds another structure.
        """
        self.wait()
        folder = self._path(step)
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            host = json.loads((folder / "host" / "metadata").read_text())
            state = ocp.StandardCheckpointHandler().restore(
                epath.Path(folder / "state"), args=ocp.args.StandardRestore(like)
            )
        except Exception as error:  # Orbax and TensorStore raise bare Exception among others
            others = [s for s in self.steps() if s != step]
            remedy = f"remove it to go on from step {others[-1]}" if others else "train anew"
            raise ValueError(
                f"checkpoint {folder} cannot be read: {_first_line(error)}; {remedy}"
            ) from error
        return state, host

    def restore_variables(self, step: int | None = None) -> Any:
        """Reads only what a model is evaluated with: {"params", "batch_stats"} of `step`, or their
        running average where the run kept one. They lie on this process's first device.

        Without `step` it is the best one; where that cannot be read, the newest that can be, with
        a warning.

        Raises:
          ValueError: if there is no checkpoint, none of that step, or none that can be read.
        """
        steps, problems = self.steps(), list(self._damaged.values())
        if not steps and problems:
            raise ValueError(f"{'; '.join(problems)}; train anew, or copy the run once more")
        if not steps:
            raise ValueError(f"{self._folder} is empty; train first")
        if step is not None and step not in steps:
            damaged = f" ({self._damaged[step]})" if step in self._damaged else ""
            raise ValueError(f"there is no checkpoint of step {step}{damaged}; there are {steps}")
        best = self.best_step()
        wanted = [best, *(s for s in steps[::-1] if s != best)] if step is None else [step]
        for found in wanted:
            folder = self._path(found)
            try:
                variables = _read_variables(folder / "state")
            except Exception as error:  # Orbax and TensorStore raise bare Exception among others
                problems.append(f"checkpoint {folder} cannot be read: {_first_line(error)}")
                continue
            for problem in problems if step is None else ():
                _warn(f"{problem}; that of step {found} is used")
            return variables
        others = [s for s in steps if s not in wanted]
        remedy = f"use another step: {others}" if others else "train anew"
        raise ValueError(f"{'; '.join(problems)}; {remedy}")

    def _path(self, step: int) -> pathlib.Path:
        """Where a checkpoint lies: where it was found if that is not where it belongs."""
        return self._paths.get(step, self._folder / str(step))


def _open_for_writing(folder: pathlib.Path) -> dict[int, float | None]:
    """Readies the folder in process 0; the val mIoU of each checkpoint, the same in all processes.

    Raises:
      OSError: in all, if it cannot be written to.
    """
    found, problem = {}, ""
    if jax.process_index() == 0:
        try:
            checkpoint_folder.tidy(folder)
            found = checkpoint_folder.val_mious(checkpoint_folder.stored(folder)[0])
        except OSError as error:
            problem = f"{folder} cannot be written to: {error}"
    said = agreement.from_first(
        f"checkpoints/{next(_numbers)}", json.dumps([problem, sorted(found.items())])
    )
    problem, found = json.loads(said)
    if problem:
        raise OSError(problem)
    return dict(found)


def _read_variables(folder: pathlib.Path) -> Any:
    """The variables in a checkpoint's `state` folder."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    reader, folder = ocp.PyTreeCheckpointHandler(), epath.Path(folder)
    stored = reader.metadata(folder).tree
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


def _warn(text: str) -> None:
    """Once for all processes, in the name of whoever called the store."""
    if jax.process_index() == 0:
        warnings.warn(text, stacklevel=3)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
