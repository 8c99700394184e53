"""Class tables: the names and colours of a data set's classes, and the ignore label.

Inside segjax a label map holds ids 0..K-1, and `IGNORE` for every pixel that does not count (void,
unlabelled, outside the image, padding). A data set's source maps its own void ids to `IGNORE`.
"""

import colorsys
import dataclasses
import json
import pathlib

import numpy as np
from jaxtyping import UInt8

from segjax.data.errors import DataError

IGNORE = 255


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """Names and RGB colours (0..255) of K classes, in id order.

    Raises:
      DataError: if names and palette differ in length, a name occurs twice, or there are no
        classes or more than 255 of them (id 255 is the ignore label).
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    def __post_init__(self):
        if not 1 <= len(self.names) <= IGNORE:
            raise DataError(
                f"a class table needs 1 to {IGNORE} classes, found {len(self.names)}",
                f"use another class list (id {IGNORE} is the ignore label)",
            )
        if len(self.names) != len(self.palette):
            raise DataError(
                f"{len(self.names)} class names but {len(self.palette)} colours",
                "use one colour for each name",
            )
        twice = sorted({n for n in self.names if self.names.count(n) > 1})
        if twice:
            raise DataError(f"class names occur twice: {', '.join(twice)}", "use each name once")

    def __len__(self) -> int:
        return len(self.names)

    def colorize(self, label: np.typing.ArrayLike) -> UInt8[np.ndarray, "h w 3"]:
        """Paints a label map [h, w] in the palette's colours; ignored pixels are black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.palette
        return table[np.asarray(label, np.uint8)]


def default_palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Distinct colours for classes without any: golden-angle hues, three brightnesses."""
    return tuple(
        tuple(
            round(255 * c)
            for c in colorsys.hsv_to_rgb((0.61803398875 * k) % 1, 0.75, (0.95, 0.7, 0.5)[k % 3])
        )
        for k in range(num_classes)
    )


def from_names(names) -> ClassTable:
    """A table with the default palette."""
    names = tuple(names)
    return ClassTable(names, default_palette(len(names)))


@dataclasses.dataclass(frozen=True)
class ClassList:
    """The meaning of the ids and colours in mask files: the lines of a class list, in id order.

    Attributes:
      classes: the K classes.
      labels: for each id, its label 0..K-1, or 255 for a line that is marked as ignored.
      names: of each id.
      colors: of each id, None where the list gives none.
    """

    classes: ClassTable
    labels: tuple[int, ...]
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int] | None, ...]


def listed(classes: ClassTable) -> ClassList:
    """The list for masks whose ids are the labels, and whose colours mean nothing."""
    count = len(classes)
    return ClassList(classes, tuple(range(count)), classes.names, (None,) * count)


def from_file(path: str | pathlib.Path) -> ClassTable:
    """The classes of a class list; see `read_class_list`."""
    return read_class_list(path).classes


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
    fallback = default_palette(len(kept))
    palette = tuple(colors[k] or f for k, f in zip(kept, fallback, strict=True))
    labels = tuple(kept.index(k) if k in kept else IGNORE for k in range(len(rows)))
    try:
        table = ClassTable(tuple(names[k] for k in kept), palette)
    except DataError as error:
        raise DataError(f"{path}: {error.found}", error.remedy) from error
    return ClassList(table, labels, names, colors)


# A line of a class list: the name, the colour or None, and whether it is marked as ignored.
_Row = tuple[str, tuple[int, int, int] | None, bool]


def _json_rows(path: pathlib.Path) -> list[_Row]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
        rows = [{"name": r} if isinstance(r, str) else r for r in rows]
        return [
            (
                str(r["name"]),
                _json_color(r["color"]) if "color" in r else None,
                _json_flag(r.get("ignore", False)),
            )
            for r in rows
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not a class list ({error})",
            'use ["road", ...] or [{"name": "road", "color": [128, 64, 128]}, ...]',
        ) from error


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
        has_color = len(words) > 3 and all(w.isdigit() for w in words[-3:])
        if has_color and any(int(w) > 255 for w in words[-3:]):
            raise DataError(
                f"{path}, line {number}: colour {words[-3:]} outside 0..255", "use 0..255"
            )
        name = " ".join(words[:-3] if has_color else words)
        rows.append((name, tuple(int(w) for w in words[-3:]) if has_color else None, ignored))
    return rows


def _json_flag(flag) -> bool:
    if not isinstance(flag, bool):
        raise ValueError(f"ignore {flag!r} is neither true nor false")
    return flag


def _json_color(color) -> tuple[int, int, int]:
    in_range = isinstance(color, list) and all(type(c) is int and 0 <= c <= 255 for c in color)
    if not in_range or len(color) != 3:
        raise ValueError(f"colour {color!r} is not three whole numbers in 0..255")
    return tuple(color)


# The 7 level-1 classes of the India Driving Dataset (Varma et al., WACV 2019), each in the
# palette's colour of its most frequent member.
IDD_LEVEL1 = ClassTable(
    (
        "drivable",
        "non-drivable",
        "living things",
        "vehicles",
        "roadside objects",
        "far objects",
        "sky",
    ),
    (
        (128, 64, 128),
        (244, 35, 232),
        (220, 20, 60),
        (0, 0, 142),
        (220, 190, 40),
        (107, 142, 35),
        (70, 130, 180),
    ),
)
