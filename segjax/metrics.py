"""Segmentation metrics: views of one confusion matrix, summed over a whole set, divided once.

The matrix is [k, k] pixel counts: row = label, column = prediction; ignored pixels are not in it.
A class that occurs neither in the labels nor in the predictions is NaN in per-class lists and left
out of the means (`PROTOCOL` says so in words; print it with the numbers).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

PROTOCOL = (
    "one confusion matrix over all labelled pixels of the split; classes absent from labels and "
    "predictions are left out of the mean"
)


def confusion_matrix(
    labels: Int[Array, "*shape"], predictions: Int[Array, "*shape"], num_classes: int
) -> Int[Array, "k k"]:
    """Counts pixels by (label, prediction). Jittable.

    Args:
      labels: ids 0..k-1; any other id (255 = ignore) is not counted.
      predictions: ids 0..k-1, of the same shape.
      num_classes: k.

    Returns:
      int32 counts, row = label, column = prediction. One call holds up to 2**31 - 1 pixels; sum
      calls on the host in int64.
    """
    # Small label dtypes would overflow in label * num_classes.
    labels, predictions = jnp.asarray(labels, jnp.int32), jnp.asarray(predictions, jnp.int32)
    labelled = (labels >= 0) & (labels < num_classes)
    # Ignored pixels go to one extra bin at the end, which is cut off.
    pair = jnp.where(labelled, labels * num_classes + predictions, num_classes**2)
    counts = jnp.bincount(pair.reshape(-1), length=num_classes**2 + 1)
    return counts[:-1].reshape(num_classes, num_classes).astype(jnp.int32)


def _ratio(numerator, denominator) -> np.ndarray:
    """Elementwise quotient, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    out = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.any(np.isfinite(values)) else float("nan")


def _check_square(confusion) -> np.ndarray:
    confusion = np.asarray(confusion)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
        raise ValueError(f"a confusion matrix is square, found shape {confusion.shape}")
    return confusion.astype(np.float64)


def mean_iou(confusion: Int[np.ndarray, "k k"]) -> tuple[float, Float[np.ndarray, "k"]]:
    """Mean intersection over union from pixel counts.

    Returns:
      The mean over the classes that occur in label or prediction, and the per-class values, NaN
      where a class does not occur. All in [0, 1]; the mean of no class at all is NaN.

    Raises:
      ValueError: if `confusion` is not square.

    Reference: Everingham et al., "The Pascal VOC Challenge", IJCV 2010, section 3.
    """
    confusion = _check_square(confusion)
    hits = np.diag(confusion)
    iou = _ratio(hits, confusion.sum(0) + confusion.sum(1) - hits)
    return _mean(iou), iou


def global_accuracy(confusion: Int[np.ndarray, "k k"]) -> float:
    """Share of labelled pixels that are right ("G" of the SegNet paper), in [0, 1] or NaN."""
    confusion = _check_square(confusion)
    return float(_ratio(np.trace(confusion), confusion.sum()))


def class_average_accuracy(
    confusion: Int[np.ndarray, "k k"],
) -> tuple[float, Float[np.ndarray, "k"]]:
    """Mean over classes of the share of its pixels that are right ("C" of the SegNet paper).

    Returns:
      The mean over the classes that occur in the labels, and the per-class values (recall), NaN
      where a class has no labelled pixel.
    """
    confusion = _check_square(confusion)
    accuracy = _ratio(np.diag(confusion), confusion.sum(1))
    return _mean(accuracy), accuracy


def frequency_weighted_iou(confusion: Int[np.ndarray, "k k"]) -> float:
    """IoU averaged with each class's share of the labelled pixels as its weight.

    Reference: Long et al., "Fully Convolutional Networks", CVPR 2015, section 5.
    """
    confusion = _check_square(confusion)
    _, iou = mean_iou(confusion)
    share = _ratio(confusion.sum(1), confusion.sum())
    return float(np.nansum(share * iou)) if confusion.sum() > 0 else float("nan")


def summarize(confusion: Int[np.ndarray, "k k"]) -> dict[str, float | list[float]]:
    """All metrics of a confusion matrix under the names used in logs, tables and files.

    Returns:
      `miou`, `global_accuracy`, `class_average_accuracy`, `fw_iou` (floats in [0, 1]), `iou` and
      `accuracy` (lists of k, NaN for classes that do not occur), `pixels` (counted).
    """
    miou, iou = mean_iou(confusion)
    class_average, accuracy = class_average_accuracy(confusion)
    return {
        "miou": miou,
        "global_accuracy": global_accuracy(confusion),
        "class_average_accuracy": class_average,
        "fw_iou": frequency_weighted_iou(confusion),
        "iou": iou.tolist(),
        "accuracy": accuracy.tolist(),
        "pixels": int(np.asarray(confusion).sum()),
    }
