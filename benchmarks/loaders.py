"""The host's images a second, and those of torch's DataLoader on the same files.

    python -m benchmarks.loaders --config=configs/pspnet.py [--config.data.root=...]

Both shuffle, decode, fit and batch the same files into uint8 arrays, and keep nothing decoded.
torch's loader uses segjax's decoding, so that the difference is the loader's. Needs torch.
"""

import atexit
import os
import warnings
from collections.abc import Iterator
from typing import Any

from absl import app, flags
from ml_collections import config_flags

from segjax.data.fitted import FittedDataset
from segjax.data.splits import Splits
from segjax.data.throughput import Rate, count_images, measure, without_cache


def main(argv) -> None:
    config, seconds = flags.FLAGS.config, flags.FLAGS.seconds
    dataset = without_cache(Splits(config.data, config.seed).training())
    batch_size = config.train.batch_size
    for workers in sorted({0, 1, 2, os.cpu_count() or 1}):
        (ours,) = measure(dataset, batch_size, workers=[workers], seconds=seconds)
        batches = torch_batches(dataset, batch_size, workers)
        try:
            theirs = Rate(workers, *count_images(batches, batch_size, seconds))
        finally:
            batches.close()
        print(
            f"{workers} workers: segjax {ours.images_per_second:.0f}, torch "
            f"{theirs.images_per_second:.0f} images/s"
        )


def torch_batches(dataset: FittedDataset, batch_size: int, workers: int) -> Iterator[Any]:
    """Endless batches of torch's DataLoader."""
    import torch.utils.data

    loader = torch.utils.data.DataLoader(
        dataset,
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
            f"a batch of {batch_size} is larger than the split of {len(dataset)} samples; use fewer"
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


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", "configs/base.py")
    flags.DEFINE_float("seconds", 5.0, "to measure each")
    app.run(main)
