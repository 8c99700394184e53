"""The classes of masks that nobody has described: the ids or colours that they hold."""

import csv
import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from segjax.data.class_lists import published
from segjax.data.classes import IGNORE, Color, default_palette
from segjax.data.errors import DataError
from segjax.data.files.atomic import replacing
from segjax.data.files.images import packed_colors
from segjax.data.files.mask_files import equal_channels, read_stored, whole_ids
from segjax.data.parallel import in_threads

_MOST = 255  # classes of a label map
_BACKGROUND = (90, 90, 90)  # its colour, which is neither a class's nor the black of ignored pixels
# Published class lists, by whose colours classes are named.
_PUBLISHED = ("camvid11", "camvid32", "cityscapes", "idd_level1", "voc", "ade20k", "sunrgbd")


class FoundClass(NamedTuple):
    """A value that masks hold: its id in a class list, a name to be mended, and its colour."""

    id: int
    name: str
    color: Color
    is_void: bool = False


class FoundClasses(NamedTuple):
    """What masks hold.

    Attributes:
      rows: the classes, in the order of their ids.
      in_colors: whether the masks hold colours rather than ids.
      ignore_ids: ids that are void, as `data.ignore_ids` takes them.
      looked_at: masks that were read.
      threshold: for `data.mask_threshold`, where two values have soft edges; 0 = none.
    """

    rows: tuple[FoundClass, ...]
    in_colors: bool
    ignore_ids: tuple[int, ...]
    looked_at: int
    threshold: int = 0


def classes_of_masks(paths: Sequence[pathlib.Path], most: int = 200) -> FoundClasses:
    """The ids or colours in up to `most` masks, evenly spaced.

    255 is void, and so are ids below 0; but masks of 0 and 255, alone or with some values between
    them (soft edges, JPEG), show a background and a foreground.

    Raises:
      DataError: if a mask cannot be read, some hold colours and others ids, or they hold more
        values than a label map has classes.
    """
    places = np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int))
    ids, colors = Counter(), Counter()
    for found in _values_by_file([paths[place] for place in places]):
        (colors if isinstance(next(iter(found)), tuple) else ids).update(found)
    if ids and colors:
        raise DataError(
            f"of {len(places)} masks some hold colours and others ids",
            "make all masks the same way, or write a class list with ids and colours",
        )
    if _are_soft(ids):
        rows = named_classes(["background", "foreground"])
        return FoundClasses(rows, False, (), len(places), threshold=128)
    if max(len(ids), len(colors)) > _MOST:
        raise DataError(
            f"{len(places)} masks hold {max(len(ids), len(colors)):,} values, so they are blended, "
            "or no masks of classes",
            "use masks without interpolation and without JPEG compression; see data.mask_threshold "
            "and data.color_distance",
        )
    if colors:
        return FoundClasses(_of_colors(sorted(colors)), True, (IGNORE,), len(places))
    is_void = IGNORE in ids and ids.keys() != {0, IGNORE}
    values = sorted(ids.keys() - ({IGNORE} if is_void else set()))
    binary = len(values) == 2 and values[0] == 0
    names = ["background", "foreground"] if binary else [f"class {v}" for v in values]
    rows = named_classes(names, values)
    return FoundClasses(rows, False, (IGNORE,) if IGNORE not in values else (), len(places))


def _values_by_file(paths: Sequence[pathlib.Path]) -> Iterator[Counter]:
    return in_threads(
        lambda place: _values_of(paths[place]),
        range(len(paths)),
        reading=lambda place: str(paths[place]),
    )


def named_classes(names: Sequence[str], ids: Sequence[int] = ()) -> tuple[FoundClass, ...]:
    """Classes with distinct colours; without ids they count from 0. Ids below 0 are void."""
    palette = default_palette(len(names))
    if names and names[0] == "background":
        palette = (_BACKGROUND, *palette[:-1])
    rows = zip(ids or range(len(names)), names, palette, strict=True)
    return tuple(FoundClass(id_, name, color, id_ < 0) for id_, name, color in rows)


def _are_soft(ids: Mapping[int, int]) -> bool:
    """Whether most pixels are nearly 0 or nearly 255, and some values lie between."""
    ends = sum(pixels for id_, pixels in ids.items() if 0 <= id_ < 32 or 224 <= id_ <= IGNORE)
    between = sum(32 <= id_ < 224 for id_ in ids)
    high = any(id_ >= 224 for id_ in ids)
    return min(ids, default=-1) == 0 and high and between > 3 and ends > 0.7 * sum(ids.values())


def _values_of(path: pathlib.Path) -> Counter:
    """The pixels of each id, or of each colour."""
    stored = read_stored(path)
    if stored.is_colored and not equal_channels(stored.values):
        keys, pixels = np.unique(packed_colors(stored.values), return_counts=True)
        colors = [tuple(int(key) >> shift & 255 for shift in (16, 8, 0)) for key in keys]
        return Counter(dict(zip(colors, pixels.tolist(), strict=True)))
    values = stored.values[..., 0] if stored.is_colored else stored.values
    ids, pixels = np.unique(whole_ids(values, path), return_counts=True)
    return Counter(dict(zip(ids.tolist(), pixels.tolist(), strict=True)))


def _of_colors(colors: Sequence[Color]) -> tuple[FoundClass, ...]:
    """The classes of colours, with the names of a published class list that has all of them."""
    for table in map(published, _PUBLISHED):
        listed = zip(table.colors, table.names, table.labels, strict=True)
        rows = {color: (name, label == IGNORE) for color, name, label in listed}
        if set(colors) <= rows.keys():
            return tuple(FoundClass(k, rows[c][0], c, rows[c][1]) for k, c in enumerate(colors))
    return tuple(FoundClass(k, f"class {k}", color) for k, color in enumerate(colors))


def write_class_list(found: FoundClasses, path: pathlib.Path) -> None:
    """Writes a class list: `id,name,r,g,b,ignore` a line."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "name", "r", "g", "b", "ignore"])
        writer.writerows((r.id, r.name, *r.color, str(r.is_void).lower()) for r in found.rows)
