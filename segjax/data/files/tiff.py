"""TIFF images by their headers: any number of bands, any depth, planar or tiled, read by window.

Pillow misreads some of these (16-bit bands apart) and refuses others (5 bands, floats in colour).
The headers are parsed by tifffile; strips and tiles are decoded here, into no more bytes than the
header says.
"""

import contextlib
import io
import logging
import math
import os
import struct
import zlib
from collections import OrderedDict
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Shaped
from PIL import Image, TiffImagePlugin

from segjax.data.errors import DataError
from segjax.data.files.reading import reading
from segjax.data.files.regular import regular

SUFFIXES = (".tif", ".tiff")
_CACHE_BYTES = 2**28  # decoded strips and tiles that are kept, as windows overlap
_MOST_PAGES = 4096
_STRIP_BYTES = 2**24  # of a strip without compression that is read at once
_DEFLATE, _JPEG = (8, 32946), (7,)
_BY_LIBTIFF = (5, 32773, 34925, 50000)  # LZW, PackBits, LZMA, Zstandard: decoded to bytes by Pillow
_INTACT = "use an intact TIFF"


class TiffPixels:
    """The full-size image of a TIFF: `pixels[rows, columns]` reads a window, [h, w, bands].

    Of several images (overviews, thumbnails, masks) it is the first of the largest. Pages of one
    sample each are its bands; of pages in colour it is the first.

    Args:
      path: the file, which stays open until `close`.

    Attributes:
      shape, dtype: of the array that slices give; the dtype has this machine's byte order.
      depth: the bits of a sample.
      inverted: whether 0 is white.
      colour: whether the first three bands are red, green and blue.
      alpha: whether the last band is said to be opacity.
      orientation: as EXIF's; slices are not turned.
      pages: number of pages in colour, of which this is the first.
      nodata: the value of pixels without data (GDAL), or None.
      tags: the file's tags of that page, as tifffile has them.
      page, axes, stored_shape: the page, and the axes and shape of the image, as tifffile has them.
      pictures: images in the file that are no overviews and no masks.

    Raises:
      DataError: if the file is damaged or cut off, or has another form.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = path
        with reading(path, _INTACT), contextlib.ExitStack() as closing:
            self._file = closing.enter_context(open_tiff(path))
            self._open()
            closing.pop_all()

    def _open(self) -> None:
        series = self._main_series()
        page: Any = series.keyframe
        self.page, self.axes, self.stored_shape = page, series.axes, series.shape
        if page.dtype is None or page.imagedepth > 1 or series.is_truncated:
            raise DataError(
                f"{self.path} has the axes {series.axes} {list(series.shape)} and "
                f"{page.bitspersample} bits a sample",
                "use one image of samples of 8, 16 or 32 bits: a slice of a stack",
            )
        self._pages = [page]
        samples, self.pages = page.samplesperpixel, 1
        if len(series.pages) > 1:
            if samples > 1:
                self.pages = len(series.pages)
            else:
                self._pages = [p if p is not None else page for p in series.pages]
                samples = len(self._pages)
        self._planes = samples if page.planarconfig == 2 else len(self._pages)
        self.shape = (page.imagelength, page.imagewidth, samples)
        self.dtype = np.dtype(page.dtype)
        bits = page.bitspersample
        self.depth = int(bits if isinstance(bits, int) else max(bits))
        self.inverted = page.photometric == 0
        self.colour = page.photometric in (2, 6) and samples >= 3
        self.alpha = bool(page.extrasamples) and page.extrasamples[-1] in (1, 2)
        self.orientation = int(page.tags.valueof(274, 1) or 1)
        self.tags = page.tags
        # tifffile's own `nodata` is 0 where there is no tag
        self.nodata = _number(page.tags.valueof(42113))
        self._tile = (
            (page.tilelength, page.tilewidth)
            if page.is_tiled
            else (min(page.rowsperstrip, page.imagelength), page.imagewidth)
        )
        self._cache: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._cached = 0
        self._check()
        self._cut_strips()

    def _main_series(self) -> Any:
        """The first of the largest images, among those that are no overviews and no masks."""
        with contextlib.suppress(IndexError):  # a chain of headers may lead on and on in the file
            self._file.pages[_MOST_PAGES]
            raise DataError(
                f"{self.path} has over {_MOST_PAGES} pages", "use a file for each image"
            )
        every = self._file.series
        whole = [s for s in every if not (s.keyframe.is_reduced or s.keyframe.is_mask)]
        self.pictures = len(whole)
        if not every:
            raise DataError(f"{self.path} holds no image", _INTACT)
        return max(whole or every, key=lambda s: s.keyframe.imagelength * s.keyframe.imagewidth)

    def _check(self) -> None:
        """That the file holds what its header says."""
        page, (tall, wide) = self.page, self._tile
        height, width, _ = self.shape
        expected = math.ceil(height / tall) * math.ceil(width / wide)
        expected *= self._planes if page.planarconfig == 2 else 1
        size = self._file.filehandle.size
        for one in self._pages:
            offsets, counts = one.dataoffsets, one.databytecounts
            if len(offsets) != expected or len(counts) != expected:
                raise DataError(
                    f"{self.path} cannot be read: {len(offsets)} strips or tiles, not {expected}",
                    _INTACT,
                )
            ends = (offset + count for offset, count in zip(offsets, counts, strict=True))
            if max(ends) > size:
                raise DataError(f"{self.path} cannot be read: it is cut off", _INTACT)

    def _cut_strips(self) -> None:
        """Reads large strips that are not compressed by some rows at a time."""
        page, row_bytes = self.page, self.shape[1] * self.dtype.itemsize
        row_bytes *= page.samplesperpixel if page.planarconfig == 1 else 1
        plain = page.compression == 1 and page.predictor == 1 and not page.is_tiled
        self._segments = [(p.dataoffsets, p.databytecounts) for p in self._pages]
        if not plain or self._tile[0] * row_bytes <= _STRIP_BYTES or self._tile[0] < self.shape[0]:
            return
        rows = max(1, _STRIP_BYTES // row_bytes)
        tops = range(0, self.shape[0], rows)
        self._tile = (rows, self.shape[1])
        self._segments = [
            (
                [offset + top * row_bytes for offset in offsets for top in tops],
                [min(rows, self.shape[0] - top) * row_bytes for _ in offsets for top in tops],
            )
            for offsets, _ in self._segments
        ]

    def reads(self, any_colours: bool = False) -> str:
        """Why the pixels cannot be decoded here; "" if they can.

        Args:
          any_colours: whether samples may be indices of a palette, or colours of any kind.
        """
        page = self.page
        known = (1, *_DEFLATE, *_BY_LIBTIFF, *_JPEG)
        if page.compression not in known or (page.compression in _JPEG and self._planes > 1):
            return (
                f"compression {getattr(page.compression, 'name', page.compression)}, which is not "
                "known here"
            )
        if (page.photometric not in (0, 1, 2, 6) and not any_colours) or (
            page.photometric == 6 and page.compression not in _JPEG
        ):
            return f"photometric {getattr(page.photometric, 'name', page.photometric)}"
        if page.predictor not in (1, 2, 3):
            return f"predictor {page.predictor}"
        if page.bitspersample != self.dtype.itemsize * 8 or page.fillorder != 1:
            return f"{page.bitspersample} bits a sample, fill order {page.fillorder}"
        if self.dtype.kind not in "uif":
            return f"{self.dtype} values"
        return ""

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "TiffPixels":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    @property
    def tile_bytes(self) -> int:
        """Of a decoded strip or tile."""
        samples = self.page.samplesperpixel if self.page.planarconfig == 1 else 1
        return math.prod(self._tile) * samples * self.dtype.itemsize

    @property
    def page_index(self) -> int:
        """The place of the page in the file."""
        return self.page.index

    @property
    def rows_as_pages(self) -> int:
        """The bands of an array [h, w, n] that tifffile wrote as h pages of w rows; else 0."""
        several = self.axes == "QYX" and len(self._pages) > 1
        return self.shape[1] if several else 0

    def __getitem__(self, window: tuple[slice, slice]) -> Shaped[np.ndarray, "h w c"]:
        """The window's values; DataError if a strip or tile is damaged."""
        (top, bottom, _), (left, right, _) = (
            part.indices(n) for part, n in zip(window, self.shape[:2], strict=True)
        )
        tall, wide = self._tile
        across, down = math.ceil(self.shape[1] / wide), math.ceil(self.shape[0] / tall)
        out = np.empty((max(0, bottom - top), max(0, right - left), self.shape[2]), self.dtype)
        separate = self.page.planarconfig == 2
        for plane in range(self._planes):
            number, first = (0, plane * across * down) if separate else (plane, 0)
            bands = slice(None) if self._planes == 1 else slice(plane, plane + 1)
            for i in range(top // tall, math.ceil(bottom / tall)):
                for j in range(left // wide, math.ceil(right / wide)):
                    tile = self._decoded(number, first + i * across + j)
                    y, x = i * tall, j * wide
                    up, low = max(top, y), min(bottom, y + tall)
                    lo, hi = max(left, x), min(right, x + wide)
                    out[up - top : low - top, lo - left : hi - left, bands] = tile[
                        up - y : low - y, lo - x : hi - x
                    ]
        return out

    def _decoded(self, number: int, index: int) -> np.ndarray:
        """A strip or tile [tall, wide, samples]; a strip at the end may have fewer rows."""
        key = number, index
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        with reading(self.path, _INTACT):
            tile = self._decode(number, index)
        self._cache[key] = tile
        self._cached += tile.nbytes
        while self._cached > _CACHE_BYTES and len(self._cache) > 1:
            self._cached -= self._cache.popitem(last=False)[1].nbytes
        return tile

    def _decode(self, number: int, index: int) -> np.ndarray:
        page, (tall, wide) = self._pages[number], self._tile
        if not page.is_tiled:
            height = self.shape[0]
            tall = min(tall, height - index % math.ceil(height / tall) * tall)
        samples = page.samplesperpixel if page.planarconfig == 1 else 1
        offset, count = (values[index] for values in self._segments[number])
        if not count:  # GDAL leaves out tiles without data
            fill = 0 if self.nodata is None else self.nodata
            return np.full((tall, wide, samples), fill, self.dtype)
        handle = self._file.filehandle
        handle.seek(offset)
        data = handle.read(count)
        if page.compression in _JPEG:
            tile = _jpeg_tile(data, page, (tall, wide))
            if tile.shape != (tall, wide, samples) or tile.dtype != self.dtype:
                raise DataError(
                    f"{self.path} holds a tile {tile.dtype} {list(tile.shape)}, not {self.dtype} "
                    f"{[tall, wide, samples]}",
                    _INTACT,
                )
            return tile
        row_bytes = wide * samples * self.dtype.itemsize
        data = _decompressed(data, page.compression, tall, row_bytes)
        if len(data) < tall * row_bytes:
            raise DataError(
                f"{self.path} holds {len(data)} bytes of a strip or tile of {tall * row_bytes}",
                _INTACT,
            )
        raw = np.frombuffer(data, np.uint8, tall * row_bytes).reshape(tall, row_bytes)
        if page.predictor == 3:
            return _unpredicted_floats(raw, samples, self.dtype).reshape(tall, wide, samples)
        stored = self.dtype.newbyteorder(self._file.byteorder)
        tile = raw.view(stored).reshape(tall, wide, samples).astype(self.dtype, copy=False)
        if page.predictor == 2:
            whole = tile.view(f"u{self.dtype.itemsize}")  # differences wrap around
            tile = np.cumsum(whole, axis=1, dtype=whole.dtype).view(self.dtype)
        return tile


def is_tiff(path: str | os.PathLike) -> bool:
    """Whether a file begins as a TIFF, whatever its name; False if it cannot be read. DataError for
    what is no regular file."""
    try:
        with open(regular(path), "rb") as file:
            return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    except OSError:
        return False


def open_tiff(path: str | os.PathLike) -> tifffile.TiffFile:
    """The headers of a TIFF, without the formats whose metadata name further files to be opened."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # damage is said in an error
    return tifffile.TiffFile(regular(path), is_ome=False, is_mmstack=False, is_ndtiff=False)


def _number(text: Any) -> float | None:
    """GDAL's NODATA, a number as text."""
    try:
        return None if text is None else float(str(text).strip("\0 "))
    except ValueError:
        return None


def _decompressed(data: bytes, compression: int, rows: int, row_bytes: int) -> bytes:
    if compression in _DEFLATE:  # a bomb ends at the size of the header
        return zlib.decompressobj().decompress(data, rows * row_bytes)
    if compression in _BY_LIBTIFF:
        # As a grey image of bytes, whatever the samples are.
        tags = {258: (3, 8), 262: (3, 1), 277: (3, 1)}
        return _small_tiff(data, compression, (rows, row_bytes), tags).tobytes()
    return data


def _jpeg_tile(data: bytes, page: Any, size: tuple[int, int]) -> np.ndarray:
    tags: dict[int, tuple[int, Any]] = {
        258: (3, page.bitspersample),
        262: (3, int(page.photometric)),
        277: (3, page.samplesperpixel),
    }
    if page.samplesperpixel > 1:
        tags[258] = (3, (8,) * page.samplesperpixel)
    if page.jpegtables:
        tags[347] = (7, page.jpegtables)
    if page.photometric == 6:
        tags[530] = (3, tuple(page.subsampling or (2, 2)))
    tile = np.asarray(_small_tiff(data, page.compression, size, tags))
    return tile if tile.ndim == 3 else tile[..., None]


def _small_tiff(
    data: bytes, compression: int, size: tuple[int, int], tags: dict[int, tuple[int, Any]]
) -> Image.Image:
    """One strip or tile as a TIFF of its own, which Pillow's libtiff decodes.

    Args:
      tags: (type, value) by code; the types are 3 (short) and 7 (bytes).
    """
    height, width = size
    whole = {256: (4, width), 257: (4, height), 259: (3, int(compression)), 273: (4, 8)}
    whole |= {278: (4, height), 279: (4, len(data)), **tags}
    body = bytearray(struct.pack("<2sHI", b"II", 42, 8 + len(data) + len(data) % 2) + data)
    body += b"\0" * (len(data) % 2)
    after, extra = len(body) + 2 + 12 * len(whole) + 4, b""
    body += struct.pack("<H", len(whole))
    for code, (kind, value) in sorted(whole.items()):
        values = value if isinstance(value, tuple | bytes) else (value,)
        form = f"<{len(values)}{'HI'[kind - 3]}" if kind != 7 else ""
        packed = struct.pack(form, *values) if form else bytes(values)
        body += struct.pack("<HHI", code, kind, len(values))
        if len(packed) <= 4:
            body += packed.ljust(4, b"\0")
        else:
            body += struct.pack("<I", after + len(extra))
            extra += packed
    # Not Image.open, whose limit of pixels is for whole images.
    image = TiffImagePlugin.TiffImageFile(io.BytesIO(bytes(body) + b"\0\0\0\0" + extra))
    image.load()
    return image


def _unpredicted_floats(raw: np.ndarray, samples: int, dtype: np.dtype) -> np.ndarray:
    """Adobe's floating point predictor: bytes by significance, then differences.

    Reference: Adobe Photoshop TIFF Technical Note 3, 2005.
    """
    rows, row_bytes = raw.shape
    sums = np.cumsum(raw.reshape(rows, -1, samples), axis=1, dtype=np.uint8)
    planes = sums.reshape(rows, dtype.itemsize, row_bytes // dtype.itemsize)
    values = np.ascontiguousarray(planes.swapaxes(1, 2)).view(dtype.newbyteorder(">"))
    return values[..., 0].astype(dtype)
