"""A published table as data: what the paper reports, and the runs whose numbers stand beside it.

A table is a YAML file: configs/tables/segnet/1.yaml is `segnet/1`. configs/tables/README.md
describes the fields. Nothing in a table is code: it names configs of segjax, options and numbers.
"""

import dataclasses
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from segjax import config_files
from segjax.data.class_files import from_yaml
from segjax.data.errors import DataError
from segjax.data.files.regular import read_bytes

PAPER = "paper"  # the scale at which every row is as published
# What may be done with the trained network of a row before it is measured, in this order.
THEN = ("recalibrate", "crf", "views", "dropout", "ensemble", "cost")
_WHAT = "a published table"
_REMEDY = "mend the file; configs/tables/README.md describes it"


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes:
      name: its heading, as in the paper.
      measure: a number of results.json, such as "miou" or "boundary_f1"; of a row with `cost`, one
        of `segjax.published.cost.MEASURES`.
      split: that it is measured on.
      protocol: of `segjax.metrics.protocols`.
      factor: from our unit to the paper's: 100 where it has percent.
      digits: after the point, as printed.
      incomparable: why ours cannot be set beside the paper's; "" if they can.
    """

    name: str
    measure: str
    split: str = "test"
    protocol: str = "segjax"
    factor: float = 100.0
    digits: int = 1
    incomparable: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """A row: a network, how it is trained, and what the paper reports of it.

    Attributes:
      name: of the row, as in the paper.
      paper: column -> the paper's number; columns without one are left out.
      config: a config of segjax with its preset, such as "segnet_basic:fcn_basic"; "" with `of`.
      options: option -> value, as text, in place of the preset's.
      of: the row whose trained networks this one measures otherwise, with `then`.
      continues: the row whose runs this one trains on, for more steps.
      then: what is done before the measurement: a name of `THEN` -> its options as text.
      note: a sentence shown with the row.
      incomparable: why the row's numbers cannot be set beside the paper's; "" if they can.
      scales: scale -> options for this row at it; None: the row is left out there.
    """

    name: str
    paper: Mapping[str, float]
    config: str = ""
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    of: str = ""
    continues: str = ""
    then: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    note: str = ""
    incomparable: str = ""
    scales: Mapping[str, Mapping[str, str] | None] = dataclasses.field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return re.sub(r"[^\w.+-]+", "_", self.name).strip("_")


@dataclasses.dataclass(frozen=True)
class Scale:
    """A size at which all rows are run.

    Attributes:
      about: what it is for, in words.
      options: option -> value, as text, for every row.
      first: the rows that are run first, the most telling ones.
    """

    about: str = ""
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    first: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class PublishedTable:
    """A table of a paper.

    Attributes:
      name: as --table takes it.
      title, source: what it shows, and where it was published, with table and page.
      about: how the paper made the numbers, and what differs here.
      columns, rows: in the paper's order.
      scales: by name; "paper" is always there.
    """

    name: str
    title: str
    source: str
    about: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    scales: Mapping[str, Scale]

    def rows_at(self, scale: str) -> list[Row]:
        """The rows that are run at a scale, in the order in which they are run.

        Rows that `first` names come first; a row comes after the one that it needs.

        Raises:
          ValueError: for an unknown scale.
        """
        if scale not in self.scales:
            raise ValueError(
                f"--scale={scale} is unknown; {self.name} has {', '.join(self.scales)}"
            )
        by_name = {row.name: row for row in self.rows if row.scales.get(scale, {}) is not None}
        ordered: dict[str, Row] = {}

        def add(name: str) -> None:
            if name in by_name and name not in ordered:
                add(by_name[name].of or by_name[name].continues)
                ordered[name] = by_name[name]

        for name in (*self.scales[scale].first, *by_name):
            add(name)
        return list(ordered.values())

    def options_of(self, row: Row, scale: str) -> dict[str, str]:
        """The options of a row at a scale: its own, the scale's, and its own at the scale."""
        own = row.scales.get(scale) or {}
        return {**row.options, **self.scales[scale].options, **own}


def names() -> list[str]:
    """The names of segjax's own tables."""
    folder = _folder()
    found = [path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml")]
    return sorted(path.as_posix() for path in found)


def _folder() -> pathlib.Path:
    return config_files.folder() / "tables"


def read_table(name: str) -> PublishedTable:
    """Reads a table.

    Args:
      name: of one of segjax's own (`names`), or the path of a YAML file.

    Raises:
      ValueError: for an unknown name, or naming the file and the field that is wrong.
    """
    own = name in names()
    path = _folder() / f"{name}.yaml" if own else pathlib.Path(name)
    if not own and path.suffix not in (".yaml", ".yml"):
        raise ValueError(
            f"--table={name} is unknown; use {', '.join(names())}, or the path of a .yaml file"
        )
    text = read_bytes(path, "use a readable file", 1 << 20)
    try:
        return _table(name if own else path.stem, _Fields.of(from_yaml(text.decode()), "it"))
    except (UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not {_WHAT}: {error}", _REMEDY) from error
    except Exception as error:
        if not isinstance(error, ValueError) and type(error).__module__.split(".")[0] != "yaml":
            raise
        raise DataError(
            f"{path} is not {_WHAT}: {' '.join(str(error).split())}", _REMEDY
        ) from error


class _Fields:
    """The fields of a mapping in the file; each is taken once, and none may be left over."""

    def __init__(self, values: Mapping[str, Any], place: str):
        self._values, self._place = dict(values), place

    @classmethod
    def of(cls, value: Any, place: str) -> "_Fields":
        return cls(_mapping(value, place), place)

    def text(self, name: str, default: str | None = "") -> str:
        value = self._values.pop(name, default)
        if value is None:
            raise ValueError(f"{self._place} has no {name!r}")
        if not isinstance(value, str):
            raise ValueError(f"{name} of {self._place} is not text")
        return " ".join(value.split())

    def number(self, name: str, default: float) -> float:
        return _number(self._values.pop(name, str(default)), f"{name} of {self._place}")

    def mapping(self, name: str) -> dict[str, Any]:
        return _mapping(self._values.pop(name, ()), f"{name} of {self._place}")

    def list(self, name: str) -> list[Any]:
        value = self._values.pop(name, [])
        if not isinstance(value, list):
            raise ValueError(f"{name} of {self._place} is not a list")
        return value

    def end(self, known: type) -> None:
        if self._values:
            fields = ", ".join(field.name for field in dataclasses.fields(known))
            raise ValueError(
                f"{self._place} has the unknown field {next(iter(self._values))!r}; known are "
                f"{fields}"
            )


def _mapping(value: Any, place: str) -> dict[str, Any]:
    """What `from_yaml` gives for a mapping, as a dict."""
    if value == "":
        return {}
    if not isinstance(value, tuple) or not all(isinstance(pair, tuple) for pair in value):
        raise ValueError(f"{place} is not a mapping")
    pairs = [(str(key), inner) for key, inner in value]
    if len(dict(pairs)) < len(pairs):
        twice = next(key for key, _ in pairs if [k for k, _ in pairs].count(key) > 1)
        raise ValueError(f"{place} has {twice!r} twice")
    return dict(pairs)


def _number(text: Any, place: str) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{place} is {text!r}, not a number")
    return value


def _options(values: Mapping[str, Any], place: str) -> dict[str, str]:
    """Options as --config.OPTION=VALUE takes them: text, a list with commas."""
    options = {}
    for name, value in values.items():
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            value = ",".join(value) or "()"
        if not isinstance(value, str):
            raise ValueError(f"{name} of {place} is neither text nor a list of texts")
        options[name] = value
    return options


def _table(name: str, fields: _Fields) -> PublishedTable:
    title, source = fields.text("title", None), fields.text("source", None)
    about = fields.text("about")
    columns = [_column(key, value) for key, value in fields.mapping("columns").items()]
    rows = [_row(_Fields.of(value, f"row {k}")) for k, value in enumerate(fields.list("rows"), 1)]
    scales = {PAPER: Scale("as published")}
    scales |= {key: _scale(key, value) for key, value in fields.mapping("scales").items()}
    fields.end(PublishedTable)
    table = PublishedTable(name, title, source, about, columns, rows, scales)
    _check(table)
    return table


def _column(name: str, value: Any) -> Column:
    fields = _Fields.of(value, f"column {name}")
    column = Column(
        name,
        measure=fields.text("measure", None),
        split=fields.text("split", "test"),
        protocol=fields.text("protocol", "segjax"),
        factor=fields.number("factor", 100.0),
        digits=int(fields.number("digits", 1)),
        incomparable=fields.text("incomparable"),
    )
    fields.end(Column)
    return column


def _row(fields: _Fields) -> Row:
    name = fields.text("name", None)
    place = f"row {name!r}"
    paper = fields.mapping("paper").items()
    then = fields.mapping("then").items()
    scales = fields.mapping("scales").items()
    row = Row(
        name,
        paper={column: _number(value, f"{column} of {place}") for column, value in paper},
        config=fields.text("config"),
        options=_options(fields.mapping("options"), place),
        of=fields.text("of"),
        continues=fields.text("continues"),
        then={key: _options(_mapping(value, f"{key} of {place}"), place) for key, value in then},
        note=fields.text("note"),
        incomparable=fields.text("incomparable"),
        scales={
            scale: None if value == "left out" else _options(_mapping(value, place), place)
            for scale, value in scales
        },
    )
    fields.end(Row)
    return row


def _scale(name: str, value: Any) -> Scale:
    fields = _Fields.of(value, f"scale {name}")
    scale = Scale(
        about=fields.text("about"),
        options=_options(fields.mapping("options"), f"scale {name}"),
        first=tuple(map(str, fields.list("first"))),
    )
    fields.end(Scale)
    return scale


def _check(table: PublishedTable) -> None:
    """Raises ValueError for names that point nowhere, and for rows that nothing can be run for."""
    columns, rows = [c.name for c in table.columns], {row.name: row for row in table.rows}
    if not columns or not rows:
        raise ValueError("it has no columns or no rows")
    folders = [row.folder for row in table.rows]
    if len(set(folders)) < len(folders):
        twice = next(name for name in folders if folders.count(name) > 1)
        raise ValueError(f"two rows have the name {twice!r}")
    for row in table.rows:
        place = f"row {row.name!r}"
        if bool(row.config) == bool(row.of):
            raise ValueError(f"{place} needs one of config and of")
        if row.of and (not row.then or row.options):
            raise ValueError(f"{place} has of, so it needs then, and takes no options")
        _need_known(place, "paper", row.paper, columns)
        _need_known(place, "then", row.then, THEN)
        _need_known(place, "scales", row.scales, [*table.scales])
        earlier = folders[: folders.index(row.folder)]
        for name in filter(None, (row.of, row.continues)):
            _need_known(place, "of or continues", [name], [*rows])
            if rows[name].folder not in earlier:
                raise ValueError(f"{place} needs the row {name!r}, which must stand before it")
            if rows[name].of:
                raise ValueError(f"{place} needs the row {name!r}, which trains nothing itself")
    for name, scale in table.scales.items():
        _need_known(f"scale {name}", "first", scale.first, [*rows])


def _need_known(place: str, field: str, found: Any, known: Sequence[str]) -> None:
    for name in found:
        if name not in known:
            raise ValueError(f"{place}: {field} names {name!r}; known are {', '.join(known)}")
