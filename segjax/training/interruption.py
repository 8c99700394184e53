"""SIGTERM and SIGINT: the run finishes its step, saves, and ends with an exit code of its own."""

import contextlib
import multiprocessing
import os
import signal
import socket
import threading

import jax
from jax.experimental import multihost_utils

from segjax.terminal import say

# A run that was asked to stop resumes when it is started again, which schedulers can be told to do:
# EX_TEMPFAIL of sysexits.h, "the user is invited to retry".
EXIT_INTERRUPTED = 75
EXIT_SECOND_SIGINT = 128 + signal.SIGINT
# The loop has this long to notice a signal itself; then it is taken to be stuck in a compilation.
_GRACE_S = 1.0


class Interrupted(Exception):
    """The run was asked to stop, and has been saved."""


class Interruption:
    """A context that listens for SIGTERM and SIGINT; the old handlers return when it ends.

    The first signal prints a line on stderr, and `requested` returns its name from then on. A
    second SIGINT ends the process at once, with code 130. While `unsaved` is false, the first
    signal also ends the process, with code 75, if the main thread does not ask within a second.
    Both work in a compilation of minutes, when Python runs no handlers in the main thread: another
    thread reads the signals from a socket.

    The processes of a run (`jax.process_count() > 1`) must all stop at the same step. JAX decides
    which: it handles SIGTERM, SIGINT is turned into SIGTERM, and only a second SIGINT ends one
    process before the others. After the context SIGTERM ends the process, which JAX's handler would
    ignore. JAX counts the calls of `requested`, so nothing else may ask it; Orbax's
    CheckpointManager would (see `checkpoint._Manager`).

    Outside the main thread, where Python sets no handlers, the context does nothing.

    Attributes:
      unsaved: whether ending now would lose work; the loop sets it at its first step.
      asked: the last result of `requested`.
    """

    def __init__(self):
        self.unsaved = False
        self.asked = ""
        self._signal = ""  # name of the first one
        self._heard = threading.Event()
        self._polls = 0
        self._many = False
        self._listens = False

    def __enter__(self):
        self._many = jax.process_count() > 1
        if threading.current_thread() is threading.main_thread():
            self._inbox, self._outbox = socket.socketpair()
            self._outbox.setblocking(False)
            fd = self._outbox.fileno()
            self._old_fd = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
            ours = (signal.SIGINT,) if self._many else (signal.SIGINT, signal.SIGTERM)
            self._old = {number: signal.signal(number, self._handle) for number in ours}
            self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
            self._thread.start()
            self._listens = True
        return self

    def __exit__(self, *_):
        self._heard.set()
        if not self._listens:
            return
        for number, handler in self._old.items():
            signal.signal(number, handler)
        if self._many:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.set_wakeup_fd(self._old_fd)
        self._outbox.close()  # which ends the thread
        self._thread.join()
        self._inbox.close()
        self._listens = False

    def requested(self) -> str:
        """The signal that asks the run to stop, "SIGTERM" or "SIGINT"; "" if there is none.

        All processes call it equally often: after each step and each batch of an evaluation. All
        get a signal at the same call ("SIGTERM" if another process received it).
        """
        if not self._many:
            self.asked = self._signal
        elif not self.asked:
            self._polls += 1  # from 1, at which JAX reports a signal from before the first call
            if multihost_utils.reached_preemption_sync_point(self._polls):
                self.asked = self._signal or "SIGTERM"
                if not self._signal:  # JAX handles SIGTERM
                    _say_what_follows("SIGTERM")
        if self.asked:
            self._heard.set()
        return self.asked

    def _handle(self, number: int, _) -> None:
        """Python calls it in the main thread, as soon as that runs Python again."""
        self._signal = self._signal or signal.Signals(number).name

    def _listen(self) -> None:
        """The thread: answers signals when they arrive."""
        seen = set()
        while numbers := self._inbox.recv(64):
            for number in numbers:
                if number == signal.SIGINT and number in seen:
                    self._end(EXIT_SECOND_SIGINT)
                if number in self._old and number not in seen:  # other code may handle others
                    seen.add(number)
                    self._answer(signal.Signals(number).name)

    def _answer(self, name: str) -> None:
        self._signal = self._signal or name
        _say_what_follows(name)
        if self._many:
            os.kill(os.getpid(), signal.SIGTERM)
        elif not self.unsaved:
            timer = threading.Timer(_GRACE_S, self._end_if_stuck)
            timer.daemon = True
            timer.start()

    def _end_if_stuck(self) -> None:
        if not self._heard.is_set() and not self.unsaved:
            say(f"{self._signal}: nothing was unsaved; the run has stopped")
            self._end(EXIT_INTERRUPTED)

    def _end(self, code: int) -> None:
        """Ends this process and its workers at once."""
        kill_workers()
        os._exit(code)


def _say_what_follows(name: str) -> None:
    at_once = "; a second one stops at once" if name == "SIGINT" else ""
    say(f"{name}: the step is finished and saved, then the run stops{at_once}")


def kill_workers() -> None:
    """Kills the child processes of this process."""
    with contextlib.suppress(Exception):
        for worker in multiprocessing.active_children():
            worker.kill()
