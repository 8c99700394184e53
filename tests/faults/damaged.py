"""Files that are written to break a reader, and what a reader must make of them."""

import io
import json
import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from segjax.data.errors import DataError

IDS = np.array([[0, 1, 2, 2, 1, 255]] * 4, np.uint8)
RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def write(path: pathlib.Path, content: object) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    path.write_bytes(content)
    return path


def refused(call, *words: str) -> None:
    """That a call ends in one line that can be printed and holds the words."""
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    assert text.isprintable(), text
    assert len(text) < 2500
    for word in words:
        assert word in text


def encoded(array: np.ndarray, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + pixels + chunk(b"IEND", b"")
