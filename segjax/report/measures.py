"""Parts of the report beyond mean IoU: other protocols, boundaries, object sizes, calibration."""

from collections.abc import Iterable, Mapping
from html import escape

import numpy as np

from segjax.data.classes import ClassTable
from segjax.report import charts, page, tables


def bars(rows: Iterable[tuple[str, Mapping[str, float | None], str]]) -> str:
    """One row a subject, in it one bar a split, with the split's name where there are several.

    Args:
      rows: (HTML of the subject, split -> value in [0, 1], or None or NaN; style of the bar).
    """
    body, longest = "", 0
    for subject, values, style in rows:
        longest = max(map(len, values)) if len(values) > 1 else 0
        tracks = ""
        for split, value in values.items():
            text = tables.format_number(value)
            full = f"width:{100 * value:.2f}%" if text != tables.ABSENT else ""
            inside = f'<div style="{full};{style}"></div>' if full else ""
            tracks += f'<div class="track"><div>{inside}</div>{text}'
            tracks += f"<em>{escape(split)}</em></div>" if longest else "</div>"
        body += f'<div class="bar"><span>{subject}</span><div>{tracks}</div></div>'
    return f'<div style="--name:{min(longest, 12)}ch">{body}</div>'


def protocols(results: Mapping[str, Mapping], headline: str) -> str:
    """The mIoU of the same predictions by other protocols, from `protocols` of each split.

    Args:
      results: `protocols` holds the rows of `segjax.metrics.compare_protocols`.
      headline: the split whose reasons are shown.
    """
    found = {
        split: {row["protocol"]: row for row in rows}
        for split, rows in _having(results, "protocols")
    }
    if not found:
        return ""
    body = []
    for name, row in found.get(headline, next(iter(found.values()))).items():
        values = [tables.format_number(of.get(name, {}).get("miou")) for of in found.values()]
        body.append((name, *values, f"{row['description']}. Here: {row['why']}."))
    header = ("protocol", *(f"{split} mIoU" for split in found), "what it does")
    table = page.table(header, body, "protocols")
    return page.folded("the same predictions by other protocols", table)


def boundaries(results: Mapping[str, Mapping], classes: ClassTable) -> str:
    """`boundary` of each split: BF score, Boundary IoU, and mIoU near the boundaries."""
    found = dict(_having(results, "boundary"))
    if not found:
        return ""
    rows = [("BF score", "bf"), ("Boundary IoU", "boundary_iou")]
    header = ("", *found)
    numbers = page.table(
        header,
        [(t, *(tables.format_number(b.get(key)) for b in found.values())) for t, key in rows],
    )
    lines = []
    for place, (split, values) in enumerate(found.items()):
        widths = sorted((float(width), miou) for width, miou in values["trimap"].items())
        x, y = np.array(widths, np.float64).T  # None becomes NaN
        lines.append(charts.Line(split, x, y, place % 4))
    curve = charts.line_chart("mIoU near boundaries", lines, "pixels from the nearest boundary")
    per_class = [
        (name, *(tables.format_number(values["bf_per_class"][k]) for values in found.values()))
        for k, name in enumerate(classes.names)
    ]
    by_class = page.folded("BF score by class", page.table(("class", *found), per_class))
    return f'<div class="charts"><div>{numbers}{by_class}</div>{curve}</div>{_protocols(found)}'


def by_object(results: Mapping[str, Mapping], headline: str) -> str:
    """`by_object` of each split: bars by the objects' size and by the distance to the boundary.

    Args:
      results: `by_object` is what `segjax.metrics.StratifiedIoU.summary` returns.
      headline: the split whose objects and pixels are counted beside the bars.
    """
    found = dict(_having(results, "by_object"))
    if not found:
        return ""
    parts = ""
    for kind, title in (
        ("size", "mIoU by object size, share of the image"),
        ("distance", "mIoU by distance to a boundary"),
    ):
        split_rows = {s: {row["bucket"]: row for row in v[kind]} for s, v in found.items()}
        counted = split_rows.get(headline, next(iter(split_rows.values())))
        total = sum(row["pixels"] for row in counted.values())
        rows = []
        for bucket, row in counted.items():
            values = {s: of.get(bucket, {}).get("miou") for s, of in split_rows.items()}
            told = f"{row['pixels'] / total:.1%} of the pixels" if total else ""
            told += f", {row['objects']:,} objects" if "objects" in row else ""
            subject = f'{escape(bucket)}<br><span class="quiet">{told}</span>'
            rows.append((subject, values, "background:var(--c0)"))
        parts += f"<div><h3>{title}</h3>{bars(rows)}</div>"
    return f'<div class="charts">{parts}</div>{_protocols(found)}'


def _protocols(found: Mapping[str, Mapping]) -> str:
    """How the numbers are measured, once where the splits agree."""
    notes = dict.fromkeys(values["protocol"] for values in found.values() if "protocol" in values)
    return "".join(f'<p class="quiet">{_sentence(note)}</p>' for note in notes)


def _sentence(text: str) -> str:
    return f"{escape(text[:1].upper() + text[1:])}."


def calibration(results: Mapping[str, Mapping]) -> str:
    """`calibration` of each split: its numbers, and a reliability diagram each."""
    found = dict(_having(results, "calibration"))
    if not found:
        return ""
    names = (
        ("expected calibration error", "ece"),
        ("maximum calibration error", "mce"),
        ("Brier score", "brier"),
        ("negative log-likelihood", "nll"),
    )
    rows = [
        (title, *(tables.format_number(values.get(key)) for values in found.values()))
        for title, key in names
    ]
    body = page.table(("", *found), rows)
    drawn = "".join(
        charts.reliability_chart(f"Reliability, {split}", values.get("bins") or ())
        for split, values in found.items()
    )
    note = (
        "Of labelled pixels, by the probability of the predicted class. Blue: accuracy; red: what "
        "lies between it and the confidence; below the dashed line the network is too sure."
    )
    return f'{body}<div class="charts">{drawn}</div><p class="quiet">{note}</p>'


def _having(results: Mapping[str, Mapping], key: str) -> list[tuple[str, Mapping]]:
    return [(split, numbers[key]) for split, numbers in results.items() if numbers.get(key)]
