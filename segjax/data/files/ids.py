"""From the ids in a mask file to training labels.

Inside segjax a label is 0..K-1, or 255 = ignore. What a data set's files hold is its own affair:
an `IdMap` says which label each id becomes, and refuses every other id, because JAX never
complains about one (one-hot gives zeros, indexing clamps).
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Integer, UInt8

from segjax.data.classes import IGNORE


@dataclasses.dataclass(frozen=True)
class IdMap:
    """Which label each id of a data set's masks becomes.

    Attributes:
      labels: id to 0..K-1 or 255 (ignore).
      allowed: in words, which ids there may be.
      remedy: what to do about another id; "" = guess from the ids and the file.
    """

    labels: Mapping[int, int]
    allowed: str
    remedy: str = ""

    def labels_of(self, ids: Integer[np.ndarray, "h w"], file) -> UInt8[np.ndarray, "h w"]:
        """The label map of a mask's ids.

        Raises:
          ValueError: for an id without a label; the message names the file, the ids, their pixels
            and what may have gone wrong.
        """
        if ids.min() >= 0 and ids.max() < 65536:  # a table: this runs in every step of training
            table = np.full(256 if ids.dtype == np.uint8 else 65536, -1, np.int16)
            for id_, label in self.labels.items():
                if 0 <= id_ < len(table):
                    table[id_] = label
            labels = table[ids]
            if labels.min() >= 0:
                return labels.astype(np.uint8)
        counts = _count(ids)
        bad = [i for i in counts if i not in self.labels]
        if bad:
            found = ", ".join(f"{i} ({counts[i]} pixels)" for i in bad[:8])
            raise ValueError(
                f"{file}: bad ids {found}{', ...' * (len(bad) > 8)}; allowed are {self.allowed}; "
                f"{self.remedy or _guess(file, set(counts), bad, self.labels)}"
            )
        values, places = np.unique(ids, return_inverse=True)
        labels = np.array([self.labels[int(v)] for v in values], np.uint8)
        return labels[places].reshape(ids.shape)

    def unknown(self, ids: Integer[np.ndarray, "h w"]) -> dict[int, int]:
        """The ids that have no label, with their pixels."""
        return {i: n for i, n in _count(ids).items() if i not in self.labels}


def class_ids(num_classes: int, ignore_ids: Iterable[int] = (IGNORE,)) -> IdMap:
    """The map of masks that hold class ids: 0..K-1 stay, `ignore_ids` become 255.

    A class id among `ignore_ids` is ignored too.
    """
    try:
        ignore_ids = tuple(int(i) for i in ignore_ids)
    except ValueError as error:
        raise ValueError(
            f"data.ignore_ids={ignore_ids}; use whole numbers, such as (0, 255), or () for none"
        ) from error
    return IdMap(
        {k: k for k in range(num_classes)} | dict.fromkeys(ignore_ids, IGNORE),
        f"0..{num_classes - 1} and data.ignore_ids={ignore_ids}",
    )


def _count(ids: np.ndarray) -> dict[int, int]:
    values, pixels = np.unique(ids, return_counts=True)
    return dict(zip(values.tolist(), pixels.tolist(), strict=True))


def _guess(file, ids: set[int], bad: list[int], labels: Mapping[int, int]) -> str:
    if pathlib.Path(file).suffix.lower() in (".jpg", ".jpeg"):
        return "use PNG for masks: JPEG compression changes ids"
    num_classes = next(i for i in itertools.count() if i not in labels)  # of the ids, not labels
    more = tuple(sorted({*(i for i, label in labels.items() if label == IGNORE), *bad}))
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
