"""Image and mask files: listed in a folder, and decoded to arrays."""

import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, Integer, UInt8

from segjax.data.errors import DataError
from segjax.data.files import tiff
from segjax.data.files.orientation import to_turn, turned
from segjax.data.files.pixels import ARRAY_SUFFIX, read_raw
from segjax.data.files.values import Range, to_bytes
from segjax.data.files.walk import walk

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".pgm", ".ppm"),
    *tiff.SUFFIXES,
)
MASK_SUFFIXES = (*IMAGE_SUFFIXES, ARRAY_SUFFIX)
# Of polygons: a file for each image, or one for all images of a split.
SHAPE_SUFFIXES = (".json", ".txt", ".xml", ".csv")
# Of PNG files that are written, of 9: five times faster than the default on photographs, and a
# tenth larger.
PNG_LEVEL = 2


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
    path: str | os.PathLike,
    channels: int = 3,
    *,
    value_range: Sequence[Range] = (),
    exif: str = "ignore",
    mask_size: tuple[int, int] | None = None,
) -> UInt8[np.ndarray, "h w {channels}"]:
    """Decodes an image to RGB, or to `channels` bands where that is not 3.

    For RGB, grey is repeated and alpha dropped. For another number of channels nothing is repeated
    or dropped: grey has 1, RGBA 4, and a TIFF its samples (or pages of one sample each). A .npy
    file, for 3 channels too, holds [h, w, n], or [h, w] for one channel. Of several frames, or
    pages in colour, the first is read.

    Args:
      path: the file.
      channels: of the image.
      value_range: the values that become 0 and 255, see `values.to_bytes`; () = 0 to the highest
        value of the type, or 0 to 1 for floats.
      exif, mask_size: whether the image is turned as its EXIF orientation says, see
        `orientation.to_turn`.

    Raises:
      DataError: if the file cannot be read, is larger than `MAX_MEGAPIXELS` allows, has another
        number of channels, or its values have no known range.
      UnclearOrientation: see `orientation.to_turn`.
    """
    raw = read_raw(path, channels)
    image = to_bytes(raw.values, path, value_range, top=raw.top, inverted=raw.inverted)
    if image.shape[2] != channels:
        image = np.repeat(image, channels, axis=-1)
    size = image.shape[0], image.shape[1]
    if to_turn(raw.orientation, size, exif, mask_size, path):
        return turned(image, raw.orientation)
    return image


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
