"""Numbers of a run made ready to show: rows of the results, confused pairs, logged series."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from segjax.data.classes import ClassTable

ABSENT = "–"
# Key in the results and title of the row. The optional rows appear if a split has them.
_ROWS = (
    ("miou", "mIoU"),
    ("global_accuracy", "global accuracy"),
    ("class_average_accuracy", "class average accuracy"),
    ("fw_iou", "frequency-weighted IoU"),
)
# Of a sigmoid head, in the place of `_ROWS`.
_LABEL_ROWS = (
    ("miou", "mIoU"),
    ("mean_dice", "mean Dice (F1)"),
    ("mean_precision", "mean precision"),
    ("mean_recall", "mean recall"),
    ("global_accuracy", "accuracy of all decisions"),
)
# Of each of its labels.
LABEL_COLUMNS = (
    ("iou", "IoU"),
    ("dice", "Dice (F1)"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("best_threshold", "best threshold"),
    ("best_threshold_iou", "IoU there"),
)
THRESHOLD_NOTE = (
    "Best threshold: of the label's probability, by its IoU on this split. Choose model.threshold "
    "by another split than the one to report on."
)
_OPTIONAL_ROWS = (
    ("boundary_f1", "boundary F1"),
    ("boundary_iou", "boundary IoU"),
    ("ece", "calibration error (ECE)"),
    ("brier", "Brier score"),
)


def format_number(value: float | int | None) -> str:
    """Four decimals as in the logs; counts with separators; `ABSENT` for None and NaN."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return f"{value:,}" if isinstance(value, int | np.integer) else f"{value:.4f}"


def no_nan(value: Any) -> Any:
    """Replaces NaN and infinity by None, since JSON has neither."""
    if isinstance(value, Mapping):
        return {k: no_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [no_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def result_rows(
    results: Mapping[str, Mapping], classes: ClassTable
) -> tuple[list[tuple[str, list[str]]], list[tuple[str, list[str]]]]:
    """The rows of every results table: (title, one text per split), in two groups.

    Args:
      results: split -> the summary of an evaluation; a key that a split lacks shows `ABSENT`.
      classes: the class table.

    Returns:
      The rows of the split as a whole, and one row per class (its IoU, in id order).

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
    rows = _LABEL_ROWS if classes.multilabel else _ROWS
    keys = (*rows, *optional, ("loss", "loss"), ("images", "images"))
    overall = [
        (title, [format_number(r.get(key)) for r in results.values()]) for key, title in keys
    ]
    per_class = [
        (name, [format_number(r["iou"][k]) for r in results.values()])
        for k, name in enumerate(classes.names)
    ]
    return overall, per_class


def label_rows(numbers: Mapping[str, Any], classes: ClassTable) -> list[tuple[str, ...]]:
    """A row for each label of a sigmoid head: its name, and the texts of `LABEL_COLUMNS`.

    Args:
      numbers: `LabelEvaluation.summary` of a split; a missing key shows `ABSENT`.
      classes: the class table.
    """
    columns = [numbers.get(key) or [None] * len(classes) for key, _ in LABEL_COLUMNS]
    return [
        (name, *(format_number(column[k]) for column in columns))
        for k, name in enumerate(classes.names)
    ]


def most_confused(
    confusion: Int[np.ndarray, "k k"], classes: ClassTable, top: int = 10
) -> list[tuple[str, str, float, int]]:
    """The worst mix-ups: pairs of classes by the share of the true class's pixels they take.

    Args:
      confusion: pixels, row = label, column = prediction.
      classes: the class table.
      top: the largest number of pairs; pairs without a pixel are left out.

    Returns:
      (true class, predicted class, share of the true class's pixels in [0, 1], pixels), largest
      share first; of equal shares the one with more pixels.
    """
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
    """One logged quantity as (steps, values), steps rising, from the rows of `split` that hold it.

    Of two rows with the same step (a resumed run) the later one counts. Null and values that are
    not finite become NaN.
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


def evenly_spaced(length: int, count: int) -> list[int]:
    """Up to `count` indices spread over 0..length-1."""
    count = min(length, count)
    return [round((i + 0.5) * length / count - 0.5) for i in range(count)]


def choose_samples(image_miou: Float[np.ndarray, "n"], count: int) -> dict[str, Sequence[int]]:
    """Indices of the best, the median and the worst images by their own mIoU, `count` in all."""
    order = np.argsort(-np.nan_to_num(image_miou, nan=-1.0), kind="stable")
    order = order[np.isfinite(image_miou[order])]
    count = min(count, len(order))
    ends = count // 3
    middle = count - 2 * ends
    start = (len(order) - middle) // 2
    return {
        "best": order[:ends].tolist(),
        "median": order[start : start + middle].tolist(),
        "worst": order[len(order) - ends :].tolist(),
    }
