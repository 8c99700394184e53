"""Batches of a fitted data set, shuffled for training or in order for evaluation.

The order of the training examples is a function of (seed, position) alone, and an iterator's
position is its whole state, so a resumed run sees what the uninterrupted one would have seen.
Where several processes train together, each reads its own rows of every batch.
"""

import functools
from collections.abc import Callable, Sequence

import grain
import jax
import numpy as np

from segjax.data.classes import IGNORE
from segjax.data.fitted import Batch, FittedDataset
from segjax.data.prefetch import PrefetchIterator
from segjax.data.scored import SIZES

# The values of rows that are no samples.
_PADDING = {"image": 0, "label": IGNORE, "sizes": 1, "index": -1}


def train_iterator(
    dataset: FittedDataset,
    batch_size: int,
    *,
    seed: int,
    workers: int = 0,
    order: grain.MapDataset | None = None,
    rows: slice | None = None,
    indices_only: bool = False,
    look: Callable[[], None] = lambda: None,
) -> PrefetchIterator:
    """Endless shuffled batches: uint8 images [n, H, W, c], labels [n, H, W], int32 index [n].

    Each epoch is a new permutation; batches run across its end, so every image is used once an
    epoch. The state of the iterator does not depend on rows and workers.

    Args:
      dataset: the training split.
      batch_size: samples in a batch over all processes.
      seed: of the permutations.
      workers: worker processes; 0 decodes in threads of this process.
      order: endless indices in the order of their use; None = `shuffled(len(dataset), seed)`.
      rows: the rows of a batch that this process reads; those from `batch_size` on are padding,
        see `pad_batch`. None = all, without padding.
      indices_only: leaves image and label out, and reads no file; see `device.DeviceData`.
      look: see `prefetch.PrefetchIterator`.

    Raises:
      UnreadableSample, TimeoutError, ChildProcessError: by the iterator.
    """
    order = shuffled(len(dataset), seed) if order is None else order
    rows = slice(0, batch_size) if rows is None else rows
    return PrefetchIterator(
        # Cut, as the number of batches of one would be more than an int that Python indexes with.
        order[: 2**62].batch(batch_size),
        functools.partial(_load, dataset, rows, indices_only),
        workers=0 if indices_only else workers,
        timeout_s=dataset.timeout_s,
        reading=lambda indices: dataset.being_read(indices[rows]),
        look=look,
    )


def shuffled(length: int, seed: int) -> grain.MapDataset:
    """The indices 0..length-1 without end, each epoch in an order of its own."""
    return grain.MapDataset.range(length).seed(seed).shuffle().repeat(None)


def _load(dataset: FittedDataset, rows: slice, indices_only: bool, indices: np.ndarray) -> dict:
    """The chosen rows of the batch that holds the samples `indices`."""
    own = np.asarray(indices[rows], np.int32)
    if indices_only:
        return pad_batch({"index": own}, rows.stop - rows.start)
    batch = _stacked(dataset, own.tolist(), rows.stop - rows.start)
    skipped = [(index, dataset.skipped.pop(index, "")) for index in list(dataset.skipped)]
    skipped = [(index, message) for index, message in skipped if message]  # threads share it
    return {**batch, "skipped": skipped} if skipped else batch


def eval_batches(
    dataset: FittedDataset,
    batch_size: int,
    *,
    rows: slice | None = None,
    look: Callable[[], None] = lambda: None,
) -> PrefetchIterator:
    """Every sample once, in order; arguments as for `train_iterator`.

    The last batch is padded, see `pad_batch`, so all batches have one shape. Their number does not
    depend on `rows`.

    Raises:
      UnreadableSample, TimeoutError: by the iterator.
    """
    rows = slice(0, batch_size) if rows is None else rows
    count = rows.stop - rows.start
    own = [
        range(start + rows.start, min(start + batch_size, start + rows.stop, len(dataset)))
        for start in range(0, len(dataset), batch_size)
    ]
    return PrefetchIterator(
        own,
        lambda indices: _stacked(dataset, indices, count),
        ahead=2,
        timeout_s=dataset.timeout_s,
        reading=dataset.being_read,
        look=look,
    )


def _stacked(dataset: FittedDataset, indices: Sequence[int], count: int) -> Batch:
    """Samples, padded to `count` rows."""
    if not indices:  # a process may have padding only
        return padding(dataset, count)
    return pad_batch(dataset.stack([dataset[index] for index in indices]), count)


def padding(dataset: FittedDataset, count: int) -> Batch:
    """A batch of `count` rows that are no samples, see `pad_batch`."""
    shapes = batch_shapes(count, dataset.size, dataset.label_shape, dataset.channels)
    return {name: np.full(x.shape, _PADDING[name], x.dtype) for name, x in shapes.items()}


def pad_batch(batch: Batch, count: int) -> Batch:
    """Adds rows (image 0, label 255, sizes 1, index -1) up to `count`."""
    missing = count - len(next(iter(batch.values())))
    if not missing:
        return batch
    return {
        name: np.pad(
            rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1), constant_values=_PADDING[name]
        )
        for name, rows in batch.items()
    }


def batch_shapes(
    count: int, size: tuple[int, int], label_shape: tuple[int, ...], channels: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes and types of a batch of `count` rows, without the arrays; one of flat labels, of
    one axis, has `sizes` too, see `scored.ScoredDataset`."""
    sizes = {"sizes": jax.ShapeDtypeStruct((count, SIZES), np.int32)}
    return {
        "image": jax.ShapeDtypeStruct((count, *size, channels), np.uint8),
        "label": jax.ShapeDtypeStruct((count, *label_shape), np.uint8),
        **(sizes if len(label_shape) == 1 else {}),
        "index": jax.ShapeDtypeStruct((count,), np.int32),
    }
