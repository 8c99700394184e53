"""Boundary metrics of label maps: the SegNet paper's BF, Boundary IoU, and the trimap curve.

A boundary pixel of a class has the label of that class, and at least one of its four neighbours has
the label of another class (`metrics.by_object` uses the same definition). So a boundary is one
pixel wide on each side, and each pixel bounds one class only. Neither the image's edge nor an
ignored pixel makes a boundary. Where the label is ignored the prediction counts as ignored too.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int, Integer, UInt8

from segjax.data.classes import IGNORE
from segjax.metrics import confusion as counting
from segjax.metrics.label_maps import ImageAccumulator, check_maps

BF_TOLERANCE = 0.0075  # of the image diagonal: SegNet paper
BOUNDARY_IOU_DILATION = 0.02  # of the image diagonal: Cheng et al.
TRIMAP_WIDTHS = (1, 2, 3, 5, 10, 20)

PROTOCOL = (
    "boundary pixel: labelled, with a labelled 4-neighbour of another class; ignored pixels and "
    "the image edge make no boundary. BF: F1 of boundary pixels within 0.75 % of the diagonal "
    "(nearest pixel, many to one), mean over the classes with a boundary in the label image, then "
    "over images. Boundary IoU: pixels within 2 % of the diagonal of their mask's contour or the "
    "image edge, summed over the set. Trimap: mIoU of the pixels within so many pixels of a label "
    "boundary"
)


def boundary_pixels(label: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels with a labelled 4-neighbour of another class; ignored pixels never are."""
    boundary = np.zeros(label.shape, bool)
    labelled = label != IGNORE
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = (label[one] != label[other]) & labelled[one] & labelled[other]
        boundary[one] |= differs
        boundary[other] |= differs
    return boundary


def distance_to_boundary(label: UInt8[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Euclidean distance in pixels from each pixel to the nearest boundary pixel of any class.

    The distance is 0 on the boundary pixels of both sides, so `distance < w` is a band of w pixels
    on each side of a straight boundary. Ignored pixels are crossed like others. An image without a
    boundary is infinite everywhere. This is the costliest part of an image: compute it once for
    `Boundaries` and `by_object.StratifiedIoU`.

    Args:
      label: ids, `IGNORE` where ignored.
    """
    boundary = boundary_pixels(label)
    if not boundary.any():
        return np.full(label.shape, np.inf)
    return np.asarray(scipy.ndimage.distance_transform_edt(~boundary))


def confusion_by_distance(
    label: UInt8[np.ndarray, "h w"],
    prediction: UInt8[np.ndarray, "h w"],
    num_classes: int,
    distance: Float[np.ndarray, "h w"],
    edges: tuple[int, ...],
) -> Int[np.ndarray, "b k k"]:
    """Confusion matrices of the distance bands [0, edges[0]), [edges[0], edges[1]), ..., rest.

    Args:
      label: ids 0..k-1, `IGNORE` where ignored; those pixels are not counted.
      prediction: ids 0..k-1 wherever the label has one.
      distance: of each pixel, as from `distance_to_boundary`.
      edges: ascending; they make one band more than there are edges.
    """
    labelled = label != IGNORE
    band = np.searchsorted(edges, distance[labelled], side="right")
    pair = label[labelled].astype(np.int64) * num_classes + prediction[labelled]
    shape = (len(edges) + 1, num_classes, num_classes)
    return np.bincount(band * num_classes**2 + pair, minlength=math.prod(shape)).reshape(shape)


def contour_region(label: UInt8[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    """Pixels near the contour of their own class, for all classes at once.

    A pixel is near it when a labelled pixel of another class, or the outside of the image, lies at
    most `reach` rows and `reach` columns away. `reach` erosions of each class's mask with a 3x3
    square remove these pixels. Ignored pixels are never near a contour.
    """
    labelled = label != IGNORE
    own = label.astype(np.int16)
    # An ignored pixel must be neither the highest nor the lowest id.
    highest = scipy.ndimage.maximum_filter(
        np.where(labelled, own, -1), 2 * reach + 1, mode="nearest"
    )
    lowest = scipy.ndimage.minimum_filter(
        np.where(labelled, own, 256), 2 * reach + 1, mode="nearest"
    )
    near = (highest != own) | (lowest != own)
    near[:reach] = near[-reach:] = True
    near[:, :reach] = near[:, -reach:] = True
    return near & labelled


@dataclasses.dataclass(frozen=True)
class BoundaryCounts:
    """The counts of one image for `Boundaries`; made by `image_counts`.

    Attributes:
      label_pixels, label_matched: per class, the boundary pixels of the label, and those that have
        a boundary pixel of the same class in the prediction within the tolerance.
      prediction_pixels, prediction_matched: the same with the roles exchanged.
      regions: [3, k] pixels near a contour: in both maps, in the label, in the prediction.
      bands: confusion matrices by distance, the bands between `TRIMAP_WIDTHS`.
    """

    label_pixels: Int[np.ndarray, "k"]
    label_matched: Int[np.ndarray, "k"]
    prediction_pixels: Int[np.ndarray, "k"]
    prediction_matched: Int[np.ndarray, "k"]
    regions: Int[np.ndarray, "3 k"]
    bands: Int[np.ndarray, "b k k"]

    @property
    def f1(self) -> Float[np.ndarray, "k"]:
        """F1 per class; NaN where neither map has a boundary of the class, 0 where one has none."""
        f1 = np.full(self.label_pixels.shape, np.nan)
        f1[(self.label_pixels > 0) | (self.prediction_pixels > 0)] = 0
        right = (self.label_matched > 0) & (self.prediction_matched > 0)
        recall = self.label_matched[right] / self.label_pixels[right]
        precision = self.prediction_matched[right] / self.prediction_pixels[right]
        f1[right] = 2 * precision * recall / (precision + recall)
        return f1


def _points(label: UInt8[np.ndarray, "h w"], apart: float) -> Float[np.ndarray, "n 3"]:
    """Boundary pixels as (row, column, class * apart)."""
    rows, columns = np.nonzero(boundary_pixels(label))
    return np.stack([rows, columns, label[rows, columns] * apart], -1)


def _matched(points, others, tolerance: float) -> Bool[np.ndarray, "n"]:
    """Mask of the points that have one of the others within the tolerance."""
    if not len(points) or not len(others):
        return np.zeros(len(points), bool)
    # The tree finds neighbours strictly nearer than the bound; one at the tolerance is a match.
    bound = tolerance + 0.5
    # The points are in the order of the image, so building without medians is quicker.
    tree = scipy.spatial.KDTree(others, balanced_tree=False, compact_nodes=False)
    distance, _ = tree.query(points, distance_upper_bound=bound)
    return distance <= tolerance


def image_counts(
    label: Integer[np.ndarray, "h w"],
    prediction: Integer[np.ndarray, "h w"],
    num_classes: int,
    distance: Float[np.ndarray, "h w"] | None = None,
) -> BoundaryCounts:
    """The boundary counts of one image. A pure function: thread and process pools can run it.

    Args:
      label: ids 0..k-1; any other id (255 = ignore) does not count.
      prediction: ids 0..k-1 wherever the label has one.
      num_classes: k.
      distance: `distance_to_boundary(label)`, if the caller already has it.

    Raises:
      ValueError: for maps that do not fit each other or the classes.
    """
    label, prediction = check_maps(label, prediction, num_classes)
    if distance is None:
        distance = distance_to_boundary(label)
    diagonal = math.hypot(*label.shape)
    tolerance = BF_TOLERANCE * diagonal
    # A third coordinate keeps classes out of each other's reach: one search for all of them.
    apart = 2 * tolerance + 1
    label_points, predicted_points = _points(label, apart), _points(prediction, apart)
    label_matched = _matched(label_points, predicted_points, tolerance)
    predicted_matched = _matched(predicted_points, label_points, tolerance)

    def per_class(points):
        return np.bincount(np.rint(points[:, 2] / apart).astype(int), minlength=num_classes)

    reach = max(1, round(BOUNDARY_IOU_DILATION * diagonal))
    in_label = contour_region(label, reach)
    in_prediction = contour_region(prediction, reach)
    in_both = in_label & in_prediction & (label == prediction)
    return BoundaryCounts(
        label_pixels=per_class(label_points),
        label_matched=per_class(label_points[label_matched]),
        prediction_pixels=per_class(predicted_points),
        prediction_matched=per_class(predicted_points[predicted_matched]),
        regions=np.stack(
            [
                np.bincount(ids, minlength=num_classes)
                for ids in (label[in_both], label[in_label], prediction[in_prediction])
            ]
        ),
        bands=confusion_by_distance(label, prediction, num_classes, distance, TRIMAP_WIDTHS),
    )


def _mean(values) -> float:
    """Mean of the finite values, NaN if there are none. The order of the values does not matter."""
    values = [value for value in values if math.isfinite(value)]
    return math.fsum(values) / len(values) if values else math.nan


class Boundaries(ImageAccumulator):
    """Boundary metrics of a set, image by image. Threads may add at the same time.

    BF matches each boundary pixel with the nearest one of its class in the other map, so several
    pixels may share a partner. BSDS's `correspondPixels`, which the SegNet authors' script calls,
    pairs pixels one to one and never scores higher; the script also counts borders on void. On 20
    CamVid masks (benchmarks/boundary.py) this BF, the paired one and the script give: 0.988, 0.954,
    0.937 for the label moved by 2 pixels; 0.940, 0.894, 0.876 for one warped by 2; 0.864, 0.757,
    0.711 for blocks of 8; 0.992, 0.626, 0.517 for one frayed by 3, because boundaries that crowd
    around the true one cost nothing here. So the script, and the paper, score 0.04 to 0.15 lower
    on the same masks, frayed ones aside.

    References: Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC
    2013, and Badrinarayanan et al., "SegNet", PAMI 2017 (BF); Cheng et al., "Boundary
    IoU", CVPR 2021; Kohli et al., "Robust higher order potentials", IJCV 2009, and Chen et al.,
    "DeepLab", PAMI 2018 (trimap).
    """

    count_image = staticmethod(image_counts)

    def __init__(self, num_classes: int):
        super().__init__(
            num_classes,
            # Per image, F1 per class; and the same, NaN for classes of the prediction alone.
            scores=[],
            regions=np.zeros((3, num_classes), np.int64),
            bands=np.zeros((len(TRIMAP_WIDTHS) + 1, num_classes, num_classes), np.int64),
        )

    def increments(self, counts: BoundaryCounts) -> dict[str, Any]:
        in_label = np.where(counts.label_pixels > 0, counts.f1, np.nan)
        return {
            "scores": [(counts.f1, in_label)],
            "regions": counts.regions,
            "bands": counts.bands,
        }

    def bf_per_image(self) -> list[float]:
        """BF of each image in the order added; NaN for a label image without a boundary."""
        return [_mean(in_label) for _, in_label in self._sums["scores"]]

    def summary(self) -> dict[str, Any]:
        """The numbers of all images added, as plain types; shares in [0, 1], NaN where undefined.

        Returns:
          `bf`: per image the mean F1 over the classes with a boundary in the label image, then the
            mean over the images that have such a class.
          `bf_per_class`: per class the mean F1 over the images whose label has its boundary.
          `bf_false_classes`: `bf` where a class with a boundary in the prediction alone counts 0,
            as in the SegNet authors' script (its comment says label alone).
          `boundary_iou`, `boundary_iou_per_class`: intersection over union of the pixels near
            their mask's contour, counted over the set; mean over the classes that occur.
          `trimap`: {width: mIoU of the labelled pixels within that many pixels of a label boundary}
          `bf_tolerance`, `boundary_iou_dilation`: shares of the image diagonal.
          `images`: number added. `protocol`: `PROTOCOL`, how the numbers are measured.
        """
        both, in_label, in_prediction = self._sums["regions"]
        union = in_label + in_prediction - both
        iou = [float(i / u) if u else math.nan for i, u in zip(both, union, strict=True)]
        bands, scores = np.cumsum(self._sums["bands"], 0), self._sums["scores"]
        return {
            "bf": _mean(self.bf_per_image()),
            "bf_per_class": [_mean(seen[c] for _, seen in scores) for c in range(self.num_classes)],
            "bf_false_classes": _mean(_mean(f1) for f1, _ in scores),
            "boundary_iou": _mean(iou),
            "boundary_iou_per_class": iou,
            "trimap": {
                width: counting.mean_iou(confusion)[0]
                for width, confusion in zip(TRIMAP_WIDTHS, bands, strict=False)
            },
            "bf_tolerance": BF_TOLERANCE,
            "boundary_iou_dilation": BOUNDARY_IOU_DILATION,
            "images": len(scores),
            "protocol": PROTOCOL,
        }
