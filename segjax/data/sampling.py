"""Which training image comes when: rare classes more often than their images alone would show.

An order is endless and a function of (seed, position) alone, as grain's resume wants it.
"""

import concurrent.futures
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

from segjax.data.files.paired import PairedFiles
from segjax.data.statistics import kept_count

SAMPLINGS = ("uniform", "repeat_factor", "balanced")


def check(data: Mapping[str, Any]) -> None:
    """Raises ValueError for a `data.sampling` or `data.repeat_threshold` that is not known."""
    if data["sampling"] not in SAMPLINGS:
        raise ValueError(
            f"data.sampling={data['sampling']!r} is unknown; use {', '.join(SAMPLINGS)}"
        )
    if not 0 < data["repeat_threshold"] <= 1:
        raise ValueError(
            f"data.repeat_threshold={data['repeat_threshold']}; use a share of the images in (0, 1]"
        )


def make_order(
    data: Mapping[str, Any], source: Any, seed: int, cache_dir: str | os.PathLike | None = None
) -> grain.MapDataset | None:
    """The order that `config.data` asks for; see `order`.

    Args:
      data: `config.data`.
      source: of the training split; read through once, unless the sampling is uniform.
      cache_dir: where the classes of each image are kept until the data change.
    """
    check(data)
    if data["sampling"] == "uniform":
        return None
    cache = cache_dir and pathlib.Path(cache_dir) / "class_presence.json"
    return order(data, class_presence(source, cache), seed)


def order(
    data: Mapping[str, Any], presence: Bool[np.ndarray, "n k"], seed: int
) -> grain.MapDataset | None:
    """Indices of the training images in the order of their use, without end; None for "uniform".

    "repeat_factor": an epoch holds each image as often as `repeat_factors` says, fractions rounded
    at random, anew in each epoch, so that an epoch's length stays the same; in random order.
    "balanced": each time a class that occurs is drawn, then an image that shows it, both uniformly;
    an epoch has as many draws as there are images.

    Args:
      data: `config.data`: sampling and repeat_threshold.
      presence: which image shows which class.
      seed: everything random comes from it and the position.

    Raises:
      ValueError: for an unknown sampling, or if no image shows a class.
    """
    check(data)
    if data["sampling"] == "uniform":
        return None
    if not np.any(presence):
        raise ValueError(
            f"data.sampling={data['sampling']!r}, but no image of the split shows any class; "
            "use masks with labelled pixels"
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
    share = np.maximum(np.mean(presence, 0), 1 / len(presence))  # of an absent class: of no matter
    return np.max(np.where(presence, np.maximum(1, np.sqrt(threshold / share)), 1), 1)


class _Repeated:
    """Random access to endless epochs in which image i comes `factors[i]` times on average."""

    def __init__(self, factors: np.ndarray, seed: int):
        self._seed = seed
        # A whole number of images makes an epoch: each factor grows by less than 1 part in n.
        self._length = math.ceil(round(factors.sum(), 6))
        self._factors = factors * (self._length / factors.sum())
        self._epoch = -1, None

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, position: int) -> int:
        number, place = divmod(position, self._length)
        known, images = self._epoch
        if known != number:
            images = self._images_of(number)
            self._epoch = number, images  # one assignment: threads share it
        return int(images[place])

    def _images_of(self, number: int) -> np.ndarray:
        """Systematic sampling: the images, in random order, lie side by side on a line, each as
        long as its factor, and points at distances of 1 from a random start pick them. So each
        comes its factor's floor or ceiling times, and all together as often as the line is long."""
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
    source: Any, cache_file: str | os.PathLike | None = None
) -> Bool[np.ndarray, "n k"]:
    """Which image of a source shows which class, kept in `cache_file` as `class_statistics` is.

    Of files only the masks are read.

    Raises:
      ValueError: for a mask that cannot be read or holds other ids.
    """
    num_classes = len(source.classes)

    def classes_of(index: int) -> list[int]:
        if isinstance(source, PairedFiles):
            label = source.id_map.labels_of(source.ids(index), source.mask_paths[index])
        else:
            label = source[index]["label"]
        pixels = np.bincount(np.ravel(label), minlength=num_classes)[:num_classes]
        return np.flatnonzero(pixels).tolist()

    def count() -> dict:
        with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return {"classes": list(pool.map(classes_of, range(len(source))))}

    presence = np.zeros((len(source), num_classes), bool)
    for row, shown in zip(presence, kept_count(source, cache_file, count)["classes"], strict=True):
        row[shown] = True
    return presence
