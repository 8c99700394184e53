"""The size at which evaluation compares label maps, where that is not the canvas.

A network sees an image on the canvas (`fitted.fit_image`). Scored at the labels' own size, as
hszhao/semseg and mmsegmentation do, the part of the logits that the image fills is resized to the
label's size, bilinearly, and decides there; labels stay as they are. Scored at a stated size, as
some benchmarks' servers do, that prediction and the label are both resized to it by nearest
neighbour. `ScoredDataset` gives labels and sizes, `training.scored_pixels` does the rest.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer

from segjax.data.classes import IGNORE
from segjax.data.datasets import spec_of
from segjax.data.errors import DataError
from segjax.data.fitted import Batch, FittedDataset, fit_image, fitted_size
from segjax.data.source import Samples

OWN, SERVER = "own", "server"
LabelSize = tuple[int, int] | str | None  # (H, W), OWN, or None = the canvas
SIZES = 6  # of each image: height and width scored, of the label's own, and filled of the canvas
_SMALLEST = 1 << 10  # pixels of a row of labels
_LARGEST = 1 << 15  # side of a label map


def label_size(data: Mapping[str, Any]) -> LabelSize:
    """The size that `data.label_size` names.

    Raises:
      DataError: for anything but (0, 0), own, two whole numbers above 0, and server where the data
        set's benchmark states a size.
    """
    given = data["label_size"]
    size = (given,) if isinstance(given, str) else tuple(given)
    if size in ((), (0, 0)):
        return None
    if size == (OWN,):
        return OWN
    if size == (SERVER,):
        if server := spec_of(data).server_size:
            return server
        found = f"data.label_size={SERVER}, but the scorer of {data['name']} states no size"
        raise DataError(found, "use own, or (height, width)")
    if len(size) == 2 and all(isinstance(n, int) and 0 < n <= _LARGEST for n in size):
        return size
    raise DataError(
        f"data.label_size={given}",
        "use own (the labels' own size), (height, width), server (the size of the benchmark's own "
        "scorer, where it states one), or (0, 0) for the canvas",
    )


def described_size(size: LabelSize, canvas: tuple[int, int] = (0, 0)) -> str:
    """The size, in words; without one that of the canvas."""
    if size == OWN:
        return "the labels' own size"
    height, width = size or canvas
    resized = ", to which predictions and labels are resized by nearest neighbour" * bool(size)
    return f"{height}x{width}{resized}"


def resize_label(
    label: Integer[np.ndarray, "h w"], size: Sequence[int]
) -> Integer[np.ndarray, "H W"]:
    """The nearest pixels of a label map, see `nearest_pixels`; the map itself at its size."""
    return label if label.shape == tuple(size) else label[nearest_pixels(label.shape, size)]


def nearest_pixels(size: Sequence[int], out: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of `size` that are nearest to those of `out`, as indices of an array.

    By half-pixel centres: pixel i of n is floor((i + 1/2) * in / n), as of Pillow, and torch's
    nearest-exact.
    """
    rows, columns = ((2 * np.arange(n) + 1) * m // (2 * n) for n, m in zip(out, size, strict=True))
    return rows[:, None], columns


def row_length(pixels: int) -> int:
    """The smallest power of two, 1,024 or more, that holds a label of so many pixels; labels of
    many sizes then make few programs."""
    return max(_SMALLEST, 1 << (pixels - 1).bit_length())


class ScoredDataset(FittedDataset):
    """A split for evaluation: images on the canvas, labels at their own size or at a stated one.

    A sample also has `sizes`, int32 [6]: height and width scored, of the label itself, and of the
    part of the canvas that the image fills. In a batch `label` is [n, length], each map flattened
    row by row and padded with 255; `label_maps` is the inverse.

    Args:
      source, size: see `FittedDataset`.
      scored: (H, W), or None for each label's own size.
      options: of `FittedDataset`.
    """

    def __init__(
        self,
        source: Samples,
        size: tuple[int, int],
        scored: tuple[int, int] | None = None,
        **options: Any,
    ):
        super().__init__(source, size, **options)
        self._scored, self._length = scored, row_length(1)

    @property
    def label_shape(self) -> tuple[int, ...]:
        return (self._length,)

    def _fit(self, sample: Mapping[str, Any]) -> Batch:
        own = sample["label"].shape
        label = resize_label(sample["label"], self._scored or own)
        sizes = np.array([*label.shape, *own, *fitted_size(own, self.size)], np.int32)
        return {"image": fit_image(sample["image"], self.size), "label": label, "sizes": sizes}

    def stack(self, samples: list[dict[str, Any]]) -> Batch:
        """A batch, whose labels are as long as those of all batches so far need."""
        self._length = max(self._length, *(row_length(s["label"].size) for s in samples))
        batch = super().stack(
            [{**s, "label": np.full(self._length, IGNORE, np.uint8)} for s in samples]
        )
        for row, sample in zip(batch["label"], samples, strict=True):
            row[: sample["label"].size] = sample["label"].ravel()
        return batch


def label_maps(batch: Mapping[str, Any], maps: np.ndarray) -> list[np.ndarray] | np.ndarray:
    """The label maps of each image, [h, w], from those of a batch on the host."""
    if "sizes" not in batch:
        return maps
    sizes = batch["sizes"][:, :2].tolist()
    return [flat[: h * w].reshape(h, w) for flat, (h, w) in zip(maps, sizes, strict=True)]
