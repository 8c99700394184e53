"""Palette files: whether their indices or their colours are the meaning."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Integer

from segjax.data.class_lists import ClassList
from segjax.data.classes import IGNORE, Color
from segjax.data.errors import DataError
from segjax.data.files.colors import rows_of_colors
from segjax.data.files.images import hex_color


def painted_ids(
    indices: Integer[np.ndarray, "h w"],
    palette: bytes,
    listed: ClassList,
    ignore_ids: tuple[int, ...],
    distance: int,
    file: object,
) -> Integer[np.ndarray, "h w"] | None:
    """The ids of a palette file's colours, if all that are used are the list's; else None.

    Args:
      indices: of the palette.
      palette: RGB bytes.
      listed: a class list with colours.
      ignore_ids: indices that stay, whatever their colours.
      distance: as `colors.rows_of_colors` takes it.
      file: its name in messages.

    Raises:
      DataError: if only some are the list's, at other indices than their ids: the others may be
        blends, and the indices an encoder's choice.
    """
    used = used_colors(indices, palette, ignore_ids)
    if not used:
        return None
    found = rows_of_colors(np.array([[*used.values()]], np.uint8), listed, distance)[0]
    rows = dict(zip(used, found.tolist(), strict=True))
    own = dict(zip(listed.ids, listed.labels, strict=True))
    other = [i for i, row in rows.items() if row >= 0 and own.get(i) != listed.labels[row]]
    if other and min(rows.values()) < 0:
        raise DataError(
            f"{file}: some of the palette's colours are those of data.classes, but of other ids: "
            f"{_described(used, other)}",
            "use a class list with all colours of the palette if they are right, one without "
            "colours if the indices are",
        )
    if min(rows.values()) < 0:
        return None
    table = np.arange(256, dtype=np.int32)
    for index, row in rows.items():
        table[index] = listed.ids[row]
    return table[indices]


def check_grey_palette(
    indices: Integer[np.ndarray, "h w"],
    palette: bytes,
    ids: tuple[int, ...],
    ignore_ids: tuple[int, ...],
    file: object,
) -> None:
    """Refuses a palette whose grey levels are ids, but at other indices: an encoder's choice.

    With the ids 0 and 1, black is 0 and white is 1.
    """
    binary = ids == (0, 1)
    greys = {(id_,) * 3: id_ for id_ in ids if 0 <= id_ <= IGNORE}
    if binary:
        greys[(IGNORE,) * 3] = 1
    used = used_colors(indices, palette, ignore_ids)
    levels = {index: greys.get(color) for index, color in used.items()}
    own = {i: 1 if binary and i == IGNORE else i for i in used}
    other = [i for i in used if levels[i] != own[i]]
    if other and None not in levels.values() and (binary or len(used) > 1):
        raise DataError(
            f"{file}: the palette's grey levels are those of ids, but at other indices: "
            f"{_described(used, other)}",
            "use a class list with colours (data.classes=FILE, lines `NAME r g b`) if the colours "
            "are right, masks without palette (Image.fromarray(np.asarray(mask))) if the indices "
            "are",
        )


def used_colors(
    indices: Integer[np.ndarray, "h w"], palette: bytes, ignore_ids: tuple[int, ...] = ()
) -> Mapping[int, Color]:
    """The colours of the indices that occur and are not ignored; black beyond the palette."""
    colors = np.frombuffer(palette.ljust(768, b"\0"), np.uint8).reshape(-1, 3).tolist()
    occurring = np.flatnonzero(np.bincount(indices.ravel(), minlength=256)).tolist()
    return {i: tuple(colors[i]) for i in occurring if i not in ignore_ids}


def _described(used: Mapping[int, Color], indices: list[int]) -> str:
    shown = ", ".join(f"{i} is {hex_color(used[i])}" for i in indices[:5])
    return f"{shown}{', ...' * (len(indices) > 5)}"
