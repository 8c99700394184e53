"""MATLAB's files up to version 7, of data sets: read by SciPy after a look at what they claim.

Reference: MathWorks, "MAT-File Format", level 5.
"""

import io
import math
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from segjax.data.files.reading import reading
from segjax.data.files.regular import read_bytes

_LARGEST = 1 << 30  # bytes of a file, compressed or not
_MATRIX, _COMPRESSED = 14, 15  # types of elements
_OF_MATRICES = (1, 2, 3)  # classes of arrays: cells, structs, objects
_SPARSE = 5


def load_mat(path: str | os.PathLike, variable: str, remedy: str, **options: Any) -> Any:
    """A variable of a file, as `scipy.io.loadmat` gives it with these options.

    Raises:
      DataError: if the file is damaged, is of another version or lacks the variable, or holds an
        array that claims more elements than it has bytes.
    """
    import scipy.io  # slow to import, and needed by few data sets

    data = read_bytes(path, remedy, _LARGEST)
    with reading(path, remedy, f"no {variable} can be read"):
        order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
        if order is None:
            raise ValueError("it is no file of MATLAB 5 to 7")
        content = b"".join(_plain(data[128:], order))
        _check(content, order)
        file = io.BytesIO(data[:128] + content)
        return scipy.io.loadmat(file, variable_names=[variable], **options)[variable]


def _plain(data: bytes, order: str) -> Iterator[bytes]:
    """The elements of a file without compression."""
    left = _LARGEST
    for kind, body, whole in _elements(data, order):
        if kind == _COMPRESSED:
            whole = zlib.decompressobj().decompress(body, left + 1)
        left -= len(whole)
        if left < 0:
            raise ValueError(f"over {_LARGEST:,} bytes without compression")
        yield whole


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes, bytes]]:
    """(type, data, data with tag) of each element."""
    view, at = memoryview(data), 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start = at + 8
        if kind >> 16:  # a small one, whose data lie in its tag
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        end = start + size
        if end > len(data):
            raise ValueError(f"an element of {size:,} bytes, of which {len(data) - start:,} follow")
        next_at = end if kind == _COMPRESSED else at + -(-(end - at) // 8) * 8
        yield kind, bytes(view[start:end]), bytes(view[at:next_at])
        at = next_at


def _check(data: bytes, order: str) -> None:
    """Raises ValueError for arrays that claim more elements than they have bytes."""
    for kind, body, _ in _elements(data, order):
        if kind != _MATRIX or not body:
            continue
        parts = _elements(body, order)
        (_, flags, _), (_, dims, _) = next(parts), next(parts)
        kind = struct.unpack_from(f"{order}I", flags)[0] & 0xFF
        shape = struct.unpack(f"{order}{len(dims) // 4}i", dims[: len(dims) // 4 * 4])
        if min(shape, default=0) < 0 or (kind != _SPARSE and math.prod(shape) > len(body)):
            raise ValueError(f"an array {list(shape)} in {len(body):,} bytes")
        if kind in _OF_MATRICES:
            _check(body, order)
