"""Metrics of label maps that the host counts image by image: what they share."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Integer, UInt8

from segjax.data.classes import IGNORE

# One lock for all: a lock in an accumulator would keep it from being sent to another process.
_LOCK = threading.Lock()


def check_maps(
    label: Integer[np.ndarray, "h w"], prediction: Integer[np.ndarray, "h w"], num_classes: int
) -> tuple[UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]:
    """Both maps as uint8, with `IGNORE` in both wherever the label is no class id.

    Raises:
      ValueError: for maps that are not two-dimensional or differ in size, for more than 255
        classes, or for a predicted id that is no class on a labelled pixel.
    """
    if not 1 <= num_classes <= IGNORE:
        raise ValueError(f"num_classes={num_classes} for uint8 label maps; use 1 to {IGNORE}")
    label, prediction = np.asarray(label), np.asarray(prediction)
    if label.ndim != 2 or label.shape != prediction.shape:
        raise ValueError(
            f"label {label.shape} and prediction {prediction.shape} must be maps [h, w] of one "
            "size; use one image at a time, at the label's size"
        )
    labelled = (label >= 0) & (label < num_classes)
    wrong = labelled & ((prediction < 0) | (prediction >= num_classes))
    if wrong.any():
        raise ValueError(
            f"prediction holds id {int(prediction[wrong][0])}, the classes are 0 to "
            f"{num_classes - 1}; use a prediction for each labelled pixel"
        )
    label = np.where(labelled, label, IGNORE).astype(np.uint8)
    return label, np.where(labelled, prediction, IGNORE).astype(np.uint8)


class ImageAccumulator:
    """Adds up the counts of images. Threads may add at the same time.

    A subclass names the function that counts one image, `count_image`, and says in `increments` how
    those counts change the sums.

    Args:
      num_classes: k.
      sums: the start of each sum by name: an array that is added to, or a list that is extended.
    """

    count_image: ClassVar[Callable[..., Any]]

    def __init__(self, num_classes: int, **sums: Any):
        self.num_classes = num_classes
        self._sums = sums

    def increments(self, counts: Any) -> Mapping[str, Any]:
        """The increment of each sum by one image."""
        raise NotImplementedError

    def add(
        self,
        label: Integer[np.ndarray, "h w"],
        prediction: Integer[np.ndarray, "h w"],
        distance: Float[np.ndarray, "h w"] | None = None,
    ) -> None:
        """Adds one image; `count_image` describes the arguments and the errors."""
        self.add_counts(self.count_image(label, prediction, self.num_classes, distance))

    def add_counts(self, counts: Any) -> None:
        """Adds one image that `count_image` has counted."""
        self._add(self.increments(counts))

    def merge(self, other: "ImageAccumulator") -> None:
        """Adds the images of another part of the set, after those that are already counted."""
        self._add(other._sums)

    def _add(self, increments: Mapping[str, Any]) -> None:
        with _LOCK:
            for name, increment in increments.items():
                self._sums[name] += increment
