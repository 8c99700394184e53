"""Orders of the training images in which rare classes come more often.

An order is endless, and a function of (seed, position) alone, so that a run can resume.
"""

import functools
import math
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import grain
import numpy as np
from jaxtyping import Bool, Float64

from segjax.data.errors import DataError
from segjax.data.files.ids import count_ids
from segjax.data.files.json_file import need_form
from segjax.data.files.paired import PairedFiles
from segjax.data.parallel import TIMEOUT_S, in_threads
from segjax.data.source import Source, file_names
from segjax.data.statistics import cached_count

SAMPLINGS = ("uniform", "repeat_factor", "balanced")


def check(data: Mapping[str, Any]) -> None:
    """Raises DataError for an unknown `data.sampling` or a `data.repeat_threshold` out of range."""
    name, threshold = data["sampling"], data["repeat_threshold"]
    if name not in SAMPLINGS:
        raise DataError(f"data.sampling={name!r} is unknown", f"use {', '.join(SAMPLINGS)}")
    if not 0 < threshold <= 1:
        raise DataError(f"data.repeat_threshold={threshold}", "use a share of the images in (0, 1]")


def make_order(
    data: Mapping[str, Any], source: Source, seed: int, cache_dir: str | os.PathLike | None = None
) -> grain.MapDataset | None:
    """`order` for a training split, whose labels are all read, unless the sampling is uniform;
    `cache_dir` keeps the classes of each image until the data change."""
    check(data)
    if data["sampling"] == "uniform":
        return None
    cache = cache_dir and pathlib.Path(cache_dir) / "class_presence.json"
    timeout_s = data.get("timeout_s", TIMEOUT_S)
    return order(data, class_presence(source, cache, timeout_s), seed)


def order(
    data: Mapping[str, Any], presence: Bool[np.ndarray, "n k"], seed: int
) -> grain.MapDataset | None:
    """Endless indices of the training images in the order of their use; None for "uniform".

    "repeat_factor": each epoch holds image i `repeat_factors[i]` times, in random order. Fractions
    are rounded at random, anew in each epoch, such that an epoch's length stays the same.
    "balanced": each draw takes a class that occurs, then an image that shows it, both uniformly; an
    epoch has as many draws as there are images.

    Args:
      data: `config.data`, of which sampling and repeat_threshold count.
      presence: True where an image shows a class.
      seed: of all that is random, with the position.

    Raises:
      DataError: for an unknown sampling, or if no image shows a class.
    """
    check(data)
    if data["sampling"] == "uniform":
        return None
    if not np.any(presence):
        raise DataError(
            f"data.sampling={data['sampling']!r}, but no image of the split shows any class",
            "use masks with labelled pixels",
        )
    if data["sampling"] == "repeat_factor":
        factors = repeat_factors(presence, data["repeat_threshold"])
        return grain.MapDataset.source(_Repeated(factors, seed))
    images = [np.flatnonzero(shows) for shows in presence.T if shows.any()]
    return grain.MapDataset.range(sys.maxsize).map(functools.partial(_balanced, images, seed))


def repeat_factors(presence: Bool[np.ndarray, "n k"], threshold: float) -> Float64[np.ndarray, "n"]:
    """How often an epoch shows each image: the largest, over its classes, of
    max(1, sqrt(threshold / share of the images that show the class)); 1 without any class.

    Reference: Gupta et al., "LVIS", CVPR 2019 (arXiv 1908.03195v2), appendix B.2.
    """
    share = np.maximum(np.mean(presence, 0), 1 / len(presence))  # an absent class: any number
    return np.max(np.where(presence, np.maximum(1, np.sqrt(threshold / share)), 1), 1)


class _Repeated:
    """Endless epochs in which image i comes `factors[i]` times on average, by position."""

    def __init__(self, factors: np.ndarray, seed: int):
        self._seed = seed
        # An epoch is an integer number of images: each factor grows by less than 1 part in n.
        self._length = math.ceil(round(factors.sum(), 6))
        self._factors = factors * (self._length / factors.sum())
        self._epoch = -1, None

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, position: int) -> int:
        number, place = divmod(position, self._length)
        last, images = self._epoch
        if last != number:
            images = self._images_of(number)
            self._epoch = number, images  # one assignment: threads share it
        return int(images[place])

    def _images_of(self, number: int) -> np.ndarray:
        """Systematic sampling: the images lie side by side on a line in random order, each as long
        as its factor, and points at distances of 1 from a random start pick them. So each image
        comes its factor's floor or ceiling times, and an epoch is as long as the line."""
        random = np.random.default_rng((self._seed, number))
        images = random.permutation(len(self._factors))
        ends = np.cumsum(self._factors[images])
        points = random.random() + np.arange(self._length)
        picked = np.searchsorted(ends, points, side="right")
        return random.permutation(images[np.minimum(picked, len(images) - 1)])


def _balanced(images: list[np.ndarray], seed: int, position: int) -> int:
    random = np.random.default_rng((seed, position))
    return int(random.choice(images[random.integers(len(images))]))


def class_presence(
    source: Source,
    cache_file: str | os.PathLike | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Bool[np.ndarray, "n k"]:
    """True where an image of a source shows a class; cached as `class_statistics` is.

    From files only the masks are read.

    Raises:
      DataError: for a mask that cannot be read or holds other ids.
      TimeoutError: for one that is not read within `timeout_s`.
    """

    def classes_of(index: int) -> list[int]:
        if isinstance(source, PairedFiles):
            label = source.id_map.labels_of(source.ids(index), source.mask_paths[index])
        else:
            label = source[index]["label"]
        shown = source.classes.classes_of[list(count_ids(np.asarray(label)))]
        return np.flatnonzero(shown.any(0)).tolist()

    def reading(index: int) -> str:
        return " with ".join(file_names(source, index))

    def count() -> dict:
        indices = range(len(source))
        shown = in_threads(classes_of, indices, reading=reading, timeout_s=timeout_s)
        return {"classes": list(shown)}

    def check(values: Any) -> None:
        need_form(values, {"classes": [[int]]}, "it")
        other = {k for shown in values["classes"] for k in shown} - {*range(len(source.classes))}
        if other or len(values["classes"]) != len(source):
            raise ValueError("it is of another split")

    classes = cached_count(source, cache_file, count, check)["classes"]
    presence = np.zeros((len(source), len(source.classes)), bool)
    for row, shown in zip(presence, classes, strict=True):
        row[shown] = True
    return presence
