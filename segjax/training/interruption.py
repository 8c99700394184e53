"""SIGTERM and SIGINT: the run finishes its step, saves, and ends with an exit code of its own."""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading

import jax
from jax.experimental import multihost_utils

# Of a run that was asked to stop and goes on from there when it is started again: EX_TEMPFAIL of
# sysexits.h, "the user is invited to retry". Schedulers can be told to start it again.
EXIT_INTERRUPTED = 75
EXIT_SECOND_SIGINT = 128 + signal.SIGINT
# For the loop to hear of a signal itself; after it, it is taken to be stuck in a compilation.
_GRACE_S = 1.0


class Interrupted(Exception):
    """The run was asked to stop, and has been saved."""


class Interruption:
    """Listens for SIGTERM and SIGINT, as a context; on leaving it the old handlers are back.

    The first signal is answered by a line on stderr, and by what `requested` returns. A second
    SIGINT ends the process at once, with code 130. While `unsaved` is false the first signal ends
    the process too, with code 75, if the main thread does not hear of it within a second. Both
    hold whatever the main thread does: in a compilation of minutes Python runs no handlers, so a
    thread of its own reads the signals from a socket.

    In many processes (`jax.process_count() > 1`) all must stop at the same step. JAX agrees on it,
    so SIGTERM is left to the handler of `jax.distributed.initialize`, SIGINT becomes SIGTERM, and
    no process ends before the others, but by a second SIGINT. After the context SIGTERM ends the
    process, which JAX's handler would have swallowed. What JAX counts are the calls of `requested`:
    nothing else may ask it, as Orbax's CheckpointManager does, by its own steps.

    Outside the main thread, where Python sets no handlers, it changes nothing.

    Attributes:
      unsaved: whether ending now would lose something: set by the loop, true from the first step
        on, false when a checkpoint of all that was done is written (not: being written).
      asked: the last answer of `requested`.
    """

    def __init__(self):
        self.unsaved = False
        self.asked = ""
        self._signal = ""  # the first one
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
        """The signal that the run shall stop for, "SIGTERM" or "SIGINT"; "" before there is one.

        To be called by all processes alike, as often: after each step and each batch of an
        evaluation. It then says the same in all of them ("SIGTERM" where the signal came to
        another process).
        """
        if not self._many:
            self.asked = self._signal
        elif not self.asked:
            self._polls += 1  # from 1: where a notice from before the first poll stops the run
            if multihost_utils.reached_preemption_sync_point(self._polls):
                self.asked = self._signal or "SIGTERM"
                if not self._signal:  # SIGTERM, which is not ours to hear
                    _say_what_follows("SIGTERM")
        if self.asked:
            self._heard.set()
        return self.asked

    def _handle(self, number: int, _) -> None:
        """What Python runs in the main thread, as soon as it can."""
        self._signal = self._signal or signal.Signals(number).name

    def _listen(self) -> None:
        """Answers signals at the moment they come, in a thread of its own."""
        seen = set()
        while numbers := self._inbox.recv(64):
            for number in numbers:
                if number == signal.SIGINT and number in seen:
                    self._end(EXIT_SECOND_SIGINT)
                if number in self._old and number not in seen:  # others may have handlers too
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
        """Ends this process and its workers, now."""
        kill_workers()
        os._exit(code)


def _say_what_follows(name: str) -> None:
    at_once = "; a second one stops at once" if name == "SIGINT" else ""
    say(f"{name}: the step is finished and saved, then the run stops{at_once}")


def say(line: str) -> None:
    """Prints a line to stderr."""
    with contextlib.suppress(OSError, ValueError):  # stderr may be closed
        print(line, file=sys.stderr, flush=True)


def kill_workers() -> None:
    """Ends the processes that this one has started, now."""
    with contextlib.suppress(Exception):
        for worker in multiprocessing.active_children():
            worker.kill()
