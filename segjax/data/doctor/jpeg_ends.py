"""JPEG files that were cut and closed again: decoders fill the rest, and say nothing.

What a sequential file lacks is grey of 128; what a progressive one lacks stays coarse.

Reference: ITU-T T.81, annexes B (markers) and G (progressive mode).
"""

import contextlib
import io
import pathlib
import re
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from segjax.data.files.pixels import open_image
from segjax.data.files.regular import read_bytes

_BLOCK = 8
_GREY = 128
# Bytes that stand for pixels (none is 0xff), and markers of a restart for files that have them.
_PIXELS = np.random.default_rng(0).integers(0, 255, 64).astype(np.uint8).tobytes()
_MORE = b"".join(_PIXELS + bytes([0xFF, 0xD0 + k]) for k in range(8))
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_PROGRESSIVE, _SCAN, _END = 0xC2, 0xDA, 0xD9


class _Scans(NamedTuple):
    """What lies in a file: the place of its end, whether it is progressive, and the coefficients
    that each component has to the last bit."""

    end: int
    progressive: bool
    complete: dict[int, set[int]]


def end_of_jpeg(path: pathlib.Path, image: UInt8[np.ndarray, "h w c"]) -> str:
    """What a JPEG file lacks at its end, in words; "" for an intact one, or one that is damaged in
    another way.

    Args:
      path: the file.
      image: its pixels.
    """
    with contextlib.suppress(Exception):
        data = read_bytes(path)
        scans = _scans(data)
        lacking = [k for k, found in scans.complete.items() if len(found) < _BLOCK**2]
        if lacking:
            return f"scans of {len(lacking)} components are missing"
        if scans.progressive or _has_grey_corner(image):
            # What follows a whole picture is not looked at; in a cut one it is taken for pixels.
            longer = data[: scans.end].rstrip(b"\xff") + _MORE + data[scans.end :]
            decoded = (np.asarray(open_image(io.BytesIO(each))) for each in (data, longer))
            if not np.array_equal(*decoded):
                rows = (image != _GREY).any((1, 2))
                return f"it ends early; {np.count_nonzero(~rows)} rows are grey alone"
    return ""


def _has_grey_corner(image: UInt8[np.ndarray, "h w c"]) -> bool:
    """Whether a corner is as decoders fill it; the image may have been turned."""
    ends = slice(None, _BLOCK), slice(-_BLOCK, None)
    return any((image[rows, columns] == _GREY).all() for rows in ends for columns in ends)


def _scans(data: bytes) -> _Scans:
    at, progressive, complete = 2, False, {}
    while match := _MARKER.search(data, at):
        kind, at = data[match.start() + 1], match.end()
        if kind == _END:
            return _Scans(match.start(), progressive, complete)
        length = int.from_bytes(data[at : at + 2], "big")
        body = data[at + 2 : at + length]
        if kind == _PROGRESSIVE:
            progressive = True
            complete = {body[6 + 3 * k]: set() for k in range(body[5])}
        elif kind == _SCAN and progressive:
            first, last, bits = body[1 + 2 * body[0] :][:3]
            for k in range(body[0]):
                if bits & 15 == 0:
                    complete[body[1 + 2 * k]].update(range(first, last + 1))
        at += length
    raise ValueError("no end")
