"""One checkpoint on its way to the disk, written in the background by all processes."""

import asyncio
import contextlib
import itertools
import json
import logging
import os
import pathlib
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from segjax.training import agreement
from segjax.training.checkpoint_folder import TEMPORARY, delete, put_in_place, remove_leftovers

# All processes save in the same order, so that a number names one save in each.
_numbers = itertools.count()


def write_problem(error: BaseException | None) -> str:
    """What the file system said (no space left on device, quota exceeded, file too large, ...); ""
    if `error` is not about writing."""
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    # TensorStore's errors are ValueErrors whose text ends so.
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[1])) if code else ""


class CheckpointWrite:
    """Writes one checkpoint; made by all processes at the same step.

    When the constructor returns, `state` is copied and may be overwritten. The files are written to
    a temporary folder, which is renamed when all processes have finished their parts. A write that
    fails in one process has failed in all, and its temporary folder is removed.

    Args:
      folder: the run's `checkpoints/`.
      step: names the checkpoint; one of the same step is replaced once this one is complete.
      state: a pytree of NumPy and global JAX arrays.
      texts: further JSON files, path ("host/metadata") to content.
      obsolete: steps to delete once this one is complete.

    Attributes (the lower three are set at the end):
      step, obsolete: as given.
      problem: what the disk had against it, "" if nothing; the same in all processes.
      remarks: what else went wrong, without harm to the checkpoint.
      error: what was raised in the background and has nothing to do with the disk.

    Raises:
      Exception: for a state that cannot be written on any disk.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        step: int,
        state: Any,
        texts: Mapping[str, str],
        obsolete: Iterable[int],
    ):
        self.step, self.obsolete = step, sorted(obsolete)
        self.problem, self.remarks, self.error = "", [], None
        self._folder, self._state, self._texts = folder, state, texts
        self._number = next(_numbers)
        # Numbered, since a broken-off write may still add files to its folder after its removal.
        self._temporary = folder / f"{step}{TEMPORARY}-{self._number}"
        self._copied = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoint")
        _say_failed_writes_once()
        self._thread.start()
        self._copied.wait()
        if self.error:
            raise self.error

    @property
    def busy(self) -> bool:
        return self._thread.is_alive()

    def wait(self) -> None:
        """Waits for the end; see the attributes for how it was."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self.problem = self._write()
        except BaseException as error:  # raised where the end is waited for
            self.error = error
        finally:
            self._copied.set()

    def _write(self) -> str:
        first = jax.process_index() == 0
        problem = _attempt(self._make_folders) if first else ""
        problem = self._from_first("folders", problem)
        if not problem:
            with contextlib.closing(ocp.StandardCheckpointHandler()) as handler:
                problem = self._of_all("written", self._write_own_part(handler))
                if first and not problem:
                    problem = _attempt(lambda: self._commit(handler))
                problem = self._from_first("committed", problem)
        if first and problem:
            shutil.rmtree(self._temporary, ignore_errors=True)
        elif first:
            self._delete_obsolete()
        return problem

    def _make_folders(self) -> None:
        remove_leftovers(self._folder)
        # Orbax has the other processes wait up to 10 minutes until process 0 made the inner one.
        (self._temporary / "state" / "array_metadatas").mkdir(parents=True)

    def _write_own_part(self, handler: ocp.StandardCheckpointHandler) -> str:
        futures = []
        problem = _attempt(lambda: futures.extend(self._start_arrays(handler)))
        self._state = None
        self._copied.set()
        for future in futures:
            problem = problem or _attempt(future.result)
        if jax.process_index() == 0:
            problem = problem or _attempt(self._write_texts)
        return problem

    def _start_arrays(self, handler: ocp.StandardCheckpointHandler) -> list[Any]:
        """Copies the arrays to the host and starts to write them."""
        save = handler.async_save(
            epath.Path(self._temporary / "state"), args=ocp.args.StandardSave(self._state)
        )
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            return loop.run_until_complete(save) or []

    def _write_texts(self) -> None:
        for name, text in self._texts.items():
            path = self._temporary / name
            path.parent.mkdir(exist_ok=True)
            with path.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())  # a network disk may refuse only now

    def _commit(self, handler: ocp.StandardCheckpointHandler) -> None:
        handler.finalize(epath.Path(self._temporary / "state"))
        # What Orbax's own CheckpointManager wants to know of a checkpoint.
        text_type = ocp.JsonCheckpointHandler().typestr()
        types = {name.split("/")[0]: text_type for name in self._texts}
        about = {
            "item_handlers": {"state": handler.typestr(), **types},
            "commit_timestamp_nsecs": time.time_ns(),
        }
        (self._temporary / "_CHECKPOINT_METADATA").write_text(json.dumps(about))
        put_in_place(self._temporary, self._folder / str(self.step))

    def _delete_obsolete(self) -> None:
        for step in self.obsolete:
            path = self._folder / str(step)
            if problem := _attempt(lambda path=path: delete(path)):
                self.remarks.append(f"old checkpoint {path} could not be deleted: {problem}")

    def _from_first(self, stage: str, problem: str) -> str:
        """The problem of process 0, in all."""
        try:
            return agreement.from_first(f"checkpoint/{self._number}/{stage}", problem)
        except ConnectionError as error:
            return str(error)

    def _of_all(self, stage: str, problem: str) -> str:
        """The first problem that a process has, the same in all."""
        try:
            problems = agreement.gather(f"checkpoint/{self._number}/{stage}", problem)
        except ConnectionError as error:
            return str(error)
        if len(problems) == 1:
            return problems[0]
        return next((f"{text} (process {i})" for i, text in enumerate(problems) if text), "")


def _attempt(action: Callable[[], Any]) -> str:
    """Does it; says what the file system had against it, "" if nothing."""
    try:
        action()
    except Exception as error:
        problem = write_problem(error)
        if not problem:
            raise
        return problem
    return ""


def _say_failed_writes_once() -> None:
    """Leaves out of the log what Orbax's threads say of failed writes, a page each."""
    logger = logging.getLogger("absl")
    if _worth_logging not in logger.filters:
        logger.addFilter(_worth_logging)


def _worth_logging(record: logging.LogRecord) -> bool:
    failed = record.exc_info and write_problem(record.exc_info[1])
    return not (failed and "orbax" in record.pathname)
