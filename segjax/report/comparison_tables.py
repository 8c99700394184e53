"""The tables of two or more runs side by side."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segjax.metrics.protocols import DEFAULT_PROTOCOL
from segjax.report.tables import format_number


def print_comparison(result: Mapping[str, Any], console: Console) -> None:
    """Prints what `segjax.commands.compare.compare` returns: options, metrics, classes, pairs."""
    for table in (_config_table(result), _metrics_table(result), _classes_table(result)):
        console.print(table)
    for line in _paired_lines(result):
        console.print(line, highlight=False, markup=False)


def _table(title: str, result: Mapping[str, Any], justify: str = "right") -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=rich.box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for letter, _ in zip(_letters(result), result["runs"], strict=True):
        table.add_column(letter, justify=justify, overflow="fold")
    return table


def _letters(result: Mapping[str, Any]) -> list[str]:
    """A short name for each run: A, B, ..., Z, then numbers."""
    return [chr(65 + i) if i < 26 else str(i + 1) for i in range(len(result["runs"]))]


def _config_table(result: Mapping[str, Any]) -> Table:
    table = _table(f"Runs on split {result['split']}, and options that differ", result, "left")
    table.add_row("workdir", *map(Text, result["runs"]), end_section=True)
    for name, values in result["config"].items():
        table.add_row(Text(name), *(Text(str(value)) for value in values))
    if not result["config"]:
        table.add_row("no option differs")
    return table


def _with_differences(values: Sequence[float]) -> list[str]:
    """The first value, and the others with what they are above it."""
    texts = [format_number(values[0])]
    for value in values[1:]:
        difference = value - values[0]
        shown = f" ({difference:+.4f})" if math.isfinite(difference) else ""
        texts.append(format_number(value) + ("" if isinstance(value, int) else shown))
    return texts


def _metrics_table(result: Mapping[str, Any]) -> Table:
    table = _table("Metrics (in brackets: less A)", result)
    for key, values in result["metrics"].items():
        table.add_row(key, *_with_differences(values), style="bold" if key == "miou" else None)
    table.caption, table.caption_justify = Text(_protocol_caption(result)), "left"
    return table


def _protocol_caption(result: Mapping[str, Any]) -> str:
    first, *others = set(result["protocols"])
    if not others:
        return first
    shared = DEFAULT_PROTOCOL.description
    pairs = zip(_letters(result), result["protocols"], strict=True)
    own = (f"{letter}: {text.removeprefix(f'{shared}; ')}" for letter, text in pairs)
    return f"{shared}. The runs are scored in different ways: {'; '.join(own)}"


def _classes_table(result: Mapping[str, Any]) -> Table:
    """Per-class IoU, the largest difference first."""
    table = _table("IoU by class, largest difference first", result)

    def spread(values):
        finite = [value for value in values if math.isfinite(value)]
        return max(finite) - min(finite) if finite else -1.0

    for name, values in sorted(result["iou"].items(), key=lambda item: -spread(item[1])):
        table.add_row(Text(name), *_with_differences(values))
    return table


def _paired_lines(result: Mapping[str, Any]) -> list[str]:
    lines = ["Paired over images, each one's own mIoU (bootstrap interval, sign-flip test):"]
    for letter, test in zip(_letters(result)[1:], result["paired"], strict=True):
        lines.append(
            f"  {letter} less A: {test['mean']:+.4f}, 95 % interval {test['low']:+.4f} to "
            f"{test['high']:+.4f}, p = {test['p_value']:.4f}, {test['images']} images "
            f"({test['better']} better, {test['worse']} worse, {test['equal']} equal)"
        )
        lines += [f"    note: {note}" for note in test["notes"]]
    return lines
