"""The colours of painted masks: to the rows of a class list, or an error that describes them."""

import functools
import pathlib
from collections.abc import Collection

import numpy as np
from jaxtyping import Int16, Int32, Integer, UInt8

from segjax.data.class_lists import ClassList
from segjax.data.errors import DataError
from segjax.data.files.images import count_colors, hex_color, packed_colors
from segjax.data.files.mask_files import LOSSY_SUFFIXES, equal_channels

_SMALL_DISTANCE = 16  # the largest data.color_distance that an error advises
_MANY = 32  # more colours of no class are blends


def ids_of_colors(
    rgb: UInt8[np.ndarray, "h w c"], listed: ClassList, file: object, distance: int = 0
) -> Integer[np.ndarray, "h w"]:
    """The ids of the list's rows that have a mask's colours (without alpha), int32; DataError for
    colours that the list does not give, with their pixels and the nearest class."""
    rows = rows_of_colors(rgb, listed, distance)
    if rows.min() < 0:
        raise unknown_colors(rgb[..., :3][rows < 0], rgb, listed, file)
    return np.array(listed.ids, np.int32)[rows]


def rows_of_colors(
    rgb: UInt8[np.ndarray, "h w c"], listed: ClassList, distance: int = 0
) -> Int16[np.ndarray, "h w"]:
    """The row of the list that has each colour, -1 for the colours that the list does not give.

    With a distance, other colours have the row of the nearest colour that is at most so far away in
    each channel (Chebyshev distance), the first of several.
    """
    packed = packed_colors(rgb)
    rows = _row_of_each_color(listed)[packed]
    if not distance or rows.min() >= 0:
        return rows
    unknown = rows < 0
    others, places = np.unique(packed[unknown], return_inverse=True)
    nearest, away = _nearest_rows(others, listed)
    rows[unknown] = np.where(away <= distance, nearest, -1)[places.ravel()]
    return rows


@functools.lru_cache(maxsize=2)
def _row_of_each_color(listed: ClassList) -> Int16[np.ndarray, "16777216"]:
    """The row of every colour, -1 for none: 32 MB, made once a process."""
    table = np.full(1 << 24, -1, np.int16)
    for row, color in enumerate(listed.colors):
        if color is None:
            continue
        place = packed_colors(np.array(color))
        other = int(table[place])
        if other < 0:
            table[place] = row
        elif listed.labels[other] != listed.labels[row]:
            names = f"{listed.names[other]!r} and to {listed.names[row]!r}"
            raise DataError(
                f"data.classes gives the colour {hex_color(color)} to {names}",
                "use a colour of its own for each to read RGB masks",
            )
    return table


def _nearest_rows(
    packed: Int32[np.ndarray, "n"], listed: ClassList
) -> tuple[Int16[np.ndarray, "n"], Int16[np.ndarray, "n"]]:
    """The row of the nearest colour of the list, and its Chebyshev distance."""
    colors = np.stack([packed >> shift & 255 for shift in (16, 8, 0)], -1).astype(np.int16)
    rows, away = np.full(len(colors), -1, np.int16), np.full(len(colors), 256, np.int16)
    for row, color in enumerate(listed.colors):
        if color is not None:
            distance = np.abs(colors - np.array(color, np.int16)).max(-1)
            nearer = distance < away
            rows[nearer], away[nearer] = row, distance[nearer]
    return rows, away


def unknown_colors(
    unknown: UInt8[np.ndarray, "n 3"], rgb: np.ndarray, listed: ClassList, file: object
) -> DataError:
    """The error for colours of a mask that the list does not give."""
    number, colors = count_colors(unknown)
    described = [
        f"{hex_color(color)} ({pixels} pixels, nearest is {_nearest(color, listed)})"
        for color, pixels in colors
    ]
    line = f"`NAME {' '.join(map(str, colors[0][0]))}`" if number == 1 else "`NAME r g b`"
    remedy = f"a line {line} in data.classes for each, ending with `ignore` if it is void"
    distance = advised_distance(unknown, listed)
    lossy = pathlib.Path(str(file)).suffix.lower() in LOSSY_SUFFIXES
    if channel_remedy(rgb, listed.ids):
        remedy = f"{channel_remedy(rgb, listed.ids)}; or {remedy}"
    elif distance:
        near = (
            f"data.color_distance={distance}, which reads them as the nearest class: they are no "
            f"further from it in any channel"
        )
        remedy = near if lossy or number > _MANY else f"{near}; or {remedy}"
    elif lossy:
        remedy = "PNG for masks: JPEG compression changes colours"
    elif number > _MANY:
        remedy = "masks without blended colours (resize them by nearest neighbour, save as PNG)"
    more = ", ..." * (number > 5)
    return DataError(
        f"{file}: {number} colours of no class: {', '.join(described)}{more}", f"use {remedy}"
    )


def advised_distance(unknown: UInt8[np.ndarray, "n 3"], listed: ClassList) -> int:
    """The smallest data.color_distance that reads all these colours, or 0 if it is not small or
    some colour is not clearly nearer to one class than to the others."""
    away = int(_nearest_rows(np.unique(packed_colors(unknown)), listed)[1].max())
    given = [(c, label) for c, label in zip(listed.colors, listed.labels, strict=True) if c]
    apart = [int(np.abs(np.subtract(a, b)).max()) for a, la in given for b, lb in given if la != lb]
    return away if away <= _SMALL_DISTANCE and 2 * away < min(apart, default=256) else 0


def _nearest(color: tuple[int, int, int], listed: ClassList) -> str:
    row = int(_nearest_rows(packed_colors(np.array([color])), listed)[0][0])
    return f"{listed.names[row]} {hex_color(listed.colors[row] or ())}"


def colors_without_list(rgb: UInt8[np.ndarray, "h w 3"], file: object) -> DataError:
    """The error for a mask of colours where no class list gives any."""
    number, colors = count_colors(rgb)
    shown = ", ".join([hex_color(color) for color, _ in colors] + ["..."] * (number > 5))
    remedy = (
        "a class list (data.classes=FILE, of the folder data set) with a line `NAME r g b` for "
        "the colour of each class; or, where each colour is the number of a segment and a JSON "
        "file gives its category (COCO panoptic), data.mask_format=panoptic"
    )
    return DataError(
        f"{file}: masks must hold one class id per pixel, found mode RGB with {number} colours "
        f"({shown})",
        f"use {channel_remedy(rgb) or remedy}",
    )


def channel_remedy(rgb: UInt8[np.ndarray, "h w c"], ids: Collection[int] = range(128)) -> str:
    """What to do with a mask whose channels hold ids or are of a class each; "" for any other."""
    red, others = rgb[..., 0], rgb[..., 1:3]
    are_ids = np.isin(red, list(ids)).all()
    if are_ids and equal_channels(rgb):
        return (
            "one of the channels if they are ids, as all three are equal: "
            "np.asarray(mask)[..., 0], saved as PNG"
        )
    if are_ids and not others.any():
        return "the red channel if it holds the ids: np.asarray(mask)[..., 0], saved as PNG"
    set_ = rgb[..., :3] > 0
    if (set_.sum(-1) == 1).all() and len(np.unique(rgb[..., :3])) == 2 and set_.any((0, 1)).all():
        return (
            "np.argmax(mask, -1), saved as PNG, if each channel is a class: one of them is set in "
            "every pixel"
        )
    return ""
