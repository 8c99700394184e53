"""TIFFs as images of which only windows are decoded."""

import os
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from segjax.data.files.geo import geo_tags, void_pixels
from segjax.data.files.pixels import check_size, chosen_bands
from segjax.data.files.tiff import TiffPixels
from segjax.data.files.values import SHALLOW, Range, shallow_values, to_bytes

_SAMPLE = 256  # side of the windows that tell how deep the values are


class WindowedImage:
    """A TIFF as an image: `image[rows, columns]` is uint8 [h, w, channels], as `read_image` gives.

    The file stays open. `np.asarray(image)` decodes the whole, up to the limit of `check_size`.

    Args:
      path, channels, value_range: see `images.read_image`.

    Attributes:
      shape: (h, w, channels), of pixels as stored.
      readable: whether its kind of TIFF can be read by window.
      geo: the tags that say where it lies.
      has_void: whether the file names pixels without data, see `void`.

    Raises:
      DataError: if the file is damaged, has other channels, or holds values of unknown range.
    """

    dtype, ndim = np.dtype(np.uint8), 3

    def __init__(
        self, path: str | os.PathLike, channels: int = 3, value_range: tuple[Range, ...] = ()
    ):
        self._pixels = TiffPixels(path)
        self.path, self._range = path, value_range
        try:
            self._describe(self._pixels, channels)
        except BaseException:
            self.close()
            raise

    def _describe(self, pixels: TiffPixels, channels: int) -> None:
        self.readable = not pixels.reads() and pixels.rows_as_pages != channels
        self.shape = (*pixels.shape[:2], channels)
        self.geo, self._alpha = geo_tags(pixels), pixels.alpha and pixels.shape[2] in (2, 4)
        self.has_void = pixels.nodata is not None or self._alpha
        self.pages, self.orientation = pixels.pages, pixels.orientation
        if self.readable:
            self._bands = chosen_bands(pixels, channels, pixels.shape[2])

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    def check_depth(self) -> None:
        """Raises DataError for 16-bit values of 14 bits or fewer, read without a range; windows at
        even distances tell."""
        pixels = self._pixels
        if self._range or pixels.dtype != np.uint16 or pixels.depth != 16:
            return
        highest = 0
        for top in np.linspace(0, max(0, self.shape[0] - _SAMPLE), 4).astype(int):
            for left in np.linspace(0, max(0, self.shape[1] - _SAMPLE), 4).astype(int):
                window = pixels[top : top + _SAMPLE, left : left + _SAMPLE]
                highest = max(highest, int(window.max()))
        if highest <= SHALLOW:
            raise shallow_values(f"{self.path}: samples", highest)

    def __getitem__(self, window: Any) -> UInt8[np.ndarray, "h w c"]:
        rows, columns = window if isinstance(window, tuple) else (window, slice(None))
        pixels = self._pixels
        check_size(self.path, (1, 1), pixels.tile_bytes // 10**6)
        values = pixels[rows, columns][..., self._bands]
        image = to_bytes(values, self.path, self._range, inverted=pixels.inverted)
        if image.shape[2] != self.shape[2]:
            image = np.repeat(image, self.shape[2], axis=-1)
        return image

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        check_size(self.path, self.shape[:2], self.shape[2] * self._pixels.dtype.itemsize)
        return np.asarray(self[:, :], dtype)

    def void(self, rows: slice) -> Bool[np.ndarray, "h w"]:
        """The pixels of some rows that hold no data, see `geo.void_pixels`."""
        return void_pixels(self._pixels[rows, :], self._pixels.nodata, self._alpha)

    def close(self) -> None:
        self._pixels.close()
