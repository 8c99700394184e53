"""The command benchmark: how many training images a second the host makes ready."""

import os
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from segjax.console import Console
from segjax.data import throughput
from segjax.data.fitted import FittedDataset
from segjax.data.splits import Splits


def benchmark(
    config: Mapping[str, Any], seconds: float = 5.0, console: Console | None = None
) -> list[throughput.Rate]:
    """Prints how many training images a second the host makes ready, by worker processes.

    Args:
      config: see configs/base.py; `data.cache_mb` is ignored: nothing is kept decoded.
      seconds: of each measurement.

    Raises:
      ValueError: if the split has fewer images than a batch.
    """
    console, data = console or Console(), config["data"]
    source = Splits(data, config["seed"]).source(data["train_split"])
    dataset = FittedDataset(source, tuple(data["image_size"]), timeout_s=data["timeout_s"])
    batch_size = config["train"]["batch_size"]
    if batch_size > len(source):
        raise ValueError(
            f"train.batch_size={batch_size}, but the split has {len(source)} images; use fewer"
        )
    workers = sorted({0, 1, 2, os.cpu_count() or 1})
    rates = throughput.measure(dataset, batch_size, workers=workers, seconds=seconds)
    height, width = data["image_size"]
    table = Table(
        title=f"{data['name']}: {len(source)} images at {height}x{width}, batch {batch_size}, "
        f"{os.cpu_count()} cores"
    )
    for column in ("worker processes", "images/s"):
        table.add_column(column, justify="right")
    for rate in rates:
        table.add_row(str(rate.workers), f"{rate.images_per_second:.0f}")
    console.print(table)
    return rates
