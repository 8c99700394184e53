"""Calls made ahead of their use, in threads that may hang without harm."""

import atexit
import collections
import concurrent.futures
import contextlib
import itertools
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Result = TypeVar("Result")

PATIENCE_S = 2.0  # for what is to end by itself
_LOOK_EVERY_S = 1.0


def read_ahead(
    calls: Iterable[tuple[Callable[..., Result], Any]],
    *,
    threads: int,
    ahead: int,
    timeout_s: float,
    reading: Callable[[], str],
) -> Iterator[Result]:
    """The results of `(function, argument)` pairs, in order, from threads.

    Args:
      ahead: calls that are made before the first of them is asked for.
      timeout_s: the longest wait for a result.
      reading: what is being read, in words.

    Raises:
      TimeoutError: if there is no result for `timeout_s`.
    """
    pool, pending, calls = DaemonThreads(threads), collections.deque(), iter(calls)
    try:
        while True:
            for call in itertools.islice(calls, ahead - len(pending)):
                pending.append(pool.submit(*call))
            if not pending:
                return
            yield result_of(pending.popleft(), timeout_s, reading)
    finally:
        pool.close()


def result_of(
    future: concurrent.futures.Future,
    timeout_s: float,
    reading: Callable[[], str],
    look: Callable[[], None] = lambda: None,
) -> Any:
    """A call's result; `look` is called now and then meanwhile, and may raise."""
    end = time.monotonic() + timeout_s
    while True:
        look()
        # Not result(timeout): its TimeoutError may be the call's own, from the file system.
        left = end - time.monotonic()
        concurrent.futures.wait([future], max(0.0, min(left, _LOOK_EVERY_S)))
        if future.done():
            return future.result()
        if left <= 0:
            raise TimeoutError(
                f"no data for {timeout_s:g} s (data.timeout_s) while reading {reading()}; see "
                "whether the disk or network file system answers, or use a larger data.timeout_s "
                "if reading may take so long"
            )


class DaemonThreads:
    """Threads that make calls in the order in which they were submitted.

    Unlike those of `concurrent.futures`, one that hangs does not keep the interpreter from ending.
    """

    def __init__(self, count: int):
        self._calls, self._count = queue.SimpleQueue(), count
        for _ in range(count):
            _DaemonThread(self._calls).start()
        weakref.finalize(self, _end, self._calls, count).atexit = False
        atexit.unregister(_end_all)  # once is enough
        atexit.register(_end_all)

    def submit(
        self, call: Callable[..., Result], *args: Any
    ) -> "concurrent.futures.Future[Result]":
        future = concurrent.futures.Future()
        self._calls.put((future, call, args))
        return future

    def close(self) -> None:
        """Drops the calls that are not under way; the threads end after those that are.

        It does not wait for them: a generator may call it where garbage is collected, with a lock
        held that an ending thread needs.
        """
        _end(self._calls, self._count)


class _DaemonThread(threading.Thread):
    def __init__(self, calls: queue.SimpleQueue):
        super().__init__(name="segjax-reader", daemon=True)
        self.calls = calls

    def run(self) -> None:
        while (item := self.calls.get()) is not None:
            future, call, args = item
            try:
                future.set_result(call(*args))
            except BaseException as error:
                future.set_exception(error)
            del item, future, call, args  # or the last result would live until the next call


def _end(calls: queue.SimpleQueue, count: int) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            calls.get_nowait()
    for _ in range(count):
        calls.put(None)


def _end_all() -> None:
    """Waits for the calls under way when the interpreter ends, though not for one that hangs:
    native code that is cut off then may abort the process."""
    threads = [thread for thread in threading.enumerate() if isinstance(thread, _DaemonThread)]
    for thread in threads:
        _end(thread.calls, len(threads))
    end = time.monotonic() + PATIENCE_S
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
