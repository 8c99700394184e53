"""Class lists: files that say which class each id and each colour of a mask stands for."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Sequence

from segjax.data.class_files import FORMS, read_rows
from segjax.data.class_rows import Row, word_of
from segjax.data.classes import IGNORE, ClassTable, Color, default_palette, from_names, in_words
from segjax.data.errors import DataError

_TABLES = pathlib.Path(__file__).parent / "sets" / "tables"
_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".yaml", ".yml", ".pbtxt", ".names")
_LARGEST_ID = 65535  # of 16-bit masks
_LONGEST_PATH, _LARGE = 4096, 1 << 20  # bytes
# What the ignored id 255 is called in lists.
_VOID = {"void", "ignore", "ignored", "unlabeled", "unlabelled", "border", "nodata"}


@dataclasses.dataclass(frozen=True)
class ClassList:
    """The meaning of the ids and colours in mask files: the rows of a class list."""

    classes: ClassTable  # the K classes
    ids: tuple[int, ...]  # of each row, in mask files; unique
    # For each row, its label 0..K-1, or 255 for a row that is marked as ignored
    labels: tuple[int, ...]
    names: tuple[str, ...]  # of each row
    colors: tuple[Color | None, ...]  # of each row, None where the list gives none
    source: str = ""  # the file
    note: str = ""  # what a user should know of how it was read

    def further(self) -> list[str]:
        """What the list gives besides names and ids, and what a user should know of it."""
        void = [k for k, label in zip(self.ids, self.labels, strict=True) if label == IGNORE]
        parts = ["colours"] if any(self.colors) else []
        parts += [f"ignored {in_words(void)}"] if void else []
        return [*parts, *filter(None, [self.note])]


def listed(classes: ClassTable) -> ClassList:
    """The list for masks that hold the classes' ids, and whose colours mean nothing."""
    count = len(classes)
    ids = tuple(range(count))
    return ClassList(classes, classes.raw_ids, ids, classes.names, (None,) * count)


@functools.cache
def published(name: str) -> ClassList:
    """The class list of a published data set, `sets/tables/<name>.txt`."""
    return read_class_list(_TABLES / f"{name}.txt")


def given_list(classes: str, count: int = 0) -> ClassList:
    """The list of `data.classes`, a file or names with commas; without it `count` nameless classes.

    Raises:
      DataError: as `read_class_list`.
    """
    if not classes:
        return listed(from_names(f"class {k}" for k in range(count)))
    if _is_path(classes):
        return read_class_list(classes)
    separator = "," if "," in classes else ";"
    return listed(from_names(filter(None, (name.strip() for name in classes.split(separator)))))


def _is_path(classes: str) -> bool:
    """Whether `data.classes` means a file rather than names."""
    if len(classes.encode()) > _LONGEST_PATH:
        return False
    path = pathlib.Path(classes)
    try:
        if path.is_file():
            return True
    except (OSError, ValueError):  # longer than a name may be
        return False
    return path.suffix.lower() in _SUFFIXES or (
        "," not in classes and not {"/", "\\"}.isdisjoint(classes)
    )


def read_class_list(path: str | pathlib.Path) -> ClassList:
    """Reads a class list, of any form that labelling tools and data sets use.

    - Text, a class a line: `road`; `7 road`, `road 7` or `7: road`; `road 128 64 128` or
      `128 64 128 road`, with `#804080` for a colour, and with an id too; colours alone; or all
      names in one line, with commas. Empty lines and lines that start with # are skipped.
    - Tables whose first line names the columns (`id,name,r,g,b`, in any order; commas, semicolons
      or tabs; `Pixel Value, Class`; Cityscapes' `trainId`, `ignoreInEval`); CVAT's `labelmap.txt`.
    - JSON and YAML: a list of names or of objects, id to name, name to id, name to colour, or a
      file that holds one of these as `categories`, `classes`, `labels`, `names`, `id2label`, ...
    - `item { id: 1 name: "road" }` of TensorFlow's object detection.

    The ids are those in the file; without any they count the rows from 0, or from labelme's
    `_background_` if the first name is `__ignore__`. The classes are ordered by train id, else id.
    A line that ends with `ignore` (`void 0 0 0 ignore`; in JSON `"ignore": true`) is no class: its
    id and its colour become 255. So do negative ids, and the id 255 if its name means void. A list
    with -1 ignores 255 too, which 8-bit files have for it.

    Raises:
      DataError: if the file cannot be understood, or gives an id, a name or a colour to two
        classes; the message names the file and the lines.
    """
    path = pathlib.Path(path)
    stat = path.stat() if path.is_file() else None
    if stat is not None and stat.st_size > _LARGE:
        return _read_once(path, stat.st_mtime_ns, stat.st_size)
    return _read(path)


@functools.lru_cache(maxsize=2)
def _read_once(path: pathlib.Path, modified: int, size: int) -> ClassList:
    """The list of a large file, such as COCO's, which takes seconds to read."""
    return _read(path)


def _read(path: pathlib.Path) -> ClassList:
    rows, note = read_rows(path)
    ids, more = _ids(rows, path)
    names = [row.name or f"class {id_}" for row, id_ in zip(rows, ids, strict=True)]
    ignored = [
        row.ignored or id_ < 0 or (id_ == IGNORE and word_of(name) in _VOID)
        for row, id_, name in zip(rows, ids, names, strict=True)
    ]
    kept = [k for k, void in enumerate(ignored) if not void]
    for what, values, among in (
        ("ids", ids, range(len(rows))),
        ("names", names, kept),
        ("train ids", [row.train_id for row in rows], kept),
    ):
        if twice := _twice([(values[k], rows[k].place) for k in among]):
            raise DataError(
                f"class list {path}: class {what} occur twice: {twice}",
                f"use each of the {what} once; data.class_map merges classes",
            )
    # Of RGB masks alone it is an error: ADE20K's own palette has such colours.
    same = _twice([(rows[k].color, rows[k].place) for k in kept])
    train_ids = [ids[k] if row.train_id is None else row.train_id for k, row in enumerate(rows)]
    kept.sort(key=lambda k: train_ids[k])
    palette = [rows[k].color or c for k, c in zip(kept, default_palette(len(kept)), strict=True)]
    raw = tuple(ids[k] for k in kept)
    try:
        table = ClassTable(tuple(names[k] for k in kept), tuple(palette), ids=raw)
    except DataError as error:
        raise DataError(f"class list {path}: {error.found}", error.remedy) from error
    labels = [kept.index(k) if k in kept else IGNORE for k in range(len(rows))]
    colors = [row.color for row in rows]
    if -1 in ids and IGNORE not in ids:
        ids, labels = [*ids, IGNORE], [*labels, IGNORE]
        names, colors = [*names, names[ids.index(-1)]], [*colors, None]
    same = same and f"the colour of several classes: {same}"
    note = ", ".join(filter(None, (note, more, same)))
    return ClassList(table, *map(tuple, (ids, labels, names, colors)), str(path), note)


def _ids(rows: Sequence[Row], path: pathlib.Path) -> tuple[list[int], str]:
    """The id of each row, and a note where they are not those in the file."""
    given = [row.id for row in rows]
    if None in given and {*given} != {None}:
        row = rows[given.index(None)]
        raise DataError(
            f"class list {path}, {row.place}: {row.name!r} has no id, unlike other rows",
            f"use an id in each row, or in none; that is {FORMS}",
        )
    ids = [id_ for id_ in given if id_ is not None]
    if len(ids) == len(rows) and max(ids, default=0) <= _LARGEST_ID:
        return ids, ""
    note = f"ids by the order, as {max(ids)} fits no mask" if ids else ""
    first = -1 if rows and rows[0].name == "__ignore__" else 0
    return list(range(first, first + len(rows))), note


def _twice(places: Iterable[tuple[object, str]]) -> str:
    """The values other than None that occur at several places, with these, in words."""
    found: dict[object, list[str]] = {}
    for value, place in places:
        found.setdefault(value, []).append(place)
    several = [v for v in found if v is not None and len(found[v]) > 1]
    return "; ".join(f"{v} ({', '.join(found[v][:5])})" for v in several[:5])


# The 7 level-1 classes of the India Driving Dataset (Varma et al., WACV 2019).
IDD_LEVEL1 = published("idd_level1").classes
