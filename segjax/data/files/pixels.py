"""The pixels of an image file with their own values, and what its header says."""

import contextlib
import io
import math
import os
import pathlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt16
from PIL import Image

from segjax.data.errors import DataError
from segjax.data.files import tiff
from segjax.data.files.orientation import TAG, turned
from segjax.data.files.reading import reading
from segjax.data.files.regular import regular
from segjax.data.files.tiff import TiffPixels

ARRAY_SUFFIX = ".npy"  # of images with any number of channels
MAX_MEGAPIXELS = 500  # of a file that is decoded as a whole, see `check_size`
# Of the formats that Pillow knows, and not those that run programs (EPS: Ghostscript) or other
# libraries; files are told apart by their content.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "TIFF", "AVIF")
_INTACT = "use an intact image file"


class RawImage(NamedTuple):
    """A decoded image with its own values.

    Attributes:
      values: [h, w, c], of any type; one band of grey where 3 are wanted.
      top: the highest value that a sample can hold, where the type does not tell.
      inverted: whether 0 is white.
      orientation: of EXIF; the values are not turned.
      nodata: the value of pixels without data, in all channels, where the file names one.
    """

    values: Shaped[np.ndarray, "h w c"]
    top: float | None = None
    inverted: bool = False
    orientation: int = 1
    nodata: float | None = None


def read_raw(path: str | os.PathLike, channels: int = 3) -> RawImage:
    """`read_image` before values become bytes and pixels are turned."""
    suffix = pathlib.Path(path).suffix.lower()
    if suffix == ARRAY_SUFFIX:
        values = _npy(path)
        if values.shape[2] != channels:
            raise _other_channels(path, values.shape[2], channels, axis=values.shape[0])
        return RawImage(values)
    if suffix in tiff.SUFFIXES and tiff.is_tiff(path):
        return _tiff_raw(path, channels)
    return _pillow_raw(path, channels)


def _tiff_raw(path, channels: int) -> RawImage:
    with TiffPixels(path) as pixels:
        if pixels.reads():
            return _pillow_raw(path, channels, pixels)
        height, width, bands = pixels.shape
        check_size(path, (height, width), bands * pixels.dtype.itemsize)
        values = pixels[:, :]
        if pixels.rows_as_pages == channels != bands:
            values = np.moveaxis(values, -1, 0)
        values = values[..., chosen_bands(pixels, channels, values.shape[2])]
        return RawImage(values, None, pixels.inverted, pixels.orientation, pixels.nodata)


def chosen_bands(pixels: TiffPixels, channels: int, bands: int) -> slice:
    """The bands of a TIFF that an image of `channels` takes; one, of grey, for three.

    Raises:
      DataError: if the file has another number of channels.
    """
    if channels == 3 and pixels.colour and bands == 4:  # the fourth is alpha, said or not
        return slice(3)
    if channels == 3 and (bands == 1 or (bands == 2 and pixels.alpha)):
        return slice(1)
    if bands != channels:
        raise _other_channels(pixels.path, bands, channels)
    return slice(None)


def _other_channels(path, bands: int, channels: int, axis: int = 0) -> DataError:
    if axis == channels:
        return DataError(
            f"{path} has {bands} channels, but data.channels={channels}; its first axis has "
            f"{channels}",
            "use arrays [height, width, channels]: np.moveaxis(array, 0, -1)",
        )
    return DataError(
        f"{path} has {bands} channels, but data.channels={channels}",
        f"use files with {channels} channels, or data.channels={bands} if all have that many",
    )


def _pillow_raw(path, channels: int, pixels: TiffPixels | None = None) -> RawImage:
    """What Pillow decodes; `pixels` is of a TIFF, whose page it is to be."""
    unreadable = _unreadable("" if pixels is None else pixels.reads())
    with reading(path, *unreadable), opened(path) as image:
        if image.format == "TIFF" and pixels is None:  # under another suffix
            return _tiff_raw(path, channels)
        if pixels is not None and pixels.page_index:
            image.seek(pixels.page_index)
        width, height = image.size
        deep = _PNG16.get(raw_mode(image))
        if deep:
            raw = RawImage(_png16(path, deep))
        else:
            _load(image)
            raw = _pillow_values(image, channels)
        orientation = int(image.getexif().get(TAG, 1) or 1)
    if raw.values.shape[:2] != (height, width):
        found = f"{path} was decoded to {list(raw.values.shape[:2])}, not {[height, width]}"
        raise DataError(found, _INTACT)
    values = raw.values
    if pixels is not None:  # Pillow turns a TIFF when it loads it
        orientation = pixels.orientation
        if values.dtype == np.uint16:  # 12 bits are unpacked
            raw = raw._replace(top=2.0**pixels.depth - 1)
        values = turned(values, {6: 8, 8: 6}.get(orientation, orientation))
        if values.shape[:2] != pixels.shape[:2]:
            found = f"{path} was decoded to {list(values.shape)}, not {list(pixels.shape)}"
            raise DataError(found, "use an intact TIFF")
    bands = values.shape[2]
    if channels == 3 and bands == 2:  # grey and alpha
        values = values[..., :1]
    elif channels == 3 and bands == 4:
        values = values[..., :3]
    elif bands not in (channels, 1 if channels == 3 else channels):
        raise _other_channels(path, bands, channels)
    return raw._replace(values=values, orientation=orientation)


def _pillow_values(image: Any, channels: int) -> RawImage:
    """The values of a loaded image; as RGB where 3 channels are wanted and it has 8 bits."""
    mode = image.mode
    if mode == "F" or mode.startswith("I"):
        values = np.array(image)[..., None]
        if mode != "F" and values.min() >= 0 and values.max() <= 65535 and image.format != "TIFF":
            values = values.astype(np.uint16)  # PGM and the like, which Pillow scales to 65535
        if mode.startswith("I;16"):
            values = values.astype(np.uint16)
        return RawImage(values)
    if mode == "LAB":
        image = _from_lab(image)
    elif mode in ("P", "PA"):  # indices mean nothing without their colours
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif channels == 3 and mode not in ("RGB", "L"):
        image = image.convert("RGBA" if mode == "RGBa" else "RGB")
    values = np.array(image)
    return RawImage(values if values.ndim == 3 else values[..., None])


def _from_lab(image: Image.Image) -> Image.Image | None:
    from PIL import ImageCms  # needs lcms2, and only this does

    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.applyTransform(
        image, ImageCms.buildTransform(*profiles, inMode="LAB", outMode="RGB")
    )


# Pillow reduces colour PNGs of 16 bits to their high bytes. By its raw mode, what decodes the
# bytes of each sample instead: the high and the low ones apart, or both as samples.
_PNG16 = {
    "RGB;16B": ("RGB;16B", "RGB;16L"),
    "RGBA;16B": ("RGBA;16B", "RGBA;16L"),
    "LA;16B": ("RGBA",),
}


def raw_mode(image: Any) -> str:
    """How the samples of a PNG lie in its file, in Pillow's terms; "" for other formats."""
    return str(image.tile[0][3]) if image.format == "PNG" and image.tile else ""


def _png16(path, raw_modes: Sequence[str]) -> UInt16[np.ndarray, "h w c"]:
    parts = []
    for mode in raw_modes:
        with opened(path) as image:
            image.tile = [(*image.tile[0][:3], mode)]
            image.load()
            parts.append(np.array(image))
    if len(parts) == 1:
        return parts[0].view(">u2").astype(np.uint16)
    return parts[0].astype(np.uint16) << 8 | parts[1]


def mapped_npy(path: str | os.PathLike) -> Shaped[np.ndarray, "..."]:
    """The array in a .npy file, of any type but pickled objects; DataError if it is damaged or
    another file. It is mapped, as a header may state more than the file holds."""
    with reading(path, "use an intact .npy file of numbers"):
        return np.lib.format.open_memmap(regular(path), mode="r")


def _npy(path) -> Shaped[np.ndarray, "h w c"]:
    values = mapped_npy(path)
    if values.ndim not in (2, 3) or not values.size:
        raise DataError(f"{path} is {list(values.shape)}", "use an array [height, width, channels]")
    if values.dtype.kind not in "buif":
        raise DataError(f"{path} holds {values.dtype} values", "use whole numbers or floats")
    check_size(path, values.shape[:2], values.nbytes // (values.shape[0] * values.shape[1]))
    values = np.array(values)
    return values if values.ndim == 3 else values[..., None]


def open_image(path: str | os.PathLike | io.BytesIO) -> Image.Image:
    """Opens and decodes a file with Pillow; DataError, naming the file, if that fails."""
    with reading(path, _INTACT), opened(path) as image:
        _load(image)
        return image


def _unreadable(reason: str) -> tuple[str, str]:
    """The remedy for a file that Pillow does not decode, and what is wrong; the reason is that of
    a TIFF which is not decoded here either."""
    if not reason:
        return _INTACT, "cannot be read"
    return (
        "use a TIFF without compression or with deflate, LZW or JPEG, of grey or RGB "
        "(gdal_translate -co COMPRESS=DEFLATE)",
        f"cannot be read: it has {reason}",
    )


def opened(path: str | os.PathLike | io.BytesIO) -> Any:
    """Opens a file with Pillow, up to the limit of `check_size` and not Pillow's own."""
    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    try:
        image: Any = Image.open(regular(path), formats=formats)
    except Image.DecompressionBombError:
        with _without_limit():
            image = Image.open(path, formats=formats)
    if image.format == "TIFF":
        image.filename = ""  # or Pillow 13 maps the file, and garbles grey that is to be turned
    try:
        check_size(path, image.size[::-1], len(image.getbands()))
    except DataError:
        image.close()
        raise
    return image


def _load(image: Any) -> None:
    try:
        image.load()
    except Image.DecompressionBombError:  # a TIFF, which Pillow asks here again
        with _without_limit():
            image.load()


_LIMIT = threading.Lock()


@contextlib.contextmanager
def _without_limit() -> Iterator[None]:
    """Lifts Pillow's limit of pixels, which is a global one, for a file that has been checked, or
    is to be checked before it is decoded."""
    with _LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def check_size(path: Any, size: tuple[int, ...], pixel_bytes: int = 1) -> None:
    """Raises DataError for a file that would decode to more than the memory may hold.

    The limit is `MAX_MEGAPIXELS`, or the environment variable SEGJAX_MAX_MEGAPIXELS, and 16 bytes
    for each of these pixels.
    """
    text = os.environ.get("SEGJAX_MAX_MEGAPIXELS", "")
    try:
        limit = float(text or MAX_MEGAPIXELS)
    except ValueError as error:
        raise DataError(f"SEGJAX_MAX_MEGAPIXELS={text!r}", "use a number of megapixels") from error
    height, width = size
    megapixels = height * width / 1e6
    needed = max(megapixels, megapixels * pixel_bytes / 16)
    if needed > limit:
        raise DataError(
            f"{path} has {height}x{width} pixels of {pixel_bytes} bytes ({megapixels:,.0f} "
            f"megapixels); the limit is {limit:g} megapixels of 16 bytes, as a damaged or hostile "
            "file may claim any size",
            f"if that is its size and the memory suffices, set SEGJAX_MAX_MEGAPIXELS="
            f"{math.ceil(needed)}; or cut it into tiles; --mode=predict --inference=slide reads "
            "TIFFs by window, at any size",
        )
