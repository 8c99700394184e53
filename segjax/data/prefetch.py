"""Batches read ahead of their use, by threads or by grain's worker processes, with a bounded wait.

A read that hangs (a network file system that does not answer) ends in an error that names the file,
and so does a worker process that dies. Neither keeps the interpreter from ending.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from segjax.data.parallel import (
    GRACE_S,
    end_with_parent,
    in_thread,
    result_of,
    signals_blocked,
)


class PrefetchIterator(Iterator[dict[str, Any]]):
    """`load(items[0])`, `load(items[1])`, ... in order, read ahead.

    Its state is the number of results taken, whoever reads and however far ahead.

    Args:
      items: what to load, by position; an endless one is a `grain.MapDataset`.
      load: gives a dict. Its entry "skipped", pairs of a key and a message, is taken out and
        gathered in `skipped`.
      workers: processes that load, for which `items` is a `grain.MapDataset` and `load` pickles;
        0 = threads of this process.
      ahead: results that are read ahead: by each worker, or by as many threads.
      timeout_s: the longest wait for a result.
      reading: the files that loading an item reads, in words.
      look: called before each result and about once a second while it is awaited; may raise.

    Raises:
      TimeoutError: if there is no result for `timeout_s`.
      ChildProcessError: if a worker process dies.
    """

    def __init__(
        self,
        items: Sequence[Any] | grain.MapDataset,
        load: Callable[[Any], dict[str, Any]],
        *,
        workers: int = 0,
        ahead: int = 4,
        timeout_s: float,
        reading: Callable[[Any], str],
        look: Callable[[], None] = lambda: None,
    ):
        self._items, self._load, self._workers = items, load, workers
        self._ahead, self._timeout_s, self._reading = ahead, timeout_s, reading
        self._look, self._position = look, 0
        self._running: Generator[dict[str, Any], None, None] | None = None
        self.skipped: dict[Any, str] = {}

    def __next__(self) -> dict[str, Any]:
        if self._running is None:
            self._running = self._from_workers() if self._workers else self._from_threads()
        try:
            result = next(self._running)
        except BaseException:
            self._running = None  # it has ended; the next call starts at the same position
            raise
        self._position += 1
        self.skipped.update(result.pop("skipped", ()))
        return result

    def get_state(self) -> dict[str, int]:
        """The position, for `set_state`; the same with any number of workers."""
        return {"next_index": self._position}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position, also to one that an iterator of grain's with workers has saved.

        Raises:
          ValueError, TypeError, LookupError, AttributeError: if the state holds none.
        """
        parts = state.get("iterators_in_use_states", [state])  # one for each worker
        position = sum(part["next_index"] for part in parts)
        if type(position) is not int or position < 0:
            raise ValueError(f"its position in the data is {position!r}")
        if position != self._position:
            self.close()
            self._position = position

    def close(self) -> None:
        """Ends the threads or processes; the next result that is asked for starts them again."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def _from_threads(self) -> Generator[dict[str, Any], None, None]:
        positions, pending = iter(range(self._position, len(self._items))), collections.deque()
        while True:
            for position in itertools.islice(positions, self._ahead - len(pending)):
                pending.append(in_thread(self._load, self._items[position]))
            if not pending:
                return
            yield self._result_of(pending.popleft())

    def _from_workers(self) -> Generator[dict[str, Any], None, None]:
        if not flags.FLAGS.is_parsed():  # grain's workers read absl flags; a notebook has none
            flags.FLAGS.mark_as_parsed()
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=self._ahead)
        processes = grain.MultiprocessingOptions(num_workers=self._workers)
        rest = self._items.map(self._load)[self._position :].to_iter_dataset(options)
        results = iter(rest.mp_prefetch(processes, _end_with_parent))
        others, own = set(multiprocessing.active_children()), set()

        def check_alive() -> None:
            children = multiprocessing.active_children()
            own.update(p for p in children if p not in others and p.name.startswith("grain-"))
            for process in own:
                if process.exitcode:  # 0: grain has stopped it, after an error that is on its way
                    raise ChildProcessError(_obituary(process.pid, process.exitcode))

        def kill() -> None:
            for process in own:
                process.kill()  # without effect on one that has ended

        # Grain waits for a worker without a limit: in a thread that may be left behind.
        grace, pending = GRACE_S, in_thread(_take_first, results)
        try:
            while True:
                try:
                    result = self._result_of(pending, check_alive)
                except RuntimeError:  # grain's for a dead worker, among others
                    check_alive()
                    raise
                pending = in_thread(_take, results)
                yield result
        except (TimeoutError, ChildProcessError, KeyboardInterrupt):
            grace = 0.0
            raise
        finally:
            if concurrent.futures.wait([pending], grace).not_done:
                kill()  # which ends grain's wait
                concurrent.futures.wait([pending], GRACE_S)
            with contextlib.suppress(RuntimeError):  # the interpreter, ending, starts no thread
                concurrent.futures.wait([in_thread(results.close)], GRACE_S)
            kill()
            for process in own:
                process.join(GRACE_S)

    def _result_of(
        self, future: concurrent.futures.Future, look: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        def reading() -> str:
            return self._reading(self._items[self._position])

        def looks() -> None:
            self._look()
            look()

        return result_of(future, self._timeout_s, reading, looks)


def _take(results: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """The next result, copied out of the shared memory that grain passes it in: containers have
    little of it, and the interpreter complains about what it still holds at its end."""
    return {k: np.array(v) if isinstance(v, np.ndarray) else v for k, v in next(results).items()}


def _take_first(results: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """The first result; starts the workers, whose batches a run needs until it has ended."""
    with signals_blocked():
        return _take(results)


def _end_with_parent(worker: int, workers: int) -> None:
    end_with_parent()


def _obituary(pid: int, exit_code: int) -> str:
    cause, remedy = f"ended with code {exit_code}", "look at its own messages above"
    if exit_code < 0:
        cause = f"was ended by {signal.Signals(-exit_code).name}"
        remedy = (
            "if memory ran out (the kernel's log says so), use fewer data.workers or a smaller "
            "data.cache_mb, of which each worker has its own"
        )
        if -exit_code == signal.SIGBUS:
            remedy = (
                "/dev/shm is probably full: use more (docker run --shm-size), or data.workers=0"
            )
    return f"worker process {pid} of the data loader {cause}; {remedy}"
