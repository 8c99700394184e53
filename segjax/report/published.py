"""table.md, table.json and table.html: a published table with our numbers beside the paper's."""

import dataclasses
import functools
import json
import pathlib
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import rich.box
from rich.table import Table
from rich.text import Text

from segjax.console import Console
from segjax.metrics.paired import PairedTest
from segjax.published.runs import config_hash, config_of, options_changed
from segjax.published.table import PAPER, Column, PublishedTable, Row
from segjax.published.verdicts import Cell, Order, judged, number_of, orders
from segjax.report.numbers import ABSENT
from segjax.report.page import write_page, write_text
from segjax.report.tables import escaped_markdown
from segjax.training.progress import print_line

_MARKS = {"within 2 deviations": " ✓", "above": " ↑", "below": " ↓"}
_LEGEND = "Ours is the mean over the seeds ± their standard deviation"
_LEGEND_OF_DIFFERENCES = ", and in brackets ours minus the paper's"
_LEGEND_OF_MARKS = " ✓: within two deviations of the paper; ↑ ↓: above it, below it."
_ABOUT_GAINS = (
    "In points of each image's own mIoU, mean over the seeds; interval by the bootstrap over "
    "images, p by flipping signs. Images of one drive resemble each other, so both are "
    "overconfident."
)
_NOT_AS_PUBLISHED = (
    "The rows are not run as published (see below), so single numbers cannot be the paper's; what "
    "can be compared is the order of the rows."
)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A run of a row.

    Attributes:
      results: split -> numbers, as in results.json.
      record: what run.json holds; {} where nothing was trained.
    """

    results: Mapping[str, Any]
    record: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What is known of a row.

    Attributes:
      row: of the table.
      measured: the runs that are finished, one a seed.
      errors: why others are not.
      gain: of a row that measures another's networks: the test against that, in [0, 1].
    """

    row: Row
    measured: Sequence[Measured]
    errors: Sequence[str]
    gain: PairedTest | None = None


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """A table at a scale, with what is known of its rows."""

    table: PublishedTable
    scale: str
    seeds: int
    outcomes: Sequence[Outcome]

    @functools.cached_property
    def cells(self) -> dict[str, dict[str, Cell]]:
        """Row -> column -> cell."""
        return {
            outcome.row.name: {c.name: self._cell(outcome, c) for c in self.table.columns}
            for outcome in self.outcomes
        }

    def _cell(self, outcome: Outcome, column: Column) -> Cell:
        values = [number_of(each.results, column) for each in outcome.measured]
        known = [value for value in values if value is not None]
        return judged(outcome.row, column, known, self.scale)

    @functools.cached_property
    def orders(self) -> dict[str, Order]:
        return orders(self.table, self.cells)

    @functools.cached_property
    def made(self) -> dict[str, dict[str, Any]]:
        """Row -> how its numbers came about; {} of one that is not run."""
        return {outcome.row.name: self._made(outcome) for outcome in self.outcomes}

    def _made(self, outcome: Outcome) -> dict[str, Any]:
        row = outcome.row
        if not row.is_run:
            return {}
        trained = next(each for each in self.table.rows if each.name == (row.of or row.name))
        records = [each.record for each in outcome.measured if each.record]
        environments = [record.get("environment", {}) for record in records]
        return {
            "config": trained.config,
            "options": self.table.options_of(trained, self.scale),
            "config_hash": config_hash(config_of(self.table, trained, self.scale)),
            "changed": options_changed(self.table, trained, self.scale),
            "then": {name: dict(options) for name, options in row.then.items()},
            "seeds": len(outcome.measured),
            "hours": sum(r.get("seconds", 0.0) for r in records if not row.of) / 3600,
            "devices": _distinct(e.get("device") for e in environments),
            "code": _distinct(e.get("commit") for e in environments),
            "data": {
                split: _distinct(
                    r.get("data", {}).get(split, {}).get("fingerprint") for r in records
                )
                for split in dict.fromkeys(s for r in records for s in r.get("data", {}))
            },
        }

    def as_dict(self) -> dict[str, Any]:
        """What table.json holds, of plain types: `table`, `title`, `source`, `about`, `scale`,
        `seeds`, `command`; `columns` (their fields, with `order`); `rows`: `name`, `cells`
        (column -> `paper`, `values`, `mean`, `deviation`, `difference`, `verdict`), `made` (see
        `made`), `gain` (`against` with `PairedTest`'s numbers), `note`, `incomparable`, `errors`.
        """
        return {
            "table": self.table.name,
            "title": self.table.title,
            "source": self.table.source,
            "about": self.table.about,
            "scale": self.scale,
            "seeds": self.seeds,
            "command": _command(),
            "columns": [
                {**dataclasses.asdict(c), "order": dataclasses.asdict(self.orders[c.name])}
                for c in self.table.columns
            ],
            "rows": [
                {
                    "name": outcome.row.name,
                    "cells": {
                        name: {
                            "paper": cell.paper,
                            "values": list(cell.values),
                            "mean": cell.mean,
                            "deviation": cell.deviation,
                            "difference": cell.difference,
                            "verdict": cell.verdict,
                        }
                        for name, cell in self.cells[outcome.row.name].items()
                    },
                    "made": self.made[outcome.row.name],
                    "gain": _gain(outcome),
                    "note": outcome.row.note,
                    "incomparable": outcome.row.incomparable,
                    "errors": list(outcome.errors),
                }
                for outcome in self.outcomes
            ],
        }


def _gain(outcome: Outcome) -> dict[str, Any]:
    if outcome.gain is None:
        return {}
    return {"against": outcome.row.of, **dataclasses.asdict(outcome.gain)}


def _command() -> str:
    program = pathlib.Path(sys.argv[0]).name
    python = ["python"] if program.endswith(".py") else []
    return shlex.join([*python, program, *sys.argv[1:]])


def _distinct(values: Any) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value))


def write_reproduction(result: Reproduction, workdir: pathlib.Path) -> None:
    """Writes table.json, table.md and table.html into the folder, which is made."""
    workdir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result.as_dict(), indent=1, allow_nan=False, default=str) + "\n"
    write_text(workdir / "table.json", text)
    numbers, gains, (shared, made) = _numbers(result), _gains(result), _made(result)
    write_text(workdir / "table.md", _markdown(result, numbers, gains, shared, made))
    write_page(
        workdir / "table.html",
        "published.html.j2",
        title=result.table.title,
        about=_about(result),
        command=_command(),
        numbers=numbers,
        remarks=_remarks(result),
        gains=gains if gains[1] else None,
        about_gains=_ABOUT_GAINS,
        shared=shared,
        made=made,
    )


def print_reproduction(result: Reproduction, console: Console) -> None:
    """Prints the numbers and the order of the rows."""
    table = Table(box=rich.box.SIMPLE_HEAD, title=Text(result.table.title))
    with_paper = _with_paper(result)
    table.add_column(Text("paper / ours" if with_paper else ""), overflow="fold")
    for column in result.table.columns:
        table.add_column(Text(column.name), justify="right", no_wrap=True)
    for name, cells in result.cells.items():
        texts = []
        for column in result.table.columns:
            cell, digits = cells[column.name], column.digits
            theirs = f"{_number(cell.paper, digits)} / " if column.name in with_paper else ""
            texts.append(theirs + _number(cell.mean, digits))
        table.add_row(*map(Text, (name, *texts)))
    console.print(table)
    for remark in _remarks(result):
        print_line(console, remark)


Rows = tuple[list[str], list[list[str]]]  # header and rows


def _numbers(result: Reproduction) -> Rows:
    """A row for each of the table's, and for each of its columns the paper's, if any, and ours."""
    ours = "ours" if result.scale == PAPER else f"ours ({result.scale})"
    with_paper = _with_paper(result)
    header = [""]
    for column in result.table.columns:
        header += [f"{column.name}, paper"] if column.name in with_paper else []
        header += [f"{column.name}, {ours}"]
    rows = []
    for outcome in result.outcomes:
        line = [outcome.row.name]
        for column in result.table.columns:
            cell = result.cells[outcome.row.name][column.name]
            line += [_number(cell.paper, column.digits)] if column.name in with_paper else []
            line += [_ours(cell, column.digits)]
        rows.append(line)
    return header, rows


def _with_paper(result: Reproduction) -> set[str]:
    """The columns of which the paper has numbers."""
    rows = result.cells.values()
    return {name for cells in rows for name, cell in cells.items() if cell.paper is not None}


def _number(value: float | None, digits: int) -> str:
    return ABSENT if value is None else f"{value:.{digits}f}"


def _ours(cell: Cell, digits: int) -> str:
    if cell.mean is None:
        return ABSENT
    text = f"{cell.mean:.{digits}f}"
    if cell.deviation is not None:
        text += f" ± {cell.deviation:.{digits}f}"
    if cell.difference is not None:
        text += f" ({cell.difference:+.{digits}f})"
    return text + _MARKS.get(cell.verdict, "")


def _gains(result: Reproduction) -> Rows:
    """A row for each that measures another's networks, if both have been measured."""
    header = ["", "against", "gain", "95 % interval", "p", "images better", "worse"]
    rows = [
        [
            outcome.row.name,
            outcome.row.of,
            f"{100 * test.mean:+.2f}",
            f"{100 * test.low:+.2f} to {100 * test.high:+.2f}",
            f"{test.p_value:.4f}",
            str(test.better),
            f"{test.worse} of {test.images}",
        ]
        for outcome in result.outcomes
        if (test := outcome.gain)
    ]
    return header, rows


def _common(result: Reproduction) -> dict[str, tuple[Any, Any]]:
    """The changes that all rows have: option -> (as published, at the scale)."""
    all_made = [made for made in result.made.values() if made]
    if not all_made:
        return {}
    first = all_made[0]["changed"]
    return {
        name: values
        for name, values in first.items()
        if all(made["changed"].get(name) == values for made in all_made)
    }


def _changes(changed: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(
        f"{name} {_short(now)} ({_short(before)})" for name, (before, now) in changed.items()
    )


def _made(result: Reproduction) -> tuple[list[str], Rows]:
    """How the rows were made: sentences on what they share, and the table of what they do not."""
    header = ["", "config", "instead of the published", "seeds", "hours", "device", "config hash"]
    header += ["data", "code"]
    rows, common = [], _common(result)
    for outcome in result.outcomes:
        if not (made := result.made[outcome.row.name]):
            continue
        then = ", ".join(
            name + (f" ({', '.join(f'{k} {v}' for k, v in options.items())})" if options else "")
            for name, options in made["then"].items()
        )
        own = {name: values for name, values in made["changed"].items() if name not in common}
        rows.append(
            [
                outcome.row.name,
                made["config"] + (f", then {then}" if then else ""),
                _changes(own) or ABSENT,
                "together" if "ensemble" in made["then"] else f"{made['seeds']} of {result.seeds}",
                f"{made['hours']:.2f}" if made["hours"] else ABSENT,
                ", ".join(made["devices"]) or ABSENT,
                made["config_hash"],
                ", ".join(f"{s} {' '.join(f)}" for s, f in made["data"].items()) or ABSENT,
                ", ".join(made["code"]) or ABSENT,
            ]
        )
    changes = _changes(common)
    sentences = [f"In all rows, instead of the published: {changes}."] if changes else []
    for place in reversed(range(2, len(header))):
        values = {row[place] for row in rows} - {ABSENT}
        if len(rows) > 1 and len(values) < 2 and header[place] in ("device", "data", "code"):
            sentences += [f"{header[place]}: {value}." for value in values]
        elif values:
            continue
        for line in (header, *rows):
            del line[place]
    return sentences, (header, rows)


def _short(value: Any) -> str:
    if value in ([], ""):
        return "none"
    if not isinstance(value, list):
        return str(value)
    return (", " if any(isinstance(each, str) for each in value) else "x").join(map(str, value))


def _about(result: Reproduction) -> list[str]:
    """The sentences above the numbers."""
    scale = result.table.scales[result.scale]
    sentences = [f"{result.table.source}."]
    sentences += [result.table.about] if result.table.about else []
    sentences += [f"Scale {result.scale}: {scale.about}."] if scale.about else []
    protocols = _distinct(column.protocol for column in result.table.columns)
    splits = _distinct(column.split for column in result.table.columns)
    measured = f"Measured on {', '.join(splits)}, protocol {', '.join(protocols)}. {_LEGEND}"
    if not _with_paper(result):
        return [*sentences, f"{measured}."]
    sentences += [_NOT_AS_PUBLISHED] if result.scale != PAPER else []
    marks = _LEGEND_OF_MARKS if result.scale == PAPER else ""
    return [*sentences, f"{measured}{_LEGEND_OF_DIFFERENCES}.{marks}"]


def _remarks(result: Reproduction) -> list[str]:
    """The sentences below the numbers: order, notes, errors."""
    orders = _by_reason((name, str(order)) for name, order in result.orders.items() if order.rows)
    rows = [outcome.row for outcome in result.outcomes]
    columns = _by_reason((c.name, c.incomparable) for c in result.table.columns)
    notes = _by_reason((row.name, row.note) for row in rows)
    incomparable = _by_reason((row.name, row.incomparable) for row in rows)
    failed = _by_reason((o.row.name, error) for o in result.outcomes for error in o.errors)
    lines = [f"{names}: {why}." for why, names in (*orders.items(), *columns.items())]
    lines += [f"{names}: {why}" for why, names in notes.items()]
    lines += [f"not comparable, {names}: {why}" for why, names in incomparable.items()]
    return [*lines, *(f"{names} failed, {why}" for why, names in failed.items())]


def _by_reason(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Reason -> the names that have it, in a line; names without a reason are left out."""
    found: dict[str, list[str]] = {}
    for name, reason in pairs:
        if reason:
            found.setdefault(reason, []).append(name)
    return {reason: "; ".join(names) for reason, names in found.items()}


def _markdown(
    result: Reproduction, numbers: Rows, gains: Rows, shared: Sequence[str], made: Rows
) -> str:
    lines = [f"# {escaped_markdown(result.table.title)}", ""]
    lines += [line for text in _about(result) for line in (escaped_markdown(text), "")]
    lines += ["", f"    {_command()}", "", *_markdown_table(numbers), ""]
    lines += [f"- {escaped_markdown(remark)}" for remark in _remarks(result)]
    if gains[1]:
        lines += ["", "## What is gained", "", _ABOUT_GAINS, "", *_markdown_table(gains)]
    made_lines = [line for text in shared for line in (escaped_markdown(text), "")]
    made_lines += _markdown_table(made, align="---")
    return "\n".join([*lines, "", "## How the rows were made", "", *made_lines, ""])


def _markdown_table(table: Rows, align: str = "---:") -> list[str]:
    header, rows = table
    lines = [header, ["---", *[align] * (len(header) - 1)], *rows]
    escaped = (
        [cell if place == 1 else escaped_markdown(cell) for cell in line]
        for place, line in enumerate(lines)
    )
    return ["| " + " | ".join(line) + " |" for line in escaped]
