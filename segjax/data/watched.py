"""Reading ahead that never waits without end, in threads of this process or in worker processes.

A read that hangs, on a network file system that does not answer, ends with an error, and so does a
worker process that dies; neither keeps the program from ending afterwards.
"""

import concurrent.futures
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from segjax.data.read_ahead import PATIENCE_S, DaemonThreads, read_ahead, result_of

# Batches that threads read ahead, and the threads; grain's defaults are 500 and 16, in each worker.
_AHEAD, _THREADS = 4, 2


class Batches(Iterator[dict[str, Any]]):
    """Endless batches, read ahead; the position is the number of batches that were taken.

    Args:
      indices: the samples of each batch.
      load: reads a batch, given its indices. It pickles. What it returns under "skipped", pairs of
        a key and a message, is taken out and gathered in `skipped`.
      workers: processes that load; 0 = threads of this one.
      timeout_s: the longest wait for a batch.
      reading: what is being read, in words, while the batch of some indices is awaited.

    Raises:
      TimeoutError: if there is no batch for `timeout_s`.
      ChildProcessError: if a worker process dies.
    """

    def __init__(
        self,
        indices: grain.MapDataset,
        load: Callable[[np.ndarray], dict[str, Any]],
        *,
        workers: int,
        timeout_s: float,
        reading: Callable[[np.ndarray], str],
    ):
        self._indices, self._load, self._workers = indices, load, workers
        self._timeout_s, self._reading = timeout_s, reading
        self._position, self._running = 0, None
        self.skipped: dict[Any, str] = {}

    def __next__(self) -> dict[str, np.ndarray]:
        if self._running is None:
            self._running = self._start()
        try:
            batch = next(self._running)
        except BaseException:
            self._running = None  # it has ended; whoever calls again starts at the same batch
            raise
        self._position += 1
        self.skipped.update(batch.pop("skipped", ()))
        return batch

    def _start(self) -> Iterator[dict[str, Any]]:
        options = {
            "timeout_s": self._timeout_s,
            "reading": lambda: self._reading(self._indices[self._position]),
        }
        if self._workers:
            rest = self._indices.map(self._load)[self._position :]
            return from_workers(rest, workers=self._workers, **options)
        calls = (
            (self._load, self._indices[position]) for position in itertools.count(self._position)
        )
        return read_ahead(calls, threads=_THREADS, ahead=_AHEAD, **options)

    def get_state(self) -> dict[str, int]:
        """The position, which `set_state` goes back to; it does not depend on the workers."""
        return {"next_index": self._position}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position. That of a grain iterator with workers will do: one part for each."""
        parts = state.get("iterators_in_use_states", [state])
        position = sum(part["next_index"] for part in parts)
        if position != self._position:
            self.close()
            self._position = position

    def close(self) -> None:
        """Ends the threads or processes; the next batch that is asked for starts them again."""
        if self._running is not None:
            self._running.close()
            self._running = None


def from_workers(
    data: grain.MapDataset, *, workers: int, timeout_s: float, reading: Callable[[], str]
) -> Iterator[dict[str, Any]]:
    """The elements of `data`, which are dicts of arrays, in order, from worker processes.

    Raises:
      TimeoutError: if there is no element for `timeout_s`.
      ChildProcessError: if a worker dies.
    """
    if not flags.FLAGS.is_parsed():  # grain's workers read absl flags; a notebook has none
        flags.FLAGS.mark_as_parsed()
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)
    processes = grain.MultiprocessingOptions(num_workers=workers)
    elements = iter(data.to_iter_dataset(options).mp_prefetch(processes, _start_worker))
    others, own = set(multiprocessing.active_children()), set()

    def look() -> None:
        children = multiprocessing.active_children()
        own.update(p for p in children if p not in others and p.name.startswith("grain-"))
        for process in own:
            if process.exitcode:  # 0: grain has stopped it, after an error that is on its way
                raise ChildProcessError(_obituary(process.pid, process.exitcode))

    # Grain waits for a worker without end, hence in a thread that may be left behind.
    pool, patience = DaemonThreads(1), PATIENCE_S
    try:
        pool.submit(_block_signals)
        pending = pool.submit(_take, elements)
        while True:
            try:
                element = result_of(pending, timeout_s, reading, look)
            except RuntimeError:  # grain's for a dead worker, among others
                look()
                raise
            pending = pool.submit(_take, elements)
            yield element
    except (TimeoutError, ChildProcessError, KeyboardInterrupt):
        patience = 0.0
        raise
    finally:
        closed = pool.submit(elements.close)
        concurrent.futures.wait([closed], patience)
        for process in own:
            process.kill()  # of no effect on one that has ended
        concurrent.futures.wait([closed], PATIENCE_S)
        pool.close()


def _take(elements: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """The next element, out of the shared memory that grain passes it in: containers have little
    of it, and the interpreter complains of what it still holds at its end."""
    element = next(elements)
    return {k: np.array(v) if isinstance(v, np.ndarray) else v for k, v in element.items()}


def _block_signals() -> None:
    """Keeps the signals that end a run, which terminals and schedulers send to all of its
    processes, from workers: the run wants its batches until it has ended. A thread's mask is
    inherited by what it starts."""
    if hasattr(signal, "pthread_sigmask"):
        # A lock has multiprocessing start its resource tracker, which would undo the mask later.
        multiprocessing.get_context("spawn").Lock()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


def _start_worker(worker: int, workers: int) -> None:
    """Has a worker end with its parent, even one that was killed; grain's would wait for ever."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _obituary(pid: int, exit_code: int) -> str:
    cause, remedy = f"ended with code {exit_code}", "look above for what it said"
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
