import io

import numpy as np
import pytest

from segjax.data.files.npy import array_of


def stored(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("array", [np.arange(6).reshape(2, 3), np.array(["a", "bc"]), np.zeros(0)])
def test_arrays(array):
    np.testing.assert_array_equal(array_of(stored(array)), array)


@pytest.mark.parametrize(
    "content, words",
    [
        (stored(np.zeros(9))[:-1], "declares 72 bytes and has 71"),
        (stored(np.zeros(9)).replace(b"(9,)", b"(9" + b"0" * 12 + b",)"), "bytes"),
        (stored(np.array([{}], object)), "declares objects"),
        (b"\x93NUMPY\x09\x00", "version"),
        (b"", "EOF"),
        (b"PK", "EOF"),
    ],
)
def test_what_is_no_such_array(content, words):
    with pytest.raises(ValueError, match=words):
        array_of(content)
