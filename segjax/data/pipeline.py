"""The host's half of the data work: decode, fit to a fixed canvas, shuffle, batch (with grain).

The order of the training examples is a function of (seed, position) alone, and an iterator's
position is its whole state, so a resumed run sees what the uninterrupted one would have seen.
Where several processes train together, each reads its own rows of every batch.
"""

import functools
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import grain
import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from segjax.data.classes import IGNORE
from segjax.data.read_ahead import read_ahead
from segjax.data.watched import Batches

Batch = dict[str, np.ndarray]

# What rows hold that are no samples.
_PADDING = {"image": 0, "label": IGNORE, "index": -1}


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


def batch_shapes(
    count: int, size: tuple[int, int], label_size: tuple[int, int], channels: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays of a batch of `count` rows, without them."""
    return {
        "image": jax.ShapeDtypeStruct((count, *size, channels), np.uint8),
        "label": jax.ShapeDtypeStruct((count, *label_size), np.uint8),
        "index": jax.ShapeDtypeStruct((count,), np.int32),
    }


class UnreadableSample(ValueError):
    """A sample that cannot be read; the message names its files and what is wrong."""


class FittedDataset:
    """A source whose samples all have one size: `{"image", "label", "index"}`.

    Samples are kept in memory after the first use as long as they take no more than `cache_mb`
    together (each process keeps its own).

    Args:
      source: random access to `{"image": uint8 [h, w, 3], "label": uint8 [h, w]}`.
      size: (H, W) of the canvas.
      label_size: (H, W) of the labels, if evaluation is to score at another size.
      cache_mb: memory for decoded samples, in 10**6 bytes.
      channels: of the images.
      on_unreadable: what to do about a sample that cannot be read. "stop" raises. "skip" gives the
        next one of the source that can be read in its place, under its own index, from which
        augmentation draws; `skipped` holds what was wrong, by the index of the unreadable one.
      timeout_s: the longest wait for a batch, see `train_iterator` and `eval_batches`.
    """

    def __init__(
        self,
        source: Any,
        size: tuple[int, int],
        *,
        label_size: tuple[int, int] | None = None,
        cache_mb: float = 0,
        channels: int = 3,
        on_unreadable: str = "stop",
        timeout_s: float = 300.0,
    ):
        self.source, self.size = source, tuple(size)
        self.label_size, self.channels = tuple(label_size or size), channels
        bytes_each = (
            self.size[0] * self.size[1] * channels + self.label_size[0] * self.label_size[1]
        )
        self.on_unreadable, self.timeout_s = on_unreadable, timeout_s
        self.names: dict[int, str] = {}  # of the samples that this process has decoded
        self.skipped: dict[int, str] = {}
        self._reading: dict[int, int] = {}  # index by thread
        self._cache = {} if len(source) * bytes_each <= cache_mb * 1e6 else None

    def __getstate__(self):
        cache = None if self._cache is None else {}
        return {**self.__dict__, "skipped": {}, "_reading": {}, "_cache": cache}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Batch:
        if self._cache is None:
            return self.decode(index)
        if index not in self._cache:
            self._cache[index] = self.decode(index)
        return self._cache[index]

    def padding(self, count: int) -> Batch:
        """A batch of rows that are no samples, see `pad_batch`."""
        shapes = batch_shapes(count, self.size, self.label_size, self.channels)
        return {name: np.full(x.shape, _PADDING[name], x.dtype) for name, x in shapes.items()}

    def decode(self, index: int) -> Batch:
        """`self[index]`, read anew and not kept.

        Raises:
          UnreadableSample: if it cannot be read, or with "skip" if none can.
        """
        if self.on_unreadable != "skip":
            return {**self._read(index), "index": np.int32(index)}
        for step in range(len(self)):
            place = (index + step) % len(self) if step else index
            try:
                return {**self._read(place), "index": np.int32(index)}
            except UnreadableSample as error:
                self.skipped[place] = what = str(error)
        raise UnreadableSample(f"none of the {len(self)} samples can be read; one of them: {what}")

    def _read(self, index: int) -> Batch:
        index = int(index)
        self._reading[threading.get_ident()] = index
        try:
            sample = self.source[index]
            self.names[index] = str(sample.get("name", index))
            return {
                "image": fit_image(sample["image"], self.size),
                "label": fit_label(sample["label"], self.label_size),
            }
        except (MemoryError, IndexError):
            raise
        except Exception as error:  # a damaged file may make its decoder raise anything
            files, what = self._files(index), str(error)
            if not any(file in what for file in files):
                what = f"{' with '.join(files)} cannot be read: {type(error).__name__}: {what}"
            raise UnreadableSample(what) from error
        finally:
            del self._reading[threading.get_ident()]

    def _files(self, index: int) -> list[str]:
        """The files of a sample, or what else it is called."""
        source = self.source
        while not hasattr(source, "image_paths") and hasattr(source, "source"):
            source = source.source
        if hasattr(source, "image_paths"):
            return [str(source.image_paths[index]), str(source.mask_paths[index])]
        return [f"sample {index} of {type(source).__name__}"]

    def being_read(self, awaited: Iterable[int] = ()) -> str:
        """Names what this process is reading; where it is not, what others may be: the samples
        `awaited`."""
        now = list(self._reading.values())
        files = [file for index in now or awaited for file in self._files(int(index))]
        more = ", ..." * (len(files) > 6)
        return f"{'' if now else 'some of '}{', '.join(files[:6])}{more}"


def train_iterator(
    canvas: FittedDataset,
    batch_size: int,
    *,
    seed: int,
    workers: int = 0,
    order: grain.MapDataset | None = None,
    rows: slice | None = None,
    indices_only: bool = False,
) -> Batches:
    """Endless shuffled batches: uint8 images [n, H, W, 3], labels [n, H, W], int32 index [n].

    Each epoch is a new permutation; batches run across its end, so every image is used once an
    epoch. `get_state()` and `set_state()` save and restore the position; the state is the same
    whatever the rows and the workers.

    Args:
      batch_size: of the batch that all processes make up together.
      workers: worker processes; 0 decodes in threads of this process.
      order: indices in the order of their use, without end; None = `shuffled(len(canvas), seed)`.
      rows: of that batch, those that are wanted; those at `batch_size` and after it are padding,
        see `pad_batch`. None = all, and no padding.
      indices_only: leaves image and label out, and reads no file; see `device.DeviceData`.

    Raises:
      UnreadableSample, TimeoutError, ChildProcessError: by the iterator; see `FittedDataset` and
        `Batches`.
    """
    order = shuffled(len(canvas), seed) if order is None else order
    rows = slice(0, batch_size) if rows is None else rows
    return Batches(
        order.batch(batch_size),
        functools.partial(_load, canvas, rows, indices_only),
        workers=0 if indices_only else workers,
        timeout_s=canvas.timeout_s,
        reading=lambda indices: canvas.being_read(indices[rows]),
    )


def shuffled(length: int, seed: int) -> grain.MapDataset:
    """The indices 0..length-1 without end, each epoch in an order of its own."""
    return grain.MapDataset.range(length).seed(seed).shuffle().repeat(None)


def _load(canvas: FittedDataset, rows: slice, indices_only: bool, indices: np.ndarray) -> Batch:
    """The wanted rows of the batch that holds the samples `indices`."""
    own = np.asarray(indices[rows], np.int32)
    if indices_only:
        return pad_batch({"index": own}, rows.stop - rows.start)
    batch = _rows(canvas, own.tolist(), rows.stop - rows.start)
    found = [(i, what) for i in list(canvas.skipped) if (what := canvas.skipped.pop(i, ""))]
    return {**batch, "skipped": found} if found else batch


def _rows(canvas: FittedDataset, indices: Sequence[int], count: int) -> Batch:
    """Samples, filled up with padding to `count` rows."""
    if not indices:  # a process may have padding only
        return canvas.padding(count)
    samples = [canvas[index] for index in indices]
    batch = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    return pad_batch(batch, count)


def eval_batches(
    canvas: FittedDataset, batch_size: int, *, rows: slice | None = None
) -> Iterator[Batch]:
    """Every sample once, in order; the last batch is filled up with rows whose labels are all
    ignored (index -1), so all batches have one shape.

    Args:
      batch_size: samples in a batch that all processes make up together.
      rows: of that batch, those that are wanted, as for `train_iterator`; whatever they are, there
        are as many batches.

    Raises:
      UnreadableSample: if a sample cannot be read.
      TimeoutError: if there is no batch for `canvas.timeout_s`.
    """
    rows = slice(0, batch_size) if rows is None else rows

    def load(start: int) -> Batch:
        end = min(start + batch_size, start + rows.stop, len(canvas))
        return _rows(canvas, range(start + rows.start, end), rows.stop - rows.start)

    return read_ahead(
        ((load, start) for start in range(0, len(canvas), batch_size)),
        threads=1,
        ahead=2,
        timeout_s=canvas.timeout_s,
        reading=canvas.being_read,
    )


def pad_batch(batch: Batch, count: int) -> Batch:
    """Adds rows (image 0, label 255, index -1) up to `count`."""
    missing = count - len(next(iter(batch.values())))
    if not missing:
        return batch
    return {
        name: np.concatenate(
            [rows, np.full((missing, *rows.shape[1:]), _PADDING[name], rows.dtype)]
        )
        for name, rows in batch.items()
    }
