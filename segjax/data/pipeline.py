"""The host's half of the data work: decode, fit to a fixed canvas, shuffle, batch (with grain).

The order of the training examples is a function of (seed, position) alone, and an iterator's
position is its whole state, so a resumed run sees what the uninterrupted one would have seen.
Where several processes train together, each reads its own rows of every batch.
"""

import functools
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags
from jaxtyping import UInt8
from PIL import Image

from segjax.data.classes import IGNORE

Batch = dict[str, np.ndarray]


def fitted_size(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """The largest (h, w) of the same shape as `size` that fits the canvas, at least 1x1."""
    ratio = min(canvas[0] / size[0], canvas[1] / size[1])
    return tuple(max(1, min(c, round(n * ratio))) for n, c in zip(size, canvas, strict=True))


def resize_image(
    image: UInt8[np.ndarray, "h w c"], size: tuple[int, int]
) -> UInt8[np.ndarray, "H W c"]:
    """Bilinear, antialiased where it shrinks; the image itself if it has that size."""
    if tuple(size) == image.shape[:2]:
        return image
    # One by one where there are not 3: Pillow would weight 2 or 4 by the last, as by alpha.
    bands = [image] if image.shape[2] == 3 else np.moveaxis(image, -1, 0)
    bands = [Image.fromarray(b).resize(size[::-1], Image.Resampling.BILINEAR) for b in bands]
    return np.dstack(bands)


def fit_image(
    image: UInt8[np.ndarray, "h w c"], canvas: tuple[int, int]
) -> UInt8[np.ndarray, "H W c"]:
    """Resizes to fit the canvas (antialiased bilinear), top left, the rest its mean colour."""
    size = fitted_size(image.shape[:2], canvas)
    image = resize_image(image, size)
    if size == tuple(canvas):
        return image
    out = np.empty((*canvas, image.shape[2]), np.uint8)
    out[:] = image.mean((0, 1)).round()
    out[: size[0], : size[1]] = image
    return out


def fit_label(label: UInt8[np.ndarray, "h w"], canvas: tuple[int, int]) -> UInt8[np.ndarray, "H W"]:
    """Resizes ids by nearest neighbour to the place where `fit_image` puts the image; the rest of
    the canvas is ignored (255)."""
    size = fitted_size(label.shape, canvas)
    if size != label.shape:
        label = np.asarray(Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST))
    if size == tuple(canvas):
        return label
    out = np.full(canvas, IGNORE, np.uint8)
    out[: size[0], : size[1]] = label
    return out


class Canvas:
    """A source whose samples all have one size: `{"image", "label", "index"}`.

    Samples are kept in memory after the first use as long as they take no more than `cache_mb`
    together (each process keeps its own).

    Args:
      source: random access to `{"image": uint8 [h, w, 3], "label": uint8 [h, w]}`.
      size: (H, W) of the canvas.
      label_size: (H, W) of the labels, if evaluation is to score at another size.
      cache_mb: memory for decoded samples, in 10**6 bytes.
      channels: of the images, to know how many samples that is.
    """

    def __init__(
        self,
        source: Any,
        size: tuple[int, int],
        *,
        label_size: tuple[int, int] | None = None,
        cache_mb: float = 0,
        channels: int = 3,
    ):
        self.source, self.size = source, tuple(size)
        self.label_size = tuple(label_size or size)
        bytes_each = (
            self.size[0] * self.size[1] * channels + self.label_size[0] * self.label_size[1]
        )
        self.names: dict[int, str] = {}  # of the samples that this process has decoded
        self._cache = {} if len(source) * bytes_each <= cache_mb * 1e6 else None

    def __getstate__(self):
        state = dict(self.__dict__)
        state["_cache"] = None if self._cache is None else {}
        return state

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Batch:
        if self._cache is None:
            return self.decode(index)
        if index not in self._cache:
            self._cache[index] = self.decode(index)
        return self._cache[index]

    def decode(self, index: int) -> Batch:
        """`self[index]`, read anew and not kept."""
        sample = self.source[index]
        self.names[int(index)] = str(sample.get("name", index))
        return {
            "image": fit_image(sample["image"], self.size),
            "label": fit_label(sample["label"], self.label_size),
            "index": np.int32(index),
        }


def train_iterator(
    canvas: Canvas,
    batch_size: int,
    *,
    seed: int,
    workers: int = 0,
    order: grain.MapDataset | None = None,
    process_index: int = 0,
    process_count: int = 1,
    indices_only: bool = False,
) -> grain.DatasetIterator:
    """Endless shuffled batches: uint8 images [n, H, W, 3], labels [n, H, W], int32 index [n].

    Each epoch is a new permutation; batches run across its end, so every image is used once an
    epoch. `get_state()` and `set_state()` save and restore the position; the state is the same for
    all processes, and for all numbers of them.

    Args:
      batch_size: of the batch that all processes make up together; n is this process's share.
      workers: worker processes; 0 decodes in threads of this process.
      order: indices in the order of their use, without end; None = `shuffled(len(canvas), seed)`.
      process_index, process_count: which rows are this process's, see `process_rows`.
      indices_only: leaves image and label out, and reads no file; see `device.DeviceData`.

    Raises:
      ValueError: if the batch does not divide over the processes.
    """
    rows = process_rows(batch_size, process_index, process_count)
    order = shuffled(len(canvas), seed) if order is None else order
    load = functools.partial(_load, None if indices_only else canvas, rows)
    data = order.batch(batch_size).map(load)
    # Grain would read 500 batches ahead with 16 threads, in each worker.
    options = grain.ReadOptions(num_threads=1 if workers else 2, prefetch_buffer_size=4)
    data = data.to_iter_dataset(options)
    if workers and not indices_only:
        if not flags.FLAGS.is_parsed():  # grain's workers read absl flags; a notebook has none
            flags.FLAGS.mark_as_parsed()
        data = data.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(data)


def shuffled(length: int, seed: int) -> grain.MapDataset:
    """The indices 0..length-1 without end, each epoch in an order of its own."""
    return grain.MapDataset.range(length).seed(seed).shuffle().repeat(None)


def process_rows(batch_size: int, process_index: int, process_count: int) -> slice:
    """The rows of a batch that a process reads: equal blocks, in the order of the processes.

    Raises:
      ValueError: if the batch does not divide over the processes.
    """
    share, rest = divmod(batch_size, process_count)
    if rest or not 0 <= process_index < process_count:
        raise ValueError(
            f"a batch of {batch_size} (train.batch_size, train.eval_batch_size) does not divide "
            f"over {process_count} processes (this is process {process_index}); use a multiple of "
            f"{process_count}"
        )
    return slice(process_index * share, (process_index + 1) * share)


def _load(canvas: Canvas | None, rows: slice, indices: np.ndarray) -> Batch:
    """The samples of a batch's indices [batch_size] that are this process's."""
    indices = np.asarray(indices[rows], np.int32)
    return {"index": indices} if canvas is None else _stack([canvas[int(i)] for i in indices])


def _stack(samples: list[Batch]) -> Batch:
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def eval_batches(
    canvas: Canvas, batch_size: int, *, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """Every sample once, in order; the last batch is filled up with rows whose labels are all
    ignored (index -1), so all batches have one shape.

    With several processes each yields its rows of every batch (see `process_rows`), so all of them
    make the same number of steps.

    Raises:
      ValueError: if the batch does not divide over the processes.
    """
    rows = process_rows(batch_size, process_index, process_count)
    for start in range(0, len(canvas), batch_size):
        own = range(start + rows.start, min(start + rows.stop, len(canvas)))
        # A process without a sample of its own still needs the shapes of one.
        batch = _stack([canvas[i] for i in own or (0,)])
        batch = batch if own else {name: values[:0] for name, values in batch.items()}
        yield pad_batch(batch, rows.stop - rows.start)


def pad_batch(batch: Batch, batch_size: int) -> Batch:
    """Adds rows (image 0, label 255, index -1) up to `batch_size`."""
    missing = batch_size - len(batch["image"])
    fill = {"image": 0, "label": IGNORE, "index": -1}
    return {
        name: np.concatenate([rows, np.full((missing, *rows.shape[1:]), fill[name], rows.dtype)])
        if missing
        else rows
        for name, rows in batch.items()
    }
