"""Calls in threads and in processes."""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")


def in_threads(
    call: Callable[[int], Result], indices: Iterable[int], workers: int = 0
) -> Iterator[Result]:
    """The result for each index, in order, from threads (0 = one per core, 8 at most)."""
    workers = workers or min(8, os.cpu_count() or 1)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        yield from pool.map(call, indices)


def in_processes(
    calls: Mapping[Key, Callable[[], Result]], workers: int
) -> Iterator[tuple[Key, Result]]:
    """(key, result) of each call as it ends, from processes (0 = this one, in order).

    Waiting calls are cancelled if one fails.

    Raises:
      RuntimeError: if a process dies.
    """
    if not workers or not calls:
        for key, call in calls.items():
            yield key, call()
        return
    spawn = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(calls)), spawn) as pool:
        try:
            keys = {pool.submit(call): key for key, call in calls.items()}
            for future in concurrent.futures.as_completed(keys):
                yield keys[future], future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process died, most often for lack of memory; complete files are kept: "
                "run the same command again, with fewer workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
