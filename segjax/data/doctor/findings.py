"""The doctor's results: findings, and the numbers of each split."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from segjax.data.classes import ClassTable
from segjax.data.counts import SplitCounts

# ERROR stops training, WARNING harms it, INFO is worth knowing.
ERROR, WARNING, INFO = SEVERITIES = ("error", "warning", "info")
SHOWN = 5  # lines of a finding; the report lists all files
PICTURED = 8  # samples that are kept for pictures


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something about the data."""

    code: str  # its kind, such as "unknown-ids"
    severity: str  # one of `SEVERITIES`
    title: str  # a few words, with the split
    found: tuple[str, ...]  # lines with files and numbers
    remedy: str  # the option, command or step that mends it
    split: str = ""  # the split; "" for a finding about several
    files: tuple[str, ...] = ()  # all files that the finding is about
    samples: tuple[tuple[str, int], ...] = ()  # (split, index) of some of them, for pictures


def first_lines(lines: Sequence[str]) -> tuple[str, ...]:
    """The lines that a finding shows, and the number of the others."""
    more = len(lines) - SHOWN
    return (*lines[:SHOWN], *([f"and {more} more"] if more > 0 else []))


@dataclasses.dataclass(frozen=True)
class SplitNumbers(SplitCounts):
    """The counts of a split, over the samples that could be read; `sizes` are the images'."""

    usable: int  # samples without a problem
    # Of the images in [0, 1], per channel over all pixels; NaN without images.
    mean: Float64[np.ndarray, "c"]
    std: Float64[np.ndarray, "c"]


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """All findings of the doctor, the worst first."""

    title: str  # of the data set
    classes: ClassTable  # the classes of all splits
    train_split: str  # the split that is trained on
    findings: Sequence[Finding]  # by severity; within one, in the order of the rules
    splits: Mapping[str, SplitNumbers]  # the numbers of each split
    # Loss weights by their name in `loss.class_weights`, from the training split
    weights: Mapping[str, tuple[float, ...]]
    # The examined sources by split, for pictures
    sources: Mapping[str, Any] = dataclasses.field(repr=False)
    seconds: float = 0.0  # the time that it took

    def of(self, severity: str) -> list[Finding]:
        """The findings of one severity."""
        return [finding for finding in self.findings if finding.severity == severity]

    def to_json(self) -> dict[str, Any]:
        """Types that JSON has; NaN is None."""
        return {
            "title": self.title,
            "train_split": self.train_split,
            "seconds": round(self.seconds, 2),
            "classes": list(self.classes.names),
            "findings": [vars(finding) for finding in self.findings],
            "splits": {split: _json_values(numbers) for split, numbers in self.splits.items()},
            "weights": {name: list(weights) for name, weights in self.weights.items()},
            "options": paste_lines(self),
        }


def _json_values(numbers: SplitNumbers) -> dict[str, Any]:
    values = {**vars(numbers), "void_share": numbers.void_share}
    values["sizes"] = [[*size, count] for size, count in numbers.sizes.items()]
    return {name: _json_value(value) for name, value in values.items()}


def _json_value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_json_value(number) for number in value.tolist()]
    return None if value != value else value  # NaN


def paste_lines(diagnosis: Diagnosis) -> dict[str, str]:
    """Options of the command line, ready to paste, by the options that they set."""
    lines = {}
    numbers = diagnosis.splits.get(diagnosis.train_split)
    if numbers is not None and np.isfinite(numbers.mean).all() and numbers.mean.size:
        lines["data.mean and data.std"] = normalization_options(numbers.mean, numbers.std)
    for name, weights in diagnosis.weights.items():
        lines[f"loss.class_weights, {name}"] = weight_option(weights)
    return lines


def normalization_options(mean: Iterable[float], std: Iterable[float]) -> str:
    """`--config.data.mean=... --config.data.std=...`, quoted for a shell."""
    return " ".join(
        f"'--config.data.{name}=({','.join(f'{value:.4f}' for value in values)},)'"
        for name, values in (("mean", mean), ("std", std))
    )


def weight_option(weights: Sequence[float]) -> str:
    """`--config.loss.class_weights=...`"""
    return f"--config.loss.class_weights={','.join(f'{weight:.4f}' for weight in weights)}"
