"""Masks of the folder data set, whose pixels have one class each: files to ids of a class list."""

import os
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, Shaped
from PIL import Image

from segjax.data.class_lists import ClassList
from segjax.data.classes import IGNORE, Color
from segjax.data.errors import DataError
from segjax.data.files import colors
from segjax.data.files.mask_files import (
    LOSSY_SUFFIXES,
    Stored,
    check_finite,
    equal_channels,
    of_image,
    read_stored,
    whole_ids,
)
from segjax.data.files.palettes import check_grey_palette, painted_ids

VOID = -1  # the id of ignored pixels in masks that are put together from files


class Foreground(NamedTuple):
    """How masks of a background and a foreground, with 255 ignored, give the foreground: numbers
    of files. Masks of one split that hold 1 alone, and 0 and 255 alone, may be of two encodings."""

    ones: int = 0  # hold 1 and no 255
    highs: int = 0  # hold 0 and 255 and no 1
    voids: int = 0  # hold 1 and 255, which is void there

    def plus(self, other: "Foreground") -> "Foreground":
        return Foreground(*(a + b for a, b in zip(self, other, strict=True)))


NO_FOREGROUND = Foreground()


class Mask(NamedTuple):
    """The mask of a sample: its ids, and what must agree over a split."""

    ids: Integer[np.ndarray, "h w"]
    palette: bytes = b""  # RGB bytes of a palette file whose indices are the ids
    foreground: Foreground = NO_FOREGROUND


def read_mask(path: str | os.PathLike) -> Integer[np.ndarray, "h w"]:
    """Decodes a mask to the ids in the file: uint8, or int32 or int64 from deeper files.

    One-channel files, and files whose colour channels are equal, give their values, palette files
    their indices.

    Raises:
      DataError: if the file cannot be read, holds colours instead of ids, or values that are no
        whole numbers.
    """
    path = pathlib.Path(path)
    return whole_ids(one_channel(read_stored(path), path), path)


def mask_ids(mask: Image.Image, file: object) -> Integer[np.ndarray, "h w"]:
    """`read_mask` for an image that is open."""
    return whole_ids(one_channel(of_image(mask, file), file), file)


def read_listed_mask(
    path: str | os.PathLike,
    listed: ClassList,
    ignore_ids: tuple[int, ...] = (IGNORE,),
    threshold: float = 0,
    color_distance: int = 0,
) -> Mask:
    """Decodes a mask to ids of a class list.

    - Files in colours give the ids of their colours, if the list has colours. Where all channels
      are equal, other values are those of one channel.
    - One-channel files give their values; if these are no ids, but grey colours of the list, the
      ids of these colours.
    - Palette files give the ids of their colours where all that are used are the list's, else their
      indices.
    - With two classes of ids 0 and 1, and 255 not among the ignored ids, a file of 0 and 255 gives
      0 and 1.

    Args:
      path: the file.
      listed: the class list.
      ignore_ids: further ids that may occur.
      threshold: of the values of one channel; 0 = none. Values at or above it, 255 too, are the
        second of two classes, others the first; other `ignore_ids` stay.
      color_distance: as `colors.rows_of_colors` takes it.

    Raises:
      DataError: if the file cannot be read; it holds colours that the list does not give; indices
        or values contradict their colours in the list; or 255 occurs together with 1, so that it
        may be void.
    """
    path = pathlib.Path(path)
    stored = read_stored(path)
    if threshold:
        return Mask(above(stored, threshold, path, ignore_ids, listed.ids))
    if stored.is_colored and any(listed.colors):
        rows = colors.rows_of_colors(stored.values, listed, color_distance)
        if rows.min() >= 0:
            return Mask(np.array(listed.ids, np.int32)[rows])
        if not equal_channels(stored.values) or _differ(stored.values[..., 0], rows, listed):
            unknown = stored.values[rows < 0]
            raise colors.unknown_colors(unknown, stored.values, listed, path)
    binary = listed.ids == listed.labels == (0, 1)
    ids = whole_ids(one_channel(stored, path), path, binary)
    if stored.palette and any(listed.colors):
        painted = painted_ids(ids, stored.palette, listed, ignore_ids, color_distance, path)
        if painted is not None:
            return Mask(painted)
    elif not stored.palette and any(map(_is_grey, listed.colors)):
        ids = _ids_of_greys(ids, listed, ignore_ids, color_distance, path)
    if binary:
        return read_binary(Stored(ids, stored.palette), path, ignore_ids)
    if stored.palette and not any(listed.colors):
        check_grey_palette(ids, stored.palette, listed.ids, ignore_ids, path)
    return Mask(ids, stored.palette)


def one_channel(stored: Stored, file: object) -> Shaped[np.ndarray, "h w"]:
    """The values of a file of one channel, or of equal channels; DataError for any other."""
    if stored.values.ndim == 2:
        return stored.values
    if not stored.is_stack and equal_channels(stored.values):
        return np.ascontiguousarray(stored.values[..., 0])
    raise colors.colors_without_list(stored.values, file)


def above(
    stored: Stored,
    threshold: float,
    file: object,
    ignore_ids: tuple[int, ...] = (),
    ids: tuple[int, ...] = (0, 1),
) -> Integer[np.ndarray, "h w"]:
    """The second of two ids where grey values are at or above a threshold, the first elsewhere;
    `ignore_ids` except 255 stay. DataError for a mask of 0 and 1, which is of another scale."""
    values = one_channel(stored, file)
    if stored.palette:
        palette = np.frombuffer(stored.palette, np.uint8).reshape(1, -1, 3)
        if not equal_channels(palette):
            found = f"{file} has a palette of colours, but data.mask_threshold={threshold:g}"
            raise DataError(found, "use grey masks, or data.mask_threshold=0")
        values = np.append(palette[0, :, 0], np.zeros(256, np.uint8))[values]
    if values.dtype == bool:
        return values.astype(np.uint8) if ids == (0, 1) else np.where(values, *ids[::-1])
    check_finite(values, file)
    lossy = pathlib.Path(str(file)).suffix.lower() in LOSSY_SUFFIXES
    if 0 < values.max() <= 1 < threshold and not lossy:
        raise DataError(
            f"{file}: values of at most 1, all below data.mask_threshold={threshold:g}",
            "use masks of one scale (np.asarray(mask) * 255), or data.mask_threshold=0",
        )
    result = np.where(values >= threshold, np.int32(ids[1]), np.int32(ids[0]))
    for id_ in ignore_ids:
        if id_ != IGNORE:
            result[values == id_] = id_
    return result


def read_binary(
    stored: Stored, file: object, ignore_ids: tuple[int, ...], threshold: float = 0
) -> Mask:
    """The mask of a background, 0, and a foreground, 1, or 255 if that is not ignored.

    Raises:
      DataError: for colours; for a 1 beside a 255 that is not ignored; for a palette of black and
        white whose indices are the other way round.
    """
    if threshold:
        return Mask(above(stored, threshold, file, ignore_ids))
    ids = whole_ids(one_channel(stored, file), file, binary=True)
    if stored.palette:
        check_grey_palette(ids, stored.palette, (0, 1), ignore_ids, file)
    if IGNORE not in ignore_ids:
        return Mask(foreground(ids, file))
    one, high = bool((ids == 1).any()), bool((ids == IGNORE).any())
    lost = high and not one and bool((ids == 0).any())
    return Mask(ids, stored.palette, Foreground(one and not high, lost, one and high))


def foreground(ids: Integer[np.ndarray, "h w"], file: object) -> Integer[np.ndarray, "h w"]:
    """255 as 1; DataError if a 1 beside it shows that 255 is something else."""
    high = ids == IGNORE
    if not high.any():
        return ids
    if (ids == 1).any() and ids.max() == IGNORE and len(np.unique(ids)) <= 3:
        raise DataError(
            f"{file}: ids 1 and 255 in one mask, with 255 not among data.ignore_ids",
            "use masks of "
            "0 and 255 alone if 255 is the foreground, data.ignore_ids=(255,) if it is void",
        )
    if (ids == 1).any():
        return ids  # a mask of many values, which the ids refuse
    return np.where(high, 1, ids).astype(ids.dtype)


def _differ(
    values: Integer[np.ndarray, "h w"], rows: Integer[np.ndarray, "h w"], listed: ClassList
) -> bool:
    """Whether some grey colour is of another class than its level as an id."""
    level_of = dict(zip(values[rows >= 0].tolist(), rows[rows >= 0].tolist(), strict=True))
    by_id = dict(zip(listed.ids, listed.labels, strict=True))
    return any(by_id.get(v) != listed.labels[row] for v, row in level_of.items())


def _is_grey(color: Color | None) -> bool:
    return color is not None and color[0] == color[1] == color[2]


def _ids_of_greys(
    ids: Integer[np.ndarray, "h w"],
    listed: ClassList,
    ignore_ids: tuple[int, ...],
    distance: int,
    file: object,
) -> Integer[np.ndarray, "h w"]:
    """Values as they are if they are ids, else the ids of the list's grey colours.

    If all colours of the list are grey, each file may be meant either way: one that can be read
    both ways must have the same classes both ways, or a `distance`, which is of colours.
    """
    values = np.unique(ids)
    if values[0] < 0 or values[-1] > 255:
        return ids
    levels = np.repeat(values.astype(np.uint8)[None, :, None], 3, -1)
    rows = colors.rows_of_colors(levels, listed, distance)[0].tolist()
    only_grey = all(color is None or _is_grey(color) for color in listed.colors)
    labels = dict(zip(listed.ids, listed.labels, strict=True))
    by_id, by_color, table = [], [], np.arange(256, dtype=np.int32)
    for value, row in zip(values.tolist(), rows, strict=True):
        # 255 is ignored by default, but may be the white of a class.
        void = value in ignore_ids and not (only_grey and row >= 0)
        by_id.append(IGNORE if void else labels.get(value))
        by_color.append(IGNORE if void else listed.labels[row] if row >= 0 else None)
        if row >= 0 and not void:
            table[value] = listed.ids[row]
    are_ids, are_colors = None not in by_id, None not in by_color
    if not only_grey:
        same = all(i in (None, c) for i, c in zip(by_id, by_color, strict=True))
        return table[ids] if are_colors and same and not are_ids else ids
    two_ways = are_ids and are_colors and by_id != by_color and not distance
    no_way = not are_ids and not are_colors and set(values.tolist()) <= {*labels, *ignore_ids}
    if two_ways or no_way:
        raise DataError(
            f"{file}: the values {', '.join(map(str, values))} are ids or one of data.ignore_ids, "
            "and some of them are other grey colours of data.classes",
            "use a class list without colours if the masks hold ids, or masks in RGB "
            "(mask.convert('RGB')) if they hold colours",
        )
    other = [value for value, row in zip(values.tolist(), rows, strict=True) if row < 0]
    if not are_ids and not are_colors and not any(value in labels for value in other):
        unknown = np.repeat(ids[np.isin(ids, other)].astype(np.uint8)[:, None], 3, -1)
        if colors.advised_distance(unknown, listed):
            raise colors.unknown_colors(unknown, levels, listed, file)
    return table[ids] if are_colors and (distance or not are_ids) else ids
