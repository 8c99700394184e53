"""Boundary metrics of label maps: the SegNet paper's BF, Boundary IoU, and the trimap curve.

A boundary pixel of a class, here and in `metrics.by_object`, has the label of that class and at
least one of its four neighbours has the label of another class. So a boundary is one pixel wide on
each side, each pixel bounds one class only, and neither the image's edge nor an ignored pixel makes
a boundary. Where the label is ignored the prediction is ignored too: boundaries of the prediction
there, and against such pixels, do not exist.
"""

import dataclasses
import math
import threading

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage, spatial

from segjax.data.classes import IGNORE
from segjax.metrics import confusion as counting

BF_TOLERANCE = 0.0075  # of the image diagonal: SegNet paper
BOUNDARY_IOU_DILATION = 0.02  # of the image diagonal: Cheng et al.
TRIMAP_WIDTHS = (1, 2, 3, 5, 10, 20)
_ADDING = threading.Lock()  # no part of a `Boundaries`, which goes from process to process

PROTOCOL = (
    "boundary pixel: labelled, with a labelled 4-neighbour of another class; ignored pixels and "
    "the image edge make no boundary. BF: F1 of boundary pixels within 0.75 % of the diagonal "
    "(nearest pixel, many to one), mean over the classes with a boundary in the label image, then "
    "over images. Boundary IoU: pixels within 2 % of the diagonal of their mask's contour or the "
    "image edge, summed over the set. Trimap: mIoU of the pixels within so many pixels of a label "
    "boundary"
)


def check_maps(
    label: UInt8[np.ndarray, "h w"], prediction: UInt8[np.ndarray, "h w"], num_classes: int
) -> tuple[UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]:
    """Both maps as uint8, with `IGNORE` in both wherever the label is no class id.

    Raises:
      ValueError: for maps that are not two-dimensional and alike, for more than 255 classes, or a
        predicted id that is no class on a labelled pixel.
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

    It is 0 on the boundary pixels of both sides, so `distance < w` is a band of w pixels on each
    side of a straight boundary. Distances run across ignored pixels. Infinite everywhere where
    there is no boundary. The costliest part of an image: compute it once for boundaries and strata.

    Args:
      label: ids, `IGNORE` where ignored.
    """
    boundary = boundary_pixels(label)
    if not boundary.any():
        return np.full(label.shape, np.inf)
    return ndimage.distance_transform_edt(~boundary)


def confusion_by_distance(
    label: UInt8[np.ndarray, "h w"],
    prediction: UInt8[np.ndarray, "h w"],
    num_classes: int,
    distance: Float[np.ndarray, "h w"],
    edges: tuple[int, ...],
) -> Int[np.ndarray, "b k k"]:
    """Confusion matrices by distance: [0, edges[0]), [edges[0], edges[1]), ..., and the rest.

    Args:
      label: ids 0..k-1, `IGNORE` where ignored; those pixels are not counted.
      prediction: ids 0..k-1 wherever the label has one.
      distance: of each pixel, as from `distance_to_boundary`.
      edges: rising; there is one more band than edges.
    """
    labelled = label != IGNORE
    band = np.searchsorted(edges, distance[labelled], side="right")
    pair = label[labelled].astype(np.int64) * num_classes + prediction[labelled]
    shape = (len(edges) + 1, num_classes, num_classes)
    return np.bincount(band * num_classes**2 + pair, minlength=math.prod(shape)).reshape(shape)


def contour_region(label: UInt8[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    """Pixels near the contour of their own class: for all classes at once.

    A pixel is in it when a labelled pixel of another class, or the outside of the image, lies at
    most `reach` rows and `reach` columns away: what `reach` erosions of each class's mask with a
    3x3 square remove. Ignored pixels are never in it.
    """
    labelled = label != IGNORE
    own = label.astype(np.int16)
    # Ignored pixels must win neither comparison.
    highest = ndimage.maximum_filter(np.where(labelled, own, -1), 2 * reach + 1, mode="nearest")
    lowest = ndimage.minimum_filter(np.where(labelled, own, 256), 2 * reach + 1, mode="nearest")
    near = (highest != own) | (lowest != own)
    near[:reach] = near[-reach:] = True
    near[:, :reach] = near[:, -reach:] = True
    return near & labelled


@dataclasses.dataclass(frozen=True)
class BoundaryCounts:
    """What one image adds to `Boundaries`; made by `image_counts`.

    Attributes:
      label_pixels, label_matched: per class, boundary pixels of the label, and those with a
        boundary pixel of the same class in the prediction within the tolerance.
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
    """Which points have one of the others within the tolerance."""
    if not len(points) or not len(others):
        return np.zeros(len(points), bool)
    # The tree looks for neighbours nearer than the bound; one at the tolerance is a match.
    bound = tolerance + 0.5
    # Neighbouring pixels are neighbouring points: building without medians is quicker.
    tree = spatial.cKDTree(others, balanced_tree=False, compact_nodes=False)
    distance, _ = tree.query(points, distance_upper_bound=bound)
    return distance <= tolerance


def image_counts(
    label: UInt8[np.ndarray, "h w"],
    prediction: UInt8[np.ndarray, "h w"],
    num_classes: int,
    distance: Float[np.ndarray, "h w"] | None = None,
) -> BoundaryCounts:
    """The boundary counts of one image: a pure function, for thread or process pools.

    Args:
      label: ids 0..k-1; any other id (255 = ignore) does not count.
      prediction: ids 0..k-1 wherever the label has one.
      num_classes: k.
      distance: `distance_to_boundary(label)` where the caller has it already.

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
    wanted, found = _points(label, apart), _points(prediction, apart)

    def per_class(points):
        return np.bincount(np.rint(points[:, 2] / apart).astype(int), minlength=num_classes)

    reach = max(1, round(BOUNDARY_IOU_DILATION * diagonal))
    in_label = contour_region(label, reach)
    in_prediction = contour_region(prediction, reach)
    in_both = in_label & in_prediction & (label == prediction)
    return BoundaryCounts(
        label_pixels=per_class(wanted),
        label_matched=per_class(wanted[_matched(wanted, found, tolerance)]),
        prediction_pixels=per_class(found),
        prediction_matched=per_class(found[_matched(found, wanted, tolerance)]),
        regions=np.stack(
            [
                np.bincount(ids, minlength=num_classes)
                for ids in (label[in_both], label[in_label], prediction[in_prediction])
            ]
        ),
        bands=confusion_by_distance(label, prediction, num_classes, distance, TRIMAP_WIDTHS),
    )


def _mean(values) -> float:
    """Mean of the finite values, the same in any order; NaN of none."""
    values = [value for value in values if math.isfinite(value)]
    return math.fsum(values) / len(values) if values else math.nan


class Boundaries:
    """Boundary metrics of a set, image by image. Threads may add at the same time.

    BF matches each boundary pixel with the nearest one of its class in the other map, so several
    may share a partner. BSDS's `correspondPixels`, which the SegNet authors' script calls, pairs
    one to one and never scores higher; the script also counts borders on void. BF here, paired,
    and by the script, on 20 CamVid masks (benchmarks/boundary.py): 0.988, 0.954, 0.937 for the
    label moved by 2 pixels; 0.940, 0.894, 0.876 warped by 2; 0.864, 0.757, 0.711 in blocks of 8;
    0.992, 0.626, 0.517 frayed by 3, since boundaries that crowd around the true one cost nothing
    here. For the same masks the script, and so the paper, is lower: by 0.04 to 0.15, frayed ones
    aside.

    References: Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC
    2013, and Badrinarayanan et al., "SegNet", PAMI 2017 (BF); Cheng et al., "Boundary
    IoU", CVPR 2021; Kohli et al., "Robust higher order potentials", IJCV 2009, and Chen et al.,
    "DeepLab", PAMI 2018 (trimap).
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        # Per image, F1 per class; and the same, NaN for classes of the prediction alone.
        self._scores: list[tuple[np.ndarray, np.ndarray]] = []
        self._regions = np.zeros((3, num_classes), np.int64)
        self._bands = np.zeros((len(TRIMAP_WIDTHS) + 1, num_classes, num_classes), np.int64)

    def add(
        self,
        label: UInt8[np.ndarray, "h w"],
        prediction: UInt8[np.ndarray, "h w"],
        distance: Float[np.ndarray, "h w"] | None = None,
    ) -> None:
        """Adds one image; see `image_counts` for the arguments and what raises."""
        self.add_counts(image_counts(label, prediction, self.num_classes, distance))

    def add_counts(self, counts: BoundaryCounts) -> None:
        """Adds one image whose counts were made elsewhere."""
        in_label = np.where(counts.label_pixels > 0, counts.f1, np.nan)
        with _ADDING:
            self._scores.append((counts.f1, in_label))
            self._regions += counts.regions
            self._bands += counts.bands

    def merge(self, other: "Boundaries") -> None:
        """Adds the images of another part of the set, after those that are here."""
        with _ADDING:
            self._scores += other._scores
            self._regions += other._regions
            self._bands += other._bands

    def bf_per_image(self) -> list[float]:
        """BF of each image in the order added; NaN for a label image without a boundary."""
        return [_mean(in_label) for _, in_label in self._scores]

    def summary(self) -> dict[str, object]:
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
          `images`: number added. `protocol`: the rules in words.
        """
        both, in_label, in_prediction = self._regions
        union = in_label + in_prediction - both
        iou = [float(i / u) if u else math.nan for i, u in zip(both, union, strict=True)]
        bands, scores = np.cumsum(self._bands, 0), self._scores
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
