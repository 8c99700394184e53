"""Classes of a data set kept, merged and ignored by a file (`data.class_map`)."""

import dataclasses
import os
import pathlib
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from segjax.data.class_files import from_json, from_yaml
from segjax.data.class_rows import read_color
from segjax.data.classes import IGNORE, ClassTable, Color
from segjax.data.errors import DataError
from segjax.data.files.ids import IdMap
from segjax.data.files.paired import PairedFiles
from segjax.data.files.reading import reading
from segjax.data.files.text_file import read_text
from segjax.data.source import Source

_FORM = (
    'use `vehicle: [car, bus]`, or `- {name: vehicle, from: [car, bus], color: [0, 0, 142]}`; "*" '
    "in quotes means all other classes"
)
_LARGEST = 1 << 17  # bytes of the file


@dataclasses.dataclass(frozen=True)
class ClassMap:
    """New classes, and the new label of each label of the data set (255 = ignore)."""

    classes: ClassTable
    labels: Mapping[int, int]


def read_class_map(path: str | os.PathLike, classes: ClassTable) -> ClassMap:
    """Reads new classes and the classes that each is made of, from YAML or JSON.

    The file holds `{new name: names, ...}` or a list of `{name, from, color}`, color being
    optional. Names are a name, a list of names, `"*"` for all classes that the file does not name,
    or nothing for the class of the same name. The new classes are in the order of the file. Classes
    that no entry takes are ignored. An entry without a colour has that of its first class. The new
    classes keep their raw ids if each is made of one class, else they are 0..K-1.

    Raises:
      DataError: if the file is missing, empty or has another form; a name is unknown (the known
        ones are listed); or a class or a new name occurs twice.
    """
    file = f"data.class_map={path}"
    entries = [_entry(file, *row) for row in _rows(pathlib.Path(path), file)]
    named = [name for _, names, _ in entries for name in names]
    unknown = [name for name in named if name not in ("*", *classes.names)]
    if unknown:
        raise DataError(
            f"{file}: unknown classes {', '.join(unknown)}",
            f"use those of the data set: {', '.join(classes.names)}",
        )
    others = [name for name in classes.names if name not in named]
    taken, palette, merged = {}, [], []
    labels = dict.fromkeys(range(len(classes)), IGNORE)
    for label, (new, names, color) in enumerate(entries):
        for name in names:
            if name in taken:
                raise DataError(
                    f"{file}: {name!r} is in {taken[name]!r} and in {new!r}", "use it once"
                )
            taken[name] = new
        members = [m for name in names for m in (others if name == "*" else [name])]
        if not members:
            found = f'{file}: {new!r} is "*", all other classes, but all are named'
            raise DataError(found, "use it without this entry")
        ids = [classes.names.index(member) for member in members]
        labels |= dict.fromkeys(ids, label)
        merged.append(ids)
        palette.append(color or classes.palette[ids[0]])
    # A merged class has several raw ids, none of which would be right.
    raw_ids = tuple(classes.raw_ids[m[0]] for m in merged) if max(map(len, merged)) == 1 else ()
    try:
        table = ClassTable(tuple(new for new, _, _ in entries), tuple(palette), ids=raw_ids)
    except DataError as error:
        raise DataError(f"{file}: {error.found}", error.remedy) from error
    return ClassMap(table, labels)


def map_classes(source: Source, class_map: ClassMap) -> Source:
    """The source with its labels mapped; a `PairedFiles` stays one, with another `id_map`."""
    if not isinstance(source, PairedFiles):
        return MappedClasses(source, class_map.classes, class_map.labels)
    ids = source.id_map
    labels = {id_: class_map.labels.get(label, IGNORE) for id_, label in ids.labels.items()}
    id_map = IdMap(labels, ids.allowed, ids.remedy)
    return dataclasses.replace(source, classes=class_map.classes, id_map=id_map)


@dataclasses.dataclass(frozen=True, repr=False)
class MappedClasses:
    """A source whose labels are mapped to other classes."""

    source: Source  # the samples before the map
    classes: ClassTable  # the K new classes
    # The new label, 0..K-1 or 255, of each of the source's labels; 255 stays
    labels: Mapping[int, int]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.source[index]
        table = np.full(256, IGNORE, np.uint8)
        table[list(self.labels)] = list(self.labels.values())
        return {**sample, "label": table[sample["label"]]}

    @property
    def split(self) -> str:
        return getattr(self.source, "split", type(self.source).__name__)

    def __repr__(self) -> str:
        # With the labels: cached class statistics are found by this text.
        return f"{self.source!r}[{', '.join(f'{a}:{b}' for a, b in self.labels.items())}]"


def _rows(path: pathlib.Path, file: str) -> list[tuple[Any, Any, Any]]:
    """(name, from, color) of each entry, as in the file."""
    text, _ = read_text(
        path, "use a YAML or JSON file", most_bytes=_LARGEST, what="data.class_map="
    )
    rows = []
    with reading(file, _FORM):
        content = (from_json if path.suffix.lower() == ".json" else from_yaml)(text)
        if isinstance(content, tuple):
            rows = [(name, members, None) for name, members in content]
        elif isinstance(content, list) and all(isinstance(row, tuple) for row in content):
            for row in map(dict, content):
                if row.keys() - {"name", "from", "color"} or "name" not in row:
                    raise DataError(f"{file}: an entry has {reprlib.repr(row)}", _FORM)
                rows.append((row["name"], row.get("from"), row.get("color")))
    if not rows:
        raise DataError(f"{file} names no classes", _FORM)
    return rows


def _entry(file: str, name: Any, members: Any, color: Any) -> tuple[str, list[str], Color | None]:
    names = name if members in (None, "") else members
    names = names if isinstance(names, list) else [names]
    if not isinstance(name, str) or not names or not all(isinstance(n, str) for n in names):
        raise DataError(f"{file}: {reprlib.repr(name)} has {reprlib.repr(members)}", _FORM)
    try:
        return (
            name,
            list(dict.fromkeys(names)),
            read_color(color) if color not in (None, "") else None,
        )
    except ValueError as error:
        raise DataError(f"{file}: {name!r}: {error}", "use color: [r, g, b]") from error
