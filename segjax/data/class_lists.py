"""Class lists: files that say which class each id and each colour of a mask stands for."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

from segjax.data.classes import IGNORE, ClassTable, Color, default_palette
from segjax.data.errors import DataError

_TABLES = pathlib.Path(__file__).parent / "sets" / "tables"


@dataclasses.dataclass(frozen=True)
class ClassList:
    """The meaning of the ids and colours in mask files: the rows of a class list."""

    classes: ClassTable  # the K classes
    ids: tuple[int, ...]  # of each row, in mask files; unique
    # For each row, its label 0..K-1, or 255 for a row that is marked as ignored
    labels: tuple[int, ...]
    names: tuple[str, ...]  # of each row
    colors: tuple[Color | None, ...]  # of each row, None where the list gives none


def listed(classes: ClassTable) -> ClassList:
    """The list for masks that hold the classes' ids, and whose colours mean nothing."""
    count = len(classes)
    ids = tuple(range(count))
    return ClassList(classes, classes.raw_ids, ids, classes.names, (None,) * count)


def from_file(path: str | pathlib.Path) -> ClassTable:
    """The classes of a class list; see `read_class_list`."""
    return read_class_list(path).classes


@functools.cache
def published(name: str) -> ClassList:
    """The class list of a published data set, `sets/tables/<name>.txt`."""
    return read_class_list(_TABLES / f"{name}.txt")


def read_class_list(path: str | pathlib.Path) -> ClassList:
    """Reads a class list: `.json` ([{"name": ..., "color": [r, g, b]}] or [name, ...]), or text.

    Text has one class a line, in id order: `name` or `name r g b`, also with commas. Empty lines,
    lines that start with #, and a header `name,r,g,b` are skipped. A line that ends with `ignore`
    (`void 0 0 0 ignore`; in JSON `"ignore": true`) is no class: its id and its colour become 255,
    and the classes after it move up by one.

    Raises:
      DataError: if the file cannot be understood; the message names the file and the line.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise DataError(f"class list {path} does not exist", "use a file or names for data.classes")
    rows = _json_rows(path) if path.suffix == ".json" else _text_rows(path)
    names, colors, ignored = zip(*rows, strict=True) if rows else ((), (), ())
    kept = [k for k, ignore in enumerate(ignored) if not ignore]
    palette = [colors[k] or c for k, c in zip(kept, default_palette(len(kept)), strict=True)]
    labels = tuple(kept.index(k) if k in kept else IGNORE for k in range(len(rows)))
    try:
        ids = tuple(kept) if len(kept) < len(rows) else ()
        table = ClassTable(tuple(names[k] for k in kept), tuple(palette), ids=ids)
    except DataError as error:
        raise DataError(f"{path}: {error.found}", error.remedy) from error
    return ClassList(table, tuple(range(len(rows))), labels, names, colors)


# A line of a class list: the name, the colour or None, and whether it is marked as ignored.
_Row = tuple[str, Color | None, bool]


def _json_rows(path: pathlib.Path) -> list[_Row]:
    rows = []
    try:
        for row in json.loads(path.read_text(encoding="utf-8-sig")):
            row = {"name": row} if isinstance(row, str) else row
            ignored = row.get("ignore", False)
            if not isinstance(ignored, bool):
                raise ValueError(f"ignore {ignored!r} is neither true nor false")
            color = read_color(row["color"]) if "color" in row else None
            rows.append((str(row["name"]), color, ignored))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not a class list ({error})",
            'use ["road", ...] or [{"name": "road", "color": [128, 64, 128]}, ...]',
        ) from error
    return rows


def _text_rows(path: pathlib.Path) -> list[_Row]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        if not rows and [w.lower() for w in words[:4]] == ["name", "r", "g", "b"]:
            continue
        ignored = len(words) > 1 and words[-1] == "ignore"
        words = words[: len(words) - ignored]
        color = None
        if len(words) > 3 and all(w.isdigit() for w in words[-3:]):
            try:
                words, color = words[:-3], read_color(words[-3:])
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {error}", "use 0..255") from error
        rows.append((" ".join(words), color, ignored))
    return rows


def read_color(value: Any) -> Color:
    """[r, g, b] of a file, as numbers or their digits; ValueError for anything else."""
    digits = [str(c) for c in value] if isinstance(value, list) else []
    if len(digits) != 3 or not all(d.isdecimal() and int(d) <= 255 for d in digits):
        raise ValueError(f"colour {value!r} is not three whole numbers in 0..255")
    return tuple(int(d) for d in digits)


# The 7 level-1 classes of the India Driving Dataset (Varma et al., WACV 2019).
IDD_LEVEL1 = published("idd_level1").classes
