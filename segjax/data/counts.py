"""Pixels of each class, over a label map and over a split."""

import concurrent.futures
import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int64

from segjax.data.classes import IGNORE

Result = TypeVar("Result")


class LabelCounts(NamedTuple):
    """The pixels of one label map.

    Attributes:
      size: (height, width).
      class_pixels: per class.
      ignored: pixels of the ignore label.
      unknown: ids without a label, and their pixels.
    """

    size: tuple[int, int]
    class_pixels: Int64[np.ndarray, "k"]
    ignored: int
    unknown: Mapping[int, int]

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]


def label_counts(
    size: tuple[int, int], pixels: Mapping[int, int], labels: Mapping[int, int], num_classes: int
) -> LabelCounts:
    """Sums the pixels of ids to those of labels.

    Args:
      size: (height, width) of the mask.
      pixels: of each id in it, see `ids.count_ids`.
      labels: of each known id, 0..num_classes-1 or 255.
    """
    class_pixels, ignored, unknown = np.zeros(num_classes, np.int64), 0, {}
    for id_, count in pixels.items():
        label = labels.get(id_)
        if label is None:
            unknown[id_] = count
        elif label == IGNORE:
            ignored += count
        else:
            class_pixels[label] += count
    return LabelCounts(size, class_pixels, ignored, unknown)


@dataclasses.dataclass(frozen=True)
class SplitCounts:
    """The pixels of a split, over the samples that were counted.

    Attributes:
      images: samples in the split.
      counted: samples that the numbers below are over.
      sizes: (height, width) of the labels, and how many have it.
      class_pixels: per class.
      class_images: per class, the images that it occurs in.
      present_pixels: per class, all pixels (ignored ones too) of the images that it occurs in.
      ignored_pixels: pixels of the ignore label.
      unknown_pixels: pixels of ids without a label.
      void_images: images all of whose pixels are ignored.
    """

    images: int
    counted: int
    sizes: Mapping[tuple[int, int], int]
    class_pixels: Int64[np.ndarray, "k"]
    class_images: Int64[np.ndarray, "k"]
    present_pixels: Int64[np.ndarray, "k"]
    ignored_pixels: int
    unknown_pixels: int
    void_images: int

    @property
    def void_share(self) -> float:
        """The share of ignored pixels; NaN without pixels."""
        pixels = int(self.class_pixels.sum()) + self.ignored_pixels + self.unknown_pixels
        return self.ignored_pixels / pixels if pixels else float("nan")


def split_counts(labels: Iterable[LabelCounts], images: int, num_classes: int) -> SplitCounts:
    """The sums over the label maps of a split that has `images` samples."""
    class_pixels, class_images, present = np.zeros((3, num_classes), np.int64)
    sizes, ignored, unknown, void = Counter(), 0, 0, 0
    for label in labels:
        occurs = label.class_pixels > 0
        class_pixels += label.class_pixels
        class_images += occurs
        present += np.where(occurs, label.pixels, 0)
        sizes[label.size] += 1
        ignored += label.ignored
        unknown += sum(label.unknown.values())
        void += 0 < label.ignored == label.pixels
    return SplitCounts(
        images=images,
        counted=sizes.total(),
        sizes=dict(sizes),
        class_pixels=class_pixels,
        class_images=class_images,
        present_pixels=present,
        ignored_pixels=ignored,
        unknown_pixels=unknown,
        void_images=void,
    )


def in_threads(
    examine: Callable[[int], Result], indices: Iterable[int], workers: int = 0
) -> Iterator[Result]:
    """The result for each index, in order, from threads (0 = one per core, 8 at most)."""
    workers = workers or min(8, os.cpu_count() or 1)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        yield from pool.map(examine, indices)
