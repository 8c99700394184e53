"""Signs that a mask was resized with interpolation.

Between id 1 and id 8 a linear filter leaves 3 or 6: ids of other classes, which pass every check of
ids. Ids are names, so in an honest mask the id on a boundary is as likely to lie outside its
neighbours' range as inside, and most boundaries have no pixel of their own at all.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

# Measured on CamVid (701 masks) and 80 streets, at 1/4 to 4 times their size. Resized by nearest
# neighbour, no mask has more than 0.23 of its steps as ramps. Resized with PIL's BOX, BILINEAR,
# BICUBIC or LANCZOS, the data sets have 0.30 to 1.00; there, 0.56 or more of the thin pixels lie
# between their neighbours, and 0.46 or less in the honest ones.
_RAMP_SHARE, _BETWEEN_SHARE = 0.25, 0.5
_FEWEST = 30  # ramps; fewer prove nothing


class Transitions(NamedTuple):
    """The changes of the ids of a mask along its rows and columns, in pixels."""

    ramps: int  # pixels whose id lies strictly between those of their two neighbours
    thin: int  # pixels that differ from both neighbours, which differ from each other
    clean: int  # steps of 2 or more ids, between two pixels of one id and two of another
    ramp_ids: Mapping[int, int]  # id to its ramps


NO_TRANSITIONS = Transitions(0, 0, 0, {})


def transitions(ids: Integer[np.ndarray, "h w"]) -> Transitions:
    """Counts the transitions of a mask of raw ids (or labels)."""
    ids = ids.astype(np.int16 if ids.dtype.itemsize == 1 else np.int32)
    ramps = thin = clean = 0
    between = []
    for rows in (ids, np.ascontiguousarray(ids.T)):
        step = np.diff(rows, axis=1)
        first, second = step[:, :-1], step[:, 1:]
        changed = (first != 0) & (second != 0)
        places = np.nonzero(changed)  # few: the rest is counted on these alone
        before, after = first[places].astype(np.int64), second[places].astype(np.int64)
        ramp = before * after > 0
        ramps += np.count_nonzero(ramp)
        thin += np.count_nonzero(before + after)
        between.append(rows[:, 1:-1][places][ramp])
        flat = (step[:, :-2] == 0) & (step[:, 2:] == 0)
        clean += np.count_nonzero(flat & (np.abs(step[:, 1:-1]) >= 2))
    values, counts = np.unique(np.concatenate(between), return_counts=True)
    ramp_ids = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return Transitions(int(ramps), int(thin), int(clean), ramp_ids)


def total(parts: Iterable[Transitions]) -> Transitions:
    """The transitions of several masks."""
    ramps = thin = clean = 0
    ids = Counter()
    for part in parts:
        ramps, thin, clean = ramps + part.ramps, thin + part.thin, clean + part.clean
        ids.update(part.ramp_ids)
    return Transitions(ramps, thin, clean, dict(ids))


def looks_interpolated(changes: Transitions) -> bool:
    """Whether the boundaries are ramps of ids, as only interpolation draws them."""
    return (
        changes.ramps >= _FEWEST
        and changes.ramps > _RAMP_SHARE * (changes.ramps + changes.clean)
        and changes.ramps > _BETWEEN_SHARE * changes.thin
    )
