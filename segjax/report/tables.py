"""Tables on the terminal and in Markdown: the results of a run, and runs side by side."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import rich.box
from rich.table import Table
from rich.text import Text

from segjax.console import Console
from segjax.data.classes import ClassTable
from segjax.metrics.protocols import DEFAULT_PROTOCOL
from segjax.report.numbers import (
    ABSENT,
    LABEL_COLUMNS,
    THRESHOLD_NOTE,
    format_number,
    label_rows,
    result_rows,
)
from segjax.training.progress import print_line


def results_table(
    results: Mapping[str, Mapping],
    classes: ClassTable,
    protocol: str = DEFAULT_PROTOCOL.description,
) -> Table:
    """Metrics and per-class IoU, one column per split, the protocol as caption.

    See `result_rows` for the arguments and errors. Fractions are in [0, 1] with four decimals.
    """
    table = Table(
        box=rich.box.SIMPLE_HEAD,
        caption=Text(_caption(protocol)),
        caption_justify="left",
        min_width=60,
    )
    table.add_column("", overflow="fold", ratio=1)
    for split, numbers in results.items():
        heading = "\n".join(filter(None, (split, numbers.get("protocol"))))
        table.add_column(Text(heading), justify="right", no_wrap=True)
    overall, per_class = result_rows(results, classes)
    for title, values in overall:
        style = "bold" if title == "mIoU" else None
        table.add_row(Text(title), *values, style=style, end_section=title == "images")
    table.add_row(Text("IoU by class", style="dim italic"))
    for name, values in per_class:
        table.add_row(Text(f"  {name}"), *values)
    return table


def _caption(protocol: str) -> str:
    return f"{protocol[0].upper()}{protocol[1:]}. {ABSENT}: does not occur."


def escaped_markdown(text: str) -> str:
    """Text for a cell of a Markdown table."""
    for sign, escaped in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, escaped)
    for sign in "|*_`[]":
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.split())


def results_markdown(
    results: Mapping[str, Mapping],
    classes: ClassTable,
    protocol: str = DEFAULT_PROTOCOL.description,
) -> str:
    """`results_table` as a Markdown table, followed by the protocol; ends with a newline."""
    overall, per_class = result_rows(results, classes)
    rows = [(f"**{t}**", [f"**{v}**" for v in vs]) if t == "mIoU" else (t, vs) for t, vs in overall]
    rows += [(f"IoU: {escaped_markdown(name)}", values) for name, values in per_class]
    headings = [
        escaped_markdown(split) + (f" ({numbers['protocol']})" if "protocol" in numbers else "")
        for split, numbers in results.items()
    ]
    lines = ["| " + " | ".join(["", *headings]).strip() + " |"]
    lines += ["|:---" + "|---:" * len(results) + "|"]
    lines += ["| " + " | ".join([title, *values]) + " |" for title, values in rows]
    more = _labels_markdown if classes.multilabel else _protocols_markdown
    return "\n".join(lines) + f"\n\n{_caption(protocol)}\n" + more(results, classes)


def labels_table(results: Mapping[str, Mapping], classes: ClassTable) -> Table:
    """The metrics of each label of a sigmoid head, for each split; see `numbers.label_rows`."""
    table = Table(box=rich.box.SIMPLE_HEAD, caption=Text(THRESHOLD_NOTE), caption_justify="left")
    for place, title in enumerate(("", *(title for _, title in LABEL_COLUMNS))):
        table.add_column(title, justify="right" if place else "left", overflow="fold")
    for split, numbers in results.items():
        table.add_row(Text(split, style="dim italic"))
        for name, *values in label_rows(numbers, classes):
            table.add_row(Text(f"  {name}"), *values)
    return table


def _labels_markdown(results: Mapping[str, Mapping], classes: ClassTable) -> str:
    """`labels_table` as Markdown tables."""
    lines = []
    for split, numbers in results.items():
        titles = [title for _, title in LABEL_COLUMNS]
        lines += ["", "| " + " | ".join([escaped_markdown(split), *titles]) + " |"]
        lines += ["|:---" + "|---:" * len(titles) + "|"]
        rows = label_rows(numbers, classes)
        lines += [
            "| " + " | ".join([escaped_markdown(name), *values]) + " |" for name, *values in rows
        ]
    return "\n".join([*lines, "", THRESHOLD_NOTE, ""])


def _protocols_markdown(results: Mapping[str, Mapping], classes: ClassTable) -> str:
    """`protocols_table` as a Markdown table; "" if there are no such rows."""
    if not all("protocols" in numbers for numbers in results.values()):
        return ""
    lines = ["", "| mIoU by protocol | " + " | ".join(map(escaped_markdown, results)) + " | |"]
    lines += ["|:---" + "|---:" * len(results) + "|:---|"]
    for rows in zip(*(numbers["protocols"] for numbers in results.values()), strict=True):
        values = " | ".join(format_number(row["miou"]) for row in rows)
        lines.append(
            f"| {rows[0]['protocol']} | {values} | {escaped_markdown(rows[0]['description'])} |"
        )
    return "\n".join(lines) + "\n"


def protocols_table(results: Mapping[str, Mapping]) -> Table:
    """The mIoU of the same counts by each protocol, a column per split, and why they differ.

    The protocol in use is marked.

    Args:
      results: split -> a dict with `protocol` and `protocols`, the rows of
        `segjax.metrics.protocols.compare_protocols`; the same rows in all splits.
    """
    table = Table(
        title="mIoU of the same predictions by other protocols",
        title_justify="left",
        title_style="bold",
        box=rich.box.SIMPLE_HEAD,
        min_width=60,
    )
    table.add_column("protocol", no_wrap=True)
    for split in results:
        table.add_column(Text(split), justify="right", no_wrap=True)
    table.add_column("why it differs from segjax", overflow="fold", ratio=1)
    for rows in zip(*(numbers["protocols"] for numbers in results.values()), strict=True):
        name, reasons = rows[0]["protocol"], dict.fromkeys(row["why"] for row in rows)
        if len(reasons) > 1:  # one per split
            reasons = [f"{split}: {row['why']}" for split, row in zip(results, rows, strict=True)]
        chosen = all(numbers["protocol"] == name for numbers in results.values())
        table.add_row(
            Text(f"{name} *" if chosen else name),
            *(format_number(row["miou"]) for row in rows),
            Text("; ".join(reasons)),
            style="bold" if chosen else None,
        )
    table.caption, table.caption_justify = Text("* the protocol of all numbers above"), "left"
    return table


def print_comparison(result: Mapping[str, Any], console: Console) -> None:
    """Prints what `segjax.commands.compare.compare` returns: options, metrics, classes, pairs."""
    for table in (_config_table(result), _metrics_table(result), _classes_table(result)):
        console.print(table)
    for line in _paired_lines(result):
        print_line(console, line)


def _table(
    title: str, result: Mapping[str, Any], justify: Literal["left", "right"] = "right"
) -> Table:
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
    """The first value, and the others with their difference from it."""
    texts = [format_number(values[0])]
    for value in values[1:]:
        difference = value - values[0]
        shown = f" ({difference:+.4f})" if math.isfinite(difference) else ""
        texts.append(format_number(value) + ("" if isinstance(value, int) else shown))
    return texts


def _metrics_table(result: Mapping[str, Any]) -> Table:
    table = _table("Metrics (in brackets: minus A)", result)
    for key, values in result["metrics"].items():
        table.add_row(key, *_with_differences(values), style="bold" if key == "miou" else None)
    words = set(result["protocols"])
    table.caption, table.caption_justify = Text(_protocol_caption(result, words)), "left"
    return table


def _protocol_caption(result: Mapping[str, Any], words: set[str]) -> str:
    if len(words) == 1:
        return words.pop()
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
            f"  {letter} minus A: {test['mean']:+.4f}, 95 % interval {test['low']:+.4f} to "
            f"{test['high']:+.4f}, p = {test['p_value']:.4f}, {test['images']} images "
            f"({test['better']} better, {test['worse']} worse, {test['equal']} equal)"
        )
        lines += [f"    note: {note}" for note in test["notes"]]
    return lines
