"""The host's half of the data work: decode, fit to a fixed canvas, shuffle, batch (with grain).

The order of the training examples is a function of (seed, position) alone, and an iterator's
position is its whole state, so a resumed run sees what the uninterrupted one would have seen.
"""

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


def fit_image(
    image: UInt8[np.ndarray, "h w 3"], canvas: tuple[int, int]
) -> UInt8[np.ndarray, "H W 3"]:
    """Resizes to fit the canvas (antialiased bilinear), top left, the rest its mean colour."""
    size = fitted_size(image.shape[:2], canvas)
    if size != image.shape[:2]:
        image = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    if size == tuple(canvas):
        return image
    out = np.empty((*canvas, 3), np.uint8)
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
    """

    def __init__(
        self,
        source: Any,
        size: tuple[int, int],
        *,
        label_size: tuple[int, int] | None = None,
        cache_mb: float = 0,
    ):
        self.source, self.size = source, tuple(size)
        self.label_size = tuple(label_size or size)
        bytes_each = self.size[0] * self.size[1] * 3 + self.label_size[0] * self.label_size[1]
        self._cache = {} if len(source) * bytes_each <= cache_mb * 1e6 else None

    def __getstate__(self):
        state = dict(self.__dict__)
        state["_cache"] = None if self._cache is None else {}
        return state

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Batch:
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        sample = self.source[index]
        fitted = {
            "image": fit_image(sample["image"], self.size),
            "label": fit_label(sample["label"], self.label_size),
            "index": np.int32(index),
        }
        if self._cache is not None:
            self._cache[index] = fitted
        return fitted


def train_iterator(
    canvas: Canvas, batch_size: int, *, seed: int, workers: int = 0
) -> grain.DatasetIterator:
    """Endless shuffled batches: uint8 images [n, H, W, 3], labels [n, H, W], int32 index [n].

    Each epoch is a new permutation; batches run across its end, so every image is used once an
    epoch. `get_state()` and `set_state()` save and restore the position.

    Args:
      workers: worker processes; 0 decodes in threads of this process.
    """
    data = grain.MapDataset.source(canvas).seed(seed).shuffle().repeat(None).batch(batch_size)
    if workers:
        if not flags.FLAGS.is_parsed():  # grain's workers read absl flags; a notebook has none
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers)
        return iter(data.to_iter_dataset().mp_prefetch(options))
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    return iter(data.to_iter_dataset(options))


def eval_batches(canvas: Canvas, batch_size: int) -> Iterator[Batch]:
    """Every sample once, in order; the last batch is filled up with rows whose labels are all
    ignored (index -1), so all batches have one shape."""
    for start in range(0, len(canvas), batch_size):
        samples = [canvas[i] for i in range(start, min(start + batch_size, len(canvas)))]
        yield pad_batch({k: np.stack([s[k] for s in samples]) for k in samples[0]}, batch_size)


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
