"""report.html: what a run has measured, as the values of templates/run.html.j2."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segjax import config as configs
from segjax.data.classes import ClassTable
from segjax.report import figures, pictures
from segjax.report.numbers import (
    ABSENT,
    LABEL_COLUMNS,
    THRESHOLD_NOTE,
    best_step,
    format_number,
    label_rows,
    most_confused,
    result_rows,
    series,
)
from segjax.report.page import write_page
from segjax.training.progress import duration

_FEW = 20  # classes up to which the confusion matrix is also a table of pixels
Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # header and rows


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
    """The results of an evaluation.

    Attributes:
      classes: the class table.
      results: split -> metrics (see `numbers.result_rows`). A split may also have `protocols`
        (`metrics.compare_protocols`), the `protocol` of its own numbers, and the summaries
        `boundary`, `by_object`, `calibration` of the measures of these names.
      confusion: split -> pixels [k, k], row = label, column = prediction.
      protocol: how the numbers were measured, shown with them.

    Raises:
      ValueError: if a confusion is not [k, k] for the k classes.
    """

    classes: ClassTable
    results: Mapping[str, Mapping[str, Any]]
    confusion: Mapping[str, np.ndarray]
    protocol: str

    @property
    def headline(self) -> str:
        """The split whose numbers come first: "test", or the first one; "" without any."""
        return "test" if "test" in self.results else next(iter(self.results), "")

    def __post_init__(self):
        for split, counts in self.confusion.items():
            if np.shape(counts) != (len(self.classes),) * 2:
                raise ValueError(
                    f"confusion of {split!r} has shape {np.shape(counts)}; {len(self.classes)} "
                    f"classes need ({len(self.classes)}, {len(self.classes)})"
                )

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
      ValueError: if results or samples do not fit the class table or each other.
    """
    options, record, classes = configs.flatten(run.config), run.record, scores.classes
    overall, _ = result_rows(scores.results, classes)
    write_page(
        path,
        "run.html.j2",
        title=run.title,
        absent=ABSENT,
        scores=scores,
        data_name=options.get("data.name"),
        headlines=_headlines(run, scores),
        remarks=remarks,
        results=[(title, *values) for title, values in overall],
        protocols=_protocols(scores),
        class_iou=[figures.class_iou(s, r, classes) for s, r in scores.results.items()],
        labels=_labels(scores),
        threshold_note=THRESHOLD_NOTE,
        class_rows=[(name, k) for k, name in enumerate(classes.names)],
        curves=figures.curves(run.history),
        samples=_samples(samples, classes),
        confusion=[_confusion(split, scores) for split in scores.confusion],
        boundaries=_boundaries(scores),
        objects=_objects(scores),
        calibration=_calibration(scores),
        changes=[(name, v["base"], v["run"]) for name, v in record["changes"].items()],
        data=[
            (split, f"{state['images']:,}", state["fingerprint"])
            for split, state in record.get("data", {}).items()
        ],
        options=list(options.items()),
        environment=list(record["environment"].items()),
    )


def _headlines(run: Run, scores: Scores) -> list[tuple[str, str, str]]:
    """The headline numbers beside the mIoU: (name, value, remark) each."""
    tiles, split = [], scores.headline
    if scores.results:
        numbers = scores.results[split]
        values = [
            ("accuracy", numbers["global_accuracy"], "of all pixels"),
            ("class accuracy", numbers.get("class_average_accuracy"), "mean over classes"),
        ]
        if scores.classes.multilabel:
            names = ("dice", "precision", "recall")
            values = [(name, numbers[f"mean_{name}"], "mean over labels") for name in names]
        if numbers.get("boundary"):
            values.append(("BF score", numbers["boundary"]["bf"], "boundaries"))
        if numbers.get("calibration"):
            values.append(("ECE", numbers["calibration"]["ece"], "calibration error"))
        tiles = [(f"{split} {name}", format_number(v), remark) for name, v, remark in values]
    if best := best_step(run.history):
        tiles.append(("best validation mIoU", f"{best[1]:.4f}", f"at step {best[0]:,}"))
    if (seconds := run.record.get("seconds")) is not None:
        steps = series(run.history, "train", "loss")[0]
        remark = f"{steps[-1]:,} steps" if len(steps) else ""
        tiles.append(("training time", duration(seconds), remark))
    _, rates = series(run.history, "train", "images_per_second")
    if np.any(np.isfinite(rates)):
        tiles.append(("images per second", f"{np.nanmedian(rates):,.1f}", "median in training"))
    if count := run.record["environment"].get("parameters"):
        tiles.append(("parameters", f"{count / 1e6:.3g} M", f"{count:,}"))
    return tiles


def _labels(scores: Scores) -> list[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
    """(split, header, rows) of the labels of a sigmoid head; nothing of a softmax."""
    if not scores.classes.multilabel:
        return []
    header = ("", *(title for _, title in LABEL_COLUMNS))
    return [(s, header, label_rows(r, scores.classes)) for s, r in scores.results.items()]


def _protocols(scores: Scores) -> Table | None:
    """The mIoU that other protocols give the same predictions, with the headline's reasons."""
    splits = {s: {row["protocol"]: row for row in v} for s, v in scores.having("protocols").items()}
    if not splits:
        return None
    rows = []
    for name, row in splits.get(scores.headline, next(iter(splits.values()))).items():
        values = [format_number(of.get(name, {}).get("miou")) for of in splits.values()]
        rows.append((name, *values, f"{row['description']}. Here: {row['why']}."))
    return ("protocol", *(f"{split} mIoU" for split in splits), "what it does"), rows


def _samples(samples: Mapping[str, Sequence[Mapping]], classes: ClassTable) -> dict | None:
    samples = {heading: group for heading, group in samples.items() if group}
    everything = [sample for group in samples.values() for sample in group]
    if not everything:
        return None
    return {
        "legend": pictures.sample_legend(everything, classes),
        "groups": pictures.embedded_samples(samples, classes),
    }


def _confusion(split: str, scores: Scores) -> dict[str, Any]:
    """Matrix and most confused pairs of a split; the headline's is open."""
    classes, counts = scores.classes, scores.confusion[split]
    few = len(classes) <= _FEW
    pairs = [
        (f"{true} → {predicted}", f"{100 * share:.1f} %", f"{pixels:,}")
        for true, predicted, share, pixels in most_confused(counts, classes, 10 if few else 25)
    ]
    named = zip(classes.names, counts, strict=True)
    pixels = [(name, *(f"{count:,}" for count in row)) for name, row in named]
    return {
        "name": split,
        "is_open": split == scores.headline or len(scores.confusion) == 1,
        "panel": figures.confusion(split, counts, classes),
        "pairs": pairs,
        "pixels": (("truth \\ prediction", *classes.names), pixels) if few else None,
    }


def _boundaries(scores: Scores) -> dict[str, Any] | None:
    """BF score, Boundary IoU, and mIoU near the boundaries."""
    splits = scores.having("boundary")
    if not splits:
        return None
    trimaps = {split: values["trimap"] for split, values in splits.items()}
    widths = {width for values in trimaps.values() for width in values}
    return {
        "splits": splits,
        "widths": [(f"{width} px", width) for width in sorted(widths, key=float)],
        "panel": figures.trimap(trimaps),
        "notes": _notes(splits),
    }


def _objects(scores: Scores) -> dict[str, Any] | None:
    """Bars by the objects' size and by the distance to a boundary."""
    splits = scores.having("by_object")
    if not splits:
        return None
    panels = []
    for kind, title in (
        ("size", "mIoU by object size, share of the image"),
        ("distance", "mIoU by distance to a boundary"),
    ):
        by_bucket = {s: {row["bucket"]: row for row in v[kind]} for s, v in splits.items()}
        counted = by_bucket.get(scores.headline, next(iter(by_bucket.values())))
        total = sum(row["pixels"] for row in counted.values())
        names = []
        for bucket, row in counted.items():
            objects = f", {row['objects']:,} objects" if "objects" in row else ""
            share = f"\n{row['pixels'] / total:.1%} of the pixels" if total else ""
            names.append(f"{bucket}{objects}{share}")
        values = {s: [v.get(b, {}).get("miou") for b in counted] for s, v in by_bucket.items()}
        panels.append(figures.bars(title, names, values))
    return {"panels": panels, "notes": _notes(splits)}


def _notes(splits: Mapping[str, Mapping]) -> list[str]:
    """How the numbers are measured, once where the splits agree."""
    texts = dict.fromkeys(values["protocol"] for values in splits.values() if "protocol" in values)
    return [f"{text[:1].upper()}{text[1:]}." for text in texts]


def _calibration(scores: Scores) -> dict[str, Any] | None:
    """Calibration errors, and a reliability diagram for each split."""
    splits = scores.having("calibration")
    if not splits:
        return None
    bins = {s: [b for b in v.get("bins") or () if b["pixels"]] for s, v in splits.items()}
    bins = {split: rows for split, rows in bins.items() if rows}
    panels = [figures.reliability(f"Reliability, {split}", rows) for split, rows in bins.items()]
    return {"splits": splits, "panels": panels, "bins": bins}
