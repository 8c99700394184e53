"""Pictures of predictions as files: PNG, or GeoTIFF for an image that is one."""

import pathlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
import tifffile
from jaxtyping import Integer, Shaped
from PIL import Image

from segjax.data.classes import IGNORE
from segjax.data.files.atomic import replacing
from segjax.data.files.geo import Tag, copy_world_files, nodata_tag
from segjax.data.files.images import PNG_LEVEL
from segjax.inference.inputs import Input

_TILE = 256  # side of the tiles of a TIFF, a multiple of 16
_BIG = 2**31  # bytes of pixels from which a TIFF has offsets of 64 bits


class Rows(NamedTuple):
    """A picture [h, w] or [h, w, 3] that is made some rows at a time.

    Attributes:
      shape, dtype: of the picture.
      read: gives the rows of a slice.
    """

    shape: tuple[int, ...]
    read: Callable[[slice], Shaped[np.ndarray, "h w *c"]]
    dtype: Any = np.uint8

    @classmethod
    def of(cls, picture: Shaped[np.ndarray, "h w *c"]) -> "Rows":
        return cls(picture.shape, picture.__getitem__, picture.dtype)

    def blocks(self) -> Iterator[Shaped[np.ndarray, "h w *c"]]:
        """The rows from the top, `_TILE` at a time."""
        for top in range(0, self.shape[0], _TILE):
            yield self.read(slice(top, min(top + _TILE, self.shape[0])))


def void_id(ids: Collection[int]) -> int:
    """The id of pixels without data in a mask of these class ids: 255, or the next below it that is
    free."""
    return next(i for i in range(IGNORE, -1, -1) if i not in ids)


def mark_void(item: Input, label: Integer[np.ndarray, "h w"], id_: int = IGNORE) -> None:
    """Sets the label of pixels without data, in place; see `geo.void_pixels`."""
    if item.void is None:
        return
    for top in range(0, len(label), _TILE):
        rows = slice(top, min(top + _TILE, len(label)))
        label[rows][item.void(rows)] = id_


def write_picture(
    folder: pathlib.Path, item: Input, picture: Rows | np.ndarray, *, nodata: int | None = None
) -> pathlib.Path:
    """Writes a picture of an input's pixels as FOLDER/NAME.png.

    For a GeoTIFF it is NAME.tif with the same tags of place, tiled and deflated, some rows in
    memory at a time. World files are copied.

    Args:
      nodata: the id that `mark_void` has left in the picture, which is tagged as such where the
        input has pixels without data; None for other pictures.
    """
    rows = picture if isinstance(picture, Rows) else Rows.of(picture)
    file = folder / f"{item.name}{'.tif' if item.tiff else '.png'}"
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial:
        if item.tiff:
            tags = [] if nodata is None or item.void is None else [nodata_tag(nodata)]
            _write_tiff(partial, rows, (*item.geo, *tags))
        else:
            whole = Image.fromarray(np.concatenate(list(rows.blocks())))
            whole.save(partial, "PNG", compress_level=PNG_LEVEL)
    copy_world_files(item.world_files, file)
    return file


def _write_tiff(file: pathlib.Path, rows: Rows, tags: tuple[Tag, ...]) -> None:
    tifffile.imwrite(
        file,
        _tiles(rows),
        shape=rows.shape,
        dtype=rows.dtype,
        tile=(_TILE, _TILE),
        photometric="rgb" if len(rows.shape) == 3 else "minisblack",
        planarconfig="contig" if len(rows.shape) == 3 else None,
        compression="zlib",
        extratags=tags,
        metadata=None,
        software=False,
        bigtiff=int(np.prod(rows.shape)) * np.dtype(rows.dtype).itemsize > _BIG,
    )


def _tiles(rows: Rows) -> Iterator[Shaped[np.ndarray, "t t *c"]]:
    """The tiles from the top left, row by row; beyond the picture they hold 0."""
    for block in rows.blocks():
        for left in range(0, rows.shape[1], _TILE):
            part = block[:, left : left + _TILE]
            tile = np.zeros((_TILE, _TILE, *rows.shape[2:]), rows.dtype)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile
