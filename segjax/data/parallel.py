"""Calls in threads and in processes. No call is awaited without a limit of time, and no process
outlives its parent."""

import atexit
import collections
import concurrent.futures
import contextlib
import itertools
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")

# The longest wait for a file where no config says `data.timeout_s`, whose default it is.
TIMEOUT_S = 300.0
GRACE_S = 2.0  # for threads and processes to end by themselves
_LOOK_EVERY_S = 1.0  # at whatever may have died, while a result is awaited
_AHEAD = 4  # calls that are begun or wait for a thread, for each thread
_THREAD = "segjax-reader"


def in_thread(call: Callable[..., Result], *args: Any) -> concurrent.futures.Future[Result]:
    """Makes a call in a thread of its own.

    Unlike a thread of `concurrent.futures`, one that hangs does not keep the interpreter from
    ending.
    """
    future = concurrent.futures.Future()
    _start_thread(_settle, future, call, *args)
    return future


def result_of(
    future: concurrent.futures.Future[Result],
    timeout_s: float,
    reading: Callable[[], str],
    look: Callable[[], None] = lambda: None,
) -> Result:
    """A call's result.

    Args:
      future: from `in_thread`.
      timeout_s: the longest wait.
      reading: gives the files that the call reads, in words.
      look: called about once a second meanwhile; may raise.

    Raises:
      TimeoutError: naming the files, if there is no result for `timeout_s`.
    """
    end = time.monotonic() + timeout_s
    while True:
        look()
        # Not result(timeout): the call may raise a TimeoutError of its own.
        left = end - time.monotonic()
        if not future.done():
            concurrent.futures.wait([future], max(0.0, min(left, _LOOK_EVERY_S)))
        if future.done():
            return future.result()
        if left <= 0:
            raise TimeoutError(
                f"no data for {timeout_s:g} s (data.timeout_s) while reading {reading()}; see "
                "whether the disk or network file system answers, or use a larger data.timeout_s "
                "if reading may take so long"
            )


def within(timeout_s: float, reading: Any, call: Callable[..., Result], *args: Any) -> Result:
    """The result of a call that reads what `reading` names; TimeoutError as of `result_of`."""
    return result_of(in_thread(call, *args), timeout_s, lambda: str(reading))


def in_threads(
    call: Callable[[int], Result],
    indices: Iterable[int],
    workers: int = 0,
    *,
    reading: Callable[[int], str],
    timeout_s: float = TIMEOUT_S,
) -> Iterator[Result]:
    """The result for each index, in order, from threads (0 = one per core, 8 at most).

    Args:
      reading: gives the files that a call reads, in words.
      timeout_s: the longest wait for a result.

    Raises:
      TimeoutError: naming the files, if there is no result for `timeout_s`.
    """
    workers = workers or min(8, os.cpu_count() or 1)
    tasks, closed = queue.SimpleQueue(), threading.Event()
    pending, rest = collections.deque(), iter(indices)

    def work() -> None:
        while (task := tasks.get()) and not closed.is_set():
            _settle(task[1], call, task[0])

    def begin(count: int) -> None:
        for index in itertools.islice(rest, count):
            pending.append((index, concurrent.futures.Future()))
            tasks.put(pending[-1])

    begin(_AHEAD * workers)
    workers = min(workers, len(pending))
    for _ in range(workers):
        _start_thread(work)
    try:
        while pending:
            index, future = pending[0]
            result = result_of(future, timeout_s, lambda index=index: reading(index))
            pending.popleft()
            begin(1)
            yield result
    finally:
        closed.set()
        for _ in range(workers):
            tasks.put(None)


def in_processes(
    calls: Mapping[Key, Callable[[], Result]], workers: int
) -> Iterator[tuple[Key, Result]]:
    """(key, result) of each call as it ends, from processes (0 = this one, in order).

    If a call fails, or this process is interrupted, the other processes are killed: a call leaves
    no file that is half written, see `files.atomic`.

    Raises:
      RuntimeError: if a process dies.
    """
    if not workers or not calls:
        for key, call in calls.items():
            yield key, call()
        return
    spawn = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
    others = set(multiprocessing.active_children())
    pool = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(calls)), spawn, initializer=end_with_parent
    )
    try:
        with signals_blocked():
            keys = {pool.submit(call): key for key, call in calls.items()}
        for future in concurrent.futures.as_completed(keys):
            yield keys[future], future.result()
    except BaseException as error:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        if isinstance(error, concurrent.futures.process.BrokenProcessPool):
            raise RuntimeError(
                "a worker process died, most often for lack of memory; complete files are kept: "
                "run the same command again, with fewer workers"
            ) from error
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """A context in which processes are started without SIGINT and SIGTERM.

    Terminals and schedulers send these to all processes of a command, of which the first one
    decides what they mean. A process inherits the mask of the thread that starts it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # A lock makes multiprocessing start its resource tracker, which would undo the mask later.
    multiprocessing.get_context("spawn").Lock()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Ends this process with its parent, whatever ends that; it would wait for calls forever."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None, "called in a process of multiprocessing"
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _settle(future: concurrent.futures.Future, call: Callable[..., Any], *args: Any) -> None:
    try:
        future.set_result(call(*args))
    except BaseException as error:
        future.set_exception(error)


def _start_thread(call: Callable[..., None], *args: Any) -> None:
    atexit.unregister(_wait_for_threads)  # one call is enough
    atexit.register(_wait_for_threads)
    threading.Thread(target=call, args=args, name=_THREAD, daemon=True).start()


def _wait_for_threads() -> None:
    """Waits at the end of the interpreter for the calls that have begun, unless one hangs: native
    code that is cut off then may abort the process."""
    end = time.monotonic() + GRACE_S
    for thread in threading.enumerate():
        if thread.name == _THREAD:
            thread.join(max(0.0, end - time.monotonic()))
