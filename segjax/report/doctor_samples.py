"""Pictures of a data set's samples as far as they can be read, for the doctor's page."""

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int16, Integer, UInt8
from PIL import Image

from segjax.data.classes import IGNORE, ClassTable
from segjax.data.doctor.samples import files_of
from segjax.data.files.images import rgb_view
from segjax.data.files.regular import regular
from segjax.report.pictures import Picture, overlay, resize

NO_CLASS = (0, 255, 255)  # pixels whose id is no class
_GAP = 6  # white pixels between two pictures
_CROP = 48  # pixels a side of an enlarged part


def name_of(source: Any, index: int) -> str:
    """A sample's name; its index if it cannot be read."""
    files = files_of(source)
    if files is not None:
        return str(files.names[index])
    try:
        return str(source[index]["name"])
    except (ValueError, OSError):
        return f"sample {index}"


def side_by_side(
    source: Any, index: int, classes: ClassTable, height: int = 150, *, enlarged: bool = False
) -> Picture | None:
    """A sample's image beside its mask, both `height` pixels high, as far as they can be read.

    A mask is drawn over its image if they fit each other, else by itself; pixels without a class
    have the colour `NO_CLASS`. `enlarged` shows the part of the mask with the most boundaries.

    Returns:
      The picture; None if neither file can be read.
    """
    image, label, mask = _read(source, index, classes)
    if enlarged and mask is not None:
        mask = _busiest(mask, label)
    elif image is not None and label is not None and image.shape[:2] == label.shape:
        mask = overlay(image, np.where(label < 0, IGNORE, label).astype(np.uint8), classes)
        mask[label < 0] = NO_CLASS
    panels = [
        resize(panel, height / panel.shape[0]) for panel in (image, mask) if panel is not None
    ]
    if not panels:
        return None
    gap = np.full((height, _GAP, 3), 255, np.uint8)
    return np.concatenate([panels[0], *[p for panel in panels[1:] for p in (gap, panel)]], axis=1)


def _read(source: Any, index: int, classes: ClassTable):
    """Image, label (-1 = no class) and the mask in colours; None for what cannot be read."""
    files = files_of(source)
    if files is None:
        try:
            sample = source[index]
        except (ValueError, OSError):
            return None, None, None
        label = np.asarray(sample["label"]).astype(np.int16)
        label[(label >= len(classes.values)) & (label != IGNORE)] = -1
        return rgb_view(sample["image"]), label, _colorize(label, classes)
    image = label = mask = None
    size = None
    try:
        ids = files.ids(index)
        size, label = ids.shape, _labels(ids, files.id_map.labels)
        mask = _colorize(label, files.classes)
    except (ValueError, OSError):
        # Pillow's decoders raise many kinds of errors; then there is nothing to show.
        with (
            contextlib.suppress(Exception),
            Image.open(regular(files.mask_paths[index])) as picture,
        ):
            mask = np.asarray(picture.convert("RGB"))
    with contextlib.suppress(ValueError, OSError):
        image = rgb_view(files.image(index, size))
    return image, label, mask


def _colorize(label: Int16[np.ndarray, "h w"], classes: ClassTable) -> UInt8[np.ndarray, "h w 3"]:
    colours = classes.colorize(np.where(label < 0, IGNORE, label))
    colours[label < 0] = NO_CLASS
    return colours


def _labels(ids: Integer[np.ndarray, "h w"], labels: Mapping[int, int]) -> Int16[np.ndarray, "h w"]:
    values, places = np.unique(ids, return_inverse=True)
    table = np.array([labels.get(int(v), -1) for v in values], np.int16)
    return table[places].reshape(ids.shape)


def _busiest(picture: Picture, label: Int16[np.ndarray, "h w"] | None) -> Picture:
    """The square of `_CROP` pixels with the most boundaries."""
    if label is None:
        return picture
    changes = np.zeros(label.shape, np.int32)
    changes[:, 1:] = label[:, 1:] != label[:, :-1]
    changes[1:] += label[1:] != label[:-1]
    corners = [
        (top, left)
        for top in range(0, max(1, label.shape[0] - _CROP + 1), _CROP // 2)
        for left in range(0, max(1, label.shape[1] - _CROP + 1), _CROP // 2)
    ]
    top, left = max(corners, key=lambda at: changes[at[0] :, at[1] :][:_CROP, :_CROP].sum())
    return picture[top : top + _CROP, left : left + _CROP]
