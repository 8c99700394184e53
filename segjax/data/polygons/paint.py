"""Shapes with labels, and the one painter that makes a mask of them."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer
from PIL import Image, ImageDraw

from segjax.data.polygons.rle import Runs

Point = tuple[float, float]  # x, y in pixels
_FAR = 1e6  # pixels from the image, where a coordinate must be a mistake
_POINTS = 1_000_000  # of an outline, which Pillow looks at for each row that it fills


@dataclasses.dataclass(frozen=True, eq=False)
class Shape:
    """The area of one object: its outlines without its holes, and its bitmap."""

    label: str
    outlines: tuple[np.ndarray, ...] = ()  # [n, 2] x and y, pixels; n >= 3
    holes: tuple[np.ndarray, ...] = ()
    bitmap: Bool[np.ndarray, "h w"] | Runs | None = None
    place: tuple[int, int] = (0, 0)  # x, y of the bitmap's first pixel

    @property
    def area(self) -> float:
        """In square pixels."""
        rings = sum(map(_ring_area, self.outlines)) - sum(map(_ring_area, self.holes))
        if self.bitmap is None:
            return rings
        return rings + float(
            self.bitmap.pixels if isinstance(self.bitmap, Runs) else self.bitmap.sum()
        )


@dataclasses.dataclass(frozen=True)
class Annotation:
    """The shapes of one image, in the order in which they are drawn."""

    shapes: tuple[Shape, ...]
    size: tuple[int, int] | None = None  # (height, width) of the image; None = the format has none
    # Shapes that are not drawn, by the reason
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    subset: str = ""  # the split that the file gives the image, "" for none


def ring(points: Iterable[Sequence[Any]]) -> np.ndarray:
    """Points (x, y) as an array [n, 2]; ValueError for what are no points, far away, or more than a
    million."""
    array = np.array([(float(x), float(y)) for x, y in points], np.float64).reshape(-1, 2)
    if len(array) > _POINTS:
        raise ValueError(f"an outline of {len(array):,} points; {_POINTS:,} are the most")
    if not np.isfinite(array).all() or (np.abs(array) > _FAR).any():
        raise ValueError("a coordinate is no number, or over a million pixels away")
    return array


def ellipse(
    center: Sequence[Any], radii: Sequence[Any], degrees: float = 0.0, points: int = 64
) -> np.ndarray:
    """The outline of an ellipse, whose first radius is turned by an angle from x to y."""
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    across, down = float(radii[0]) * np.cos(turn), float(radii[1]) * np.sin(turn)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = float(center[0]), float(center[1])
    return ring(zip(x + across * cos - down * sin, y + across * sin + down * cos, strict=True))


def box(left: float, top: float, right: float, bottom: float, degrees: float = 0.0) -> np.ndarray:
    """The outline of a box, turned around its centre."""
    x, y = (left + right) / 2, (top + bottom) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return ring(
        (x + (a - x) * cos - (b - y) * sin, y + (a - x) * sin + (b - y) * cos) for a, b in corners
    )


def by_area(shapes: Iterable[Shape]) -> tuple[Shape, ...]:
    """The shapes with small ones last, so that they lie on top of large ones."""
    return tuple(sorted(shapes, key=lambda shape: -shape.area))


def paint(
    size: tuple[int, int],
    shapes: Iterable[Shape],
    ids: Mapping[str, int],
    background: int,
) -> Integer[np.ndarray, "h w"]:
    """Draws shapes, each over those before it, as ids.

    The pixels of an outline belong to the shape, and those of a hole's outline to the hole, as
    Pillow draws polygons; parts outside the image are cut off.

    Args:
      size: (height, width).
      shapes: in order.
      ids: of each label.
      background: id of the pixels that no shape covers.

    Returns:
      uint8 where all ids fit, else int32.
    """
    small = all(0 <= id_ <= 255 for id_ in (background, *ids.values()))
    mask = Image.new("L" if small else "I", size[::-1], background)
    pen = ImageDraw.Draw(mask)
    for shape in shapes:
        value = ids[shape.label]
        if shape.holes or shape.bitmap is not None:
            area = Image.new("1", mask.size)
            _draw_area(area, shape)
            mask.paste(value, (0, 0), area)
        else:
            for outline in shape.outlines:
                pen.polygon(list(map(tuple, outline.tolist())), fill=value)
    return np.array(mask)


def _draw_area(area: Image.Image, shape: Shape) -> None:
    pen = ImageDraw.Draw(area)
    if shape.bitmap is not None:
        bitmap = shape.bitmap.mask() if isinstance(shape.bitmap, Runs) else shape.bitmap
        area.paste(1, shape.place, Image.fromarray(bitmap))
    for rings, value in ((shape.outlines, 1), (shape.holes, 0)):
        for points in rings:
            pen.polygon(list(map(tuple, points.tolist())), fill=value)


def _ring_area(points: np.ndarray) -> float:
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
