"""The positions of sliding windows, and the weights of their pixels."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float


def bucket(size: int) -> int:
    """The smallest of 32, 64, ... 256, 320, 384, 448, 512, 640, ... that holds `size` pixels.

    Buckets are multiples of 32, four per doubling beyond 256, so that programs are compiled for few
    sizes: 16 up to 1024, and 4 more per doubling.
    """
    step = 32
    while size > 8 * step:
        step *= 2
    return -(-size // step) * step


def starts(size: int, window: int, overlap: float) -> list[int]:
    """First pixels of the windows along one axis of `size` pixels.

    A window begins every round(window * (1 - overlap)) pixels; the last one is moved inward to end
    with the image. A window that is larger than the image begins at 0.
    """
    stride = max(1, round(window * (1 - overlap)))
    last = max(0, size - window)
    return [*range(0, last, stride), last]


def blend_weights(window: tuple[int, int], blend: str) -> Float[np.ndarray, "h w"]:
    """float32 weights of a window's pixels, in (0, 1].

    "uniform": 1. "linear": the distance to the nearer border along each axis, so that windows
    that overlap by half sum to a constant. "gaussian": around the centre, with a standard deviation
    of an eighth of the window along each axis (Isensee et al., "nnU-Net", Nature Methods 2021).
    """
    rows, columns = (_axis_weights(n, blend) for n in window)
    return np.outer(rows, columns).astype(np.float32)


def _axis_weights(n: int, blend: str) -> np.ndarray:
    centre = np.arange(n) + 0.5
    if blend == "uniform":
        return np.ones(n)
    if blend == "linear":
        weights = np.minimum(centre, n - centre)
    else:
        weights = np.exp(-0.5 * np.square((centre - n / 2) / (n / 8)))
    return weights / weights.max()


@dataclasses.dataclass(frozen=True)
class Band:
    """Columns of an image that are finished together, and the windows that overlap them.

    Attributes:
      lefts: first columns of those windows.
      begin, end: the columns.
    """

    lefts: tuple[int, ...]
    begin: int
    end: int


def bands(lefts: list[int], width: int, window: int, strip: int) -> Iterator[Band]:
    """Cuts an image of `width` columns so that the windows of each part span at most `strip`.

    Windows across a cut are in both parts, so that every pixel has all of its windows.

    Args:
      lefts: first columns of all windows, in rising order.
      window: their width.
      strip: columns: two windows or more, or the width of the image.
    """
    begin = 0
    while begin < width:
        touching = [x for x in lefts if x + window > begin]
        beyond = [x for x in touching if x + window > touching[0] + strip]
        end = beyond[0] if beyond else width
        yield Band(tuple(x for x in touching if x < end), begin, end)
        begin = end
