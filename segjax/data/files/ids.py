"""From the ids in a mask file to training labels.

Inside segjax a label is 0..K-1, or 255 = ignore; each data set's files have ids of their own. An
`IdMap` gives the label of each id and refuses every other id, because JAX does not complain about
one (one-hot gives zeros, indexing clamps).
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from segjax.data.class_lists import ClassList
from segjax.data.classes import IGNORE, in_words
from segjax.data.errors import DataError
from segjax.data.files.mask_files import LOSSY_SUFFIXES

_MANY = 32  # more ids that are no class are no ids


@dataclasses.dataclass(frozen=True)
class IdMap:
    """The label of each id in a data set's masks."""

    labels: Mapping[int, int]  # id to 0..K-1 or 255 (ignore)
    allowed: str  # the ids that may occur, in words
    remedy: str = ""  # what to do about another id; "" = guess from the ids and the file

    def labels_of(self, ids: Integer[np.ndarray, "h w"], file: Any) -> UInt8[np.ndarray, "h w"]:
        """The label map of a mask's ids; DataError for an id without a label, which names the file,
        the ids, their pixels and what may have gone wrong."""
        if ids.min() >= 0 and ids.max() < 65536:  # a table: this runs in every step of training
            table = np.full(256 if ids.dtype == np.uint8 else 65536, -1, np.int16)
            for id_, label in self.labels.items():
                if 0 <= id_ < len(table):
                    table[id_] = label
            labels = table[ids]
            if labels.min() >= 0:
                return labels.astype(np.uint8)
        counts = count_ids(ids)
        if not counts.keys() <= self.labels.keys():
            raise self.unknown_ids(counts, file)
        values, places = np.unique(ids, return_inverse=True)
        labels = np.array([self.labels[int(v)] for v in values], np.uint8)
        return labels[places].reshape(ids.shape)

    def unknown_ids(self, counts: Mapping[int, int], file: Any) -> DataError:
        """The error for a file with these pixels of each id, some without a label."""
        bad = [id_ for id_ in counts if id_ not in self.labels]
        listed = ", ".join(f"{id_} ({counts[id_]} pixels)" for id_ in bad[:8])
        return DataError(
            f"{file}: bad ids {listed}{', ...' * (len(bad) > 8)}; allowed are {self.allowed}",
            self.remedy or _guess(file, counts, bad, self.labels),
        )


def class_ids(num_classes: int, ignore_ids: Iterable[Any] = (IGNORE,)) -> IdMap:
    """The map of masks that hold class ids: 0..K-1 stay, `ignore_ids` become 255.

    A class id among `ignore_ids` is ignored too.
    """
    try:
        ignore_ids = tuple(int(i) for i in ignore_ids)
    except ValueError as error:
        raise DataError(
            f"data.ignore_ids={ignore_ids}", "use whole numbers, such as (0, 255), or () for none"
        ) from error
    return IdMap(
        {k: k for k in range(num_classes)} | dict.fromkeys(ignore_ids, IGNORE),
        f"0..{num_classes - 1} and data.ignore_ids={ignore_ids}",
    )


def listed_ids(listed: ClassList, ignore_ids: Iterable[Any] = (IGNORE,)) -> IdMap:
    """The map of masks that hold the ids of a class list; `ignore_ids` become 255.

    Raises:
      DataError: for `ignore_ids` that are no numbers, or 255 both among them and of a class.
    """
    id_map = class_ids(len(listed.ids), ignore_ids)
    if listed.ids == listed.labels:
        return id_map
    ignored = [id_ for id_, label in id_map.labels.items() if label == IGNORE]
    labels = dict(zip(listed.ids, listed.labels, strict=True))
    if labels.get(IGNORE, IGNORE) != IGNORE and IGNORE in ignored:
        name = listed.names[listed.ids.index(IGNORE)]
        raise DataError(
            f"data.classes has the class {name!r} of id {IGNORE}, which data.ignore_ids="
            f"{tuple(ignored)} ignores",
            'use data.ignore_ids="()" if it is a class; if it is void, `ignore` at the end of its '
            "line",
        )
    given = f"{in_words(labels)} of data.classes and data.ignore_ids={tuple(ignored)}"
    return IdMap(labels | dict.fromkeys(ignored, IGNORE), given)


def count_ids(ids: Integer[np.ndarray, "*n"]) -> dict[int, int]:
    """The ids that occur in a mask, in ascending order, and their pixels."""
    if ids.size and ids.min() >= 0 and ids.max() < 65536:
        pixels = np.bincount(ids.ravel())
        return {int(i): int(pixels[i]) for i in np.flatnonzero(pixels)}
    values, pixels = np.unique(ids, return_counts=True)
    return dict(zip(values.tolist(), pixels.tolist(), strict=True))


def _guess(
    file: Any, counts: Mapping[int, int], bad: Sequence[int], labels: Mapping[int, int]
) -> str:
    """The most probable fault of a mask with these pixels of each id, some of which are `bad`."""
    ids = set(counts)
    num_classes = next(i for i in itertools.count() if i not in labels)  # counts ids, not labels
    binary = {i for i, label in labels.items() if label != IGNORE} == {0, 1}
    more = tuple(sorted({*(i for i, label in labels.items() if label == IGNORE), *bad}))
    middle = _middle(counts) if binary else 0
    if middle and len(ids) > 3:
        return (
            f"use data.mask_threshold={middle} if these are two values with blurred or compressed "
            "edges: values at or above it are foreground"
        )
    if pathlib.Path(str(file)).suffix.lower() in LOSSY_SUFFIXES:
        return "use PNG for masks: JPEG compression changes ids"
    if num_classes == 1 and ids <= {0, 1, 255}:
        return (
            "name both classes, data.classes=background,NAME; or use data.mask_format=bits with "
            "model.head=sigmoid for one class"
        )
    if ids <= {0, 255}:
        foreground = "use ids 0 and 1 (np.asarray(mask) // 255) if 255 is the foreground"
        return f"{foreground}, data.ignore_ids={more} if it is void"
    ignored = f"use data.ignore_ids={more} if {bad[0]} is void"
    if bad == [num_classes] and min(ids) == 1:
        return (
            f"use ids that count from 0: these run from 1 to {num_classes}, so subtract 1; or a "
            "class list (data.classes=FILE) with lines `1 NAME`, `2 NAME`, ..."
        )
    if bad == [num_classes]:
        return f"{ignored}; if ids count from 1, subtract 1"
    by_thousand = {i // 1000 for i in bad} <= labels.keys()
    if min(bad) >= 1000 and by_thousand and any(i % 1000 for i in bad):
        return "use np.asarray(mask) // 1000 if an id is 1000 times the class plus an instance"
    if len(bad) == 1 and (1 in ids or not middle):
        return f"{ignored}, else ids in 0..{num_classes - 1}"
    if len(ids) > _MANY:
        return (
            "use masks of class ids: so many values are a photo, or blends by resizing (resize "
            "masks by nearest neighbour)"
        )
    lines = ", ".join(f"`{i} NAME`" for i in sorted(ids))
    threshold = f"data.mask_threshold={middle} for a foreground from there up, or " * bool(middle)
    return (
        f"use {threshold}a class list (data.classes=FILE) with a line for each value: {lines} "
        "(ending with `ignore` if it is void)"
    )


def _middle(counts: Mapping[int, int]) -> int:
    """A threshold between two values that most pixels are near, the lower one 0; 0 for masks that
    do not look like that."""
    high = max(counts)
    if min(counts) < 0 or high < 64:
        return 0
    full = 255 if high < 256 else 65535 if high >= 2**15 else high
    near = sum(n for id_, n in counts.items() if id_ <= high / 8 or id_ >= high * 7 / 8)
    return (full + 1) // 2 if near >= 0.6 * sum(counts.values()) else 0
