"""SIGTERM and SIGINT: the run finishes its step, saves, and ends with an exit code of its own."""

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
from jax.experimental import multihost_utils

from segjax.terminal import say

# A run that was asked to stop resumes when it is started again, which schedulers can be told to do:
# EX_TEMPFAIL of sysexits.h, "the user is invited to retry".
EXIT_INTERRUPTED = 75
EXIT_SIGINT = 128 + signal.SIGINT
# The main thread has this long to notice a signal itself; then it is taken to be stuck, as in a
# compilation or a read, if nothing can be lost.
_GRACE_S = 1.0
# The run has this long to finish its step and to save. Schedulers kill after 30 s by default.
LIMIT_S = 25.0


_listening: list["Interruption"] = []  # the contexts that are open, the innermost last


class Interrupted(Exception):
    """The run was asked to stop, and has been saved."""


def ask_to_stop() -> bool:
    """Sends this process SIGTERM if an `Interruption` is open, and returns whether one is."""
    if _listening:
        os.kill(os.getpid(), signal.SIGTERM)
    return bool(_listening)


class Interruption:
    """A context that listens for SIGTERM and SIGINT; the old handlers return when it ends.

    The first signal prints a line on stderr, and `requested` returns its name from then on. A
    second SIGINT ends the process at once, with code 130. While `unsaved` is false, the first
    signal also ends the process, with code 75, if the main thread does not ask within a second. In
    any case it is ended so if it is still in the context after `limit_s`: a save, a read or an
    evaluation may be stuck, and the run resumes from its last checkpoint. All this works in a
    compilation of minutes, when Python runs no handlers in the main thread: another thread reads
    the signals from a socket.

    The processes of a run (`jax.process_count() > 1`) must all stop at the same step. JAX decides
    which: it handles SIGTERM, SIGINT is turned into SIGTERM, and only a second SIGINT or the limit
    ends one process before the others. After the context SIGTERM ends the process, which JAX's
    handler would ignore. JAX counts the calls of `requested`, so nothing else may ask it; Orbax's
    CheckpointManager would (see `checkpoint._Manager`).

    Outside the main thread, where Python sets no handlers, the context does nothing.

    Args:
      at_once: where nobody asks, as after the training, what is saved and what is not. The first
        signal then raises `Interrupted` in the main thread, with this text; one of several
        processes ends, and the others lose it.

    Attributes:
      unsaved: whether ending now would lose work; the loop sets it at its first step.
      asked: the last result of `requested`.
      limit_s: more than 25 s where steps take longer.
      pending: the signal that this process has received; "" if there was none.
    """

    def __init__(self, at_once: str = ""):
        self.unsaved = False
        self.asked = ""
        self.limit_s = LIMIT_S
        self._at_once = at_once
        self.pending = ""  # name of the first one
        self._heard, self._left = threading.Event(), threading.Event()
        self._seen: set[int] = set()
        self._polls = 0
        self._many = False
        self._listening = contextlib.ExitStack()

    def __enter__(self):
        self._many = jax.process_count() > 1
        ours = [signal.SIGINT, signal.SIGTERM]
        by_jax = self._many and not self._at_once
        if by_jax:
            ours.remove(signal.SIGTERM)
        if threading.current_thread() is threading.main_thread():
            self._ours = dict.fromkeys(ours, self._handle)
            if by_jax:
                self._listening.callback(signal.signal, signal.SIGTERM, signal.SIG_DFL)
            chained = signal.SIGTERM if by_jax else None
            self._listening.enter_context(_Listener(self._ours, self._answer, chained))
            _listening.append(self)
            self._listening.callback(_listening.remove, self)
        return self

    def __exit__(self, kind: Any, *_):
        self._left.set()
        self._listening.close()
        if kind is None and self.pending and not (self.asked or self._many):
            raise Interrupted(f"{self.pending}: {self._at_once or 'the run is saved'}")

    def requested(self) -> str:
        """The signal that asks the run to stop, "SIGTERM" or "SIGINT"; "" if there is none.

        All processes call it equally often: after each step and each batch of an evaluation. All
        get a signal at the same call ("SIGTERM" if another process received it).
        """
        if not self._many:
            self.asked = self.pending
        elif not self.asked:
            self._polls += 1  # from 1, at which JAX reports a signal from before the first call
            if multihost_utils.reached_preemption_sync_point(self._polls):
                self.asked = self.pending or "SIGTERM"
                if not self.pending:  # JAX handles SIGTERM
                    _say_what_follows("SIGTERM")
        if self.asked:
            self._heard.set()
        return self.asked

    def look(self) -> None:
        """Raises `Interrupted` if the run was asked to stop, for waits that may never end; not in a
        run of several processes, which stop at the same call of `requested`."""
        if self.pending and not self._many:
            raise Interrupted(self.pending)

    def _handle(self, number: int, _: Any) -> None:
        """Python calls it in the main thread, as soon as that runs Python again."""
        first, self.pending = not self.pending, self.pending or signal.Signals(number).name
        if self._at_once and not self._many and first:
            raise Interrupted(f"{self.pending}: {self._at_once}")

    def _answer(self, number: int) -> None:
        """The thread of the listener calls it when a signal arrives."""
        if number == signal.SIGINT and number in self._seen:
            end_process(EXIT_SIGINT)
        if number in self._seen or number not in (signal.SIGINT, signal.SIGTERM):
            return
        self._seen.add(number)
        name = signal.Signals(number).name
        if number not in self._ours:  # the loop says so when all processes agree
            _after(self.limit_s, self._end_late, name)
        elif self._at_once:
            _after(0 if self._many else _GRACE_S, self._end_if_stuck, name)
        else:
            self.pending = self.pending or name
            _say_what_follows(name)
            _after(self.limit_s, self._end_late, name)
            if self._many:
                os.kill(os.getpid(), signal.SIGTERM)
            elif not self.unsaved:
                _after(_GRACE_S, self._end_if_stuck, name)

    def _end_if_stuck(self, name: str) -> None:
        if not (self._heard.is_set() or self._left.is_set() or self.unsaved):
            text = self._at_once or "nothing was unsaved; the run has stopped"
            say(f"{name}: {text} (exit code {EXIT_INTERRUPTED})")
            end_process(EXIT_INTERRUPTED)

    def _end_late(self, name: str) -> None:
        if not self._left.is_set():
            say(
                f"{name}: the step was not finished and saved in {self.limit_s:.0f} s; the run "
                f"resumes from its last checkpoint (exit code {EXIT_INTERRUPTED})"
            )
            end_process(EXIT_INTERRUPTED)


@contextlib.contextmanager
def ends_at_signals(sigterm: bool = True) -> Iterator[None]:
    """A context in which one SIGINT or SIGTERM ends the process, with code 130 or 143, whatever it
    does.

    KeyboardInterrupt or SystemExit is raised in the main thread, and files and workers are cleared
    away. If that thread runs no Python (it may be in a read that hangs), or the exception is lost
    or waits for other threads, the process is ended after a second.

    Args:
      sigterm: False leaves it as it is.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)[: 1 + sigterm]

    def answer(number: int) -> None:
        if number in numbers:
            _after(_GRACE_S, end_process, 128 + number)

    with _Listener({signal.SIGTERM: _exit} if sigterm else {}, answer):
        yield


def _exit(number: int, _: Any) -> NoReturn:
    sys.exit(128 + number)


class _Listener:
    """A context that sets handlers and tells of signals at once, from a thread of its own.

    Args:
      handlers: Python's, by signal.
      heard: called with the number of each signal that has a handler of Python's.
      chained: a signal to tell of, too, whose handler is in C and stays.
    """

    def __init__(
        self,
        handlers: Mapping[int, Any],
        heard: Callable[[int], None],
        chained: int | None = None,
    ):
        self._handlers, self._heard, self._chained = handlers, heard, chained

    def __enter__(self):
        self._inbox, self._outbox = socket.socketpair()
        self._outbox.setblocking(False)
        fd = self._outbox.fileno()
        self._old_fd = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        self._old = {number: signal.signal(number, f) for number, f in self._handlers.items()}
        if self._chained:  # faulthandler writes text to the socket, and calls the other handler
            faulthandler.register(self._chained, self._outbox, all_threads=False, chain=True)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)
        if self._chained:
            faulthandler.unregister(self._chained)
        signal.set_wakeup_fd(self._old_fd)
        self._outbox.close()  # which ends the thread
        self._thread.join()
        self._inbox.close()

    def _listen(self) -> None:
        while received := self._inbox.recv(4096):
            for number in filter(signal.NSIG.__gt__, received):
                self._heard(number)
            if self._chained and max(received) >= signal.NSIG:  # text
                self._heard(self._chained)


def _after(seconds: float, call: Callable[..., None], *args: Any) -> None:
    timer = threading.Timer(seconds, call, args)
    timer.daemon = True
    timer.start()


def _say_what_follows(name: str) -> None:
    at_once = "; a second one stops at once" if name == "SIGINT" else ""
    say(f"{name}: the step is finished and saved, then the run stops{at_once}")


def end_process(code: int) -> None:
    """Ends this process and its workers at once."""
    with contextlib.suppress(Exception):
        for worker in multiprocessing.active_children():
            worker.kill()
    os._exit(code)
