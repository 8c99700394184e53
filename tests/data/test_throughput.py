"""The benchmark of the host's half counts what it says."""

import importlib.util
import itertools
import math

import numpy as np
import pytest

from segjax.data import throughput
from segjax.data.pipeline import FittedDataset
from segjax.data.throughput import Rate, measure
from tests.data.drawn import Drawn


def canvas(length=6, **options):
    return FittedDataset(Drawn([np.zeros((4, 6), np.uint8)] * length), (4, 6), **options)


def test_rates_of_the_host():
    split = canvas(cache_mb=1)
    (rate,) = measure(split, 4, workers=(0,), seconds=0.05, torch=False)
    assert (rate.loader, rate.workers, rate.skipped) == ("segjax", 0, "")
    assert rate.images % 4 == 0
    assert rate.images_per_second == rate.images / rate.seconds
    # The samples were decoded each time, though this canvas would keep them.
    assert len(split.source.reads) >= rate.images
    assert len(split.source.reads) > 2 * len(split)


def test_the_first_batch_and_the_start_of_workers_are_not_counted(monkeypatch):
    times = iter([100.0, 101.0, 102.0, 103.0, 104.5])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(times))
    batches = itertools.count()
    assert throughput._count(batches, 8, 4.0) == (24, 4.5)
    assert next(batches) == 4  # one before the clock, three counted


def test_a_line_says_that_there_is_no_torch(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    rates = measure(canvas(), 2, workers=(0,), seconds=0.01)
    assert rates[1] == Rate("torch", 0, skipped="torch is not installed")
    assert math.isnan(rates[1].images_per_second)
    assert len(measure(canvas(), 2, workers=(0,), seconds=0.01, torch=False)) == 1


def test_torch_loads_the_same_samples():
    pytest.importorskip("torch")
    segjax, torch = measure(canvas(), 4, workers=(0,), seconds=0.05)
    assert (segjax.loader, torch.loader) == ("segjax", "torch")
    assert torch.images > 0
    batch = next(throughput._torch_batches(canvas(), 4, 0))
    assert tuple(batch["image"].shape) == (4, 4, 6, 3)
    with pytest.raises(ValueError, match="a batch of 7 is larger than the split of 6"):
        next(throughput._torch_batches(canvas(), 7, 0))
