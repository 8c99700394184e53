"""Checkpoints (Orbax): `checkpoints/latest` holds the newest two, `checkpoints/best` the one of the
highest val mIoU."""

import contextlib
import logging
import pathlib
import shutil
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from segjax.terminal import one_line
from segjax.training import checksums
from segjax.training.checkpoint_errors import disk_problem, is_no_traceback, reason
from segjax.training.distributed import barrier, gather, is_first
from segjax.training.plain_path import PlainPath
from segjax.training.run_record import load_record
from segjax.training.stored_checkpoint import (
    earlier_steps,
    is_step,
    read_host,
    read_miou,
    read_state,
    read_variables,
    steps_in,
    write_checksums,
)

# For one write, including the wait for the other processes' parts.
_TIMEOUT_S = 600
_KEPT = {"best": 1, "latest": 2}


class CheckpointStore:
    """The `checkpoints/` folder of a run, written by two of Orbax's managers in the background.

    `latest/STEP` holds the device state (a pytree) and the host state (JSON: run state, data
    iterator). `best/STEP` holds the variables to evaluate with, {"params", "batch_stats"}, and
    their val mIoU. A checkpoint appears when it is complete, has been opened as a reader does, and
    has checksums; these are compared before it is read.

    A full disk does not end a run of one process: a warning names what was not written, the older
    checkpoints stay, and the next save tries again. So it is where a checkpoint cannot be read
    after it was written, or is gone. A run of several processes ends with an error.

    All processes of a run make the store and call its methods at the same points; process 0 gives
    the warnings.

    Raises:
      ValueError: if the store is read-only and there is no such folder.
      OSError: if the folder cannot be made.
    """

    def __init__(self, workdir: str | pathlib.Path, *, read_only: bool = False):
        self._folder = pathlib.Path(workdir).resolve() / "checkpoints"
        self._shown = one_line(self._folder)
        self._managers: dict[str, _Manager] = {}
        self._plain: PlainPath | None = None
        self._error: Exception | None = None
        self._saving: tuple[str, int, Any, Mapping[str, Any]] = ("", -1, None, {})
        self._best_miou = -1.0
        if read_only:
            if not self._folder.is_dir():
                raise ValueError(f"workdir {workdir} has no checkpoints yet; train first")
            self._plain = PlainPath(self._folder)
            return
        logging.getLogger("absl").addFilter(is_no_traceback)
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise OSError(f"{self._shown} cannot be written to: {error}") from error

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind and jax.process_count() > 1:
            self._close()  # the others may not come to where all look at what is stored
        else:
            self.close()

    def close(self) -> None:
        """Waits for what is being written, as `wait`."""
        try:
            self.wait()
        finally:
            self._close()

    def wait(self) -> None:
        """Waits until nothing is being written; warns if it could not be.

        Raises:
          OSError: instead of the warning, in a run of several processes.
        """
        try:
            self.finish()
        except OSError as error:
            if jax.process_count() > 1:
                raise
            _warn(f"{error}; the run goes on, the next save tries again")
            self._close()
            with contextlib.suppress(OSError):  # the next save tries that again, too
                self._open()

    def finish(self) -> None:
        """Waits for the last save. Warns of older checkpoints that something else has removed.

        Raises:
          OSError: if the disk refused the last save, it could not be read after it, or is gone.
        """
        for manager in self._managers.values():
            try:
                manager.wait_until_finished()
            except Exception as error:  # TensorStore raises ValueError among others
                self._error = error
        error, self._error = self._error, None
        part, step, *_ = self._saving
        not_written = f"the checkpoint of step {step} was not written to {self._shown}"
        if error:
            raise OSError(f"{not_written}: {disk_problem(error) or self._reason(error)}") from error
        if lost := self._lost():
            self._close()
            if f"{part}/{step}" in lost:
                raise OSError(f"{not_written}, or is gone: something else removed it")
            _warn(f"{self._shown} has lost {', '.join(lost)}: something else removed them")
            self._open()

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

    @property
    def best_miou(self) -> float:
        """The val mIoU of the best checkpoint of a run that trains; -1 where there is none, or none
        that can be read: the next evaluation is the best then. Waits for what is being written."""
        self.wait()
        return self._best_miou

    def latest_step(self) -> int | None:
        """The newest step in `latest`; waits for what is being written."""
        return max(self._steps("latest"), default=None)

    def best_step(self) -> int | None:
        """The step that `restore_variables` reads: in `best`, else the newest. Those that are not
        as they were written are passed over."""
        for step, name in self._readable():
            with contextlib.suppress(ValueError), self._reading(name) as folder:
                checksums.check(folder, step)
                return step
        return None

    def steps(self) -> list[int]:
        """All steps that `restore_variables` can read, ascending."""
        return sorted({step for step, _ in self._readable()})

    def restore(self, step: int, like: Any) -> tuple[Any, Mapping[str, Any]]:
        """Reads `latest/STEP`: the state, in the structure, dtypes and shardings of `like` (arrays
        or jax.ShapeDtypeStruct), and the host state.

        Raises:
          ValueError: if it cannot be read, or has another structure.
        """
        with self._reading(f"latest/{step}") as folder:
            checksums.check(folder, step)
            host = read_host(folder)
            return read_state(folder, like), host

    def restore_latest(
        self, like: Any, use: Callable[[int, Any, Any], Any] = lambda *_: None
    ) -> tuple[int, Any, Mapping[str, Any]] | None:
        """Reads step, state and host state of the newest readable checkpoint, as `restore`; None if
        there is no checkpoint. Newer, damaged ones are renamed to STEP.damaged, with a warning.

        Args:
          use: called with step, state and host state; an error means that they cannot be used.

        Raises:
          ValueError: if there are checkpoints and none can be read.
        """
        problems: dict[int, str] = {}
        for step in reversed(self._steps("latest")):
            restored, problem = None, None
            try:
                restored = self.restore(step, like)
                with self._reading(f"latest/{step}"):
                    use(step, *restored)
            except ValueError as error:
                problem = str(error)
            texts = [text for text in gather(problem) if text]
            if restored and not texts:
                for damaged, text in problems.items():
                    self._set_aside(damaged, text)
                return step, *restored
            problems[step] = texts[0]
        if problems:
            raise ValueError(
                f"{'; '.join(problems.values())}; there is no other checkpoint: resume with the "
                f"version and the model that wrote it, or remove {self._shown} to train anew"
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
            raise ValueError(f"{self._shown} is empty; train first")
        chosen = [(s, name) for s, name in readable if step in (None, s)]
        if not chosen:
            raise ValueError(f"there is no checkpoint of step {step}; there are {self.steps()}")
        for found, name in chosen:
            variables, problem = {}, None
            try:
                with self._reading(name) as folder:
                    checksums.check(folder, found)
                    variables = read_variables(folder)
            except ValueError as error:
                problem = str(error)
            if texts := [text for text in gather(problem) if text]:
                problems.append(texts[0])
                continue
            for problem in problems:
                _warn(f"{problem}; that of step {found} is used")
            return variables
        others = [s for s in self.steps() if s not in dict(chosen)]
        remedy = f"use another step: {others}" if others else "train anew, or copy the run again"
        raise ValueError(f"{'; '.join(problems)}; {remedy}")

    @property
    def _path(self) -> pathlib.Path:
        """The folder under a path for Orbax."""
        assert self._plain is not None
        return self._plain.path

    def _steps(self, part: str) -> list[int]:
        """The steps in `best` or `latest`, ascending."""
        self.wait()
        steps = steps_in(self._folder / part)
        # A network file system may show them late to the other processes.
        return gather(steps)[0] if self._managers else steps

    def _readable(self) -> list[tuple[int, str]]:
        """Step and path in the folder of each checkpoint, in reading order."""
        parts = [(s, f"{part}/{s}") for part in _KEPT for s in reversed(self._steps(part))]
        return parts or [(s, str(s)) for s in earlier_steps(self._folder)]

    @contextlib.contextmanager
    def _reading(self, name: str):
        """A context that reads a checkpoint: its path, and a ValueError whatever goes wrong."""
        try:
            yield self._path / name
        except Exception as error:  # Orbax and TensorStore raise bare Exception among others
            raise ValueError(
                f"checkpoint {self._shown}/{name} cannot be read: {self._reason(error)}"
            ) from error

    def _reason(self, error: Exception) -> str:
        """What went wrong, with the folder's own name."""
        return reason(error).replace(str(self._path), self._shown)

    def _write(self, part: str, step: int, state: Any, host: Mapping[str, Any]) -> None:
        host = dict(host)
        self._saving = (part, step, jax.tree.map(ocp.utils.to_shape_dtype_struct, state), host)
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), host=ocp.args.JsonSave(host))
        try:
            if not self._managers:
                self._open()
            self._remove_unfinished()
            self._managers[part].save(step, args=args, force=True)
        except OSError as error:  # no room for a folder
            self._error = error
            if jax.process_count() > 1:
                self.finish()

    def _look(self) -> None:
        """Opens what has been written before it gets its name, and adds checksums; by Orbax, in the
        background, in process 0. An error gives up the write, and the older checkpoints stay.

        Raises:
          OSError: if it cannot be read.
        """
        part, step, state, host = self._saving
        try:
            (unfinished,) = (
                path
                for path in (self._path / part).glob(f"{step}{ocp.utils.TMP_DIR_SUFFIX}*")
                if (path / "host").is_dir()  # TensorStore may still write what has been given up
            )
            write_checksums(unfinished, step, state, host)
        except OSError:
            raise
        except Exception as error:  # Orbax and TensorStore raise bare Exception among others
            raise OSError(f"it cannot be read: {reason(error)}") from error

    def _lost(self) -> list[str]:
        """The checkpoints that are gone, as process 0 sees it. The last one may not be cut either;
        what is left of that is renamed."""
        lost = []
        for part, manager in self._managers.items() if is_first() else ():
            if not (self._folder / part).is_dir():
                lost.append(part)
            for step in manager.all_steps():
                folder = self._folder / part / str(step)
                try:
                    folder.stat()
                    if (part, step) == self._saving[:2]:
                        checksums.check(folder, step, read=False)
                except (ValueError, OSError):
                    lost.append(f"{part}/{step}")
                    if folder.exists():
                        _rename(folder)
        return gather(lost)[0] if self._managers else []

    def _open(self) -> None:
        """Opens the folders for writing.

        Raises:
          OSError: if they cannot be made.
        """
        self._folder.mkdir(exist_ok=True)  # in a workdir that is there
        for part in _KEPT:
            (self._folder / part).mkdir(exist_ok=True)
        self._plain = PlainPath(self._folder)
        self._remove_unfinished()
        for part, keep in _KEPT.items():
            for path in (self._folder / part).iterdir() if is_first() else ():
                if is_step(path.name) and not path.is_dir():
                    name = f"{self._shown}/{part}/{path.name}"
                    _warn(f"{name} is no checkpoint; it is renamed to {_rename(path)}")
            waiting = ocp.AsyncOptions(
                timeout_secs=_TIMEOUT_S,
                # If there is no room for folders made asynchronously, they end in a timeout.
                create_directories_asynchronously=False,
                post_finalization_callback=self._look,
            )
            policy = ocp.checkpoint_managers.LatestN(keep)
            options = ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                async_options=waiting,
                lightweight_initialize=True,  # reads no file of an older checkpoint
            )
            self._managers[part] = _Manager(epath.Path(self._path / part), options=options)
        self._best_miou = min(gather(self._read_best_miou()))

    def _read_best_miou(self) -> float:
        """The val mIoU of the best checkpoint; -1 where there is none that can be read."""
        for step in reversed(steps_in(self._folder / "best")):
            try:
                with self._reading(f"best/{step}") as folder:
                    checksums.check(folder, step)
                    if not (folder / checksums.NAME).exists():  # nothing else would tell
                        read_variables(folder)
                    return read_miou(folder)
            except ValueError as error:
                _warn(f"{error}; the best one of the next evaluations takes its place")
        return -1.0

    def _close(self) -> None:
        for manager in self._managers.values():
            # A failed write may raise more errors than the reported one.
            with contextlib.suppress(Exception):
                manager.close()
        if self._managers:
            self._remove_unfinished()
        self._managers.clear()
        if self._plain:
            self._plain.close()

    def _remove_unfinished(self) -> None:
        """Removes the temporary folders of interrupted writes. The manager's own clean-up fails
        where TensorStore still adds files after a failed write."""
        if is_first():
            for path in self._folder.glob(f"*/*{ocp.utils.TMP_DIR_SUFFIX}*"):
                shutil.rmtree(path, ignore_errors=True)

    def _set_aside(self, step: int, problem: str) -> None:
        """Renames a checkpoint, so that its step can be written again."""
        if is_first():
            name = _rename(self._folder / "latest" / str(step))
            _warn(f"{problem}; it is renamed to {name}, and the one before it is used")
        barrier("damaged checkpoint is renamed")
        self._managers["latest"].reload()


class _Manager(ocp.CheckpointManager):
    """Orbax's manager without its own check for preemption: JAX counts the calls that ask for it,
    and `Interruption` makes them."""

    def reached_preemption(self, step: int) -> bool:
        return False


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
        return "batch_stats" in load_record(workdir)["environment"]
    except ValueError:  # who needs the file says what is wrong with it
        return False


def _rename(path: pathlib.Path) -> str:
    """Gives a damaged checkpoint another name, and returns that."""
    number = len(list(path.parent.glob(f"{path.name}.damaged*")))
    name = f"{path.name}.damaged{number or ''}"
    path.rename(path.with_name(name))
    return name


def _warn(text: str) -> None:
    if is_first():
        warnings.warn(text, stacklevel=3)
