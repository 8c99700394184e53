"""Pictures of the doctor's report: samples with their masks, and the classes' shares."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int16, Integer, UInt8
from matplotlib.figure import Figure
from PIL import Image

from segjax.data.classes import IGNORE, ClassTable
from segjax.data.doctor import Diagnosis
from segjax.data.files.images import rgb_view
from segjax.data.source import files_of
from segjax.report.plots import Target, overlay, resize

NO_CLASS = (0, 255, 255)  # pixels whose id is no class
_GAP = 6  # white pixels between two pictures
_CROP = 48  # pixels a side of what is shown enlarged


def side_by_side(
    source: Any, index: int, classes: ClassTable, height: int = 150, *, enlarged: bool = False
) -> UInt8[np.ndarray, "h w 3"] | None:
    """A sample's image beside its mask, both `height` pixels high, as far as they can be read.

    A mask is drawn over its image where they fit; otherwise by itself, pixels without a class in
    `NO_CLASS`. `enlarged` shows the part of the mask with the most boundaries instead.

    Returns:
      The picture; None if neither file can be read.
    """
    files = files_of(source)
    image, label, mask = _read(source, files, index, classes)
    if enlarged and mask is not None:
        mask = _busiest(mask, label)
    elif image is not None and label is not None and image.shape[:2] == label.shape:
        mask = overlay(image, np.where(label < 0, IGNORE, label).astype(np.uint8), classes)
        mask[label < 0] = NO_CLASS
    panels = [_to_height(panel, height) for panel in (image, mask) if panel is not None]
    if not panels:
        return None
    gap = np.full((height, _GAP, 3), 255, np.uint8)
    return np.concatenate([panels[0], *[p for panel in panels[1:] for p in (gap, panel)]], axis=1)


def _read(source, files, index: int, classes: ClassTable):
    """Image, label (-1 = no class) and the mask in colours; None for what cannot be read."""
    if files is None:
        try:
            sample = source[index]
        except (ValueError, OSError):
            return None, None, None
        label = np.asarray(sample["label"]).astype(np.int16)
        label[(label >= len(classes)) & (label != IGNORE)] = -1
        return rgb_view(sample["image"]), label, _colours(label, classes)
    image = label = mask = None
    with contextlib.suppress(ValueError, OSError):
        image = rgb_view(files.image(index))
    try:
        label = _labels(files.ids(index), files.id_map.labels)
        mask = _colours(label, files.classes)
    except (ValueError, OSError):
        # Pillow's decoders raise many kinds; then there is nothing to show.
        with contextlib.suppress(Exception), Image.open(files.mask_paths[index]) as picture:
            mask = np.asarray(picture.convert("RGB"))
    return image, label, mask


def _colours(label: Int16[np.ndarray, "h w"], classes: ClassTable) -> UInt8[np.ndarray, "h w 3"]:
    colours = classes.colorize(np.where(label < 0, IGNORE, label))
    colours[label < 0] = NO_CLASS
    return colours


def _labels(ids: Integer[np.ndarray, "h w"], labels: Mapping[int, int]) -> Int16[np.ndarray, "h w"]:
    values, places = np.unique(ids, return_inverse=True)
    table = np.array([labels.get(int(v), -1) for v in values], np.int16)
    return table[places].reshape(ids.shape)


def _busiest(picture: np.ndarray, label: np.ndarray | None) -> np.ndarray:
    """The square of `_CROP` pixels with the most boundaries."""
    if label is None:
        return picture
    changes = np.zeros(label.shape, np.int32)
    changes[:, 1:] = label[:, 1:] != label[:, :-1]
    changes[1:] += label[1:] != label[:-1]
    most, where = -1, (0, 0)
    for top in range(0, max(1, label.shape[0] - _CROP + 1), _CROP // 2):
        for left in range(0, max(1, label.shape[1] - _CROP + 1), _CROP // 2):
            found = int(changes[top : top + _CROP, left : left + _CROP].sum())
            if found > most:
                most, where = found, (top, left)
    top, left = where
    return picture[top : top + _CROP, left : left + _CROP]


def _to_height(picture: np.ndarray, height: int) -> np.ndarray:
    zoom = height / picture.shape[0]
    if zoom < 1:
        width = max(1, round(zoom * picture.shape[1]))
        small = Image.fromarray(picture).resize((width, height), Image.Resampling.BOX)
        return np.asarray(small)
    rows = np.arange(height) * picture.shape[0] // height
    width = max(1, round(zoom * picture.shape[1]))
    return picture[rows][:, np.arange(width) * picture.shape[1] // width]


def name_of(source: Any, index: int) -> str:
    """A sample's name, its index where it cannot be read."""
    files = files_of(source)
    if files is not None:
        return str(files.names[index])
    try:
        return str(source[index]["name"])
    except (ValueError, OSError):
        return f"sample {index}"


def contact_sheet(
    sources: Mapping[str, Any], classes: ClassTable, count: int = 4, height: int = 150
) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Per split up to `count` evenly spaced samples: (name, picture) each."""
    sheet = {}
    for split, source in sources.items():
        count_here = min(count, len(source))
        rows = []
        for place in range(count_here):
            index = round((place + 0.5) * len(source) / count_here - 0.5)
            picture = side_by_side(source, index, classes, height)
            if picture is not None:
                rows.append((name_of(source, index), picture))
        if rows:
            sheet[split] = rows
    return sheet


def plot_classes(diagnosis: Diagnosis, path: Target) -> None:
    """Each class's share of the labelled pixels, a bar per split, on a logarithmic scale."""
    classes, splits = diagnosis.classes, diagnosis.splits
    k, many = len(classes), len(classes) > 40
    bar = 0.8 / max(1, len(splits))
    figure = Figure((9, 1.2 + (0.16 if many else 0.34) * k), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    shades = ("#2563a8", "#d9730d", "#2e8b57", "#8a63d2", "#6b7280")
    lowest = 100.0
    for place, (split, numbers) in enumerate(splits.items()):
        total = max(1, int(numbers.class_pixels.sum()))
        share = 100 * numbers.class_pixels / total
        lowest = min([lowest, *share[share > 0].tolist()])
        rows = np.arange(k) + (place - (len(splits) - 1) / 2) * bar
        color = shades[place % len(shades)]
        some = share > 0  # a logarithmic axis has no place for the others
        axes.barh(rows[some], share[some], height=bar, color=color, label=split)
        # On the axis itself: in its own units along x, in the data's along y.
        for row in rows[~some]:
            axes.plot(
                0.008, row, "x", color=color, markersize=4, transform=axes.get_yaxis_transform()
            )
    axes.set_xscale("log")
    axes.set_xlim(10 ** np.floor(np.log10(lowest) - 0.01), 100)
    axes.xaxis.set_major_formatter(lambda value, position: f"{value:g}%")
    font = {"fontsize": 6 if many else 9, "parse_math": False}
    axes.set_yticks(range(k), classes.names, **font)
    axes.set_ylim(k - 0.4, -0.6)
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)
    axes.xaxis.grid(color="#e4e7eb", linewidth=0.7)
    axes.tick_params(labelsize=8, length=0)
    axes.set_title("Share of the labelled pixels (x: none)", fontsize=10, loc="left")
    if len(splits) > 1:
        axes.legend(fontsize=8, frameon=False, loc="lower right")
    figure.savefig(path, format="png")


def as_jpeg(picture: UInt8[np.ndarray, "h w 3"], widest: int = 640) -> bytes:
    """A picture as JPEG, at most `widest` pixels wide."""
    buffer = io.BytesIO()
    zoom = min(1.0, widest / picture.shape[1])
    Image.fromarray(resize(picture, zoom, smooth=True)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def shares(pixels: Sequence[int]) -> list[str]:
    """Each of some pixel counts as a percentage of their sum, "–" for none."""
    total = sum(pixels)
    return [f"{100 * p / total:.3g} %" if p else "–" for p in pixels]
