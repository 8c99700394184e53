"""Masks as people bring them: ids, palettes, painted colours, and 0 with 255."""

import functools
import os
import pathlib

import numpy as np
from jaxtyping import Int16, Integer, UInt8
from PIL import Image

from segjax.data.classes import IGNORE, ClassList
from segjax.data.files.images import mask_ids, open_image


def read_listed_mask(
    path: str | os.PathLike, listed: ClassList, ignore_ids: tuple[int, ...] = (IGNORE,)
) -> Integer[np.ndarray, "h w"]:
    """Decodes a mask to ids of a class list: its lines, counted from 0.

    One-channel files give their values, and palette files their indices. RGB and RGBA files give
    the ids of their colours (alpha does not count), if the list has colours. Where there are two
    classes and 255 is not to be ignored, a file of 0 and 255 gives 0 and 1.

    Args:
      listed: the ids, and the colours where there are some.
      ignore_ids: further ids that are allowed to occur.

    Raises:
      ValueError: if the file cannot be read; it holds colours that the list does not give; a
        palette contradicts the list; or 255 occurs together with 1, so that it may be void.
    """
    mask = open_image(path)
    if mask.mode in ("RGB", "RGBA") and any(listed.colors):
        return ids_of_colors(np.asarray(mask), listed, path)
    ids = mask_ids(mask, path)
    if mask.mode == "P" and any(listed.colors):
        _check_palette(mask, listed, ignore_ids, path)
    if len(listed.classes) == 2 and listed.labels[:2] == (0, 1) and IGNORE not in ignore_ids:
        return _foreground(ids, path)
    return ids


def ids_of_colors(
    rgb: UInt8[np.ndarray, "h w c"], listed: ClassList, file
) -> Integer[np.ndarray, "h w"]:
    """The ids of the list's lines that have a mask's colours; channels after the third are left.

    Raises:
      ValueError: for colours that the list does not give, with their pixels and the nearest class.
    """
    table = _id_of_each_color(listed)
    ids = table[_packed(rgb)]
    if ids.min() < 0:
        raise ValueError(_unknown_colors(rgb[..., :3][ids < 0], rgb, listed, file))
    return ids


@functools.lru_cache(maxsize=2)
def _id_of_each_color(listed: ClassList) -> Int16[np.ndarray, "16777216"]:
    """The id of every colour, -1 for none: 32 MB, made once a process."""
    table = np.full(1 << 24, -1, np.int16)
    for id_, color in enumerate(listed.colors):
        if color is None:
            continue
        place = _packed(np.array(color))
        other = int(table[place])
        if other < 0:
            table[place] = id_
        elif listed.labels[other] != listed.labels[id_]:
            raise ValueError(
                f"data.classes gives the colour {_hex(color)} to {listed.names[other]!r} and to "
                f"{listed.names[id_]!r}; use a colour of its own for each to read RGB masks"
            )
    return table


def _packed(rgb: np.ndarray) -> Integer[np.ndarray, "..."]:
    keys = rgb[..., 0].astype(np.int32)  # in place from here: three times as fast as a product
    for channel in (1, 2):
        keys <<= 8
        keys |= rgb[..., channel]
    return keys


def _unknown_colors(
    unknown: UInt8[np.ndarray, "n 3"], rgb: np.ndarray, listed: ClassList, file
) -> str:
    keys, pixels = np.unique(_packed(unknown), return_counts=True)
    order = np.argsort(-pixels, kind="stable")
    described = []
    for k in order[:5]:
        color = tuple(int(keys[k]) >> shift & 255 for shift in (16, 8, 0))
        nearest = _nearest(color, listed)
        described.append(f"{_hex(color)} ({pixels[k]} pixels, nearest is {nearest})")
    example = f"`NAME {' '.join(map(str, color))}`" if len(keys) == 1 else "`NAME r g b`"
    remedy = f"a line {example} in data.classes for each, ending with `ignore` if it is void"
    if pathlib.Path(file).suffix.lower() in (".jpg", ".jpeg"):
        remedy = "PNG for masks: JPEG compression changes colours"
    elif (rgb[..., :3] == rgb[..., :1]).all():
        remedy = (
            "one of the channels if they are ids, as all three are equal: "
            "np.asarray(mask)[..., 0], saved as PNG; or a class list with these colours"
        )
    elif len(keys) > 32:
        remedy = "masks without blended colours (resize them by nearest neighbour, save as PNG)"
    more = ", ..." * (len(keys) > 5)
    return f"{file}: {len(keys)} colours of no class: {', '.join(described)}{more}; use {remedy}"


def _nearest(color: tuple[int, int, int], listed: ClassList) -> str:
    given = [(name, c) for name, c in zip(listed.names, listed.colors, strict=True) if c]
    name, nearest = min(given, key=lambda g: np.square(np.subtract(g[1], color)).sum())
    return f"{name} {_hex(nearest)}"


def _check_palette(mask: Image.Image, listed: ClassList, ignore_ids: tuple[int, ...], file) -> None:
    """Refuses a palette whose colours are the classes', but not those of its indices.

    Such indices are an encoder's choice, and would be read as other classes without a word.
    """
    palette = np.reshape(mask.getpalette("RGB"), (-1, 3)).tolist()
    used = [i for i in np.flatnonzero(mask.histogram()).tolist() if i not in ignore_ids]
    labels = {c: label for c, label in zip(listed.colors, listed.labels, strict=True) if c}
    meant = {i: labels.get(tuple(palette[i])) if i < len(palette) else None for i in used}
    if None in meant.values():
        return  # colours for show
    other = [i for i in used if i >= len(listed.labels) or listed.labels[i] != meant[i]]
    if other:
        found = ", ".join(f"{i} is {_hex(palette[i])}" for i in other[:5])
        raise ValueError(
            f"{file}: the palette's colours are those of data.classes, but of other ids: {found}"
            f"{', ...' * (len(other) > 5)}; use RGB (mask.convert('RGB').save(...)) if the colours "
            "are right, a class list without colours if the indices are"
        )


def _foreground(ids: Integer[np.ndarray, "h w"], file) -> Integer[np.ndarray, "h w"]:
    """255 as 1, where no 1 says that 255 is something else."""
    high = ids == IGNORE
    if not high.any():
        return ids
    if (ids == 1).any():
        raise ValueError(
            f"{file}: ids 1 and 255 in one mask, with 255 not among data.ignore_ids; use masks of "
            "0 and 255 alone if 255 is the foreground, data.ignore_ids=(255,) if it is void"
        )
    return np.where(high, 1, ids).astype(ids.dtype)


def _hex(color) -> str:
    return "#" + "".join(f"{int(c):02x}" for c in color)
