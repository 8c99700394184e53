"""Checkpoints (Orbax): `checkpoints/latest` holds the newest two, `checkpoints/best` the one of the
highest val mIoU."""

import contextlib
import json
import logging
import os
import pathlib
import re
import shutil
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from segjax.training.distributed import barrier, gather, is_first

# For one write, including the wait for the other processes' parts.
_TIMEOUT_S = 600


class CheckpointStore:
    """The `checkpoints/` folder of a run, written by two of Orbax's managers in the background.

    `latest/STEP` holds the device state (a pytree) and the host state (JSON: run state, data
    iterator). `best/STEP` holds the variables to evaluate with, {"params", "batch_stats"}, and
    their val mIoU. A checkpoint appears when it is complete.

    A full disk does not end a run of one process: a warning names what was not written, the older
    checkpoints stay, and the next save tries again. A run of several processes ends with an error.

    All processes of a run make the store and call its methods at the same points; process 0 gives
    the warnings. A read-only store needs no other process.

    Raises:
      ValueError: if the store is read-only and there is no such folder.
      OSError: if the folder cannot be made.
    """

    def __init__(self, workdir: str | pathlib.Path, *, read_only: bool = False):
        self._folder = epath.Path(workdir).resolve() / "checkpoints"
        self._managers: dict[str, _Manager] = {}
        self._error: Exception | None = None
        if read_only:
            if not self._folder.is_dir():
                raise ValueError(f"workdir {workdir} has no checkpoints yet; train first")
            return
        logging.getLogger("absl").addFilter(_is_no_failed_write)
        try:
            self._open_managers()
        except OSError as error:
            raise OSError(f"{self._folder} cannot be written to: {error}") from error
        self._best_miou = gather(self._read_best_miou())[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Waits for what is being written, as `wait`."""
        try:
            self.wait()
        finally:
            self._close_managers()

    def wait(self) -> None:
        """Waits until nothing is being written; warns if the disk refused it.

        Raises:
          OSError: instead of the warning, in a run of several processes.
        """
        try:
            self.finish()
        except OSError as error:
            if jax.process_count() > 1:
                raise
            _warn(f"{error}; the run goes on, the next save tries again")
            self._close_managers()
            self._open_managers()

    def finish(self) -> None:
        """Waits for the last save.

        Raises:
          OSError: if the disk refused it.
        """
        for manager in self._managers.values():
            try:
                manager.wait_until_finished()
            except Exception as error:  # TensorStore raises ValueError among others
                self._error = error
        error, self._error = self._error, None
        if error and (problem := _disk_problem(error)):
            checkpoint = f"the checkpoint of step {self._saving}"
            raise OSError(f"{checkpoint} was not written to {self._folder}: {problem}") from error
        if error:
            raise error

    def save(self, step: int, state: Any, host: Mapping[str, Any]) -> None:
        """Starts to write `latest/STEP`, after the end of the save before.

        Args:
          step: finished updates.
          state: a pytree of global JAX arrays, sharded in any way. It is copied when this returns.
          host: what JSON can hold; process 0 writes its own.

        Raises:
          ValueError: if there is a checkpoint of this step.
        """
        self.wait()
        self._write("latest", step, state, host)

    def save_best(self, step: int, variables: Any, val_miou: float) -> None:
        """Writes `best/STEP` unless the best checkpoint has a higher val mIoU, and waits for it.

        Called before `save` of the same step: a run that is killed in between resumes before this
        evaluation and repeats it.
        """
        steps = self._steps("best")
        if steps and val_miou < self._best_miou:
            return
        for later in [s for s in steps if s >= step]:  # from before such a kill
            self._managers["best"].delete(later)
        self._write("best", step, variables, {"val_miou": val_miou})
        if step in self._steps("best"):
            self._best_miou = val_miou

    def latest_step(self) -> int | None:
        """The newest step in `latest`; waits for what is being written."""
        return max(self._steps("latest"), default=None)

    def best_step(self) -> int | None:
        """The step that `restore_variables` reads first: in `best`, else the newest."""
        return next((step for step, _ in self._readable()), None)

    def steps(self) -> list[int]:
        """All steps that `restore_variables` can read, ascending."""
        return sorted({step for step, _ in self._readable()})

    def restore(self, step: int, like: Any) -> tuple[Any, Mapping[str, Any]]:
        """Reads `latest/STEP`: the state, in the structure, dtypes and shardings of `like` (arrays
        or jax.ShapeDtypeStruct), and the host state.

        Raises:
          ValueError: if it cannot be read, or has another structure.
        """
        folder = self._folder / "latest" / str(step)
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            # Without the manager, whose barriers would hang if one process cannot read.
            host = ocp.JsonCheckpointHandler().restore(folder / "host")
            state = ocp.StandardCheckpointHandler().restore(
                folder / "state", args=ocp.args.StandardRestore(like)
            )
        except Exception as error:  # Orbax and TensorStore raise bare Exception among others
            raise ValueError(_unreadable(folder, error)) from error
        return state, host

    def restore_latest(self, like: Any) -> tuple[int, Any, Mapping[str, Any]] | None:
        """Reads step, state and host state of the newest readable checkpoint, as `restore`; None if
        there is no checkpoint. Newer, damaged ones are renamed to STEP.damaged, with a warning.

        Raises:
          ValueError: if there are checkpoints and none can be read.
        """
        problems: dict[int, str] = {}
        for step in reversed(self._steps("latest")):
            try:
                restored, problem = self.restore(step, like), None
            except ValueError as error:
                restored, problem = None, str(error)
            texts = [text for text in gather(problem) if text]
            if restored and not texts:
                for damaged, text in problems.items():
                    self._set_aside(damaged, text)
                return step, *restored
            problems[step] = texts[0]
        if problems:
            raise ValueError(
                f"{'; '.join(problems.values())}; there is no other checkpoint: resume with the "
                f"version and the model that wrote it, or remove {self._folder} to train anew"
            )
        return None

    def restore_variables(self, step: int | None = None) -> dict[str, Any]:
        """Reads the variables to evaluate with, {"params", "batch_stats"}: their running average if
        the run keeps one. They lie on the first device of this process.

        Args:
          step: None for the best one. If that is damaged, the newest other one is read, with a
            warning.

        Raises:
          ValueError: if there is no checkpoint, none of that step, or none that can be read.
        """
        readable, problems = self._readable(), []
        if not readable:
            raise ValueError(f"{self._folder} is empty; train first")
        chosen = [(s, folder) for s, folder in readable if step in (None, s)]
        if not chosen:
            raise ValueError(f"there is no checkpoint of step {step}; there are {self.steps()}")
        for found, folder in chosen:
            try:
                variables = _read_variables(folder / "state")
            except Exception as error:  # Orbax and TensorStore raise bare Exception among others
                problems.append(_unreadable(folder, error))
                continue
            for problem in problems:
                _warn(f"{problem}; that of step {found} is used")
            return variables
        others = [s for s in self.steps() if s not in dict(chosen)]
        remedy = f"use another step: {others}" if others else "train anew, or copy the run again"
        raise ValueError(f"{'; '.join(problems)}; {remedy}")

    def _steps(self, part: str) -> list[int]:
        """The steps in `best` or `latest`, ascending."""
        if not self._managers:
            return steps_in(self._folder / part)
        self.wait()
        # A network file system may show them late to the other processes.
        return gather(sorted(self._managers[part].all_steps()))[0]

    def _readable(self) -> list[tuple[int, epath.Path]]:
        """Step and folder of each checkpoint, in reading order."""
        parts = [(s, part) for part in ("best", "latest") for s in reversed(self._steps(part))]
        return [(s, self._folder / part / str(s)) for s, part in parts] or _earlier(self._folder)

    def _read_best_miou(self) -> float:
        """The val mIoU of the best checkpoint; -1 where there is none."""
        for step in reversed(self._steps("best")):
            path = self._folder / "best" / str(step) / "host"
            try:
                return float(ocp.JsonCheckpointHandler().restore(path)["val_miou"])
            except (OSError, ValueError, KeyError):
                continue
        return -1.0

    def _write(self, part: str, step: int, state: Any, host: Mapping[str, Any]) -> None:
        self._saving = step
        self._remove_unfinished()
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), host=ocp.args.JsonSave(dict(host))
        )
        try:
            self._managers[part].save(step, args=args, force=True)
        except OSError as error:  # no room for a folder
            self._error = error
            if jax.process_count() > 1:
                self.finish()

    def _open_managers(self) -> None:
        self._remove_unfinished()
        # Folders made asynchronously, if there is no room for them, end in a timeout.
        waiting = ocp.AsyncOptions(timeout_secs=_TIMEOUT_S, create_directories_asynchronously=False)
        for part, keep in {"best": 1, "latest": 2}.items():
            policy = ocp.checkpoint_managers.LatestN(keep)
            options = ocp.CheckpointManagerOptions(
                preservation_policy=policy, async_options=waiting
            )
            self._managers[part] = _Manager(self._folder / part, options=options)

    def _close_managers(self) -> None:
        for manager in self._managers.values():
            # A failed write may raise more errors than the reported one.
            with contextlib.suppress(Exception):
                manager.close()
        if self._managers:
            self._remove_unfinished()

    def _remove_unfinished(self) -> None:
        """Removes the temporary folders of interrupted writes. The manager's own clean-up fails
        where TensorStore still adds files after a failed write."""
        if is_first():
            for path in self._folder.glob(f"*/*{ocp.utils.TMP_DIR_SUFFIX}*"):
                shutil.rmtree(path, ignore_errors=True)

    def _set_aside(self, step: int, problem: str) -> None:
        """Renames a checkpoint, so that its step can be written again."""
        folder = self._folder / "latest"
        if is_first():
            number = len(list(folder.glob(f"{step}.damaged*")))
            name = f"{step}.damaged{number or ''}"
            (folder / str(step)).rename(folder / name)
            _warn(f"{problem}; it is renamed to {name}, and the one before it is used")
        barrier("damaged checkpoint is renamed")
        self._managers["latest"].reload()


class _Manager(ocp.CheckpointManager):
    """Orbax's manager without its own check for preemption: JAX counts the calls that ask for it,
    and `Interruption` makes them."""

    def reached_preemption(self, step: int) -> bool:
        return False


def steps_in(folder: str | os.PathLike) -> list[int]:
    """The steps whose checkpoints lie in a folder, ascending."""
    if not os.path.isdir(folder):
        return []
    return sorted(found.step for found in ocp.path.step.standard_name_format().find_all(folder))


def has_checkpoint(workdir: str | pathlib.Path | None) -> bool:
    """Whether a training in `workdir` resumes.

    Raises:
      ValueError: for checkpoints that training cannot resume from: of an earlier version, or of
        --mode=recalibrate.
    """
    if not workdir:
        return False
    checkpoints = pathlib.Path(workdir) / "checkpoints"
    latest, origin = steps_in(checkpoints / "latest"), ""
    if steps_in(checkpoints):
        origin = "is from an earlier version of segjax"
    elif not latest and _is_recalibrated(pathlib.Path(workdir)):
        origin = "was made by --mode=recalibrate and holds no state of the optimiser"
    if origin:
        raise ValueError(
            f"workdir {workdir} {origin}: evaluate, predict and export read it, but it cannot be "
            f"trained further; train in another workdir, with --config.init_from={workdir} from "
            "its best weights"
        )
    return bool(latest)


def _is_recalibrated(workdir: pathlib.Path) -> bool:
    """Whether run.json names an origin of the batch normalisation statistics."""
    try:
        return "batch_stats" in json.loads((workdir / "run.json").read_text())["environment"]
    except (OSError, ValueError, KeyError):
        return False


def _earlier(folder: epath.Path) -> list[tuple[int, epath.Path]]:
    """The checkpoints of earlier versions, checkpoints/STEP, the best one first."""

    def val_miou(step: int) -> float:
        try:
            return json.loads((folder / str(step) / "metrics/metrics").read_text())["val_miou"]
        except (OSError, ValueError, KeyError):
            return -1.0

    steps = sorted(steps_in(folder), key=lambda step: (val_miou(step), step), reverse=True)
    return [(step, folder / str(step)) for step in steps]


def _read_variables(folder: epath.Path) -> dict[str, Any]:
    """The variables in a checkpoint's `state` folder."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    reader = ocp.PyTreeCheckpointHandler()
    stored = reader.metadata(folder).tree
    names = ("ema",) if stored.get("ema") else ("params", "batch_stats")
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        {name: stored[name] for name in names},
    )
    restore_args = ocp.checkpoint_utils.construct_restore_args(like)
    restored = reader.restore(
        folder,
        args=ocp.args.PyTreeRestore(like, restore_args=restore_args, partial_restore=True),
    )
    return restored.get("ema", restored)


def _disk_problem(error: BaseException | None) -> str | None:
    """The file system's message (no space left on device, quota exceeded, ...) in an error or its
    causes; None if there is none."""
    timeout = None
    while error is not None:
        if isinstance(error, TimeoutError) or "Barrier timed out" in str(error):
            timeout = "a process did not write its part in time"
        elif isinstance(error, OSError):
            return error.strerror or str(error) or type(error).__name__
        # TensorStore raises ValueErrors whose text ends so.
        elif code := re.search(r"os_error_code='(\d+)'", str(error)):
            return os.strerror(int(code[1]))
        error = error.__cause__ or error.__context__
    return timeout


def _is_no_failed_write(record: logging.LogRecord) -> bool:
    """Keeps the tracebacks of Orbax's threads, a page for each failed write, out of the log."""
    failed = record.exc_info and _disk_problem(record.exc_info[1])
    return not (failed and "orbax" in record.pathname)


def _unreadable(folder: epath.Path, error: Exception) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"checkpoint {folder} cannot be read: {reason}"


def _warn(text: str) -> None:
    if is_first():
        warnings.warn(text, stacklevel=3)
