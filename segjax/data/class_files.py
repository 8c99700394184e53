"""Files of class lists: the forms of JSON, YAML and text."""

import json
import pathlib
import re
import reprlib
from typing import Any

import yaml

from segjax.data.class_lines import line_rows
from segjax.data.class_rows import KNOWN, NAME_WORDS, Record, Row, Unclear, rows_of, whole, word_of
from segjax.data.errors import DataError
from segjax.data.files.reading import reading
from segjax.data.files.text_file import read_text

FORMS = (
    "a class a line (`road`, `7 road`, `road 128 64 128`), a table with a header (`id,name,r,g,b`),"
    ' or JSON such as [{"id": 7, "name": "road", "color": [128, 64, 128]}]'
)
# Bytes; COCO's files have all annotations beside the categories, and PyYAML is slow
_LARGEST, _LARGEST_TEXT = {".json": 64 << 20, ".yaml": 1 << 17, ".yml": 1 << 17}, 1 << 20
_DEEPEST = 32  # lists and mappings of YAML inside one another

# Where JSON and YAML keep their classes; of several in one file the first counts.
_CONTAINERS = (
    *("id2label", "label2id", "categories", "classes", "classnames", "labelclasses"),
    *("annotationclasses", "labels", "names", "tools", "options"),
)


def read_rows(path: pathlib.Path) -> tuple[list[Row], str]:
    """The rows of a class list, and what a user should know of how it was read.

    Raises:
      DataError: naming the file and the line or the entry, and the forms that are understood.
    """
    suffix = path.suffix.lower()
    text, note = read_text(
        path,
        'use a file with the classes alone, or names with commas ("road,car,sky")',
        most_bytes=_LARGEST.get(suffix, _LARGEST_TEXT),
        what="class list ",
    )
    with reading(f"class list {path}:", f"use {FORMS}", "not a class list"):
        try:
            return _rows(text, suffix), note
        except Unclear as error:
            found = f"class list {path}: {error}"
            raise DataError(found, error.remedy or f"use {FORMS}") from error


def _rows(text: str, suffix: str) -> list[Row]:
    if suffix in (".yaml", ".yml"):
        records = _json_records(from_yaml(text))
    elif suffix == ".json" or text.lstrip()[:1] in ("[", "{"):
        records = _json_records(from_json(text))
    elif re.match(r"\s*item\s*\{", text):
        records = _protobuf_records(text)
    else:
        return line_rows(text)
    return rows_of(records, named=True)


class _Pairs(yaml.BaseLoader):
    """Reads every scalar as text, and a mapping as pairs, which keep keys that occur twice; no
    aliases, by which a small file could hold more than any memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise ValueError(f"an alias (*) in line {mark.line + 1}, which is not read")
        return super().compose_node(parent, index)

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if self.flow_level > _DEEPEST:  # PyYAML's time grows with the square of the depth
            raise RecursionError
        super().fetch_flow_collection_start(TokenClass)


_Pairs.add_constructor(
    "tag:yaml.org,2002:map", lambda loader, node: tuple(loader.construct_pairs(node))
)


def from_yaml(text: str) -> Any:
    """The content of YAML: lists, mappings as tuples of pairs, and all else as text."""
    return yaml.load(text, _Pairs)


def from_json(text: str) -> Any:
    """The content of JSON, mappings as tuples of pairs."""
    return json.loads(text, object_pairs_hook=tuple)


def _json_records(content: Any) -> list[Record]:
    rows, colors = _container(content)
    if isinstance(rows, tuple):
        return [(f"entry {k}", _entry(*row, k)) for k, row in enumerate(rows, 1)]
    if not isinstance(rows, list):
        raise ValueError(f"it holds {reprlib.repr(rows)}")
    records = []
    for k, row in enumerate(rows, 1):
        if isinstance(row, str):
            row = (("name", row),)
        if not isinstance(row, tuple):
            raise Unclear(f"entry {k} is {reprlib.repr(row)}, no class")
        color = {"color": colors[k - 1]} if colors else {}
        records.append((f"entry {k}", {word_of(key): value for key, value in row} | color))
    return records


def _container(content: Any) -> tuple[Any, list[Any] | None]:
    """The list or mapping that holds the classes, and the colours beside it."""
    level, seen = [content], set()
    for _ in range(6):
        mappings = [{word_of(k): v for k, v in each} for each in level if isinstance(each, tuple)]
        for name in _CONTAINERS:
            found = [m for m in mappings if m.get(name) and isinstance(m[name], list | tuple)]
            if len(found) > 1:
                raise ValueError(f"{len(found)} lists are called {name!r}")
            if found:
                rows = found[0][name]
                beside = (found[0].get(word) for word in ("palette", "colors", "colours"))
                colors = next((c for c in beside if isinstance(c, list)), None)
                if isinstance(rows, list) and colors and len(colors) != len(rows):
                    raise ValueError(f"{len(rows)} {name} but {len(colors)} colours")
                return rows, colors
        level = [v for m in mappings for v in m.values() if isinstance(v, tuple)]
        level = [v for v in level if not (id(v) in seen or seen.add(id(v)))]
    return content, None


def _entry(key: Any, value: Any, number: int) -> dict[str, Any]:
    """The record of an entry of a mapping: id to name, name to id, name to colour, ..."""
    numeric = whole(key) is not None
    if isinstance(value, tuple):
        record = {word_of(k): v for k, v in value}
        if record.keys() & KNOWN:
            has_name = numeric and record.keys() & set(NAME_WORDS)
            return {**record, "id": key} if has_name else {"name": key, **record}
    elif isinstance(value, list) or (isinstance(value, str) and re.match(r"#|rgba?\(", value)):
        return {"name": key, "color": value}
    elif numeric and isinstance(value, str) and whole(value) is None:
        return {"id": key, "name": value}
    elif not numeric and whole(value) is not None:
        return {"name": key, "id": value}
    elif not numeric and value == "":  # VGG's options
        return {"name": key}
    raise Unclear(f"entry {number} is {reprlib.repr(key)}: {reprlib.repr(value)}, no class")


def _protobuf_records(text: str) -> list[Record]:
    """The items of a label map of TensorFlow's object detection: `item { id: 1 name: 'cat' }`."""
    items = re.findall(r"item\s*\{([^{}]*)\}", text)
    fields = [re.findall(r"\b(\w+)\s*:\s*(\"[^\"]*\"|'[^']*'|\S+)", item) for item in items]
    return [
        (f"item {k}", {word_of(key): value.strip("\"'") for key, value in item})
        for k, item in enumerate(fields, 1)
    ]
