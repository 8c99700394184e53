"""Masks of the folder data set: ids, palettes, painted colours, and 0 with 255."""

import functools
import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Int16, Integer, UInt8
from PIL import Image

from segjax.data.class_lists import ClassList
from segjax.data.classes import IGNORE
from segjax.data.errors import DataError
from segjax.data.files import images


def read_listed_mask(
    path: str | os.PathLike, listed: ClassList, ignore_ids: tuple[int, ...] = (IGNORE,)
) -> Integer[np.ndarray, "h w"]:
    """Decodes a mask to ids of a class list.

    One-channel files give their values, and palette files their indices. RGB and RGBA files give
    the ids of their colours (alpha does not count), if the list has colours. With two classes, and
    255 not among the ignored ids, a file of 0 and 255 gives 0 and 1.

    Args:
      path: the file.
      listed: the class list.
      ignore_ids: further ids that may occur.

    Raises:
      DataError: if the file cannot be read; it holds colours that the list does not give; a
        palette contradicts the list; or 255 occurs together with 1, so that it may be void.
    """
    mask = images.open_image(path)
    if mask.mode in ("RGB", "RGBA") and any(listed.colors):
        return ids_of_colors(np.asarray(mask), listed, path)
    ids = images.mask_ids(mask, path)
    if mask.mode == "P" and any(listed.colors):
        _check_palette(mask, listed, ignore_ids, path)
    if (
        len(listed.classes) == 2
        and listed.ids == listed.labels == (0, 1)
        and IGNORE not in ignore_ids
    ):
        return foreground(ids, path)
    return ids


def ids_of_colors(
    rgb: UInt8[np.ndarray, "h w c"], listed: ClassList, file: Any
) -> Integer[np.ndarray, "h w"]:
    """The ids of the list's rows that have a mask's colours (without alpha), int32; DataError for
    colours that the list does not give, with their pixels and the nearest class."""
    rows = rows_of_colors(rgb, listed)
    if rows.min() < 0:
        raise _unknown_colors(rgb[..., :3][rows < 0], rgb, listed, file)
    return np.array(listed.ids, np.int32)[rows]


def rows_of_colors(rgb: UInt8[np.ndarray, "h w c"], listed: ClassList) -> Int16[np.ndarray, "h w"]:
    """The row of the list that has each colour, -1 for the colours that the list does not give."""
    return _row_of_each_color(listed)[images.packed_colors(rgb)]


@functools.lru_cache(maxsize=2)
def _row_of_each_color(listed: ClassList) -> Int16[np.ndarray, "16777216"]:
    """The row of every colour, -1 for none: 32 MB, made once a process."""
    table = np.full(1 << 24, -1, np.int16)
    for row, color in enumerate(listed.colors):
        if color is None:
            continue
        place = images.packed_colors(np.array(color))
        other = int(table[place])
        if other < 0:
            table[place] = row
        elif listed.labels[other] != listed.labels[row]:
            names = f"{listed.names[other]!r} and to {listed.names[row]!r}"
            raise DataError(
                f"data.classes gives the colour {images.hex_color(color)} to {names}",
                "use a colour of its own for each to read RGB masks",
            )
    return table


def _unknown_colors(
    unknown: UInt8[np.ndarray, "n 3"], rgb: np.ndarray, listed: ClassList, file: Any
) -> DataError:
    number, colors = images.count_colors(unknown)
    described = [
        f"{images.hex_color(color)} ({pixels} pixels, nearest is {_nearest(color, listed)})"
        for color, pixels in colors
    ]
    line = f"`NAME {' '.join(map(str, colors[0][0]))}`" if number == 1 else "`NAME r g b`"
    remedy = f"a line {line} in data.classes for each, ending with `ignore` if it is void"
    if pathlib.Path(file).suffix.lower() in (".jpg", ".jpeg"):
        remedy = "PNG for masks: JPEG compression changes colours"
    elif (rgb[..., :3] == rgb[..., :1]).all():
        remedy = (
            "one of the channels if they are ids, as all three are equal: "
            "np.asarray(mask)[..., 0], saved as PNG; or a class list with these colours"
        )
    elif number > 32:
        remedy = "masks without blended colours (resize them by nearest neighbour, save as PNG)"
    more = ", ..." * (number > 5)
    return DataError(
        f"{file}: {number} colours of no class: {', '.join(described)}{more}", f"use {remedy}"
    )


def _nearest(color: tuple[int, int, int], listed: ClassList) -> str:
    given = [(name, c) for name, c in zip(listed.names, listed.colors, strict=True) if c]
    name, nearest = min(given, key=lambda g: np.square(np.subtract(g[1], color)).sum())
    return f"{name} {images.hex_color(nearest)}"


def _check_palette(
    mask: Image.Image, listed: ClassList, ignore_ids: tuple[int, ...], file: Any
) -> None:
    """Refuses a palette that has the classes' colours, but at other indices than their ids.

    Such indices are an encoder's choice, and would be read as other classes without a word.
    """
    palette = np.reshape(mask.getpalette("RGB"), (-1, 3)).tolist()
    used = [i for i in np.flatnonzero(mask.histogram()).tolist() if i not in ignore_ids]
    labels = {c: label for c, label in zip(listed.colors, listed.labels, strict=True) if c}
    painted = {i: labels.get(tuple(palette[i])) if i < len(palette) else None for i in used}
    if None in painted.values():
        return  # colours for show
    own = dict(zip(listed.ids, listed.labels, strict=True))
    other = [i for i in used if own.get(i) != painted[i]]
    if other:
        shown = ", ".join(f"{i} is {images.hex_color(palette[i])}" for i in other[:5])
        raise DataError(
            f"{file}: the palette's colours are those of data.classes, but of other ids: {shown}"
            f"{', ...' * (len(other) > 5)}",
            "use RGB (mask.convert('RGB').save(...)) if the colours "
            "are right, a class list without colours if the indices are",
        )


def foreground(ids: Integer[np.ndarray, "h w"], file: Any) -> Integer[np.ndarray, "h w"]:
    """255 as 1; DataError if a 1 beside it shows that 255 is something else."""
    high = ids == IGNORE
    if not high.any():
        return ids
    if (ids == 1).any():
        raise DataError(
            f"{file}: ids 1 and 255 in one mask, with 255 not among data.ignore_ids",
            "use masks of "
            "0 and 255 alone if 255 is the foreground, data.ignore_ids=(255,) if it is void",
        )
    return np.where(high, 1, ids).astype(ids.dtype)
