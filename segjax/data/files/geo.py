"""Where on Earth an image lies: the tags of a GeoTIFF, and world files."""

import pathlib
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped

from segjax.data.files.tiff import TiffPixels

# The pixel scale, tie points and transform; the directory, numbers and texts of the projection.
# OGC GeoTIFF 1.1, sections 7.1 and 7.2.
GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)
NODATA_TAG = 42113  # GDAL's
# By suffix of the image, those of the six numbers beside it.
_WORLD = {".tif": ".tfw", ".tiff": ".tfw", ".png": ".pgw", ".jpg": ".jgw", ".jpeg": ".jgw"}
_WORLD |= {".gif": ".gfw", ".bmp": ".bpw", ".webp": ".wld"}
_PROJECTION = ".prj"
SIDECARS = (*set(_WORLD.values()), ".wld", ".tifw", ".pngw", ".jpgw", _PROJECTION, ".ovr", ".xml")


class Tag(NamedTuple):
    """A tag of a TIFF as tifffile writes it: its type, number of values and values."""

    code: int
    dtype: int
    count: int
    value: Any
    once: bool = True


def geo_tags(pixels: TiffPixels) -> tuple[Tag, ...]:
    """The tags of a GeoTIFF that say where its pixels lie; () without any."""
    tags = [pixels.tags[code] for code in GEO_TAGS if code in pixels.tags]
    return tuple(Tag(tag.code, int(tag.dtype), tag.count, tag.value) for tag in tags)


def nodata_tag(value: int) -> Tag:
    """The tag that marks pixels of a value as without data."""
    return Tag(NODATA_TAG, 2, 0, str(value))


def void_pixels(
    values: Shaped[np.ndarray, "h w c"], nodata: float | None, alpha: bool
) -> Bool[np.ndarray, "h w"]:
    """Pixels without data: all bands hold the `nodata` value, or the last one, of opacity, 0."""
    void = np.zeros(values.shape[:2], bool)
    if alpha:
        void |= values[..., -1] == 0
        values = values[..., :-1]
    if nodata is not None:
        void |= (np.isnan(values) if np.isnan(nodata) else values == nodata).all(-1)
    return void


def world_files(image: pathlib.Path) -> list[tuple[str, pathlib.Path]]:
    """The world file and the projection beside an image, with the suffixes "world" and ".prj"."""
    own = _WORLD.get(image.suffix.lower(), ".wld")
    names = [own, own.upper(), ".wld", f"{image.suffix.lower()}w"]
    found = [image.with_suffix(name) for name in names if image.with_suffix(name).is_file()]
    projection = image.with_suffix(_PROJECTION)
    return [
        *[("world", file) for file in found[:1]],
        *[(_PROJECTION, projection)] * (bool(found) and projection.is_file()),
    ]


def copy_world_files(files: Sequence[tuple[str, pathlib.Path]], picture: pathlib.Path) -> None:
    """Copies the files of `world_files` beside a picture of the same pixels, under its name."""
    for kind, file in files:
        suffix = _WORLD[picture.suffix.lower()] if kind == "world" else kind
        shutil.copyfile(file, picture.with_suffix(suffix))
