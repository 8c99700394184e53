"""A data set fitted to one size: samples decoded and resized to a canvas, kept in memory."""

import math
import threading
from collections.abc import Iterable, Mapping
from typing import Any, SupportsInt

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from segjax.data.classes import IGNORE
from segjax.data.errors import DataError
from segjax.data.parallel import TIMEOUT_S
from segjax.data.source import Samples, file_names

Batch = dict[str, np.ndarray]


def fitted_size(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """The largest (h, w) of the same shape as `size` that fits the canvas, at least 1x1."""
    ratio = min(canvas[0] / size[0], canvas[1] / size[1])
    height, width = (max(1, min(c, round(n * ratio))) for n, c in zip(size, canvas, strict=True))
    return height, width


def resize_image(
    image: UInt8[np.ndarray, "h w c"], size: tuple[int, int]
) -> UInt8[np.ndarray, "H W c"]:
    """Resizes bilinearly, antialiased where it shrinks; returns the image itself at its size."""
    if tuple(size) == image.shape[:2]:
        return image
    # Band by band where there are not 3: Pillow would weight 2 or 4 by the last, as by alpha.
    bands = [image] if image.shape[2] == 3 else np.moveaxis(image, -1, 0)
    bands = [Image.fromarray(b).resize(size[::-1], Image.Resampling.BILINEAR) for b in bands]
    return np.dstack(bands)


def fit_image(
    image: UInt8[np.ndarray, "h w c"], canvas: tuple[int, int]
) -> UInt8[np.ndarray, "H W c"]:
    """Resizes to fit the canvas (antialiased bilinear), top left; the rest has its mean colour."""
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


class UnreadableSample(DataError):
    """A sample that cannot be read; the message names its files and what is wrong."""


class FittedDataset:
    """A source whose samples all have one size: `{"image", "label", "index"}`.

    Samples are kept in memory after the first use if all of them take no more than `cache_mb`
    (each process keeps its own).

    Args:
      source: the split.
      size: (H, W) of images and labels.
      cache_mb: memory for decoded samples, in 10**6 bytes.
      channels: of the images.
      on_unreadable: what to do about a sample that cannot be read. "stop" raises. "skip" puts the
        next readable sample of the source in its place, under the index of the unreadable one,
        from which augmentation draws; `skipped` holds the messages, by that index.
      timeout_s: the longest wait for a batch, see `batches.train_iterator`.
    """

    def __init__(
        self,
        source: Samples,
        size: tuple[int, int],
        *,
        cache_mb: float = 0,
        channels: int = 3,
        on_unreadable: str = "stop",
        timeout_s: float = TIMEOUT_S,
    ):
        self.source, self.size = source, tuple(size)
        self.channels = channels
        bytes_each = math.prod(self.size) * (channels + 1)
        self._kept, self._limit = 0, cache_mb * 1e6
        self.on_unreadable, self.timeout_s = on_unreadable, timeout_s
        self.names: dict[int, str] = {}  # of the samples that this process has decoded
        self.skipped: dict[int, str] = {}
        self._reading: dict[int, int] = {}  # index by thread
        self._cache = {} if len(source) * bytes_each <= self._limit else None

    def __getstate__(self):
        cache = None if self._cache is None else {}
        return {**self.__dict__, "skipped": {}, "_reading": {}, "_cache": cache, "_kept": 0}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        cache = self._cache
        if cache is None:
            return self.decode(index)
        if index not in cache:
            cache[index] = self.decode(index)
            self._kept += cache[index]["image"].nbytes + cache[index]["label"].nbytes
            if self._kept > self._limit:  # where sizes differ, that is known only now
                self._cache = None
        return cache[index]

    def decode(self, index: int) -> dict[str, Any]:
        """`self[index]`, read anew and not kept.

        Raises:
          UnreadableSample: if it cannot be read, or with "skip" if none can.
        """
        for step in range(max(1, len(self))):
            place = (index + step) % len(self) if step else index
            try:
                return {**self._read(place), "index": np.int32(index)}
            except UnreadableSample as error:
                if self.on_unreadable != "skip":
                    raise
                last, self.skipped[place] = error, str(error)
        raise UnreadableSample(
            f"none of the {len(self)} samples can be read; one of them: {last.found}", last.remedy
        )

    def _read(self, index: int) -> Batch:
        index = int(index)
        self._reading[threading.get_ident()] = index
        try:
            sample = self.source[index]
            self.names[index] = str(sample.get("name", index))
            return self._fit(sample)
        except (MemoryError, IndexError):
            raise
        except Exception as error:  # a damaged file may make its decoder raise anything
            found = f"{type(error).__name__}: {error}"
            remedy = "use an intact copy, or leave the sample out"
            if isinstance(error, DataError):
                found, remedy = error.found, error.remedy
            raise UnreadableSample(self._named(index, found), remedy) from error
        finally:
            del self._reading[threading.get_ident()]

    def _fit(self, sample: Mapping[str, Any]) -> Batch:
        """Image and label of a sample of the source, at the data set's sizes."""
        return {
            "image": fit_image(sample["image"], self.size),
            "label": fit_label(sample["label"], self.size),
        }

    def stack(self, samples: list[dict[str, Any]]) -> Batch:
        """A batch of samples."""
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    @property
    def label_shape(self) -> tuple[int, ...]:
        """The shape of a label in a batch."""
        return self.size

    def _named(self, index: int, message: str) -> str:
        """The message, with the sample's files if it does not name one of them."""
        files = file_names(self.source, index)
        named = any(file in message for file in files)
        return message if named else f"{' with '.join(files)} cannot be read: {message}"

    def being_read(self, awaited: Iterable[SupportsInt] = ()) -> str:
        """The files that this process is reading; without any, those of the samples `awaited`,
        some of which other processes may be reading."""
        now = list(self._reading.values())
        files = [file for index in now or awaited for file in file_names(self.source, int(index))]
        more = ", ..." * (len(files) > 6)
        return f"{'' if now else 'some of '}{', '.join(files[:6])}{more}"
