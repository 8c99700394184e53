"""Checks that stop training on bad data before anything is compiled, and class statistics.

JAX never complains about a class id out of range: one-hot gives zeros and indexing clamps, so a
bad mask trains into a bad model without a word. What follows finds it first.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Int64, Integer, UInt8

from segjax.data.classes import IGNORE

_STATISTICS_VERSION = 1  # raise it when the meaning of a cached count changes


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
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Decodes a source's samples in threads, and counts pixels or reports what is wrong.

    Args:
      source: anything with `len`, `[i]` giving image, label and name, and `classes`.
      split: its name in messages.
      min_images: the fewest samples that will do: the training batch size.
      limit: check this many samples, evenly spaced, instead of all.
      progress: called after each sample with (samples done, samples to do).

    Raises:
      ValueError: if the split has fewer than `min_images` samples; or one error for all bad
        samples (unreadable, sizes that differ, colour masks, bad ids), the first 10 of them named;
        or if of two classes only the first occurs, beside ignored pixels (a 0/255 mask).
    """
    total, num_classes = len(source), len(source.classes)
    if total == 0:
        raise ValueError(f"data split {split!r} has no images; use a split that has some")
    if total < min_images:
        raise ValueError(
            f"data split {split!r} has {total} images but train.batch_size={min_images}; "
            f"use train.batch_size<={total} or more images"
        )
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} samples to check; use 1 or more, or None for all")
    indices = np.unique(np.linspace(0, total - 1, min(limit or total, total)).round().astype(int))
    counts = np.zeros((2, num_classes + 1), np.int64)  # pixels, and pixels of images with it
    sizes, problems = set(), []

    def check(index: int):
        try:
            sample = source[index]
            return _count_pixels(sample["image"], sample["label"], num_classes, sample["name"])
        except (ValueError, OSError) as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, result in enumerate(pool.map(check, indices.tolist()), 1):
            if isinstance(result, str):
                problems.append(result)
            else:
                pixels, size = result
                counts[0] += pixels
                counts[1] += np.where(pixels > 0, pixels.sum(), 0)
                sizes.add(size)
            if progress is not None:
                progress(done, len(indices))
    if problems:
        raise ValueError(_problem_list(split, problems, len(indices)))
    class_pixels, ignored = counts[0, :num_classes], int(counts[0, num_classes])
    if num_classes == 2 and class_pixels[1] == 0 and ignored > 0:
        raise ValueError(
            f"data split {split!r}: no pixel of class 1 ({source.classes.names[1]!r}) in "
            f"{len(indices)} masks, but {ignored} ignored ones: 255 means ignore, so a 0/255 mask "
            "loses its foreground; use ids 0 and 1 (np.asarray(mask) // 255)"
        )
    return CheckReport(
        split=split,
        images=total,
        checked=len(indices),
        class_pixels=class_pixels,
        present_pixels=counts[1, :num_classes],
        ignored_pixels=ignored,
        sizes=frozenset(sizes),
    )


def labels_from_ids(
    ids: Integer[np.ndarray, "h w"], num_classes: int, ignore_ids: tuple[int, ...], file
) -> UInt8[np.ndarray, "h w"]:
    """The label map of a mask file's raw ids: 0..K-1 stay, `ignore_ids` become 255.

    Raises:
      ValueError: for any other id; the message names the file, the ids, their pixels and what
        may have gone wrong.
    """
    if ids.min() < 0 or ids.max() > 65535:
        values, pixels = np.unique(ids, return_counts=True)
    else:  # bincount needs no sorting, and this runs in every step of training
        pixels = np.bincount(ids.ravel())
        values = np.flatnonzero(pixels)
        pixels = pixels[values]
    counts = dict(zip(values.tolist(), pixels.tolist(), strict=True))
    bad = [i for i in counts if not 0 <= i < num_classes and i not in ignore_ids]
    if bad:
        found = ", ".join(f"{i} ({counts[i]} pixels)" for i in bad[:8])
        raise ValueError(
            f"{file}: bad ids {found}{', ...' * (len(bad) > 8)}; allowed are 0..{num_classes - 1} "
            f"and data.ignore_ids={tuple(ignore_ids)}; "
            f"{_remedy_for_ids(file, set(counts), bad, num_classes, ignore_ids)}"
        )
    labels = ids.copy()
    for i in ignore_ids:
        labels[ids == i] = IGNORE
    return labels.astype(np.uint8)


def median_frequency_weights(
    class_pixels: Int64[np.ndarray, "k"], present_pixels: Int64[np.ndarray, "k"]
) -> Float32[np.ndarray, "k"]:
    """Loss weights that balance classes: the median frequency over each class's frequency.

    A class's frequency is its pixels divided by all pixels, ignored ones too, of the images it
    occurs in; the median is over the classes that occur. A class that never occurs weighs 0: no
    label pixel could use its weight.

    Args:
      class_pixels: pixels of each class, as in `CheckReport`.
      present_pixels: all pixels of the images each class occurs in.

    Raises:
      ValueError: if no class occurs, or the counts contradict each other.

    Reference: Eigen and Fergus, "Predicting Depth, Surface Normals and Semantic Labels with a
    Common Multi-Scale Convolutional Architecture", ICCV 2015, section 6.3.2; used so by SegNet.
    """
    pixels, present = np.asarray(class_pixels, np.float64), np.asarray(present_pixels, np.float64)
    if pixels.shape != present.shape or pixels.ndim != 1:
        raise ValueError(
            f"class_pixels has shape {pixels.shape} and present_pixels {present.shape}; "
            "use one count per class in both"
        )
    occurs = pixels > 0
    if not occurs.any() or (present < pixels).any():
        raise ValueError(
            f"class_pixels={pixels.astype(int).tolist()} with present_pixels="
            f"{present.astype(int).tolist()}; use counts where a class occurs, each at most "
            "the pixels of the images it occurs in"
        )
    frequency = pixels[occurs] / present[occurs]
    weights = np.zeros(pixels.shape, np.float32)
    weights[occurs] = np.median(frequency) / frequency
    return weights


def class_statistics(source, cache_file: str | os.PathLike | None = None) -> dict:
    """Pixel counts of a whole source, kept in `cache_file` (JSON) until the data change.

    The cache holds a fingerprint: the classes, ignored ids, and each file's name, size and time
    of change; for a source without files, its `repr` and length (no cache if it has no `repr` of
    its own, as then nothing tells two of them apart).

    Returns:
      {"images": int, "class_pixels": int64 [K], "present_pixels": int64 [K], "ignored_pixels":
      int, "sizes": sorted list of (height, width)}; the counts are those of `CheckReport`.

    Raises:
      ValueError: for bad samples, as `check_source` does.
    """
    fingerprint = _fingerprint(source)
    cache = None if cache_file is None or fingerprint is None else pathlib.Path(cache_file)
    kept = _read_cache(cache, fingerprint) if cache is not None else None
    if kept is None:
        report = check_source(source, getattr(source, "split", type(source).__name__))
        kept = {
            "images": report.images,
            "class_pixels": report.class_pixels.tolist(),
            "present_pixels": report.present_pixels.tolist(),
            "ignored_pixels": report.ignored_pixels,
            "sizes": sorted(report.sizes),
        }
        if cache is not None:
            cache.parent.mkdir(parents=True, exist_ok=True)
            # Written beside and moved, so that a job that is killed leaves no half file.
            partial = cache.with_name(f"{cache.name}.{os.getpid()}.part")
            partial.write_text(json.dumps({"fingerprint": fingerprint, "statistics": kept}))
            partial.replace(cache)
    return {
        **kept,
        "class_pixels": np.array(kept["class_pixels"], np.int64),
        "present_pixels": np.array(kept["present_pixels"], np.int64),
        "sizes": [tuple(size) for size in kept["sizes"]],
    }


def _count_pixels(image, label, num_classes: int, name: str):
    """Pixels per class with the ignored last [K+1], and the size; for sources of any origin."""
    image, label = np.asarray(image), np.asarray(label)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"{name}: image is {image.dtype} {list(image.shape)}; use uint8 [height, width, 3]"
        )
    if label.dtype != np.uint8 or label.shape != image.shape[:2]:
        raise ValueError(
            f"{name}: label is {label.dtype} {list(label.shape)}; "
            f"use uint8 {list(image.shape[:2])}, the image's size"
        )
    labels_from_ids(label, num_classes, (IGNORE,), name)
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


def _remedy_for_ids(file, ids: set[int], bad: list[int], num_classes: int, ignore_ids) -> str:
    if pathlib.Path(file).suffix.lower() in (".jpg", ".jpeg"):
        return "use PNG for masks: JPEG compression changes ids"
    more = tuple(sorted({*ignore_ids, *bad}))
    if ids <= {0, 255}:
        foreground = "use ids 0 and 1 (np.asarray(mask) // 255) if 255 is the foreground"
        return f"{foreground}, data.ignore_ids={more} if it is void"
    if bad == [num_classes] and min(ids) == 1:
        return f"use ids that count from 0: these run from 1 to {num_classes}, so subtract 1"
    if bad == [num_classes]:
        return f"use data.ignore_ids={more} if {bad[0]} is void; if ids count from 1, subtract 1"
    if len(bad) == 1:
        return f"use data.ignore_ids={more} if {bad[0]} is void, else ids in 0..{num_classes - 1}"
    return "use a class list (data.classes) with every id, and data.ignore_ids for void ones"


def _fingerprint(source) -> str | None:
    paths = [*getattr(source, "image_paths", ()), *getattr(source, "mask_paths", ())]
    if not paths and type(source).__repr__ is object.__repr__:
        return None
    facts = [_STATISTICS_VERSION, source.classes.names, getattr(source, "ignore_ids", ())]
    facts += [] if paths else [repr(source)]
    facts += [len(source)]
    for path in map(pathlib.Path, paths):
        if not path.is_file():
            return None  # the count itself will say which file is gone
        facts.append((*path.parts[-3:], path.stat().st_size, path.stat().st_mtime_ns))
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _read_cache(cache: pathlib.Path, fingerprint: str) -> dict | None:
    try:
        kept = json.loads(cache.read_text())
        return kept["statistics"] if kept["fingerprint"] == fingerprint else None
    except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: count again
        return None
