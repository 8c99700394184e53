"""16-bit files that hold few of their levels, and the range of a split's values."""

import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8

from segjax.data.errors import DataError
from segjax.data.files.headers import Header, read_header
from segjax.data.files.paired import PairedFiles
from segjax.data.files.pixels import RawImage, read_raw
from segjax.data.files.values import SHALLOW, Range, robust_ranges, shallow_values
from segjax.data.parallel import TIMEOUT_S, in_threads, within

T = TypeVar("T")
DARK = (SHALLOW + 128) // 257  # what SHALLOW becomes of 0..255
# Training images that the range is found over, and pixels of each: a million values in all.
_IMAGES, _PIXELS = 200, 5000


def shallow_file(path: Any, image: UInt8[np.ndarray, "h w c"], channels: int) -> DataError | None:
    """The error for a 16-bit file, read without a range, of 14 bits or fewer; None for others."""
    if image.max(initial=0) > DARK or not read_header(pathlib.Path(path)).may_be_shallow:
        return None
    highest = int(read_raw(path, channels).values.max())
    return shallow_values(f"{path}: samples", highest) if highest <= SHALLOW else None


def shallow_split(
    split: str, files: PairedFiles, deep: Sequence[int], looked_at: int
) -> DataError | None:
    """The error for a split whose 16-bit images are all of 14 bits or fewer.

    Args:
      split: its name.
      files: of the split.
      deep: the 16-bit images among those that were looked at, by index; none is above `DARK`.
      looked_at: how many these were.
    """
    if files.value_range or not deep:
        return None
    highest = max(_in_threads(files, lambda i: _highest(files, i), deep[:20]), default=0)
    if highest > SHALLOW:
        return None
    where = f"data split {split!r}: {len(deep)} of {looked_at} images (such as "
    return shallow_values(f"{where}{files.image_paths[deep[0]]})", highest)


def _in_threads(
    files: PairedFiles,
    call: Callable[[int], T],
    indices: Sequence[int],
    timeout_s: float = TIMEOUT_S,
) -> Iterator[T]:
    """`parallel.in_threads` for calls that read the images of samples."""

    def reading(index: int) -> str:
        return str(files.image_paths[index])

    return in_threads(call, indices, reading=reading, timeout_s=timeout_s)


def _highest(files: PairedFiles, index: int) -> int:
    try:
        return int(read_raw(files.image_paths[index], files.channels).values.max())
    except DataError:
        return 0


def value_range(files: PairedFiles, timeout_s: float = TIMEOUT_S) -> tuple[tuple[Range, ...], int]:
    """The range of a split's values, and the number of images that it was found over.

    The 0.1 and 99.9 percentiles of each channel, over pixels at even distances of up to 200 images
    at even distances, so that every run finds the same. () where files have 8 bits.

    Raises:
      DataError: if no image can be read.
      TimeoutError: for one that is not read within `timeout_s`.
    """
    count = len(files)
    indices = np.unique(np.linspace(0, count - 1, min(_IMAGES, count)).round().astype(int))

    def sample(index: int) -> tuple[bool, np.ndarray] | DataError:
        try:
            raw = read_raw(files.image_paths[index], files.channels)
        except DataError as error:
            return error
        return raw.values.dtype.itemsize == 1, _some_pixels(raw)

    read = list(_in_threads(files, sample, indices.tolist(), timeout_s))
    pixels = [result for result in read if not isinstance(result, DataError)]
    if not pixels:
        raise next(error for error in read if isinstance(error, DataError))
    if all(of_bytes for of_bytes, _ in pixels):
        return (), len(pixels)
    return robust_ranges(values for _, values in pixels), len(pixels)


def _some_pixels(raw: RawImage) -> np.ndarray:
    pixels = raw.values.reshape(-1, raw.values.shape[2])
    if raw.nodata is not None:
        void = np.isnan(pixels) if np.isnan(raw.nodata) else pixels == raw.nodata
        pixels = pixels[~void.all(1)]
    return pixels[:: max(1, len(pixels) // _PIXELS)]


def exif_evidence(files: PairedFiles, timeout_s: float = TIMEOUT_S) -> str:
    """What the sizes of masks say about the orientation of images: "apply", "ignore", or "auto"
    where they say nothing or not all the same.

    Raises:
      TimeoutError: for a file that is not read within `timeout_s`.
    """
    count = len(files)
    indices = np.unique(np.linspace(0, count - 1, min(1000, count)).round().astype(int)).tolist()
    votes = set()
    for index, header in _turnable(files, indices, timeout_s):
        try:
            mask_size = within(timeout_s, files.mask_paths[index], files.ids, index).shape
        except TimeoutError:
            raise
        except (ValueError, OSError):
            continue
        if mask_size in (header.shape, header.shape[::-1]):
            votes.add("ignore" if mask_size == header.shape else "apply")
    return votes.pop() if len(votes) == 1 else "auto"


def _turnable(
    files: PairedFiles, indices: list[int], timeout_s: float
) -> Iterable[tuple[int, Header]]:
    """Up to 50 images that a quarter turn would give another size."""
    headers = _in_threads(files, lambda i: read_header(files.image_paths[i]), indices, timeout_s)
    found = [
        (index, header)
        for index, header in zip(indices, headers, strict=True)
        if header.orientation >= 5 and header.shape[0] != header.shape[1]
    ]
    return found[:50]
