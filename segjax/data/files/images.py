"""Image and mask files: listed in a folder, and decoded to arrays."""

import io
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Int32, Integer, UInt8
from PIL import Image, ImageOps

from segjax.data.errors import DataError
from segjax.data.files.walk import walk

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
ARRAY_SUFFIX = ".npy"  # of images with any number of channels
MASK_SUFFIXES = (*IMAGE_SUFFIXES, ".gif", ARRAY_SUFFIX)
# Of polygons: a file for each image, or one for all images of a split.
SHAPE_SUFFIXES = (".json", ".txt", ".xml", ".csv")


def list_images(
    path: str | os.PathLike, suffixes: tuple[str, ...] = IMAGE_SUFFIXES
) -> list[pathlib.Path]:
    """The image file `path`, or every image in the folder `path` and below it, sorted.

    In a folder, hidden files and files of other types are skipped.

    Raises:
      DataError: if the path is missing, is no image file, or is a folder without images.
    """
    path, remedy = pathlib.Path(path), f"use one of {' '.join(suffixes)}"
    if not path.exists():
        raise DataError(f"{path} does not exist", "use an image file or a folder of images")
    if path.is_file():
        if path.suffix.lower() not in suffixes:
            raise DataError(f"{path} is not of a known image type", remedy)
        return [path]
    below = list(walk(path))
    images = [p for p in below if p.suffix.lower() in suffixes]
    if not images:
        types = some({p.suffix or p.name for p in below})
        raise DataError(f"{path} holds no images (types found: {types})", remedy)
    return sorted(images, key=pathlib.Path.as_posix)


def read_image(
    path: str | os.PathLike, channels: int = 3, *, exif: bool = False
) -> UInt8[np.ndarray, "h w {channels}"]:
    """Decodes an image to RGB, or to `channels` bands where that is not 3.

    For RGB, grey is repeated and alpha dropped. For another number of channels nothing is repeated
    or dropped: grey has 1, RGBA 4, and a TIFF its samples (or pages of one sample each). A .npy
    file, for 3 channels too, holds [h, w, n], or [h, w] for one channel. 16-bit values are scaled
    by 255/65535, and the floats of a .npy file, which are 0 to 1, by 255.

    Args:
      path: the file; of several frames the first is read.
      channels: of the image.
      exif: turn the image as its EXIF orientation says. Right for photos to predict on; wrong
        for training pairs, whose masks carry no such tag. (Pillow turns a TIFF either way.)

    Raises:
      DataError: if the file cannot be read, its values have no known range (float, 32-bit), or
        it has another number of channels.
    """
    suffix, image = pathlib.Path(path).suffix.lower(), None
    if suffix == ARRAY_SUFFIX:
        image = _npy_bands(path)
    elif suffix in (".tif", ".tiff") and channels != 3:
        image = _tiff_bands(path, channels)
    if image is None:
        image = open_image(path)
        image = _pillow_bands(ImageOps.exif_transpose(image) if exif else image, path, channels)
    own = image.shape[2]
    if own != channels:
        raise DataError(
            f"{path} has {own} channels, but data.channels={channels}",
            f"use files with {channels} channels, or data.channels={own} if all have that many",
        )
    return image


def _pillow_bands(image: Image.Image, path, channels: int) -> UInt8[np.ndarray, "h w c"]:
    deep = image.mode == "F" or image.mode.startswith("I")
    if channels == 3 and not deep:
        return np.array(image.convert("RGB"))
    if image.mode in ("P", "PA"):  # indices mean nothing without their colours
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    values = np.array(image)
    if deep and image.mode != "F" and values.min() >= 0 and values.max() <= 65535:
        values = values.astype(np.uint16)
    bands = _scaled(values, path)
    return np.repeat(bands, 3, axis=-1) if deep and channels == 3 else bands


def _tiff_bands(path, channels: int) -> UInt8[np.ndarray, "h w c"] | None:
    """All samples of a TIFF, planar or interleaved; None for one sample, which Pillow reads.

    Pillow would silently drop samples that its modes cannot hold.
    """
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            if len(series.pages) == 1 and series.keyframe.samplesperpixel == 1:
                return None
            axes, values = series.axes, series.asarray()
    except Exception as error:  # it raises TiffFileError, struct.error, ...
        remedy = "use an intact TIFF"
        if "imagecodecs" in str(error):
            remedy = "use an uncompressed or deflated TIFF, or install imagecodecs"
        raise DataError(f"{path} cannot be read: {error}", remedy) from error
    bands = [place for place, axis in enumerate(axes) if axis not in "YX"]
    if len(bands) > 1 or not {"Y", "X"} <= set(axes):
        raise DataError(
            f"{path} has the axes {axes} {list(values.shape)}",
            "use one image of samples or of pages, [bands, h, w] or [h, w, bands]",
        )
    # tifffile writes an array [h, w, n] as h pages unless it is told that n are samples.
    rows_as_pages = axes == "QYX" and values.shape[2] == channels != values.shape[0]
    if bands and not rows_as_pages:
        values = np.moveaxis(values, bands[0], -1)
    return _scaled(values, path)


def _npy_bands(path) -> UInt8[np.ndarray, "h w c"]:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}", "use an intact .npy file") from error
    if values.ndim not in (2, 3) or not values.size:
        raise DataError(f"{path} is {list(values.shape)}", "use an array [height, width, channels]")
    return _scaled(values, path, floats=True)


def _scaled(values: np.ndarray, path, *, floats: bool = False) -> UInt8[np.ndarray, "h w c"]:
    """Values [h, w, c] or [h, w] of a known range as 0..255."""
    values = values if values.ndim == 3 else values[..., None]
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype == np.uint16:  # 65535 becomes 255; this rounds to nearest
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    low, high = values.min(), values.max()
    if floats and values.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.round(values * 255).astype(np.uint8)
    raise DataError(
        f"{path}: {values.dtype} values from {low} to {high}, whose full range is unknown",
        f"use 8-bit or 16-bit images{', or floats from 0 to 1' * floats}",
    )


def read_mask(path: str | os.PathLike) -> Integer[np.ndarray, "h w"]:
    """Decodes a mask to the ids in the file: uint8, or int32 from 16-bit and 32-bit files.

    One-channel files give their values, palette files their indices.

    Raises:
      DataError: if the file cannot be read, or holds colours instead of ids.
    """
    return mask_ids(open_image(path), path)


def mask_ids(mask: Image.Image, path: str | os.PathLike) -> Integer[np.ndarray, "h w"]:
    """`read_mask` for an image that is open."""
    if mask.mode in ("1", "L", "P") or mask.mode.startswith("I"):
        return np.array(mask).astype(np.int32 if mask.mode.startswith("I") else np.uint8)
    found = f"{path}: masks must hold one class id per pixel, found mode {mask.mode}"
    if mask.mode not in ("RGB", "RGBA"):
        raise DataError(found, "use a one-channel PNG of class ids")
    rgb = np.asarray(mask)[..., :3]
    number, colors = count_colors(rgb)
    shown = ", ".join([hex_color(color) for color, _ in colors] + ["..."] * (number > 5))
    remedy = (
        "use ids[(rgb == color_of_class_k).all(-1)] = k, for each class, and save the ids as PNG; "
        "the folder data set reads colours that a class list (data.classes) gives"
    )
    if (rgb == rgb[..., :1]).all():
        remedy = "use one of the channels, which are equal: np.asarray(mask)[..., 0], saved as PNG"
    raise DataError(f"{found} with {number} colours ({shown})", remedy)


def count_colors(
    rgb: UInt8[np.ndarray, "*n c"], shown: int = 5
) -> tuple[int, list[tuple[tuple[int, int, int], int]]]:
    """The number of colours in a picture, and the most frequent ones with their pixels."""
    keys, pixels = np.unique(packed_colors(rgb), return_counts=True)
    most = np.argsort(-pixels, kind="stable")[:shown]
    colors = [(tuple(int(keys[k]) >> s & 255 for s in (16, 8, 0)), int(pixels[k])) for k in most]
    return len(keys), colors


def packed_colors(rgb: Integer[np.ndarray, "*n c"]) -> Int32[np.ndarray, "*n"]:
    """Each colour as one number, 0xRRGGBB; channels after the third do not count."""
    keys = rgb[..., 0].astype(np.int32)  # in place from here: three times as fast as a product
    for channel in (1, 2):
        keys <<= 8
        keys |= rgb[..., channel]
    return keys


def hex_color(color: Iterable[int]) -> str:
    """#rrggbb"""
    return "#" + "".join(f"{int(c):02x}" for c in color)


def rgb_view(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
    """The channels of an image that a picture shows: the first three, or the first as grey."""
    if image.shape[2] == 3:
        return image
    rgb = image[..., :3] if image.shape[2] > 3 else np.repeat(image[..., :1], 3, axis=-1)
    return np.ascontiguousarray(rgb)  # Pillow wants it so


def some(things: Iterable[Any], shown: int = 5) -> str:
    """The first few in sorted order, for a message; "none" if there are none."""
    words = sorted(map(str, things))
    return ", ".join(words[:shown] + ["..."] * (len(words) > shown)) or "none"


def open_image(path: str | os.PathLike | io.BytesIO) -> Image.Image:
    """Opens and decodes a file with Pillow; DataError, naming the file, if that fails."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        raise DataError(f"{path} cannot be read: {error}", "use an intact image file") from error
