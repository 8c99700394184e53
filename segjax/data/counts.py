"""Pixels of each class, over a label map and over a split."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from segjax.data.classes import IGNORE, ClassTable


class LabelCounts(NamedTuple):
    """The pixels of one label map: its (height, width), the pixels per class and ignored ones, and
    the ids without a label with their pixels."""

    size: tuple[int, int]
    class_pixels: Int64[np.ndarray, "k"]
    ignored: int
    unknown: Mapping[int, int]

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]


def label_counts(
    size: tuple[int, int],
    pixels: Mapping[int, int],
    labels: Mapping[int, int],
    classes: ClassTable,
) -> LabelCounts:
    """Sums the pixels of ids to those of labels.

    Args:
      size: (height, width) of the mask.
      pixels: of each id in it, see `ids.count_ids`.
      labels: of each known id, one of `classes.values` or 255.
      classes: the K classes.
    """
    by_label = np.zeros(IGNORE + 1, np.int64)
    for id_, label in labels.items():
        by_label[label] += pixels.get(id_, 0)
    unknown = {id_: count for id_, count in pixels.items() if id_ not in labels}
    return LabelCounts(size, by_label @ classes.classes_of, int(by_label[IGNORE]), unknown)


@dataclasses.dataclass(frozen=True)
class SplitCounts:
    """The pixels of a split, over the samples that were counted."""

    images: int  # samples in the split
    counted: int  # samples that the numbers below are over
    sizes: Mapping[tuple[int, int], int]  # (height, width) of the labels, and how many have it
    class_pixels: Int64[np.ndarray, "k"]  # per class
    class_images: Int64[np.ndarray, "k"]  # per class, the images that it occurs in
    # Per class, all pixels (ignored ones too) of the images that it occurs in
    present_pixels: Int64[np.ndarray, "k"]
    ignored_pixels: int  # pixels of the ignore label
    unknown_pixels: int  # pixels of ids without a label
    void_images: int  # images all of whose pixels are ignored
    pixels: int  # all

    @property
    def void_share(self) -> float:
        """The share of ignored pixels; NaN without pixels."""
        return self.ignored_pixels / self.pixels if self.pixels else float("nan")

    @property
    def labelled_pixels(self) -> int:
        """Pixels that are neither ignored nor of an unknown id. Each has one class, or any number
        of them with `ClassTable.multilabel`."""
        return self.pixels - self.ignored_pixels - self.unknown_pixels


def split_counts(labels: Iterable[LabelCounts], images: int, num_classes: int) -> SplitCounts:
    """The sums over the label maps of a split that has `images` samples."""
    labels = list(labels)
    # [labels, K], which may hold no label.
    class_pixels = np.reshape([label.class_pixels for label in labels], (-1, num_classes))
    class_pixels = class_pixels.astype(np.int64)
    pixels = np.array([label.pixels for label in labels], np.int64)
    return SplitCounts(
        images=images,
        counted=len(labels),
        sizes=dict(Counter(label.size for label in labels)),
        class_pixels=class_pixels.sum(0),
        class_images=(class_pixels > 0).sum(0),
        present_pixels=pixels @ (class_pixels > 0),
        ignored_pixels=sum(label.ignored for label in labels),
        unknown_pixels=sum(sum(label.unknown.values()) for label in labels),
        void_images=sum(0 < label.ignored == label.pixels for label in labels),
        pixels=int(pixels.sum()),
    )
