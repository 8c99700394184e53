"""Classes of a data set kept, merged and ignored by a file (`data.class_map`)."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

from segjax.data.classes import IGNORE, ClassTable
from segjax.data.errors import DataError
from segjax.data.files.ids import IdMap
from segjax.data.files.paired import PairedFiles
from segjax.data.source import Source

_FORM = (
    'use `vehicle: [car, bus]`, or `- {name: vehicle, from: [car, bus], color: [0, 0, 142]}`; "*" '
    "in quotes means all other classes"
)


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
    that no entry takes are ignored. An entry without a colour has that of its first class.

    Raises:
      DataError: if the file is missing, empty or has another form; a name is unknown (the known
        ones are listed); or a class or a new name occurs twice.
    """
    entries = [_entry(path, *row) for row in _rows(pathlib.Path(path))]
    named = [name for _, names, _ in entries for name in names if name != "*"]
    unknown = [name for name in named if name not in classes.names]
    if unknown:
        raise DataError(
            f"data.class_map={path}: unknown classes {', '.join(unknown)}",
            f"use those of the data set: {', '.join(classes.names)}",
        )
    others = [name for name in classes.names if name not in named]
    taken, palette, labels = {}, [], dict.fromkeys(range(len(classes)), IGNORE)
    for label, (new, names, color) in enumerate(entries):
        for name in dict.fromkeys(names):
            if name in taken:
                raise DataError(
                    f"data.class_map={path}: {name!r} is in {taken[name]!r} and in {new!r}",
                    "use it once",
                )
            taken[name] = new
        members = [m for name in names for m in (others if name == "*" else [name])]
        if not members:
            raise DataError(
                f'data.class_map={path}: {new!r} is "*", all other classes, but all are named',
                "use it without this entry",
            )
        ids = [classes.names.index(member) for member in members]
        labels |= dict.fromkeys(ids, label)
        palette.append(color or classes.palette[ids[0]])
    try:
        table = ClassTable(tuple(new for new, _, _ in entries), tuple(palette))
    except DataError as error:
        raise DataError(f"data.class_map={path}: {error.found}", error.remedy) from error
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
    """A source whose labels are mapped to other classes.

    Attributes:
      source: the samples before the map.
      classes: the K new classes.
      labels: the new label, 0..K-1 or 255, of each of the source's labels; 255 stays.
    """

    source: Source
    classes: ClassTable
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


def _rows(path: pathlib.Path) -> list[tuple[Any, Any, Any]]:
    """(name, from, color) of each entry, as in the file."""
    if not path.is_file():
        raise DataError(f"data.class_map={path} does not exist", "use a YAML or JSON file")
    text = path.read_text(encoding="utf-8-sig")
    try:
        if path.suffix.lower() == ".json":
            content = json.loads(text, object_pairs_hook=tuple)
        else:
            node = yaml.compose(text, yaml.SafeLoader)
            content = None if node is None else _values(node)
    except (ValueError, yaml.YAMLError) as error:
        message = " ".join(str(error).split())  # PyYAML writes several lines
        raise DataError(f"data.class_map={path} cannot be read: {message}", _FORM) from error
    if isinstance(content, tuple):
        rows = [(name, members, None) for name, members in content]
    elif isinstance(content, list) and all(isinstance(row, tuple) for row in content):
        rows = []
        for row in content:
            extra = {key for key, _ in row} - {"name", "from", "color"}
            if extra or "name" not in dict(row):
                raise DataError(f"data.class_map={path}: an entry has {dict(row)}", _FORM)
            rows.append((dict(row)["name"], dict(row).get("from"), dict(row).get("color")))
    else:
        rows = []
    if not rows:
        raise DataError(f"data.class_map={path} names no classes", _FORM)
    return rows


def _values(node: yaml.Node) -> Any:
    """A mapping as a tuple of pairs, which keeps keys that occur twice; every scalar as text."""
    if isinstance(node, yaml.MappingNode):
        return tuple((_values(key), _values(value)) for key, value in node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_values(value) for value in node.value]
    return None if node.tag == "tag:yaml.org,2002:null" else node.value


def _entry(path, name: Any, members: Any, color: Any) -> tuple[str, list[str], Any]:
    names = [name] if members is None else members
    names = names if isinstance(names, list) else [names]
    if not isinstance(name, str) or not names or not all(isinstance(n, str) for n in names):
        raise DataError(f"data.class_map={path}: {name!r} has {members!r}", _FORM)
    if color is None:
        return name, names, None
    values = color if isinstance(color, list) else []
    values = [int(c) if str(c).isdecimal() else -1 for c in values]
    if len(values) != 3 or not all(0 <= c <= 255 for c in values):
        raise DataError(
            f"data.class_map={path}: {name!r} has color {color!r}", "use three numbers in 0..255"
        )
    return name, names, tuple(values)
