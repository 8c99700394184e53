"""Run lengths of masks, as COCO and CVAT write them."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int64

MOST_PIXELS = 500_000_000  # of a bitmap


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """A mask as run lengths that alternate between background and object, background first.

    Raises:
      ValueError: if the runs do not fill the mask, or that has over 500 megapixels.
    """

    lengths: Int64[np.ndarray, "n"]
    size: tuple[int, int]  # (height, width)
    by_column: bool  # whether pixels run down the columns (COCO) or along the rows (CVAT)

    def __post_init__(self):
        lengths, pixels = self.lengths, self.size[0] * self.size[1]
        if pixels > MOST_PIXELS:
            raise ValueError(f"a bitmap of {self.size[0]}x{self.size[1]} pixels")
        if lengths.ndim != 1 or min(self.size) < 1:
            raise ValueError(f"run lengths {lengths.shape} for a mask of {self.size}")
        if ((lengths < 0) | (lengths > pixels)).any() or int(lengths.sum()) != pixels:
            raise ValueError(
                f"run lengths that do not fill a mask of {self.size[0]}x{self.size[1]}"
            )

    @property
    def pixels(self) -> int:
        """The pixels of the object."""
        return int(self.lengths[1::2].sum())

    def mask(self) -> Bool[np.ndarray, "h w"]:
        flat = np.repeat(np.arange(len(self.lengths)) % 2 == 1, self.lengths)
        if self.by_column:
            return np.ascontiguousarray(flat.reshape(self.size[::-1]).T)
        return flat.reshape(self.size)


def decompress(text: str) -> list[int]:
    """The run lengths of COCO's compressed string; ValueError if it is none.

    Each number is written in groups of 5 bits from the low end, in characters from "0"; bit 6 says
    that more follow, and the last group's bit 5 is the sign. From the fourth on a number is the
    difference to the one two before it.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"{character!r} in compressed run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("compressed run lengths that end within a number")
    return runs
