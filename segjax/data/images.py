"""Image and mask files: what there is in a folder, and how a file becomes an array."""

import os
import pathlib

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageOps

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def list_images(path: str | os.PathLike) -> list[pathlib.Path]:
    """The image file `path`, or every image in the folder `path` and below it, sorted.

    In a folder, hidden files and files of other types are passed over.

    Raises:
      ValueError: if the path is missing, is no image file, or is a folder without images.
    """
    path, known = pathlib.Path(path), " ".join(IMAGE_SUFFIXES)
    if not path.exists():
        raise ValueError(f"{path} does not exist; use an image file or a folder of images")
    if path.is_file():
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise ValueError(f"{path} is not of a known image type; use one of {known}")
        return [path]
    below = [
        pathlib.Path(folder, name).relative_to(path)
        for folder, _, names in os.walk(path, followlinks=True)
        for name in names
    ]
    below = [p for p in below if not any(part.startswith(".") for part in p.parts)]
    found = sorted(p.as_posix() for p in below if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        there = some({p.suffix or p.name for p in below})
        raise ValueError(f"{path} holds no images (types found: {there}); use one of {known}")
    return [path / name for name in found]


def read_image(path: str | os.PathLike, *, exif: bool = False) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes an image to RGB; grey is repeated, alpha dropped, 16-bit grey scaled to 0..255.

    Args:
      path: the file; of several frames the first is read.
      exif: turn the image as its EXIF orientation says. Right for photos to predict on; wrong
        for training pairs, whose masks carry no such tag. (Pillow turns a TIFF either way.)

    Raises:
      ValueError: if the file cannot be read, or its values have no known range (float, 32-bit).
    """
    image = _open(path)
    if exif:
        image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"{path}: {values.dtype} values from {values.min()} to {values.max()}, whose "
                "full range is unknown; use 8-bit or 16-bit images"
            )
        grey = np.round(values / 257).astype(np.uint8)  # 65535 becomes 255
        return np.repeat(grey[..., None], 3, axis=-1)
    return np.array(image.convert("RGB"))


def read_mask(path: str | os.PathLike) -> Integer[np.ndarray, "h w"]:
    """Decodes a mask to the ids in the file: uint8, or int32 from 16-bit and 32-bit files.

    One-channel files give their values, palette files their indices.

    Raises:
      ValueError: if the file cannot be read, or holds colours instead of ids.
    """
    mask = _open(path)
    if mask.mode in ("1", "L", "P") or mask.mode.startswith("I"):
        return np.array(mask).astype(np.int32 if mask.mode.startswith("I") else np.uint8)
    found = f"{path}: masks must hold one class id per pixel, found mode {mask.mode}"
    if mask.mode not in ("RGB", "RGBA"):
        raise ValueError(f"{found}; use a one-channel PNG of class ids")
    rgb = np.asarray(mask)[..., :3].astype(np.int32)
    colors = np.unique(rgb @ [1 << 16, 1 << 8, 1])
    remedy = "ids[(rgb == color_of_class_k).all(-1)] = k, for each class, and save the ids as PNG"
    if (rgb == rgb[..., :1]).all():
        remedy = "one of the channels, which are equal: np.asarray(mask)[..., 0], saved as PNG"
    shown = some([f"#{c:06x}" for c in colors])
    raise ValueError(f"{found} with {len(colors)} colours ({shown}); use {remedy}")


def some(things, shown: int = 5) -> str:
    """The first few in sorted order, for a message; "none" if there are none."""
    words = sorted(map(str, things))
    return ", ".join(words[:shown] + ["..."] * (len(words) > shown)) or "none"


def _open(path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        raise ValueError(f"{path} cannot be read: {error}; use an intact image file") from error
