"""Metrics of sigmoid heads: one 2x2 confusion matrix per label, from label maps of bits.

The matrices are [k, 2, 2] pixel counts: of label j, row = whether the pixel has it, column =
whether it is predicted; ignored pixels are in none of them. A label that is neither in the label
maps nor in the predictions has no IoU and no Dice (NaN) and is left out of their means.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Real

from segjax.losses.binary import is_labelled, present_labels
from segjax.metrics.confusion import confusion_matrix, mean_of_finite, ratio

LabelConfusion = Real[np.ndarray | Array, "k 2 2"]
# Bins of the probability, and so the steps of 0.01 of the thresholds that `best_thresholds` tries.
BINS = 100


def label_confusion(
    labels: Integer[Array, "*shape"], predictions: Integer[Array, "*shape"], num_labels: int
) -> Int[Array, "k 2 2"]:
    """Counts the pixels of each label by (present, predicted). Jittable.

    Args:
      labels: bits, 0..2**k - 1; any other value (255 = ignore) is not counted.
      predictions: bits, of the same shape.
      num_labels: k.

    Returns:
      int32 counts. One call holds up to 2**31 - 1 pixels; sum calls on the host in int64.
    """
    labels, predictions = jnp.asarray(labels, jnp.int32), jnp.asarray(predictions, jnp.int32)
    labelled = is_labelled(labels, num_labels)[..., None]
    truth = present_labels(labels, num_labels)
    predicted = present_labels(predictions, num_labels) & labelled
    counted, present, found, right = (
        jnp.sum(x, range(labels.ndim), dtype=jnp.int32)
        for x in (labelled, truth, predicted, truth & predicted)
    )
    absent = jnp.stack([counted - present - found + right, found - right], -1)
    return jnp.stack([absent, jnp.stack([present - right, right], -1)], -2)


def label_iou(confusion: LabelConfusion) -> Float[np.ndarray, "k"]:
    """Intersection over union of the pixels that have each label and that it is predicted on."""
    _, missed, wrong, right = _counts(confusion)
    return ratio(right, right + missed + wrong)


def mean_label_iou(confusion: LabelConfusion) -> tuple[float, Float[np.ndarray, "k"]]:
    """`label_iou`, and its mean over the labels that occur in label maps or predictions."""
    iou = label_iou(confusion)
    return mean_of_finite(iou), iou


def summarize_labels(confusion: LabelConfusion) -> dict[str, Any]:
    """All metrics of [k, 2, 2] counts under the names used in logs, tables and files.

    Returns:
      Lists of k: `iou`, `dice` (F1), `precision` (NaN where the label is never predicted), `recall`
      (NaN where it is never present). Their means over the labels that have a number: `miou`,
      `mean_dice`, `mean_precision`, `mean_recall`. `global_accuracy`: the share of all decisions,
      one for each label of each pixel, that are right. `pixels` (counted).
    """
    absent, missed, wrong, right = _counts(confusion)
    lists = {
        "iou": label_iou(confusion),
        "dice": ratio(2 * right, 2 * right + missed + wrong),
        "precision": ratio(right, right + wrong),
        "recall": ratio(right, right + missed),
    }
    means = {f"mean_{name}": mean_of_finite(values) for name, values in lists.items()}
    total = absent + missed + wrong + right
    return {
        "miou": means.pop("mean_iou"),
        **means,
        "global_accuracy": float(ratio((absent + right).sum(), total.sum())),
        **{name: values.tolist() for name, values in lists.items()},
        "pixels": int(total[0]),
    }


def _counts(confusion: LabelConfusion) -> tuple[np.ndarray, ...]:
    """Pixels [k]: neither; present alone; predicted alone; both."""
    counts = np.asarray(confusion).astype(np.float64)
    return counts[:, 0, 0], counts[:, 1, 0], counts[:, 0, 1], counts[:, 1, 1]


@dataclasses.dataclass(frozen=True)
class LabelConfusions:
    """One [k, 2, 2] confusion matrix per image; `ImageConfusions` of a sigmoid head.

    Attributes:
      counts: int64 pixels.
    """

    counts: Int[np.ndarray, "n k 2 2"]

    @classmethod
    def from_dense(cls, confusions: Integer[np.ndarray, "n k 2 2"]) -> "LabelConfusions":
        return cls(np.asarray(confusions, np.int64))

    @classmethod
    def joined(cls, parts: Iterable["LabelConfusions"]) -> "LabelConfusions":
        """The images of all parts (at least one), in order."""
        return cls(np.concatenate([part.counts for part in parts]))

    def take(self, images: Int[np.ndarray, "images"]) -> "LabelConfusions":
        """The images at these positions, in this order."""
        return LabelConfusions(self.counts[images])

    def __len__(self) -> int:
        return len(self.counts)

    def total(self) -> Int[np.ndarray, "k 2 2"]:
        """The sum over the images, int64."""
        return self.counts.sum(0)

    def label_pixels(self) -> Int[np.ndarray, "n k"]:
        """Pixels of each image that have each label."""
        return self.counts[:, :, 1].sum(-1)

    def mean_iou_by_image(self) -> Float[np.ndarray, "n"]:
        """The mean IoU of each single image; NaN where it has no label and none is predicted."""
        missed, wrong, right = (self.counts[:, :, i, j] for i, j in ((1, 0), (0, 1), (1, 1)))
        iou = ratio(right, right + missed + wrong)
        return ratio(np.nansum(iou, 1), np.isfinite(iou).sum(1))


def threshold_counts(
    logits: Float[Array, "*shape k"], labels: Int[Array, "*shape"]
) -> Int[Array, "k 2 bins"]:
    """Counts the pixels of each label by (present, bin of the label's probability). Jittable.

    Args:
      logits: float32.
      labels: bits, see `label_confusion`.

    Returns:
      int32 counts; bin i of 100 holds the probabilities from i / 100 on.
    """
    num_labels = logits.shape[-1]
    labelled = is_labelled(jnp.asarray(labels, jnp.int32), num_labels)
    truth = present_labels(jnp.asarray(labels, jnp.int32), num_labels).astype(jnp.int32)
    truth = jnp.where(labelled[..., None], truth, -1)
    bins = jnp.clip((jax.nn.sigmoid(logits) * BINS).astype(jnp.int32), 0, BINS - 1)
    # The first two rows of a matrix of 100 "classes": it counts without the scatter of a TPU.
    return jnp.stack(
        [confusion_matrix(truth[..., j], bins[..., j], BINS)[:2] for j in range(num_labels)]
    )


def best_thresholds(counts: Int[np.ndarray, "k 2 bins"]) -> Mapping[str, list[float]]:
    """The threshold of each label's probability with the highest IoU on the pixels counted.

    Thresholds are 0.01, 0.02, ... 0.99; of equal ones the nearest to 0.5 is taken.

    Args:
      counts: sums of `threshold_counts`.

    Returns:
      `threshold` and `iou`, lists of k; NaN for a label that never occurs.
    """
    counts = np.asarray(counts, np.int64)
    # Pixels with a probability of i / BINS or more, for i = 1, 2, ...
    above = np.cumsum(counts[..., ::-1], -1)[..., ::-1][..., 1:]
    right, wrong = above[:, 1], above[:, 0]
    iou = ratio(right, counts[:, 1].sum(-1)[:, None] + wrong)
    iou[counts[:, 1].sum(-1) == 0] = np.nan
    thresholds = np.arange(1, BINS) / BINS
    best: dict[str, list[float]] = {"threshold": [], "iou": []}
    for row in iou:
        highest = np.flatnonzero(row == np.max(row))
        chosen = highest[np.argmin(np.abs(thresholds[highest] - 0.5))] if len(highest) else None
        best["threshold"].append(float("nan") if chosen is None else float(thresholds[chosen]))
        best["iou"].append(float("nan") if chosen is None else float(row[chosen]))
    return best
