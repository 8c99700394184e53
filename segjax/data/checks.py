"""Checks that stop training on bad data before anything is compiled.

JAX never complains about a class id out of range: one-hot gives zeros and indexing clamps, so a
bad mask trains into a bad model without a word. What follows finds it first.
"""

import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int64

from segjax.data.classes import IGNORE
from segjax.data.files.ids import class_ids

Result = TypeVar("Result")

# Samples that are decoded before training: enough of files to find what is wrong with many; of
# what a program draws one is like another.
_QUICK_FILES, _QUICK_DRAWN = 1000, 4


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """What `check_source` counted over `checked` of the split's `images` samples.

    Attributes:
      split: the split's name.
      images: number of samples in the split.
      checked: number of samples decoded; the counts below are over these.
      class_pixels: pixels of each class.
      present_pixels: for each class, all pixels (ignored ones too) of the images it occurs in.
      ignored_pixels: pixels of the ignore label.
      sizes: the image sizes that occur, (height, width).
    """

    split: str
    images: int
    checked: int
    class_pixels: Int64[np.ndarray, "k"]
    present_pixels: Int64[np.ndarray, "k"]
    ignored_pixels: int
    sizes: frozenset[tuple[int, int]]


def check_source(
    source,
    split: str,
    *,
    min_images: int = 1,
    limit: int | None = None,
    skip_unreadable: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Decodes a source's samples in threads, and counts pixels or reports what is wrong.

    Args:
      source: anything with `len`, `[i]` giving image, label and name, and `classes`.
      split: its name in messages.
      min_images: the fewest samples that will do: the training batch size.
      limit: check this many samples, evenly spaced, instead of all.
      skip_unreadable: leaves samples out that the source cannot give (broken files, ids outside
        the table), as long as it can give one.
      progress: called after each sample with (samples done, samples to do).

    Raises:
      ValueError: if the split has fewer than `min_images` samples; or one error for all bad
        samples (unreadable, sizes that differ, colour masks, bad ids), the first 10 of them named;
        or if of two classes only the first occurs, beside ignored pixels (a 0/255 mask).
    """
    total, num_classes = len(source), len(source.classes)
    if total < max(1, min_images):
        raise ValueError("; use ".join(too_few_images(split, total, min_images)))
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} samples to check; use 1 or more, or None for all")
    indices = np.unique(np.linspace(0, total - 1, min(limit or total, total)).round().astype(int))
    counts = np.zeros((2, num_classes + 1), np.int64)  # pixels, and pixels of images with it
    sizes, problems, unreadable = set(), [], []

    def check(index: int):
        try:
            sample = source[index]
        except (ValueError, OSError) as error:
            unreadable.append(str(error))
            return None if skip_unreadable else str(error)
        try:
            return _count_pixels(sample["image"], sample["label"], num_classes, sample["name"])
        except (ValueError, OSError) as error:
            return str(error)

    for done, result in enumerate(in_threads(check, indices.tolist()), 1):
        if isinstance(result, str):
            problems.append(result)
        elif result is not None:
            pixels, size = result
            counts[0] += pixels
            counts[1] += np.where(pixels > 0, pixels.sum(), 0)
            sizes.add(size)
        if progress is not None:
            progress(done, len(indices))
    if len(unreadable) == len(indices):
        problems = unreadable
    if problems:
        raise ValueError(_problem_list(split, problems, len(indices)))
    class_pixels, ignored = counts[0, :num_classes], int(counts[0, num_classes])
    lost = lost_foreground(split, source.classes.names, class_pixels, ignored, len(indices))
    if lost:
        raise ValueError("; use ".join(lost))
    return CheckReport(
        split=split,
        images=total,
        checked=len(indices),
        class_pixels=class_pixels,
        present_pixels=counts[1, :num_classes],
        ignored_pixels=ignored,
        sizes=frozenset(sizes),
    )


def quick_check(
    sources: Mapping[str, Any],
    limit: int | None = None,
    *,
    min_images: Mapping[str, int] | None = None,
    skip_unreadable: Collection[str] = (),
) -> dict[str, CheckReport]:
    """What must be right before training: `check_source` on each split, all problems in one error.

    Args:
      sources: by split.
      limit: samples to decode of each split, evenly spaced; by default 1000 of files and 4 of a
        source that has none.
      min_images: the fewest samples that a split needs, 1 where it is not named.
      skip_unreadable: the splits of which unreadable samples are left out.

    Raises:
      ValueError: as `check_source`, for all splits together.
    """
    reports, problems = {}, []
    for split, source in sources.items():
        few = _QUICK_FILES if has_files(source) else _QUICK_DRAWN
        least = (min_images or {}).get(split, 1)
        try:
            reports[split] = check_source(
                source,
                split,
                min_images=least,
                limit=limit or few,
                skip_unreadable=split in skip_unreadable,
            )
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return reports


def has_files(source: Any) -> bool:
    """Whether samples are read from files of their own, perhaps by a source inside this one."""
    while not hasattr(source, "image_paths") and hasattr(source, "source"):
        source = source.source
    return hasattr(source, "image_paths")


def too_few_images(split: str, images: int, needed: int) -> tuple[str, str]:
    """What to say of a split with fewer images than `needed`: what was found, what to use."""
    if images == 0:
        return f"data split {split!r} has no images", "a split that has some"
    return (
        f"data split {split!r} has {images} images but train.batch_size={needed}",
        f"train.batch_size<={images} or more images",
    )


def lost_foreground(
    split: str, names, class_pixels: Int64[np.ndarray, "k"], ignored: int, masks: int
) -> tuple[str, str] | None:
    """What to say of two-class masks of 0 and 255, all of whose foreground is ignored.

    None if they are not so. Class names and pixels, ignored pixels, and the number of masks that
    they were counted in.
    """
    if len(names) != 2 or class_pixels[1] or not ignored:
        return None
    return (
        f"data split {split!r}: no pixel of class 1 ({names[1]!r}) in {masks} masks, but "
        f"{ignored} ignored ones: 255 means ignore, so a 0/255 mask loses its foreground",
        "data.ignore_ids=() if 255 is the foreground (folder), or ids 0 and 1 "
        "(np.asarray(mask) // 255)",
    )


def in_threads(
    examine: Callable[[int], Result], indices: Iterable[int], workers: int = 0
) -> Iterator[Result]:
    """The result of each index, in order, from threads (0 = one per core, 8 at most)."""
    workers = workers or min(8, os.cpu_count() or 1)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        yield from pool.map(examine, indices)


def check_protocol(image: np.ndarray, label: np.ndarray, name: str) -> None:
    """Raises ValueError if the arrays of a sample are not what every source must give."""
    if image.dtype != np.uint8 or image.ndim != 3:
        raise ValueError(
            f"{name}: image is {image.dtype} {list(image.shape)}; "
            "use uint8 [height, width, channels]"
        )
    if label.dtype != np.uint8 or label.shape != image.shape[:2]:
        raise ValueError(
            f"{name}: label is {label.dtype} {list(label.shape)}; "
            f"use uint8 {list(image.shape[:2])}, the image's size"
        )


def _count_pixels(image, label, num_classes: int, name: str):
    """Pixels per class with the ignored last [K+1], and the size; for sources of any origin."""
    image, label = np.asarray(image), np.asarray(label)
    check_protocol(image, label, name)
    class_ids(num_classes).labels_of(label, name)
    pixels = np.bincount(label.ravel(), minlength=256)
    return np.append(pixels[:num_classes], pixels[IGNORE]), label.shape


def _problem_list(split: str, problems: list[str], checked: int, shown: int = 10) -> str:
    lines, said = [], set()
    for problem in problems[:shown]:
        what, _, remedy = problem.partition("; use ")
        lines.append(what if remedy in said else problem)  # a remedy once is enough
        said.add(remedy)
    if len(problems) > shown:
        lines.append(f"and {len(problems) - shown} more")
    heading = f"data split {split!r}: {len(problems)} of {checked} samples are bad:"
    return "\n  ".join([heading, *lines])
