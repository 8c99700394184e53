"""report.html: what a run has measured, as the values of templates/run.html.j2."""

import dataclasses
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segjax import config as configs
from segjax.data.classes import ClassTable
from segjax.report import figures, pictures
from segjax.report.numbers import (
    ABSENT,
    best_step,
    format_number,
    most_confused,
    result_rows,
    series,
)
from segjax.report.page import Table, Tile, write_page
from segjax.training.progress import duration

_FEW = 20  # classes up to which the confusion matrix is also a table of pixels
_CALIBRATION = (
    ("expected calibration error", "ece"),
    ("maximum calibration error", "mce"),
    ("Brier score", "brier"),
    ("negative log-likelihood", "nll"),
)


@dataclasses.dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
      title: heading of the page.
      config: all options, nested.
      record: what run.json holds: `environment` (with `parameters`, an int), `changes` (option ->
        {"base": value, "run": value}), `data` (split -> "images" and "fingerprint"), and `seconds`
        of training where they are known.
      history: rows of `metrics.jsonl` (see `numbers.series`).
    """

    title: str
    config: Mapping[str, Any]
    record: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Scores:
    """What an evaluation measured.

    Attributes:
      classes: the class table.
      results: split -> metrics (see `numbers.result_rows`). A split may also have `protocols`
        (`segjax.metrics.protocols.compare_rules`), the `rule` of its own numbers, and the summaries
        `boundary`, `strata`, `calibration` of the measures of these names.
      confusion: split -> pixels [k, k], row = label, column = prediction.
      protocol: how the numbers were measured, shown with them.
    """

    classes: ClassTable
    results: Mapping[str, Mapping[str, Any]]
    confusion: Mapping[str, np.ndarray]
    protocol: str

    @property
    def headline(self) -> str:
        """The split whose numbers come first: "test", or the first one; "" without any."""
        return "test" if "test" in self.results else next(iter(self.results), "")

    def having(self, key: str) -> dict[str, Any]:
        """Split -> the value of `key`, for the splits that have one."""
        return {s: numbers[key] for s, numbers in self.results.items() if numbers.get(key)}


def write_run_page(
    path: str | os.PathLike,
    run: Run,
    scores: Scores,
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
    remarks: Sequence[str] = (),
) -> None:
    """Writes the report of a run; its folder is made. A section without data is left out.

    The first screen says how good the run is, on what, and under which protocol.

    Args:
      path: the file, `report.html`.
      run: the run.
      scores: its evaluation.
      samples: heading ("best", "median", ...) -> samples (see `pictures.sample_grid`).
      remarks: sentences shown at the top, such as warnings.

    Raises:
      ValueError: if results, confusion or samples do not fit the class table or each other.
    """
    write_page(
        path,
        "run.html.j2",
        title=run.title,
        absent=ABSENT,
        protocol=scores.protocol,
        lead=_lead(run, scores),
        headlines=_headlines(run, scores),
        remarks=remarks,
        results=_results(scores),
        curves=[figures.to_svg(panel) for panel in figures.curves(run.history)],
        samples=_samples(samples, scores.classes),
        confusion=_confusion(scores),
        boundaries=_boundaries(scores),
        objects=_objects(scores),
        calibration=_calibration(scores),
        run=_options(run),
    )


def _lead(run: Run, scores: Scores) -> dict[str, Any] | None:
    """How good, on what, under which protocol."""
    if not scores.results:
        return None
    numbers = scores.results[scores.headline]
    return {
        "miou": numbers["miou"],
        "split": scores.headline,
        "data": configs.flatten(run.config).get("data.name"),
        "images": numbers.get("images"),
        "classes": len(scores.classes),
        "protocol": numbers.get("rule"),
    }


def _headlines(run: Run, scores: Scores) -> list[Tile]:
    """The other headline numbers."""
    tiles, split = [], scores.headline
    if scores.results:
        numbers = scores.results[split]
        found = [
            ("accuracy", numbers["global_accuracy"], "of all pixels"),
            ("class accuracy", numbers["class_average_accuracy"], "mean over classes"),
        ]
        if numbers.get("boundary"):
            found.append(("BF score", numbers["boundary"]["bf"], "boundaries"))
        if numbers.get("calibration"):
            found.append(("ECE", numbers["calibration"]["ece"], "calibration error"))
        tiles = [Tile(f"{split} {name}", format_number(v), remark) for name, v, remark in found]
    if best := best_step(run.history):
        tiles.append(Tile("best validation mIoU", f"{best[1]:.4f}", f"at step {best[0]:,}"))
    if (seconds := run.record.get("seconds")) is not None:
        steps = series(run.history, "train", "loss")[0]
        remark = f"{steps[-1]:,} steps" if len(steps) else ""
        tiles.append(Tile("training time", duration(seconds), remark))
    _, rates = series(run.history, "train", "images_per_second")
    if np.any(np.isfinite(rates)):
        rate = statistics.median(rates[np.isfinite(rates)])
        tiles.append(Tile("images per second", f"{rate:,.1f}", "median in training"))
    count = run.record["environment"].get("parameters")
    if isinstance(count, int):
        tiles.append(Tile("parameters", f"{count / 1e6:.3g} M", f"{count:,}"))
    return tiles


def _rows_by_split(rows: Sequence[tuple[str, str]], found: Mapping[str, Mapping]) -> Table:
    """A row for each (title, key), a column for each split."""
    body = [(title, *(format_number(v.get(key)) for v in found.values())) for title, key in rows]
    return Table(("", *found), body)


def _results(scores: Scores) -> dict[str, Any] | None:
    if not scores.results:
        return None
    overall, per_class = (
        Table(("", *scores.results), [(title, *values) for title, values in rows])
        for rows in result_rows(scores.results, scores.classes)
    )
    panels = [figures.class_iou(s, r, scores.classes) for s, r in scores.results.items()]
    return {
        "overall": overall,
        "per_class": per_class,
        "iou": [figures.to_svg(panel) for panel in panels],
        "protocols": _protocols(scores),
    }


def _protocols(scores: Scores) -> Table | None:
    """The mIoU that other protocols give the same predictions, with the headline's reasons."""
    found = {s: {row["rule"]: row for row in rows} for s, rows in scores.having("protocols").items()}
    if not found:
        return None
    body = []
    for name, row in found.get(scores.headline, next(iter(found.values()))).items():
        values = [format_number(of.get(name, {}).get("miou")) for of in found.values()]
        body.append((name, *values, f"{row['description']}. Here: {row['why']}."))
    header = ("protocol", *(f"{split} mIoU" for split in found), "what it does")
    return Table(header, body, "protocols")


def _samples(samples: Mapping[str, Sequence[Mapping]], classes: ClassTable) -> dict | None:
    samples = {heading: group for heading, group in samples.items() if group}
    everything = [sample for group in samples.values() for sample in group]
    if not everything:
        return None
    return {
        "legend": pictures.sample_legend(everything, classes),
        "groups": pictures.embedded_samples(samples, classes),
    }


def _confusion(scores: Scores) -> list[dict[str, Any]]:
    """Matrix and most confused pairs of every split; the headline's is open."""
    classes, splits = scores.classes, []
    few = len(classes) <= _FEW
    for split, counts in scores.confusion.items():
        pairs = [
            (f"{true} → {predicted}", f"{100 * share:.1f} %", f"{pixels:,}")
            for true, predicted, share, pixels in most_confused(counts, classes, 10 if few else 25)
        ]
        pixels = [
            (name, *(f"{n:,}" for n in row))
            for name, row in zip(classes.names, counts, strict=True)
        ]
        splits.append(
            {
                "name": split,
                "is_open": split == scores.headline or len(scores.confusion) == 1,
                "figure": figures.to_svg(figures.confusion(split, counts, classes)),
                "pairs": Table(("truth → prediction", "of the truth", "pixels"), pairs),
                "pixels": Table(("truth \\ prediction", *classes.names), pixels) if few else None,
            }
        )
    return splits


def _boundaries(scores: Scores) -> dict[str, Any] | None:
    """BF score, Boundary IoU, and mIoU near the boundaries."""
    found = scores.having("boundary")
    if not found:
        return None
    trimaps = {split: values["trimap"] for split, values in found.items()}
    widths = sorted({w for values in trimaps.values() for w in values}, key=float)
    near = [(f"{w} px", *(format_number(t.get(w)) for t in trimaps.values())) for w in widths]
    per_class = [
        (name, *(format_number(values["bf_per_class"][k]) for values in found.values()))
        for k, name in enumerate(scores.classes.names)
    ]
    return {
        "scores": _rows_by_split([("BF score", "bf"), ("Boundary IoU", "boundary_iou")], found),
        "per_class": Table(("class", *found), per_class),
        "trimap": Table(("within", *found), near),
        "figure": figures.to_svg(figures.trimap(trimaps)),
        "notes": _notes(found),
    }


def _objects(scores: Scores) -> dict[str, Any] | None:
    """Bars by the objects' size and by the distance to a boundary."""
    found = scores.having("strata")
    if not found:
        return None
    panels = []
    for kind, title in (
        ("size", "mIoU by object size, share of the image"),
        ("distance", "mIoU by distance to a boundary"),
    ):
        of_split = {s: {row["bucket"]: row for row in v[kind]} for s, v in found.items()}
        counted = of_split.get(scores.headline, next(iter(of_split.values())))
        total = sum(row["pixels"] for row in counted.values())
        names = []
        for bucket, row in counted.items():
            objects = f", {row['objects']:,} objects" if "objects" in row else ""
            share = f"\n{row['pixels'] / total:.1%} of the pixels" if total else ""
            names.append(f"{bucket}{objects}{share}")
        values = {
            split: [rows.get(bucket, {}).get("miou") for bucket in counted]
            for split, rows in of_split.items()
        }
        panels.append(figures.bars(title, names, values))
    return {"figures": [figures.to_svg(panel) for panel in panels], "notes": _notes(found)}


def _notes(found: Mapping[str, Mapping]) -> list[str]:
    """How the numbers are measured, once where the splits agree."""
    texts = dict.fromkeys(values["protocol"] for values in found.values() if "protocol" in values)
    return [f"{text[:1].upper()}{text[1:]}." for text in texts]


def _calibration(scores: Scores) -> dict[str, Any] | None:
    """Calibration errors, and a reliability diagram for each split."""
    found = scores.having("calibration")
    if not found:
        return None
    panels, tables = [], {}
    for split, values in found.items():
        bins = [row for row in values.get("bins") or () if row["pixels"]]
        if panel := figures.reliability(f"Reliability, {split}", bins):
            panels.append(figures.to_svg(panel))
            total = sum(row["pixels"] for row in bins)
            body = [
                (
                    f"{row['low']:.2f} to {row['high']:.2f}",
                    f"{row['pixels'] / total:.1%}",
                    f"{row['confidence']:.3f}",
                    f"{row['accuracy']:.3f}",
                )
                for row in bins
            ]
            header = ("confidence", "pixels", "mean confidence", "accuracy")
            tables[split] = Table(header, body)
    return {"scores": _rows_by_split(_CALIBRATION, found), "figures": panels, "bins": tables}


def _options(run: Run) -> dict[str, Table]:
    """What differs from the base config, all options, the data, machine and versions."""
    record = run.record
    changes = [(name, v["base"], v["run"]) for name, v in record["changes"].items()]
    data = [(s, f"{v['images']:,}", v["fingerprint"]) for s, v in record.get("data", {}).items()]
    options = list(configs.flatten(run.config).items())
    environment = list(record["environment"].items())
    return {
        "changes": Table(("option", "base", "this run"), changes, "options"),
        "options": Table(("name", "value"), options, "options"),
        "data": Table(("split", "images", "fingerprint"), data, "options"),
        "environment": Table(("name", "value"), environment, "options"),
    }
