"""The table of runs on the terminal."""

import collections
from collections.abc import Sequence
from typing import Any

import rich.box
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from segjax.console import Console
from segjax.report.numbers import ABSENT, format_number
from segjax.report.run_list import (
    RUNNING,
    STOPPED_EARLY,
    UNFINISHED,
    ListedRun,
)
from segjax.training.progress import duration, print_line

_COLUMNS = 8  # options that stand beside the numbers; more have a table of their own
_WIDEST = 400  # columns of a table in a file


def print_runs(runs: Sequence[ListedRun], options: Sequence[str], console: Console) -> None:
    """Prints runs, a line each, with the options that differ, and what is damaged.

    The options are columns if they are few and the terminal is wide enough; otherwise a second
    table has, for each run, those that most runs set to something else.

    Args:
      runs: in the order of the table.
      options: the names of those that differ.
    """
    table = _table(runs, options)
    few = len(options) <= _COLUMNS and (
        not console.is_terminal or _width(table, console) <= console.width
    )
    _print(table if few else _table(runs, ()), console)
    if not few:
        _print(_departures(runs, options), console)
    for run in runs:
        for problem in run.problems:
            print_line(console, f"{run.name} is damaged: {problem}")


def _print(table: Table, console: Console) -> None:
    """Prints a table; as wide as it wants to be where no terminal bounds it."""
    if not console.is_terminal:
        console = Console(file=console.file, width=max(_width(table, console), console.width))
    console.print(table)


def _width(table: Table, console: Console) -> int:
    """The columns that a table wants."""
    options = console.options.update(width=_WIDEST)
    return min(Measurement.get(console, options, table).maximum, _WIDEST)


def _table(runs: Sequence[ListedRun], options: Sequence[str]) -> Table:
    table = Table(box=rich.box.SIMPLE_HEAD)
    # On a narrow terminal names and words are folded, and numbers are not.
    table.add_column("run", overflow="fold", min_width=12)
    table.add_column("state", overflow="fold", min_width=8)
    for title in ("val mIoU", "at step", "test mIoU", "time"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("started", overflow="fold", min_width=10)
    for name in options:
        table.add_column(Text(name.replace(".", ".\n", 1)), overflow="fold")
    for run in runs:
        numbers = (
            _number(run.best_val_miou),
            ABSENT if run.best_step is None else f"{run.best_step:,}",
            _number(run.miou) + (f" ({run.split})" if run.split not in (None, "test") else ""),
            ABSENT if run.seconds is None else duration(run.seconds),
            (run.started or ABSENT)[:16].replace("T", " "),
        )
        values = (_value(run, name) for name in options)
        table.add_row(*map(Text, (run.name, _state(run), *numbers, *values)))
    return table


def _state(run: ListedRun) -> str:
    """The state, with the step where it says more."""
    if run.state not in (RUNNING, STOPPED_EARLY, UNFINISHED) or run.step is None:
        return run.state
    step = f"step {run.step:,}" + ("" if run.steps is None else f" of {run.steps:,}")
    return step if run.state == UNFINISHED else f"{run.state}, {step}"


def _departures(runs: Sequence[ListedRun], options: Sequence[str]) -> Table:
    """For each run the options that most runs, of those that have them, set to something else."""
    usual = {}
    for name in options:
        values = [_value(run, name) for run in runs if name in run.options]
        usual[name] = collections.Counter(values).most_common(1)[0][0]
    table = Table(
        title="Options that differ",
        title_justify="left",
        title_style="bold",
        box=rich.box.SIMPLE_HEAD,
    )
    table.add_column("run", overflow="fold")
    table.add_column("options", overflow="fold")
    table.add_row("most runs", Text(_pairs(usual)), end_section=True)
    for run in runs:
        own = {name: _value(run, name) for name in options if name in run.options}
        others = {name: value for name, value in own.items() if value != usual[name]}
        table.add_row(Text(run.name), Text(_pairs(others) or ("" if own else ABSENT)))
    return table


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _number(value: float | None) -> str:
    return ABSENT if value is None else format_number(float(value))


def _value(run: ListedRun, name: str) -> str:
    """An option's value as one writes it; `ABSENT` where the run has no such option."""
    return _written(run.options[name]) if name in run.options else ABSENT


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"({','.join(map(_written, value))})"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else '""'
