"""How the processes of a run end together.

A process that fails tells the others why, so that all end at once and say it. One that dies without
a word is missed by `jax.distributed`, which then aborts the others; they say what that means.
"""

import atexit
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

import jax

from segjax.training.interruption import Interrupted, kill_workers, say

EXIT_BUG, EXIT_USER_ERROR, EXIT_SIGINT = 1, 2, 128 + signal.SIGINT
# Of a process that has lost another one, and did nothing wrong itself.
EXIT_LOST = 76
# Seconds without a sign of life after which JAX takes a process for dead.
HEARTBEAT_S = 30
# What JAX may need on top of that to end the others.
_VERDICT_S = 20
# How long a process that ends waits for the checkpoint it is writing.
_WRITE_S = 20
_POLL_S = 1.0
_WRITER = "save_finalize"  # the thread of Orbax's CheckpointManager
# What each process puts into the store of `jax.distributed`, as FOLDER/NUMBER.
_ENDED, _LEFT, _DONE = "segjax/ended", "segjax/left", "segjax/done"
_AGAIN = "start all again: the run resumes from its last checkpoint"

_others: "_Others | None" = None


def with_others(number: int, count: int, abort: "OnAbort") -> None:
    """From now on this process, the `number`-th of `count`, ends with the others."""
    global _others
    abort.message = (
        f"process {number} of {count} was aborted, for the reason above: most likely another one "
        f"has ended, or no longer answers. See what that one says, then {_AGAIN}"
    )
    _others = _Others(number, count, abort)


@contextlib.contextmanager
def together(*expected: type[Exception]) -> Iterator[None]:
    """A context whose exceptions end all processes, in each with a message and an exit code, and
    without a wait for the others. They pass where this process is by itself, and `Interrupted`
    passes: there all of them stop.

    Args:
      expected: errors of the user's, whose text is all that is printed; exit code 2.
    """
    try:
        yield
    except Interrupted:
        raise
    except BaseException as error:
        if _others is None:
            raise
        if isinstance(error, expected) and not isinstance(error, ConnectionError):
            say(f"error: {error}")
            _others.end(str(error), EXIT_USER_ERROR)
        if isinstance(error, KeyboardInterrupt):
            _others.end("", EXIT_SIGINT)
        if isinstance(error, jax.errors.JaxRuntimeError | ConnectionError):
            _others.hear_first(error)
        traceback.print_exc()
        _others.end(f"{type(error).__name__}: {error}", EXIT_BUG)


class _Others:
    """Hears whether another process fails, and tells the others if this one does."""

    def __init__(self, number: int, count: int, abort: "OnAbort"):
        self._number, self._count, self._abort = number, count, abort
        self._leaving = False
        self._thread = threading.Thread(target=self._listen, name="processes", daemon=True)
        self._thread.start()
        # Python calls it before what JAX registered, which ends the connection.
        atexit.register(self._done)

    def end(self, message: str, code: int) -> NoReturn:
        """Ends this process now; `atexit` would wait for the others, and they for this one."""
        self._leaving = True
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._put(_ENDED, f"{code}\n{message}")
        time.sleep(2 * _POLL_S)  # the others shall hear of it before they miss this one
        self._leave(code)

    def hear_first(self, error: Exception) -> None:
        """Waits: the error may come of the end of another process, which says so soon, or of its
        death, which JAX is about to notice; in both cases this one does not come back from here."""
        time.sleep(3 * _POLL_S)
        say(
            f"process {self._number} of {self._count}: {str(error).splitlines()[0]} (waiting "
            f"{HEARTBEAT_S + _VERDICT_S} s to hear whether another process has died)"
        )
        time.sleep(HEARTBEAT_S + _VERDICT_S)

    def _done(self) -> None:
        """Waits until all are done, or one fails even now."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._put(_DONE, "")
        self._thread.join()

    def _listen(self) -> None:
        while not self._leaving:
            try:
                ended, done = self._listed(_ENDED), self._listed(_DONE)
            except jax.errors.JaxRuntimeError:
                return  # JAX is about to end this process
            if ended and not self._leaving:
                self._follow(*ended[0])
            if len(done) == self._count:
                return
            time.sleep(_POLL_S)

    def _follow(self, key: str, text: str) -> NoReturn:
        code, _, why = text.partition("\n")
        say(
            f"error: process {key.rpartition('/')[2]} of {self._count} has ended"
            f"{f': {why}' if why else ''}. Process {self._number} ends too; when that is mended, "
            f"{_AGAIN}"
        )
        self._leave(int(code))

    def _leave(self, code: int) -> NoReturn:
        # A checkpoint that all processes have begun to write is finished without their main
        # threads; not so if one of them has died.
        for thread in threading.enumerate():
            if thread.name == _WRITER:
                thread.join(_WRITE_S)
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._put(_LEFT, "")
            if self._number == 0:  # who holds the connection, without which the others are aborted
                deadline = time.monotonic() + _WRITE_S + 3 * _POLL_S
                while len(self._listed(_LEFT)) < self._count and time.monotonic() < deadline:
                    time.sleep(_POLL_S)
        _exit(code)

    def _put(self, folder: str, text: str) -> None:
        jax._src.distributed.global_state.client.key_value_set(f"{folder}/{self._number}", text)

    def _listed(self, folder: str) -> list[tuple[str, str]]:
        return jax._src.distributed.global_state.client.key_value_dir_get(folder)


class OnAbort:
    """Has C++ code that aborts this process end it with a message and `EXIT_LOST` instead.

    That is how JAX ends a process that loses its connection to the others: it logs the reason and
    calls `abort()`, in a thread of its own, whatever the main thread waits for. Python's handlers
    of SIGABRT would never run; this one is C's, where there is a C library to ask.

    Attributes:
      message: a sentence for the user.
    """

    def __init__(self, message: str):
        self.message = message
        self._handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._end)  # kept, since C holds it
        self._signal = None
        with contextlib.suppress(OSError, AttributeError):
            self._signal = ctypes.CDLL(None).signal
            self._signal.argtypes = ctypes.c_int, ctypes.c_void_p
            self._signal.restype = ctypes.c_void_p
            handler = ctypes.cast(self._handler, ctypes.c_void_p)
            self._old = self._signal(signal.SIGABRT, handler)

    def restore(self) -> None:
        """Puts the handler back that was there before."""
        if self._signal:
            self._signal(signal.SIGABRT, self._old)

    def _end(self, _) -> None:
        with contextlib.suppress(OSError):
            os.write(2, f"error: {self.message}\n".encode())
        _exit(EXIT_LOST)


def _exit(code: int) -> NoReturn:
    """Ends this process and its workers at once, whatever its threads are doing."""
    kill_workers()
    with contextlib.suppress(Exception):  # in a thread: the main one may hold the stream's lock
        flushing = threading.Thread(target=sys.stdout.flush, daemon=True)
        flushing.start()
        flushing.join(1)
    os._exit(code)
