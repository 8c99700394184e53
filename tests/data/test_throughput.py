"""The benchmark of the host's half counts images as it should."""

import itertools

from segjax.data import throughput
from segjax.data.fitted import FittedDataset
from tests.data.drawn import Numbered


def test_rates_of_the_host():
    split = FittedDataset(Numbered(6), (4, 6), cache_mb=1)
    (rate,) = throughput.measure(split, 4, workers=(0,), seconds=0.05)
    assert (rate.workers, rate.images % 4) == (0, 0)
    assert rate.images_per_second == rate.images / rate.seconds
    # The samples were decoded each time, though this dataset would keep them.
    assert len(split.source.reads) >= max(rate.images, 2 * len(split))


def test_the_first_batch_and_the_start_of_workers_are_not_counted(monkeypatch):
    times = iter([100.0, 101.0, 102.0, 103.0, 104.5])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(times))
    batches = itertools.count()
    assert throughput.count_images(batches, 8, 4.0) == (24, 4.5)
    assert next(batches) == 4  # one before the clock, three counted
