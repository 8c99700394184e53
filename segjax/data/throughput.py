"""How many samples a second the host reads, decodes and batches."""

import atexit
import dataclasses
import importlib.util
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from segjax.data.pipeline import FittedDataset, train_iterator


@dataclasses.dataclass(frozen=True)
class Rate:
    """What one way to load did.

    Attributes:
      loader: "segjax" or "torch".
      workers: worker processes; 0 = none.
      images: that were counted.
      seconds: that they took, the start of the workers and the first batch left out.
      skipped: why nothing was measured; "" = it was.
    """

    loader: str
    workers: int
    images: int = 0
    seconds: float = 0.0
    skipped: str = ""

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else float("nan")


def measure(
    canvas: FittedDataset,
    batch_size: int,
    *,
    workers: Sequence[int] = (0, 1, 2),
    seconds: float = 5.0,
    torch: bool = True,
) -> list[Rate]:
    """The rate of `pipeline.train_iterator`, and of torch's DataLoader on the same samples.

    Both shuffle, decode, fit and batch the same files into uint8 arrays, nothing kept decoded
    between epochs; torch's loader shares the decoding, so that what differs is the loader.

    Args:
      canvas: the split; its cache is not used.
      batch_size: samples a batch.
      workers: numbers of worker processes to try.
      seconds: to count for, each.
      torch: whether to measure torch, if it is installed.
    """
    canvas = FittedDataset(canvas.source, canvas.size, label_size=canvas.label_size, cache_mb=0)
    rates = []
    for count in workers:
        batches = train_iterator(canvas, batch_size, seed=0, workers=count)
        try:
            rates.append(Rate("segjax", count, *_count(batches, batch_size, seconds)))
        finally:
            batches.close()
    if torch and importlib.util.find_spec("torch") is None:
        rates.append(Rate("torch", 0, skipped="torch is not installed"))
    elif torch:
        for count in workers:
            batches = _torch_batches(canvas, batch_size, count)
            try:
                rates.append(Rate("torch", count, *_count(batches, batch_size, seconds)))
            finally:
                batches.close()
    return rates


def _count(batches: Iterator[Any], batch_size: int, seconds: float) -> tuple[int, float]:
    """Images and seconds after the first batch, for which workers start."""
    next(batches)
    images, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        next(batches)
        images += batch_size
    return images, elapsed


def _torch_batches(canvas: FittedDataset, batch_size: int, workers: int) -> Iterator[Any]:
    """Batches of torch's DataLoader without end."""
    import torch.utils.data

    loader = torch.utils.data.DataLoader(
        canvas,
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        # As grain does: a fork would copy the locks of JAX's threads.
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_start_worker,
    )
    if not len(loader):
        raise ValueError(
            f"a batch of {batch_size} is larger than the split of {len(canvas)} samples; use fewer"
        )
    _allow_read_only()
    threads = torch.get_num_threads()
    # As torch does in its workers: threads that stack 8 images wait for each other on a busy CPU.
    torch.set_num_threads(1)
    try:
        while True:
            yield from loader
    finally:
        torch.set_num_threads(threads)


def _start_worker(worker: int) -> None:
    _allow_read_only()
    # Threads of C++ libraries abort an interpreter that is torn down around them.
    atexit.register(os._exit, 0)


def _allow_read_only() -> None:
    """Silences torch's warning that arrays of prepared data are read-only: it copies them."""
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
