"""IoU by the size of objects and by the distance to the label boundary.

An object is a connected component (8 neighbours) of one class. Ignored pixels belong to no object
and separate objects, in the prediction as in the label. An object's size is its share of all pixels
of the image.
"""

import dataclasses
from typing import Any

import numpy as np
import scipy
from jaxtyping import Float, Int, Integer, UInt8

from segjax.data.classes import IGNORE
from segjax.metrics import boundary
from segjax.metrics import confusion as counting
from segjax.metrics.label_maps import ImageAccumulator, check_maps

SIZE_EDGES = (0.001, 0.01, 0.1)  # shares of the image
SIZE_NAMES = ("<0.1 %", "0.1-1 %", "1-10 %", ">=10 %")
DISTANCE_EDGES = (2, 5, 10, 20)  # pixels
DISTANCE_NAMES = ("0-2 px", "2-5 px", "5-10 px", "10-20 px", ">=20 px")

PROTOCOL = (
    "size: right and missed pixels by the size of their object in the label, false pixels by the "
    "size of their object in the prediction, so that each counts once; objects are 8-connected. "
    "distance: pixels by their distance to the nearest label boundary. mIoU over the set within "
    "each bucket, over the classes that occur in it"
)


def object_sizes(label: UInt8[np.ndarray, "h w"]) -> tuple[Int[np.ndarray, "h w"], np.ndarray]:
    """Connected components (8 neighbours) of equal ids.

    Returns:
      The component of each pixel, 1..n, 0 where ignored; and the number of pixels of each component
      [n + 1], the first of them 0.
    """
    components = np.zeros(label.shape, np.int32)
    total = 0
    # Ids plus 1, because find_objects leaves out zeros; the ignored id, 255, wraps to 0.
    boxes = scipy.ndimage.find_objects((label + np.uint8(1)).astype(np.int32))
    for class_id, box in enumerate(boxes):
        if box is None:
            continue
        result: Any = scipy.ndimage.label(label[box] == class_id, np.ones((3, 3), bool))
        numbered, number = result
        inside = numbered > 0
        components[box][inside] = numbered[inside] + total
        total += number
    pixels = np.bincount(components.ravel(), minlength=total + 1)
    pixels[0] = 0
    return components, pixels


def _size_buckets(label: UInt8[np.ndarray, "h w"]) -> tuple[np.ndarray, np.ndarray]:
    """The size bucket of each pixel's object, and the number of objects in each bucket."""
    components, pixels = object_sizes(label)
    buckets = np.searchsorted(SIZE_EDGES, pixels / label.size, side="right")
    return buckets[components], np.bincount(buckets[1:], minlength=len(SIZE_NAMES))


@dataclasses.dataclass(frozen=True)
class StratifiedCounts:
    """The counts of one image for `StratifiedIoU`; made by `image_counts`.

    Attributes:
      right, missed, false: pixels of a class by size of object: of the class in both maps, in the
        label alone, and in the prediction alone.
      objects: number of label objects by size.
      distances: confusion matrices by distance to the label boundary.
    """

    right: Int[np.ndarray, "s k"]
    missed: Int[np.ndarray, "s k"]
    false: Int[np.ndarray, "s k"]
    objects: Int[np.ndarray, "s"]
    distances: Int[np.ndarray, "b k k"]


def image_counts(
    label: Integer[np.ndarray, "h w"],
    prediction: Integer[np.ndarray, "h w"],
    num_classes: int,
    distance: Float[np.ndarray, "h w"] | None = None,
) -> StratifiedCounts:
    """The counts of one image. A pure function: thread and process pools can run it.

    Args:
      label: ids 0..k-1; any other id (255 = ignore) does not count.
      prediction: ids 0..k-1 wherever the label has one.
      num_classes: k.
      distance: `boundary.distance_to_boundary(label)`, if the caller already has it.

    Raises:
      ValueError: for maps that do not fit each other or the classes.
    """
    label, prediction = check_maps(label, prediction, num_classes)
    if distance is None:
        distance = boundary.distance_to_boundary(label)
    label_bucket, objects = _size_buckets(label)
    prediction_bucket, _ = _size_buckets(prediction)
    labelled = label != IGNORE
    right = labelled & (label == prediction)
    wrong = labelled & ~right

    def count(where, bucket, ids):
        flat = bucket[where] * num_classes + ids[where]
        length = len(SIZE_NAMES) * num_classes
        return np.bincount(flat, minlength=length).reshape(-1, num_classes)

    return StratifiedCounts(
        right=count(right, label_bucket, label),
        missed=count(wrong, label_bucket, label),
        false=count(wrong, prediction_bucket, prediction),
        objects=objects,
        distances=boundary.confusion_by_distance(
            label, prediction, num_classes, distance, DISTANCE_EDGES
        ),
    )


class StratifiedIoU(ImageAccumulator):
    """IoU of a set by object size and by distance to the label boundary."""

    count_image = staticmethod(image_counts)

    def __init__(self, num_classes: int):
        super().__init__(
            num_classes,
            sizes=np.zeros((3, len(SIZE_NAMES), num_classes), np.int64),
            objects=np.zeros(len(SIZE_NAMES), np.int64),
            distances=np.zeros((len(DISTANCE_NAMES), num_classes, num_classes), np.int64),
        )

    def increments(self, counts: StratifiedCounts) -> dict[str, Any]:
        return {
            "sizes": np.stack([counts.right, counts.missed, counts.false]),
            "objects": counts.objects,
            "distances": counts.distances,
        }

    def summary(self) -> dict[str, Any]:
        """The numbers of all images added, as plain types; shares in [0, 1], NaN where undefined.

        Returns:
          `size`: a list over `SIZE_NAMES` of {`bucket`, `miou`, `iou` (list of k, NaN where a
            class does not occur in the bucket), `recall` (share of the bucket's label pixels that
            are right, over all classes), `recall_per_class`, `objects` and `pixels` (of the
            label)}. Right and missed pixels are in the bucket of their label object, false pixels
            in the bucket of their predicted object; the buckets add up to the counts of the set.
          `distance`: a list over `DISTANCE_NAMES` of {`bucket`, `miou`, `iou`, `accuracy` (share
            of pixels that are right), `pixels`}. A bucket includes its lower end; images without a
            boundary are in the last bucket. The two pixels beside a boundary have distance 0.
          `protocol`: `PROTOCOL`, how the numbers are measured.
        """
        sizes = []
        for name, objects, right, missed, false in zip(
            SIZE_NAMES, self._sums["objects"], *self._sums["sizes"], strict=True
        ):
            iou = counting.ratio(right, right + missed + false)
            pixels = right + missed
            sizes.append(
                {
                    "bucket": name,
                    "miou": counting.mean_of_finite(iou),
                    "iou": iou.tolist(),
                    "recall": float(counting.ratio(right.sum(), pixels.sum())),
                    "recall_per_class": counting.ratio(right, pixels).tolist(),
                    "objects": int(objects),
                    "pixels": int(pixels.sum()),
                }
            )
        distances = []
        for name, confusion in zip(DISTANCE_NAMES, self._sums["distances"], strict=True):
            summary = counting.summarize(confusion)
            distances.append(
                {
                    "bucket": name,
                    "miou": summary["miou"],
                    "iou": summary["iou"],
                    "accuracy": summary["global_accuracy"],
                    "pixels": summary["pixels"],
                }
            )
        return {"size": sizes, "distance": distances, "protocol": PROTOCOL}
