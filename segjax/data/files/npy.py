"""Arrays in the .npy format, whose headers are not believed."""

import io
import math

import numpy as np


def array_of(content: bytes) -> np.ndarray:
    """The array of an .npy file, or of a part of an .npz file.

    Raises:
      ValueError: before memory is taken, if the file is cut, declares another size than it has, or
        holds objects.
    """
    file = io.BytesIO(content)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"its format has version {version}")
    shape, _, dtype = readers[version](file)
    needed, there = math.prod(shape) * dtype.itemsize, len(content) - file.tell()
    if dtype.hasobject or needed != there:
        what = "objects" if dtype.hasobject else f"{needed:,} bytes"
        raise ValueError(f"it declares {what} and has {there:,} bytes")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)
