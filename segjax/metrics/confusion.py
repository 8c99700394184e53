"""Segmentation metrics from one confusion matrix, summed over a whole set and divided once.

The matrix is [k, k] pixel counts: row = label, column = prediction; ignored pixels are not in it.
Label maps of other programs may predict no class on labelled pixels: a further column [k, k + 1]
counts these, as wrong.
A class that occurs neither in the labels nor in the predictions is NaN in per-class lists and left
out of the means. `ImageConfusions` keeps one matrix per image; `segjax.metrics.protocols` describes
this protocol in words and holds the protocols of others.
"""

import dataclasses
import functools
from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Integer, Real
from numpy.typing import ArrayLike

# Counts of pixels, on the host or on a device: row = label, column = prediction.
Confusion = Real[np.ndarray | Array, "k columns"]


def confusion_matrix(
    labels: Integer[Array, "*shape"], predictions: Integer[Array, "*shape"], num_classes: int
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
    # A GPU serialises additions to few counters, so there each counter reads all pixels; to many
    # counters it scatters, as a CPU does. A TPU scatters one pixel at a time; there a product is
    # faster.
    few = num_classes**2 <= _FEW_COUNTERS
    gpu = functools.partial(_counts_compared if few else _counts_scattered, num_classes=num_classes)
    tpu = functools.partial(_counts_multiplied, num_classes=num_classes)
    cpu = functools.partial(_counts_scattered, num_classes=num_classes)
    return lax.platform_dependent(labels, predictions, cuda=gpu, rocm=gpu, tpu=tpu, default=cpu)


# The work of a comparison grows with the number of counters.
_FEW_COUNTERS = 32**2


def _pairs(labels, predictions, num_classes):
    """label * k + prediction; k * k where the pixel is not counted."""
    labelled = (labels >= 0) & (labels < num_classes)
    return jnp.where(labelled, labels * num_classes + predictions, num_classes**2)


def _counts_scattered(labels, predictions, num_classes):
    # Ignored pixels go to one extra bin at the end, which is cut off. `bincount` would flatten the
    # pixels, and devices that share an image's rows would send each other all of them. With `at`
    # each device counts its own pixels, and only the counts are added.
    pairs = _pairs(labels, predictions, num_classes)
    counts = jnp.zeros(num_classes**2 + 1, jnp.int32).at[pairs].add(1)
    return counts[:-1].reshape(num_classes, num_classes)


def _counts_compared(labels, predictions, num_classes):
    chosen = _pairs(labels, predictions, num_classes)[..., None] == jnp.arange(num_classes**2)
    counts = jnp.sum(chosen, range(labels.ndim), dtype=jnp.int32)
    return counts.reshape(num_classes, num_classes)


def _counts_multiplied(labels, predictions, num_classes):
    """One-hot labels times one-hot predictions, row by row: exact up to 2**24 pixels a row."""

    def one_hot(ids):
        return (ids[..., None] == jnp.arange(num_classes)).astype(jnp.bfloat16)

    if labels.ndim == 0:
        labels, predictions = labels[None], predictions[None]
    rows = jnp.einsum(
        "...pk,...pl->...kl",
        one_hot(labels),
        one_hot(predictions),
        preferred_element_type=jnp.float32,
    )
    return jnp.sum(rows.astype(jnp.int32), range(labels.ndim - 1), dtype=jnp.int32)


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> np.ndarray:
    """Elementwise quotient in float64, NaN where the denominator is 0; broadcasts."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    out = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def mean_of_finite(values: Float[np.ndarray, "n"]) -> float:
    """Mean of the finite values; NaN if there are none."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else float("nan")


def _checked(confusion: ArrayLike) -> np.ndarray:
    confusion = np.asarray(confusion)
    if confusion.ndim != 2 or confusion.shape[1] - confusion.shape[0] not in (0, 1):
        raise ValueError(f"a confusion matrix is square, found shape {confusion.shape}")
    return confusion.astype(np.float64)


def mean_iou(confusion: Confusion) -> tuple[float, Float[np.ndarray, "k"]]:
    """Mean intersection over union from pixel counts.

    Returns:
      The mean over the classes that occur in label or prediction, and the per-class values, NaN
      where a class does not occur. All in [0, 1]; the mean of no class at all is NaN.

    Raises:
      ValueError: if `confusion` is not square.

    Reference: Everingham et al., "The Pascal VOC Challenge", IJCV 2010, section 3.
    """
    confusion = _checked(confusion)
    hits = np.diag(confusion)
    predictions = confusion.sum(0)[: len(hits)]
    iou = ratio(hits, predictions + confusion.sum(1) - hits)
    return mean_of_finite(iou), iou


def global_accuracy(confusion: Confusion) -> float:
    """Share of labelled pixels that are right ("G" of the SegNet paper), in [0, 1] or NaN."""
    confusion = _checked(confusion)
    return float(ratio(np.trace(confusion), confusion.sum()))


def class_average_accuracy(
    confusion: Confusion,
) -> tuple[float, Float[np.ndarray, "k"]]:
    """Mean over the classes of the share of their pixels that are right ("C", SegNet paper).

    Returns:
      The mean over the classes that occur in the labels, and the per-class values (recall), NaN
      where a class has no labelled pixel.
    """
    confusion = _checked(confusion)
    accuracy = ratio(np.diag(confusion), confusion.sum(1))
    return mean_of_finite(accuracy), accuracy


def frequency_weighted_iou(confusion: Confusion) -> float:
    """IoU averaged with each class's share of the labelled pixels as its weight.

    Reference: Long et al., "Fully Convolutional Networks", CVPR 2015, section 5.
    """
    confusion = _checked(confusion)
    _, iou = mean_iou(confusion)
    share = ratio(confusion.sum(1), confusion.sum())
    return float(np.nansum(share * iou)) if confusion.sum() > 0 else float("nan")


def summarize(confusion: Confusion) -> dict[str, float | list[float]]:
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


@dataclasses.dataclass(frozen=True)
class ImageConfusions:
    """One sparse confusion matrix per image: only the cells that hold pixels are kept.

    As int64 [n, k, k], 2000 images with 150 classes would take 360 MB, while an image fills some
    dozens of its 22,500 cells.

    Attributes:
      num_classes: k.
      starts: int64 [n + 1]; the cells of image i are starts[i] to starts[i + 1].
      cells: int32, label * columns + prediction, ascending within an image.
      counts: int64, pixels of each cell, at least 1.
      void: whether there is a column k, of pixels where no class is predicted.
    """

    num_classes: int
    starts: Int[np.ndarray, "n1"]
    cells: Int[np.ndarray, "m"]
    counts: Int[np.ndarray, "m"]
    void: bool = False

    @property
    def columns(self) -> int:
        return self.num_classes + self.void

    @classmethod
    def from_dense(cls, confusions: Integer[np.ndarray, "n k columns"]) -> "ImageConfusions":
        """Keeps the filled cells of one matrix per image.

        Raises:
          ValueError: if they are not square or a count is negative.
        """
        confusions = np.asarray(confusions)
        if confusions.ndim != 3 or confusions.shape[2] - confusions.shape[1] not in (0, 1):
            raise ValueError(f"confusion matrices are [n, k, k], found shape {confusions.shape}")
        if confusions.size and confusions.min() < 0:
            raise ValueError(f"pixel counts are not negative, found {confusions.min()}")
        n, k, columns = confusions.shape
        images, cells = np.nonzero(confusions.reshape(n, k * columns))
        starts = np.searchsorted(images, np.arange(n + 1)).astype(np.int64)
        counts = confusions.reshape(n, k * columns)[images, cells].astype(np.int64)
        return cls(k, starts, cells.astype(np.int32), counts, columns > k)

    @classmethod
    def joined(cls, parts: Iterable["ImageConfusions"]) -> "ImageConfusions":
        """The images of all parts (at least one), in order."""
        parts = list(parts)
        sizes = np.concatenate([np.diff(part.starts) for part in parts])
        return cls(
            parts[0].num_classes,
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            np.concatenate([part.cells for part in parts]),
            np.concatenate([part.counts for part in parts]),
            parts[0].void,
        )

    def take(self, images: Int[np.ndarray, "images"]) -> "ImageConfusions":
        """The images at these positions, in this order."""
        sizes = np.diff(self.starts)[images]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        # The present position of each cell: the start of its image, and its place within the image.
        source = np.repeat(self.starts[images] - starts[:-1], sizes) + np.arange(starts[-1])
        return dataclasses.replace(
            self, starts=starts, cells=self.cells[source], counts=self.counts[source]
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, image: int) -> Int[np.ndarray, "k columns"]:
        """The matrix of one image, int64."""
        image = range(len(self))[image]  # resolves negative positions, raises IndexError
        filled = slice(self.starts[image], self.starts[image + 1])
        return self._matrix(self.cells[filled], self.counts[filled])

    def total(self) -> Int[np.ndarray, "k columns"]:
        """The sum of all matrices, int64."""
        return self._matrix(self.cells, self.counts)

    def _matrix(self, cells, counts) -> np.ndarray:
        matrix = np.zeros(self.num_classes * self.columns, np.int64)
        np.add.at(matrix, cells, counts)
        return matrix.reshape(self.num_classes, self.columns)

    def class_pixels(self) -> tuple[Int[np.ndarray, "n k"], ...]:
        """Pixels per image and class, int64: right, with this label, with this prediction. Every
        measure of overlap follows from these three."""
        images = np.repeat(np.arange(len(self)), np.diff(self.starts))
        labels, predictions = np.divmod(self.cells, self.columns)
        out = tuple(np.zeros((len(self), self.num_classes), np.int64) for _ in range(3))
        right = labels == predictions
        np.add.at(out[0], (images[right], labels[right]), self.counts[right])
        np.add.at(out[1], (images, labels), self.counts)
        known = predictions < self.num_classes
        np.add.at(out[2], (images[known], predictions[known]), self.counts[known])
        return out


def mean_iou_by_image(confusions: ImageConfusions) -> Float[np.ndarray, "n"]:
    """`mean_iou` of each single image; NaN for an image without a labelled pixel."""
    hits, labels, predictions = confusions.class_pixels()
    iou = ratio(hits, labels + predictions - hits)
    return ratio(np.nansum(iou, 1), np.isfinite(iou).sum(1))
