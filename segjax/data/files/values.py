"""The values of image files as 8-bit pixels: by `data.value_range`, or by the type's own range."""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from segjax.data.errors import DataError

AUTO = "auto"  # data.value_range: found over the training split
# The highest value of 16-bit files that look like files of 14 bits or fewer.
SHALLOW = 2**14 - 1
_DEPTHS = (8, 10, 12, 14, 16, 24, 32)  # bits of sensors
_BLOCK = 256  # rows that are converted at a time, or the arithmetic would need 8 bytes a value

Range = tuple[float, float]


def parse_range(option: Any, channels: int) -> tuple[Range, ...] | str:
    """`data.value_range` as a pair for all channels or a pair each; (), or `AUTO`.

    Raises:
      DataError: naming the option, if it is none of these.
    """
    if isinstance(option, str) or tuple(option) == (AUTO,):
        option = (option,) if isinstance(option, str) else tuple(option)
        if option == (AUTO,):
            return AUTO
    remedy = (
        "use (low, high), the values that become 0 and 255, such as (0,4095); a pair for each "
        f"channel, ((0,4095),(0,3000),...); {AUTO}; or () for the range of the files' own type"
    )
    found = f"data.value_range={option}"
    try:
        pairs = [option] if np.ndim(option[0]) == 0 else option
        ranges = tuple((float(low), float(high)) for low, high in pairs) if len(option) else ()
    except (TypeError, ValueError, IndexError) as error:
        if not len(option):
            return ()
        raise DataError(found, remedy) from error
    if not all(math.isfinite(low) and math.isfinite(high) and low < high for low, high in ranges):
        raise DataError(found, remedy)
    if len(ranges) not in (0, 1, channels):
        raise DataError(f"{found} has {len(ranges)} pairs, but data.channels={channels}", remedy)
    return ranges


def option_text(ranges: Sequence[Range]) -> str:
    """`data.value_range` as it is typed: (0,4095), or ((0,4095),(0,3000))."""
    pairs = ["(" + ",".join(f"{end:.7g}" for end in pair) + ")" for pair in ranges]
    return pairs[0] if len(pairs) == 1 else f"({','.join(pairs)})"


def to_bytes(
    values: Shaped[np.ndarray, "h w c"],
    path: Any,
    ranges: Sequence[Range] = (),
    *,
    top: float | None = None,
    inverted: bool = False,
) -> UInt8[np.ndarray, "h w c"]:
    """Values as 0..255: mapped linearly from `ranges` and clipped, NaN to 0.

    Args:
      values: of any integer or float type.
      path: the file, for messages.
      ranges: one for all channels, or one each. Without any, the range is the type's own: 0 to
        `top`, or to 1 for floats.
      top: the highest value that the file's samples can hold, where that is not the array's type's.
      inverted: whether 0 is white.

    Raises:
      DataError: if the range is not known (32-bit integers, floats beyond 0 to 1), or `ranges` are
        those of deeper files.
    """
    kind = values.dtype.kind
    if values.dtype == bool:
        values, top = values.astype(np.uint8), 1
    if kind in "bu" and values.dtype.itemsize <= 2:
        top = top or np.iinfo(values.dtype).max
    if ranges and top is not None and top <= 255 < max(high for _, high in ranges):
        raise DataError(
            f"{path} has 8 bits a value, but data.value_range={option_text(ranges)}",
            "use files of one depth, or data.value_range=() if all have 8 bits",
        )
    if not ranges and top is None:
        ranges = ((0.0, 1.0),)
        low, high = extent(values)
        if kind != "f" or not (low >= 0 and high <= 1):
            raise unknown_range(path, values.dtype, low, high)
    if not ranges and top == 255 and values.dtype == np.uint8:
        return 255 - values if inverted else values
    ranges = tuple(ranges) or ((0.0, float(top or 1)),)
    if kind in "bu" and values.dtype.itemsize <= 2:
        result = _by_table(values, ranges)
    else:
        result = np.empty(values.shape, np.uint8)
        for start in range(0, len(values), _BLOCK):
            rows = slice(start, start + _BLOCK)
            result[rows] = _mapped(values[rows], np.array(ranges))
    return 255 - result if inverted else result


def _by_table(values: np.ndarray, ranges: Sequence[Range]) -> np.ndarray:
    table = _table(np.iinfo(values.dtype).max + 1, tuple(ranges))
    if len(ranges) == 1:
        return table[:, 0][values]
    return np.stack([table[values[..., k], k] for k in range(values.shape[2])], -1)


@functools.lru_cache(maxsize=16)
def _table(levels: int, ranges: tuple[Range, ...]) -> UInt8[np.ndarray, "levels c"]:
    return _mapped(np.arange(levels)[:, None], np.array(ranges))


def _mapped(values: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    low, high = ranges.T
    share = (values.astype(np.float64) - low) * 255 / (high - low)
    np.nan_to_num(share, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    # Half up: 65535 levels fall to 256 as by whole numbers, (v + 128) // 257.
    return np.floor(share.clip(0, 255) + 0.5).astype(np.uint8)


def extent(values: np.ndarray) -> tuple[Any, Any]:
    """The lowest and the highest finite value; NaN without any."""
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return (values.min(), values.max()) if values.size else (math.nan, math.nan)


def unknown_range(path: Any, dtype: Any, low: Any, high: Any) -> DataError:
    """The error for values whose full range nothing tells."""
    remedy = "use images with finite values"
    if math.isfinite(low):
        suggested = option_text(
            suggested_range(float(low), float(high), whole=np.dtype(dtype).kind in "iu")
        )
        remedy = (
            f"use '--config.data.value_range={suggested}', or the range that all files share, or "
            f"{AUTO}"
        )
    return DataError(
        f"{path}: {np.dtype(dtype)} values from {low} to {high}, whose full range is unknown",
        remedy,
    )


def suggested_range(low: float, high: float, *, whole: bool = True) -> tuple[Range]:
    """The range that values probably have: all that so many bits hold, or their own."""
    if whole and low >= 0:
        return ((0.0, float(2 ** likely_bits(high) - 1)),)
    low, high = (math.floor(low), math.ceil(high)) if high - low > 10 else (low, high)
    return ((float(low), float(high if high > low else low + 1)),)


def likely_bits(highest: float) -> int:
    """The depth of a sensor whose values reach `highest`."""
    bits = int(highest).bit_length()
    return next((depth for depth in _DEPTHS if depth >= bits), bits)


def shallow_values(where: str, highest: int) -> DataError:
    """The error for 16-bit files that use few of 65536 levels."""
    bits = likely_bits(highest)
    levels = round(highest / 257) + 1
    return DataError(
        f"{where} of 16 bits hold values up to {highest}: read as 0..65535, {levels} of 256 grey "
        "levels are left",
        f"values up to {highest} look like {bits} bit: use "
        f"'--config.data.value_range=(0,{2**bits - 1})', another range of yours, or {AUTO} (found "
        "over the training split); (0,65535) reads them as they are",
    )


def robust_ranges(pixels: Iterable[Shaped[np.ndarray, "_ c"]]) -> tuple[Range, ...]:
    """The 0.1 and 99.9 percentiles of each channel, over finite values."""
    values = np.concatenate([np.asarray(p, np.float64) for p in pixels])
    ranges = []
    for channel in values.T:
        channel = channel[np.isfinite(channel)]
        if not channel.size:
            raise DataError(f"data.value_range={AUTO}: a channel has no finite value", "use others")
        low, high = (float(f"{p:.7g}") for p in np.percentile(channel, (0.1, 99.9)))
        ranges.append((low, high if high > low else low + 1))
    return tuple(ranges) if len(set(ranges)) > 1 else (ranges[0],)
