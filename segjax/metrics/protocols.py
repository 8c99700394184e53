"""Evaluation protocols: how others divide the same pixel counts.

Published mIoUs follow different protocols. They agree on the counts and differ in what they do with
classes that do not occur, and in what they average. `PROTOCOLS` holds them by name;
`compare_protocols` applies all of them to one evaluation and says why their numbers differ.
"""

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from segjax.metrics.confusion import ImageConfusions, mean_of_finite, ratio

Scores = dict[str, Any]  # floats, and lists of one float per class
_NOTEBOOK_BATCH = 2  # `Skip` in the documents' `predict_for`
_SEMSEG_EPSILON = 1e-10


@dataclasses.dataclass(frozen=True)
class Counts:
    """Pixels per image and class, int64 [n, k]: right, with this label, with this prediction."""

    hits: Int[np.ndarray, "n k"]
    labels: Int[np.ndarray, "n k"]
    predictions: Int[np.ndarray, "n k"]

    @property
    def union(self) -> Int[np.ndarray, "n k"]:
        return self.labels + self.predictions - self.hits

    def summed(self, size: int | None = None) -> "Counts":
        """Sums over groups of `size` consecutive images, the last of which may be smaller; without
        a size over all images."""
        starts = np.arange(0, len(self.hits), size or max(len(self.hits), 1))
        return Counts(
            *(np.add.reduceat(x, starts) for x in (self.hits, self.labels, self.predictions))
        )


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A way to turn pixel counts into scores.

    Attributes:
      name: as in `PROTOCOLS` and in --protocol.
      description: what it does, in words; print it with the scores.
      score_counts: the scores of counts, see `score`.
      why: why its mIoU differs from that of `segjax` on given counts, in words.
    """

    name: str
    description: str
    score_counts: Callable[[Counts], Scores]
    why: Callable[[Counts], str]

    def score(self, confusions: ImageConfusions | Int[np.ndarray, "n k k"]) -> Scores:
        """The scores of a split.

        Args:
          confusions: one matrix per image, at least one, in the order of the split.

        Returns:
          `miou`, `global_accuracy`, `class_average_accuracy`, and per class `iou` and `accuracy`
          (lists of k); all in [0, 1], NaN where the protocol has no number.
        """
        return self.score_counts(_counts(confusions))


def _counts(confusions: ImageConfusions | Int[np.ndarray, "n k k"]) -> Counts:
    if not isinstance(confusions, ImageConfusions):
        confusions = ImageConfusions.from_dense(confusions)
    return Counts(*confusions.class_pixels())


def _scores(miou, global_accuracy, class_average, iou, accuracy) -> Scores:
    return {
        "miou": float(miou),
        "global_accuracy": float(global_accuracy),
        "class_average_accuracy": float(class_average),
        "iou": np.asarray(iou).tolist(),
        "accuracy": np.asarray(accuracy).tolist(),
    }


def _per_class(counts: Counts) -> tuple[np.ndarray, np.ndarray, float]:
    """IoU and recall of each class [k] and the global accuracy, over all images; NaN for 0/0."""
    all_ = counts.summed()
    hits, labels, union = all_.hits[0], all_.labels[0], all_.union[0]
    return ratio(hits, union), ratio(hits, labels), float(ratio(hits.sum(), labels.sum()))


def _segjax(counts: Counts) -> Scores:
    iou, accuracy, right = _per_class(counts)
    return _scores(mean_of_finite(iou), right, mean_of_finite(accuracy), iou, accuracy)


def _segnet2017(counts: Counts) -> Scores:
    iou, accuracy, right = _per_class(counts)
    iou, accuracy = np.nan_to_num(iou), np.nan_to_num(accuracy)
    return _scores(iou.mean(), right, accuracy.mean(), iou, accuracy)


def _semseg(counts: Counts) -> Scores:
    all_ = counts.summed()
    hits, labels, union = all_.hits[0], all_.labels[0], all_.union[0]
    iou, accuracy = hits / (union + _SEMSEG_EPSILON), hits / (labels + _SEMSEG_EPSILON)
    right = hits.sum() / (labels.sum() + _SEMSEG_EPSILON)
    return _scores(iou.mean(), right, accuracy.mean(), iou, accuracy)


def _torchvision(counts: Counts) -> Scores:
    iou, accuracy, right = _per_class(counts)
    return _scores(iou.mean(), right, accuracy.mean(), iou, accuracy)


def _micro(counts: Counts) -> Scores:
    iou, accuracy, right = _per_class(counts)
    miou = ratio(counts.hits.sum(), counts.union.sum())
    return _scores(miou, right, right, iou, accuracy)


def _frequency_weighted(counts: Counts) -> Scores:
    iou, accuracy, right = _per_class(counts)
    labels = counts.labels.sum(0)
    share = ratio(labels, labels.sum())
    miou = np.nansum(share * iou) if labels.sum() else np.nan
    return _scores(miou, right, right, iou, accuracy)


def _mean_of_groups(counts: Counts, size: int) -> Scores:
    """The protocol `segjax` on each group of `size` images, then the mean over the groups."""
    groups = counts.summed(size)
    iou, accuracy = ratio(groups.hits, groups.union), ratio(groups.hits, groups.labels)
    return _scores(
        mean_of_finite(_finite_means(iou)),
        mean_of_finite(ratio(groups.hits.sum(1), groups.labels.sum(1))),
        mean_of_finite(_finite_means(accuracy)),
        _finite_means(iou.T),
        _finite_means(accuracy.T),
    )


def _finite_means(values: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows"]:
    return ratio(np.nansum(values, 1), np.isfinite(values).sum(1))


def _absent(counts: Counts) -> int:
    """Classes that are neither in the labels nor in the predictions of any image."""
    return int(np.sum(counts.union.sum(0) == 0))


def _why_absent(text: str) -> Callable[[Counts], str]:
    def why(counts: Counts) -> str:
        absent, k = _absent(counts), counts.hits.shape[1]
        return text.format(absent=absent, k=k) if absent else "no class is absent: the same number"

    return why


def _why_groups(size: int, words: str) -> Callable[[Counts], str]:
    def why(counts: Counts) -> str:
        groups = -(-len(counts.hits) // size)
        return words.format(groups=groups)

    return why


_LIST = (
    Protocol(
        "segjax",
        "one confusion matrix over all labelled pixels of the split; classes absent from labels "
        "and predictions are left out of the mean",
        _segjax,
        lambda counts: f"{counts.hits.shape[1] - _absent(counts)} classes in the mean",
    ),
    # Scripts/compute_test_results.m of SegNet-Tutorial.
    Protocol(
        "segnet2017",
        "the SegNet authors' MATLAB scorer: one confusion matrix over all labelled pixels of the "
        "split; a class absent from the labels counts 0 and the sum is divided by all classes",
        _segnet2017,
        _why_absent("{absent} of {k} classes absent: each counts 0 here"),
    ),
    # tool/test.py and util/util.py of hszhao/semseg.
    Protocol(
        "semseg",
        "hszhao/semseg: one confusion matrix over all labelled pixels of the split; intersection / "
        "(union + 1e-10), so a class absent from labels and predictions counts 0",
        _semseg,
        _why_absent("{absent} of {k} classes absent: each counts 0 here"),
    ),
    # mmseg/evaluation/metrics/iou_metric.py; nanmean of intersect / union, as ours. Where labels
    # lack a class that is predicted, its IoU is 0 and its accuracy NaN, in both.
    Protocol(
        "mmseg",
        "mmsegmentation's IoUMetric: one confusion matrix over all labelled pixels of the split; "
        "nanmean, so classes absent from labels and predictions are left out of the mean",
        _segjax,
        lambda counts: "the same protocol; it prints percent with two decimals",
    ),
    # references/segmentation/utils.py.
    Protocol(
        "torchvision",
        "torchvision's references: one confusion matrix over all labelled pixels of the split; "
        "plain mean, so one class absent from labels and predictions makes it NaN",
        _torchvision,
        _why_absent("{absent} of {k} classes absent: 0/0 makes the mean NaN"),
    ),
    Protocol(
        "micro",
        "micro average: true positives / (true positives + false positives + false negatives), "
        "each summed over all classes and images; it rises with global accuracy alone",
        _micro,
        lambda counts: "every pixel counts the same, so large classes decide",
    ),
    Protocol(
        "per_image",
        "each image's own mean IoU over the classes in its labels or predictions, then the mean "
        "over the images",
        lambda counts: _mean_of_groups(counts, 1),
        _why_groups(1, "mean of {groups} images; classes that an image lacks leave its mean"),
    ),
    # Long et al., CVPR 2015, section 5.
    Protocol(
        "frequency_weighted",
        "frequency-weighted IoU: one confusion matrix over all labelled pixels of the split; each "
        "class weighs its share of the labelled pixels",
        _frequency_weighted,
        lambda counts: "classes weigh their share of the pixels, so large ones decide",
    ),
    # The documents print `predict_for`, which goes through a split two images at a time and keeps a
    # list of what `Function_2` returns; that function is in a module which they do not print.
    Protocol(
        "notebooks",
        "the seed notebooks' `predict_for`: mean IoU of every two images in the order of the "
        "split, then the mean over these pairs (the notebooks do not show how a class absent from "
        "a pair counts; here it is left out)",
        lambda counts: _mean_of_groups(counts, _NOTEBOOK_BATCH),
        _why_groups(
            _NOTEBOOK_BATCH,
            "mean of {groups} batches of two; classes that a batch lacks leave its mean",
        ),
    ),
)
PROTOCOLS: Mapping[str, Protocol] = types.MappingProxyType({each.name: each for each in _LIST})
DEFAULT_PROTOCOL = PROTOCOLS["segjax"]


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
      ValueError: if there is none.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"protocol {name!r} is unknown; use {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def compare_protocols(
    confusions: ImageConfusions | Int[np.ndarray, "n k k"],
) -> list[dict[str, Any]]:
    """The scores of every protocol from the same counts, in the order of `PROTOCOLS`.

    Returns:
      Rows of `protocol` (its name), `description`, `miou`, `global_accuracy`,
      `class_average_accuracy`, `difference` (of the mIoU to that of `segjax`) and `why` (the reason
      for the difference).
    """
    counts = _counts(confusions)
    ours = DEFAULT_PROTOCOL.score_counts(counts)["miou"]
    rows = []
    for protocol in PROTOCOLS.values():
        scores = protocol.score_counts(counts)
        numbers = {key: value for key, value in scores.items() if not isinstance(value, list)}
        rows.append(
            {
                "protocol": protocol.name,
                "description": protocol.description,
                **numbers,
                "difference": numbers["miou"] - ours,
                "why": protocol.why(counts),
            }
        )
    return rows
