"""What the doctor reports: findings, and the numbers of each split."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from segjax.data.classes import ClassTable

STOPS, HARMS, WORTH = SEVERITIES = ("stops training", "harms it", "worth knowing")


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something about the data.

    Attributes:
      code: which kind, such as "unknown-ids".
      severity: one of `SEVERITIES`.
      title: in a few words, with the split.
      found: lines that say what, with files and numbers.
      remedy: the option, command or step that mends it.
      split: that it is about, "" if several.
      files: all that are concerned.
      samples: (split, index) of some of them, for pictures.
    """

    code: str
    severity: str
    title: str
    found: tuple[str, ...]
    remedy: str
    split: str = ""
    files: tuple[str, ...] = ()
    samples: tuple[tuple[str, int], ...] = ()


@dataclasses.dataclass(frozen=True)
class SplitNumbers:
    """What there is in a split, over the samples that could be read.

    Attributes:
      images: samples in the split.
      usable: those without a problem.
      sizes: (height, width) of the images to their number.
      class_pixels: per class.
      class_images: per class, the images it occurs in.
      present_pixels: per class, all pixels (ignored ones too) of the images it occurs in.
      ignored_pixels: of the ignore label.
      unknown_pixels: of ids without a label.
      void_images: images all of whose pixels are ignored.
      mean, std: of the images in [0, 1], per channel over all pixels; NaN without images.
    """

    images: int
    usable: int
    sizes: Mapping[tuple[int, int], int]
    class_pixels: Int64[np.ndarray, "k"]
    class_images: Int64[np.ndarray, "k"]
    present_pixels: Int64[np.ndarray, "k"]
    ignored_pixels: int
    unknown_pixels: int
    void_images: int
    mean: Float64[np.ndarray, "c"]
    std: Float64[np.ndarray, "c"]

    @property
    def void_share(self) -> float:
        """Ignored pixels among all; NaN where there are none."""
        pixels = int(self.class_pixels.sum()) + self.ignored_pixels + self.unknown_pixels
        return self.ignored_pixels / pixels if pixels else float("nan")


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """All that the doctor found, the worst first.

    Attributes:
      title: the data set, in words.
      classes: of all splits.
      train_split: the split that is trained on.
      findings: by severity; within one, in the order of the rules.
      splits: the numbers of each.
      weights: loss weights by their name in `loss.class_weights`, from the training split.
      sources: what was examined, by split; for pictures.
      seconds: that it took.
    """

    title: str
    classes: ClassTable
    train_split: str
    findings: Sequence[Finding]
    splits: Mapping[str, SplitNumbers]
    weights: Mapping[str, tuple[float, ...]]
    sources: Mapping[str, Any] = dataclasses.field(repr=False)
    seconds: float = 0.0

    def of(self, severity: str) -> list[Finding]:
        """The findings of one severity."""
        return [finding for finding in self.findings if finding.severity == severity]

    def to_json(self) -> dict[str, Any]:
        """Plain types; NaN is None."""
        return {
            "title": self.title,
            "train_split": self.train_split,
            "seconds": round(self.seconds, 2),
            "classes": list(self.classes.names),
            "findings": [
                {
                    **{k: v for k, v in vars(finding).items() if isinstance(v, str)},
                    "found": list(finding.found),
                    "files": list(finding.files),
                    "samples": [list(sample) for sample in finding.samples],
                }
                for finding in self.findings
            ],
            "splits": {split: _plain(numbers) for split, numbers in self.splits.items()},
            "weights": {name: list(weights) for name, weights in self.weights.items()},
            "options": paste_lines(self),
        }


def _plain(numbers: SplitNumbers) -> dict[str, Any]:
    return {
        "images": numbers.images,
        "usable": numbers.usable,
        "sizes": [[*size, count] for size, count in numbers.sizes.items()],
        "class_pixels": numbers.class_pixels.tolist(),
        "class_images": numbers.class_images.tolist(),
        "present_pixels": numbers.present_pixels.tolist(),
        "ignored_pixels": numbers.ignored_pixels,
        "unknown_pixels": numbers.unknown_pixels,
        "void_images": numbers.void_images,
        "void_share": _or_none(numbers.void_share),
        "mean": [_or_none(value) for value in numbers.mean.tolist()],
        "std": [_or_none(value) for value in numbers.std.tolist()],
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value


def paste_lines(diagnosis: Diagnosis) -> dict[str, str]:
    """Options of the command line, ready to paste, by what they set."""
    lines = {}
    numbers = diagnosis.splits.get(diagnosis.train_split)
    if numbers is not None and np.isfinite(numbers.mean).all() and numbers.mean.size:
        lines["data.mean and data.std"] = normalization_options(numbers.mean, numbers.std)
    for name, weights in diagnosis.weights.items():
        lines[f"loss.class_weights, {name}"] = weight_option(weights)
    return lines


def normalization_options(mean: Sequence[float], std: Sequence[float]) -> str:
    """`--config.data.mean=... --config.data.std=...`, quoted for a shell."""
    texts = (",".join(f"{value:.4f}" for value in values) for values in (mean, std))
    mean_text, std_text = texts
    return f"'--config.data.mean=({mean_text},)' '--config.data.std=({std_text},)'"


def weight_option(weights: Sequence[float]) -> str:
    """`--config.loss.class_weights=...`"""
    return f"--config.loss.class_weights={','.join(f'{weight:.4f}' for weight in weights)}"
