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
    ids, between = np.ascontiguousarray(ids), []
    ramps = thin = clean = 0
    for rows in (ids, np.ascontiguousarray(ids.T)):
        width = rows.shape[1] - 1
        # Where a pixel differs from the next one of its row: few, and all is counted on these.
        steps = np.flatnonzero(rows[:, 1:] != rows[:, :-1])
        place, column = steps + steps // max(1, width), steps % max(1, width)
        joined = np.zeros(len(steps), bool)  # to the next step
        joined[:-1] = (np.diff(steps) == 1) & (column[1:] > 0)
        before, here, after = (rows.ravel()[place[joined] + k].astype(np.int64) for k in range(3))
        ramp = (here - before) * (after - here) > 0
        ramps += np.count_nonzero(ramp)
        thin += np.count_nonzero(before != after)
        between.append(here[ramp])
        alone = ~joined & (column > 0) & (column < width - 1)
        alone[1:] &= ~joined[:-1]
        first, second = (rows.ravel()[place[alone] + k].astype(np.int64) for k in (0, 1))
        clean += np.count_nonzero(np.abs(second - first) >= 2)
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
