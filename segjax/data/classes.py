"""Class tables: the names and colours of a data set's classes, and the ignore label.

Inside segjax a label map holds ids 0..K-1, or bits where a pixel may have several classes or none
(`ClassTable.multilabel`), and `IGNORE` for every pixel that does not count (void, unlabelled,
outside the image, padding). A data set's source maps its own void ids to `IGNORE`.
"""

import colorsys
import dataclasses
import functools
import json
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from segjax.data.errors import DataError

IGNORE = 255
MAX_LABELS = 7  # bits of a multi-label map; with the eighth, all labels together would be IGNORE
_TABLES = pathlib.Path(__file__).parent / "sets" / "tables"

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """Names and RGB colours (0..255) of K classes, in id order.

    A pixel of a label map has one class, whose id it holds. With `multilabel` it has any number of
    them: bit k of its value is set where class k is present, and 0 is none (with one class: 1 is
    the foreground, 0 the background).

    Raises:
      DataError: if names and palette differ in length, a name occurs twice, or there are no
        classes or too many: 255 (id 255 is the ignore label), with `multilabel` 7.
    """

    names: tuple[str, ...]
    palette: tuple[Color, ...]
    multilabel: bool = False

    def __post_init__(self):
        if not 1 <= len(self.names) <= IGNORE:
            raise DataError(
                f"a class table needs 1 to {IGNORE} classes, found {len(self.names)}",
                f"use another class list (id {IGNORE} is the ignore label)",
            )
        if self.multilabel and len(self.names) > MAX_LABELS:
            raise DataError(
                f"{len(self.names)} classes, of which a pixel may have several",
                f"use at most {MAX_LABELS}: a label map keeps a bit for each in one byte, beside "
                f"the ignore label {IGNORE}; or train a run for each {MAX_LABELS} of them",
            )
        if len(self.names) != len(self.palette):
            found = f"{len(self.names)} class names but {len(self.palette)} colours"
            raise DataError(found, "use one colour for each name")
        twice = sorted({n for n in self.names if self.names.count(n) > 1})
        if twice:
            raise DataError(f"class names occur twice: {', '.join(twice)}", "use each name once")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def values(self) -> range:
        """What labelled pixels may hold: ids, or with `multilabel` every set of classes as bits."""
        return range(2 ** len(self) if self.multilabel else len(self))

    @functools.cached_property
    def classes_of(self) -> Bool[np.ndarray, "256 k"]:
        """Whether a pixel of each value 0..255 shows each class; `IGNORE` shows none."""
        values, classes = np.arange(IGNORE + 1)[:, None], np.arange(len(self))
        shown = (values >> classes) & 1 == 1 if self.multilabel else values == classes
        return shown & (values < len(self.values))

    @functools.cached_property
    def colors(self) -> UInt8[np.ndarray, "256 3"]:
        """The colour of each value 0..255: the mean over its classes, black without any."""
        shown = self.classes_of.astype(np.float64)
        mean = shown @ np.array(self.palette) / np.maximum(shown.sum(1, keepdims=True), 1)
        return np.rint(mean).astype(np.uint8)

    def colorize(self, label: np.typing.ArrayLike) -> UInt8[np.ndarray, "h w 3"]:
        """Paints a label map [h, w] in the palette's colours; pixels that are ignored, or have no
        class, are black."""
        return self.colors[np.asarray(label, np.uint8)]

    def is_painted(self, label: np.typing.ArrayLike) -> Bool[np.ndarray, "h w"]:
        """Where a label map [h, w] shows a class."""
        return self.classes_of.any(1)[np.asarray(label, np.uint8)]


def default_palette(num_classes: int) -> tuple[Color, ...]:
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
    """The meaning of the ids and colours in mask files: the lines of a class list, in id order."""

    classes: ClassTable  # the K classes
    # For each id, its label 0..K-1, or 255 for a line that is marked as ignored
    labels: tuple[int, ...]
    names: tuple[str, ...]  # of each id
    colors: tuple[Color | None, ...]  # of each id, None where the list gives none


def listed(classes: ClassTable) -> ClassList:
    """The list for masks whose ids are the labels, and whose colours mean nothing."""
    count = len(classes)
    return ClassList(classes, tuple(range(count)), classes.names, (None,) * count)


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
        table = ClassTable(tuple(names[k] for k in kept), tuple(palette))
    except DataError as error:
        raise DataError(f"{path}: {error.found}", error.remedy) from error
    return ClassList(table, labels, names, colors)


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
