"""A split of a data set, and the row of the table that opens it."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
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


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """A data set that `data.name` may name: a row of `datasets.DATASETS`."""

    title: str  # its name, authors and year
    licence: str  # the terms of its files, in a sentence
    url: str  # where to get them
    layout: str  # of `data.root`, in words
    splits: tuple[str, ...]  # their names in the data set's own files
    classes: Callable[[Mapping[str, Any]], ClassTable]  # gives the class table, from `config.data`
    # Gives the source of a split, from `config.data` (with the run's "seed") and the split's name;
    # reads no sample
    open: Callable[[Mapping[str, Any], str], Source]
    # Values of `data.variant`, the first for ""; empty = it has none
    variants: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()  # splits whose labels are not public
    # Published class weights, by variant
    weights: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    # (H, W) to which the benchmark's own scorer resizes predictions and labels, by nearest
    # neighbour; None = it compares them as they are, or there is none
    server_size: tuple[int, int] | None = None
    # False for data that are drawn or that a library finds, which need no `data.root`
    reads_files: bool = True


def files_of(source: Any) -> PairedFiles | None:
    """The image and mask files of a source, or of the one inside its `.source`.

    None where samples have no files of their own, or are not those of `source` one for one.
    """
    inner = source
    while not isinstance(inner, PairedFiles) and hasattr(inner, "source"):
        inner = inner.source
    return inner if isinstance(inner, PairedFiles) and len(inner) == len(source) else None


def file_names(source: Any, index: int) -> list[str]:
    """The paths of a sample's files, or a name for it where it has none."""
    files = files_of(source)
    if files is None:
        return [f"sample {index} of {type(source).__name__}"]
    return [str(files.image_paths[index]), *map(str, files.masks_of(index))]


def notes_of(sources: Iterable[Any]) -> list[str]:
    """What the user should know of how the files of sources were found, each line once."""
    files = [files_of(source) for source in sources]
    return list(dict.fromkeys(note for found in files if found for note in found.notes))


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
    name, size = str(sample.get("name", index)), list(image.shape[:2])
    if image.dtype != np.uint8 or image.ndim != 3:
        found = f"{name}: image is {image.dtype} {list(image.shape)}"
        raise DataError(found, "use uint8 [height, width, channels]")
    if label.dtype != np.uint8 or list(label.shape) != size:
        found = f"{name}: label is {label.dtype} {list(label.shape)}"
        raise DataError(found, f"use uint8 {size}, the image's size")
    return image, label, name
