"""Mask files decoded to what they store: values of one channel, colours, or a stack of channels."""

import math
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, Shaped, UInt8
from PIL import Image

from segjax.data.errors import DataError
from segjax.data.files.headers import read_header
from segjax.data.files.pixels import ARRAY_SUFFIX, check_size, mapped_npy, open_image
from segjax.data.files.reading import reading
from segjax.data.files.tiff import TiffPixels

LOSSY_SUFFIXES = (".jpg", ".jpeg", ".webp")
_ALPHA = {"LA": "L", "PA": "P", "RGBA": "RGB"}


class Stored(NamedTuple):
    """The pixels of a mask file.

    Attributes:
      values: [h, w] of any real type; or [h, w, 3], which are colours (uint8), or the channels of a
        stack, [h, w, n].
      palette: RGB bytes of a palette file, whose values are indices; b"" for any other.
      is_stack: whether the last axis is of classes and not of colours.
    """

    values: Shaped[np.ndarray, "h w *c"]
    palette: bytes = b""
    is_stack: bool = False

    @property
    def is_colored(self) -> bool:
        return self.values.ndim == 3 and not self.is_stack


def read_stored(path: pathlib.Path, channels: int = 0) -> Stored:
    """Decodes a mask file.

    GIF files, whose palettes are the encoder's choice, give colours.

    Args:
      path: .npy [h, w], [h, w, 1] or [1, h, w], or an image file.
      channels: that a stack of channels (.npy, or the samples or pages of a TIFF) must have, in
        its first or last axis; 0 = stacks are refused.

    Raises:
      DataError: if the file cannot be read, has several frames, or is a stack of other channels.
    """
    suffix = pathlib.Path(path).suffix.lower()
    if suffix == ARRAY_SUFFIX:
        return _of_array(_load_npy(path), path, channels)
    if suffix in (".tif", ".tiff"):
        values = _load_tiff(path)
        if values is not None:
            return _of_array(values, path, channels)
    if suffix in (".gif", ".webp"):
        _check_frames(path)
    return of_image(open_image(path), path)


def of_image(image: Image.Image, file: object) -> Stored:
    """What an image that is open stores; DataError for colours that are not RGB, and for a mask
    that is in the alpha channel alone."""
    mode = _ALPHA.get(image.mode, image.mode)
    if mode not in ("1", "L", "P", "F", "RGB") and not mode.startswith("I"):
        found = f"{file}: masks must hold one class id per pixel, found mode {image.mode}"
        raise DataError(found, "use a one-channel PNG of class ids")
    if mode == "P" and image.format == "GIF":
        image, mode = image.convert("RGB"), "RGB"
    values = np.array(image)
    if image.mode in _ALPHA:
        values = _without_alpha(values, file)
    return Stored(values, bytes(image.getpalette("RGB") or b"") if mode == "P" else b"")


def whole_ids(
    values: Shaped[np.ndarray, "h w"], file: object, binary: bool = False
) -> Integer[np.ndarray, "h w"]:
    """Values as ids: uint8 as they are, others as int32, or int64 if they need it.

    Args:
      values: of one channel.
      file: its name in messages.
      binary: whether the mask has two values, so that a threshold may be the remedy.

    Raises:
      DataError: for NaN, infinite and fractional values.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8)
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        check_finite(values, file)
        broken = values[values != np.rint(values)]
        if broken.size:
            remedy = "use whole class ids"
            if binary and low >= 0 and high <= 1:
                remedy += ", or data.mask_threshold=0.5: values at or above it are foreground"
            raise DataError(
                f"{file}: values that are no whole numbers, such as {broken[0]}", remedy
            )
    if not -(2.0**63) <= float(low) <= float(high) < 2.0**63:
        raise DataError(
            f"{file}: values from {low} to {high}",
            "use whole numbers of 64 bits at most, and one of data.ignore_ids for void pixels",
        )
    is_small = low >= -(2**31) and high < 2**31
    return values.astype(np.int32 if is_small else np.int64)


def check_finite(values: Shaped[np.ndarray, "h w"], file: object) -> None:
    """Raises DataError, with their number, for NaN and infinite values."""
    bad = values.size - np.count_nonzero(np.isfinite(values))
    if bad:
        raise DataError(
            f"{file}: {bad} of {values.size} pixels are NaN or infinite, which is no id",
            "use one of data.ignore_ids in their place if they are void: "
            "np.where(np.isfinite(mask), mask, 255)",
        )


def _without_alpha(values: np.ndarray, file: object) -> np.ndarray:
    alpha = values[..., -1]
    values = values[..., 0] if values.shape[2] == 2 else values[..., :3]
    if alpha.min() != alpha.max() and (values == values[:1, :1]).all():
        raise DataError(
            f"{file}: all pixels have one colour, and only the alpha channel varies",
            "use the alpha channel as the mask: np.asarray(mask)[..., -1], saved as PNG",
        )
    return values


def _of_array(values: np.ndarray, file: object, channels: int) -> Stored:
    if values.dtype.kind not in "biuf" or not values.size:
        found = f"{file} holds {values.dtype} {list(values.shape)}"
        raise DataError(found, "use an array [height, width] of class ids")
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim == 2:
        return Stored(values)
    if values.ndim != 3:
        found = f"{file} has the shape {list(values.shape)}"
        raise DataError(found, "use an array [height, width] of class ids")
    first, last = values.shape[0], values.shape[2]
    colored = last in (3, 4) and first > last and values.dtype == np.uint8 and values.max() > 1
    if colored and not channels:
        return Stored(np.ascontiguousarray(values[..., :3]))
    if channels not in (first, last):
        axis = 0 if first < last else -1
        raise DataError(
            f"{file} is a stack {list(values.shape)}, and not one class id per pixel",
            f"use np.argmax(mask, {axis}) if it has a channel for each class, saved as .npy or "
            "PNG; where a pixel may have several classes, data.mask_format=bits reads a stack of 0 "
            "and 1 with a channel for each of data.classes",
        )
    return Stored(values if channels == last else np.moveaxis(values, 0, -1), is_stack=True)


def _load_npy(path: pathlib.Path) -> np.ndarray:
    mapped = mapped_npy(path)
    check_size(
        path, (*mapped.shape, 1, 1)[:2], mapped.nbytes // max(1, math.prod(mapped.shape[:2]))
    )
    return np.array(mapped)


def _load_tiff(path: pathlib.Path) -> np.ndarray | None:
    """The values of a TIFF that Pillow would read in part or not at all; None for any other."""
    try:
        pixels = TiffPixels(path)
    except DataError:
        return None  # Pillow reads it or says what is wrong
    with pixels, reading(path, "use an intact TIFF"):
        shape, axes, page = pixels.stored_shape, pixels.axes, pixels.page
        if pixels.pictures > 1:
            raise DataError(f"{path} holds {pixels.pictures} pictures", "use one mask a file")
        planes = math.prod(n for n, axis in zip(shape, axes, strict=True) if axis not in "YX")
        with_alpha = planes == 2 and page.extrasamples in ((1,), (2,))
        plain = planes == 1 or with_alpha or page.photometric not in (0, 1)  # not grey
        plain &= planes == page.samplesperpixel
        if plain and page.dtype in (np.uint8, np.bool_):
            return None
        check_size(path, pixels.shape[:2], pixels.shape[2] * pixels.dtype.itemsize)
        unknown = pixels.reads(any_colours=True)
        if unknown and planes == 1 and page.dtype != np.int8:  # which Pillow reads wrongly
            return None
        if unknown:
            remedy = "use an uncompressed or deflated TIFF"
            raise DataError(f"{path} cannot be read: it has {unknown}", remedy)
        values = pixels[:, :]
        return values if axes[-1] == "S" else np.moveaxis(values, -1, 0).reshape(shape)


def _check_frames(path: pathlib.Path) -> None:
    frames = read_header(path).frames
    if frames > 1:
        raise DataError(
            f"{path} has {frames} frames",
            "use one mask a file: save the right frame as PNG (image.seek(0); image.save(...))",
        )


def equal_channels(colors: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether all pixels are grey."""
    first = colors[..., 0]
    return np.array_equal(first, colors[..., 1]) and np.array_equal(first, colors[..., 2])
