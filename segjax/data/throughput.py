"""The number of samples a second that the host reads, decodes and batches."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

from segjax.data.batches import train_iterator
from segjax.data.fitted import FittedDataset


@dataclasses.dataclass(frozen=True)
class Rate:
    """Images counted with a number of worker processes (0 = none), and the seconds they took,
    without the start of the workers and the first batch."""

    workers: int
    images: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds


def measure(
    dataset: FittedDataset,
    batch_size: int,
    *,
    workers: Sequence[int] = (0, 1, 2),
    seconds: float = 5.0,
) -> list[Rate]:
    """The rate of `batches.train_iterator` with each number of worker processes, each measured for
    `seconds`; nothing is kept decoded between epochs."""
    dataset = without_cache(dataset)
    rates = []
    for count in workers:
        batches = train_iterator(dataset, batch_size, seed=0, workers=count)
        try:
            rates.append(Rate(count, *count_images(batches, batch_size, seconds)))
        finally:
            batches.close()
    return rates


def without_cache(dataset: FittedDataset) -> FittedDataset:
    """The same samples, decoded at each use."""
    options = {"channels": dataset.channels, "timeout_s": dataset.timeout_s}
    return FittedDataset(dataset.source, dataset.size, cache_mb=0, **options)


def count_images(batches: Iterator[Any], batch_size: int, seconds: float) -> tuple[int, float]:
    """Images and seconds after the first batch, before which workers start."""
    next(batches)
    images, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        next(batches)
        images += batch_size
    return images, elapsed
