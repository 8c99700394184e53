"""Numbers of a run as tables: results by split, confused pairs, options, logged series."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import rich.box
from jaxtyping import Float, Int
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segjax.data.classes import ClassTable
from segjax.metrics.protocols import DEFAULT_PROTOCOL

ABSENT = "–"
# Key in the results and row title; those of the second tuple only where a split has them.
_ROWS = (
    ("miou", "mIoU"),
    ("global_accuracy", "global accuracy"),
    ("class_average_accuracy", "class average accuracy"),
    ("fw_iou", "frequency-weighted IoU"),
)
_OPTIONAL_ROWS = (
    ("boundary_f1", "boundary F1"),
    ("boundary_iou", "boundary IoU"),
    ("ece", "calibration error (ECE)"),
    ("brier", "Brier score"),
)


def format_number(value: float | int | None) -> str:
    """Four decimals, as the logs have them; counts with thin groups; `ABSENT` for None and NaN."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return f"{value:,}" if isinstance(value, int | np.integer) else f"{value:.4f}"


def format_duration(seconds: float) -> str:
    """Minutes and seconds, from an hour on hours and minutes: "12 m 03 s", "1 h 05 m"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} m" if hours else f"{minutes} m {rest:02d} s"


def flat_options(options: Mapping, prefix: str = "") -> dict[str, object]:
    """Nested options under dotted names; a {"base", "run"} pair stays one value."""
    flat = {}
    for key, value in options.items():
        if isinstance(value, Mapping) and value and set(value) != {"base", "run"}:
            flat |= flat_options(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def result_rows(
    results: Mapping[str, Mapping], classes: ClassTable
) -> tuple[list[tuple[str, list[str]]], list[tuple[str, list[str]]]]:
    """The rows that every results table shows: (title, one text per split), in two groups.

    Args:
      results: split name -> what `metrics.summarize` returns, with "loss" and "images" added, or
        what a full evaluation does; a key that a split lacks is shown as `ABSENT`.
      classes: the class table.

    Returns:
      The rows of the whole split, and one row per class (its IoU, in id order).

    Raises:
      ValueError: if a split's IoU list is not as long as the class table.
    """
    for split, numbers in results.items():
        if len(numbers["iou"]) != len(classes):
            raise ValueError(
                f"results of {split!r} have {len(numbers['iou'])} per-class values but there are "
                f"{len(classes)} classes; use the class table of the evaluation"
            )
    optional = [row for row in _OPTIONAL_ROWS if any(row[0] in r for r in results.values())]
    keys = (*_ROWS, *optional, ("loss", "loss"), ("images", "images"))
    overall = [
        (title, [format_number(r.get(key)) for r in results.values()]) for key, title in keys
    ]
    per_class = [
        (name, [format_number(r["iou"][k]) for r in results.values()])
        for k, name in enumerate(classes.names)
    ]
    return overall, per_class


def results_table(
    results: Mapping[str, Mapping],
    classes: ClassTable,
    protocol: str = DEFAULT_PROTOCOL.description,
) -> Table:
    """Metrics and per-class IoU, one column per split with its protocol, described in the caption.

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


def _markdown(text: str) -> str:
    """Text that stays itself inside a Markdown table cell."""
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
    rows += [(f"IoU: {_markdown(name)}", values) for name, values in per_class]
    headings = [
        _markdown(split) + (f" ({numbers['protocol']})" if "protocol" in numbers else "")
        for split, numbers in results.items()
    ]
    lines = ["| " + " | ".join(["", *headings]).strip() + " |"]
    lines += ["|:---" + "|---:" * len(results) + "|"]
    lines += ["| " + " | ".join([title, *values]) + " |" for title, values in rows]
    return "\n".join(lines) + f"\n\n{_caption(protocol)}\n" + _protocols_markdown(results)


def _protocols_markdown(results: Mapping[str, Mapping]) -> str:
    """`protocols_table` as a Markdown table; "" if there are no such rows."""
    if not all("protocols" in numbers for numbers in results.values()):
        return ""
    lines = ["", "| mIoU by protocol | " + " | ".join(map(_markdown, results)) + " | |"]
    lines += ["|:---" + "|---:" * len(results) + "|:---|"]
    for rows in zip(*(numbers["protocols"] for numbers in results.values()), strict=True):
        values = " | ".join(format_number(row["miou"]) for row in rows)
        lines.append(f"| {rows[0]['protocol']} | {values} | {_markdown(rows[0]['description'])} |")
    return "\n".join(lines) + "\n"


def print_results(
    results: Mapping[str, Mapping],
    classes: ClassTable,
    console: Console | None = None,
    protocol: str = DEFAULT_PROTOCOL.description,
) -> None:
    """Prints `results_table`, by default to standard output (80 columns if not a terminal)."""
    (console or Console()).print(results_table(results, classes, protocol))


def protocols_table(results: Mapping[str, Mapping]) -> Table:
    """The mIoU of the same counts by each protocol, one column per split, and why it differs; the
    protocol in use is marked.

    Args:
      results: split name -> a dict with `protocol`, a name, and `protocols`, the rows of
        `segjax.metrics.compare_protocols`; the same protocols in all splits.
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


def print_protocols(results: Mapping[str, Mapping], console: Console | None = None) -> None:
    """Prints `protocols_table`."""
    (console or Console()).print(protocols_table(results))


def most_confused(
    confusion: Int[np.ndarray, "k k"], classes: ClassTable, top: int = 10
) -> list[tuple[str, str, float, int]]:
    """The worst mix-ups: pairs of classes by the share of the true class's pixels that they take.

    Args:
      confusion: pixels, row = label, column = prediction.
      classes: the class table.
      top: at most so many pairs; pairs without a pixel are never listed.

    Returns:
      (true class, predicted class, share of the true class's pixels in [0, 1], pixels), largest
      share first; of equal shares the one with more pixels.

    Raises:
      ValueError: if the matrix is not [k, k] for the k classes.
    """
    confusion, k = np.asarray(confusion), len(classes)
    if confusion.shape != (k, k):
        raise ValueError(f"confusion has shape {confusion.shape}; {k} classes need ({k}, {k})")
    totals = confusion.sum(1)
    pairs = [
        (classes.names[row], classes.names[column], float(pixels / totals[row]), int(pixels))
        for (row, column), pixels in np.ndenumerate(confusion)
        if row != column and pixels > 0
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], -pair[3]))[:top]


def series(
    history: Iterable[Mapping], split: str, key: str
) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """One logged quantity as (steps, values), steps rising, of the rows of `split` that hold it.

    Of two rows with the same step (a resumed run) the later one counts. A value that is null or
    not finite becomes NaN.
    """
    values = {}
    for row in history:
        if row.get("split") == split and key in row and row.get("step") is not None:
            value = row[key]
            finite = isinstance(value, int | float) and math.isfinite(value)
            values[int(row["step"])] = float(value) if finite else math.nan
    steps = sorted(values)
    return np.array(steps, np.int64), np.array([values[s] for s in steps], np.float64)


def best_step(history: Iterable[Mapping]) -> tuple[int, float] | None:
    """(step, mIoU) of the first highest validation mIoU; None if there is none."""
    steps, miou = series(history, "val", "miou")
    if not np.any(np.isfinite(miou)):
        return None
    best = int(np.nanargmax(miou))
    return int(steps[best]), float(miou[best])
