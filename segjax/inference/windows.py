"""Where sliding windows lie, what their pixels weigh, and whether their borders show."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Shaped


def bucket(size: int) -> int:
    """The smallest of 32, 64, ... 256, 320, 384, 448, 512, 640, ... that holds `size` pixels.

    Multiples of 32, four per doubling beyond 256, so that a program is compiled for few sizes
    only: 16 up to 1024, 4 more for each doubling.
    """
    step = 32
    while size > 8 * step:
        step *= 2
    return -(-size // step) * step


def starts(size: int, window: int, overlap: float) -> list[int]:
    """First pixels of the windows along one axis of `size` pixels.

    A window begins every round(window * (1 - overlap)) pixels; the last one is shifted inward to
    end with the image. A window that is larger than the image begins at 0.
    """
    stride = max(1, round(window * (1 - overlap)))
    last = max(0, size - window)
    return [*range(0, last, stride), last]


def blend_weights(window: tuple[int, int], blend: str) -> Float[np.ndarray, "h w"]:
    """float32 weights of a window's pixels, above 0, 1 at the most.

    "uniform": 1. "linear": along each axis the distance to the nearer border, so that windows
    that overlap by half add up to a constant. "gaussian": around the centre, its standard
    deviation an eighth of the window along each axis (as Isensee et al., "nnU-Net", Nature Methods
    2021, do it).
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
    """Columns of an image that are finished together, and the windows that touch them.

    Attributes:
      lefts: first columns of those windows.
      begin, end: the columns.
    """

    lefts: tuple[int, ...]
    begin: int
    end: int


def bands(lefts: list[int], width: int, window: int, strip: int) -> Iterator[Band]:
    """Cuts an image of `width` columns so that the windows over each part span `strip` at most.

    Windows across a cut are in both parts, so that every pixel has all its windows.

    Args:
      lefts: first columns of all windows, rising.
      window: their width.
      strip: columns, two windows or more, or all of the image.
    """
    begin = 0
    while begin < width:
        touching = [x for x in lefts if x + window > begin]
        beyond = [x for x in touching if x + window > touching[0] + strip]
        end = beyond[0] if beyond else width
        yield Band(tuple(x for x in touching if x < end), begin, end)
        begin = end


@dataclasses.dataclass(frozen=True)
class Seam:
    """How much a result changes from one pixel to the next.

    Attributes:
      at_borders: mean over the pairs of neighbours that a window border parts.
      elsewhere: mean over all other pairs. Either is NaN where there are no such pairs.
    """

    at_borders: float
    elsewhere: float

    @property
    def excess(self) -> float:
        """`at_borders - elsewhere`: about 0 where no seam shows."""
        return self.at_borders - self.elsewhere


def seam(
    result: Shaped[np.ndarray, "h w *k"], window: tuple[int, int], overlap: float = 0.0
) -> Seam:
    """Measures the seams that windows of that size and overlap leave in a result.

    A border is where a window begins or ends inside the image. Measure results with and without
    overlap at the borders of the same grid to compare them.

    Args:
      result: labels [h, w] (a pair changes or not: shares in [0, 1]), or scores [h, w, k] (the
        mean absolute difference over the k classes).
      window: (h, w).
      overlap: of the windows whose borders are looked at.

    Raises:
      ValueError: if `result` has other axes.
    """
    result = np.asarray(result)
    if result.ndim not in (2, 3):
        raise ValueError(f"seam of {result.shape}; use labels [h, w] or scores [h, w, k]")
    sums = np.zeros((2, 2))  # rows: elsewhere, at borders; columns: changes, pairs
    for axis in (0, 1):
        before = np.moveaxis(result, axis, 0)
        before, after = before[:-1], before[1:]
        if result.ndim == 2:
            change = np.asarray(before != after, np.float64).reshape(len(before), -1)
        else:
            change = np.abs(after.astype(np.float64) - before).mean(-1).reshape(len(before), -1)
        size, length = result.shape[axis], window[axis]
        firsts = starts(size, length, overlap)
        borders = {n - 1 for first in firsts for n in (first, first + length) if 0 < n < size}
        at = np.isin(np.arange(len(before)), sorted(borders))
        for kind, rows in enumerate((change[~at], change[at])):
            sums[kind] += rows.sum(), rows.size
    elsewhere, at_borders = (float(s / n) if n else float("nan") for s, n in sums)
    return Seam(at_borders, elsewhere)
