"""What a split of a data set gives: samples by index, and classes."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from segjax.data.classes import ClassTable
from segjax.data.errors import DataError
from segjax.data.files.paired import PairedFiles


@runtime_checkable
class Samples(Protocol):
    """Samples by index: {"image": uint8 [h, w, c], "label": uint8 [h, w], "name": str}.

    A label is a class id 0..K-1, or 255 = ignore. `[i]` raises ValueError or OSError for a sample
    that cannot be read, and IndexError after the last one.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


@runtime_checkable
class Source(Samples, Protocol):
    """A split of a data set: its samples and its K classes.

    A source pickles, so that worker processes can read for themselves, and decodes nothing before
    `[i]`. Where each sample is an image file and a mask file it is a `PairedFiles`.
    """

    @property
    def classes(self) -> ClassTable: ...


def files_of(source: Any) -> PairedFiles | None:
    """The image and mask files of a source, or of the one inside its `.source`.

    None where samples have no files of their own, or are not those of `source` one for one.
    """
    inner = source
    while not isinstance(inner, PairedFiles) and hasattr(inner, "source"):
        inner = inner.source
    return inner if isinstance(inner, PairedFiles) and len(inner) == len(source) else None


def read_sample(
    source: Samples, index: int
) -> tuple[UInt8[np.ndarray, "h w c"], UInt8[np.ndarray, "h w"], str]:
    """Image, label and name of a sample, as arrays of the type and shape that a source must give.

    Raises:
      ValueError, OSError: as the source does, or if it gives other arrays.
    """
    return checked_arrays(source[index], index)


def checked_arrays(
    sample: dict[str, Any], index: int
) -> tuple[UInt8[np.ndarray, "h w c"], UInt8[np.ndarray, "h w"], str]:
    """`read_sample` of a sample that is read already."""
    image, label = np.asarray(sample["image"]), np.asarray(sample["label"])
    name = str(sample.get("name", index))
    if image.dtype != np.uint8 or image.ndim != 3:
        raise DataError(
            f"{name}: image is {image.dtype} {list(image.shape)}",
            "use uint8 [height, width, channels]",
        )
    if label.dtype != np.uint8 or label.shape != image.shape[:2]:
        raise DataError(
            f"{name}: label is {label.dtype} {list(label.shape)}",
            f"use uint8 {list(image.shape[:2])}, the image's size",
        )
    return image, label, name
