"""Pictures of single images: overlays, error maps, sheets of samples, maps of uncertainty."""

import base64
import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from PIL import Image

from segjax.data.classes import IGNORE, ClassTable
from segjax.report.figures import INK, Target, save_figure
from segjax.report.numbers import format_number

Picture = UInt8[np.ndarray, "_ _ 3"]
Legend = Sequence[tuple[str, Sequence[int]]]  # names and RGB colours

PANELS = ("image", "truth", "prediction", "errors")
WRONG = (230, 25, 35)  # error maps: a labelled pixel with another prediction
# Maps of a sample's uncertainty: key, title, unit; in the order of the pictures.
MAPS = (
    ("entropy", "Predictive entropy", "nats"),
    ("mutual_information", "Mutual information", "nats"),
    ("variance", "Variance, mean over classes", ""),
)
_TINT = 0.6  # of overlays in a page: the legend names the colours, the image still shows
_LONGEST_SIDES = (720, 560, 440, 340, 260, 200, 150, 100)  # pixels, tried in this order
_GAP, _LINE = 8, 24  # pixels of a sheet


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    label: UInt8[np.ndarray, "h w"],
    classes: ClassTable,
    alpha: float = 0.5,
) -> UInt8[np.ndarray, "h w 3"]:
    """The image tinted with the palette: `alpha` 0 is the image alone, 1 the colours alone.

    Ignored pixels keep the image.
    """
    blended = np.rint((1 - alpha) * image + alpha * classes.colorize(label)).astype(np.uint8)
    return np.where((label == IGNORE)[..., None], image, blended)


def error_map(
    image: Picture, label: UInt8[np.ndarray, "_ _"], prediction: UInt8[np.ndarray, "_ _"]
) -> Picture:
    """Wrong pixels in `WRONG` (red) on the greyed image.

    Ignored pixels are dark with diagonal stripes and never red, whatever is predicted there.

    Raises:
      ValueError: if label or prediction differ from the image in height or width.
    """
    if not image.shape[:2] == label.shape == prediction.shape:
        raise ValueError(
            f"image {image.shape}, label {label.shape} and prediction {prediction.shape} "
            "must have one height and width; resize them to the label's"
        )
    luma = image @ np.array([0.299, 0.587, 0.114])
    # Lifted and flattened, so that red stands out on dark and on bright ground alike.
    picture = np.repeat((70 + 0.65 * luma).astype(np.uint8)[..., None], 3, axis=2)
    picture[label != prediction] = WRONG
    rows, columns = np.indices(label.shape)
    stripes = np.where((rows + columns) % 8 < 2, 70, 35).astype(np.uint8)
    return np.where((label == IGNORE)[..., None], stripes[..., None], picture)


def sample_panels(
    sample: Mapping[str, Any], classes: ClassTable, tint: float | None = None
) -> tuple[Picture, ...]:
    """The four pictures of a sample, in the order of `PANELS`.

    Args:
      sample: image uint8 [h, w, 3], label and prediction uint8 [h, w].
      classes: the class table.
      tint: of the maps over the image; by default maps are colours alone, black where ignored.
    """
    image, label, prediction = sample["image"], sample["label"], sample["prediction"]
    errors = error_map(image, label, prediction)
    if tint is None:
        return image, classes.colorize(label), classes.colorize(prediction), errors
    maps = (overlay(image, ids, classes, tint) for ids in (label, prediction))
    return image, *maps, errors


def classes_shown(
    maps: Sequence[UInt8[np.ndarray, "_ _"]], classes: ClassTable, limit: int = 24
) -> Legend:
    """Entries of a legend: all classes up to `limit`, else those that occur in the label maps."""
    shown = range(len(classes))
    if len(classes) > limit:
        occur = np.unique(np.concatenate([[], *map(np.unique, maps)]))
        shown = [int(k) for k in occur if k < len(classes)]
    return [(classes.names[k], classes.palette[k]) for k in shown]


def sample_legend(samples: Sequence[Mapping], classes: ClassTable) -> Legend:
    """The legend of sample pictures."""
    maps = [sample[key] for sample in samples for key in ("label", "prediction")]
    return [*classes_shown(maps, classes), ("wrong", WRONG), ("ignored", (0, 0, 0))]


def resize(picture: Picture, zoom: float | int) -> Picture:
    """A picture at `zoom` times its size: area means where it shrinks, else nearest pixels."""
    height, width = (max(1, round(zoom * n)) for n in picture.shape[:2])
    method = Image.Resampling.BOX if zoom < 1 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize((width, height), method))


def jpeg_uri(picture: Picture, longest: int, **options: int) -> str:
    """A picture, its longer side at most `longest` pixels, as the data URI of a JPEG.

    Args:
      options: Pillow's for saving.
    """
    buffer = io.BytesIO()
    zoom = min(1, longest / max(picture.shape[:2]))
    Image.fromarray(resize(picture, zoom)).save(buffer, "JPEG", **options)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def embedded_samples(
    samples: Mapping[str, Sequence[Mapping]], classes: ClassTable, max_bytes: int = 2_000_000
) -> dict[str, list[dict[str, Any]]]:
    """Samples for a page: heading -> dicts of name, miou, small and pictures ((panel, URI) each).

    All pictures get smaller until they take at most `max_bytes` of text.

    Args:
      samples: heading -> samples (see `sample_grid`).
      classes: the class table.

    Raises:
      ValueError: if a sample's arrays differ in height or width.
    """

    def embedded(sample: Mapping, side: int) -> dict[str, Any]:
        # Full colour resolution: at 4:2:0 the red of single wrong pixels would bleed.
        panels = sample_panels(sample, classes, _TINT)
        uris = [jpeg_uri(panel, side, quality=84, subsampling=0) for panel in panels]
        small = sample["label"].shape[1] < 300
        pictures = list(zip(PANELS, uris, strict=True))
        return {
            "name": sample["name"],
            "miou": sample["miou"],
            "small": small,
            "pictures": pictures,
        }

    groups = {}
    for side in _LONGEST_SIDES:
        groups = {h: [embedded(sample, side) for sample in group] for h, group in samples.items()}
        texts = (uri for group in groups.values() for s in group for _, uri in s["pictures"])
        if sum(map(len, texts)) <= max_bytes:
            break
    return groups


def sample_grid(
    samples: Sequence[Mapping], classes: ClassTable, target: Target, max_bytes: int = 2_000_000
) -> None:
    """Writes a PNG of one row a sample: image, truth, prediction, errors, under name and mIoU.

    Pixels are placed as they are: small pictures enlarged by a whole number, pictures wider than
    480 pixels shrunk to that, all smaller until the file has at most `max_bytes`.

    Args:
      samples: dicts of name, image uint8 [h, w, 3], label and prediction uint8 [h, w], miou.
      classes: the class table.
      target: PNG file to write.
      max_bytes: bound of the file size.

    Raises:
      ValueError: if there are no samples, or a sample's arrays differ in height or width.
    """
    if not samples:
        raise ValueError("sample_grid needs at least one sample, found none")
    rows = [
        (f"{s['name']}   mIoU {format_number(s['miou'])}", sample_panels(s, classes))
        for s in samples
    ]
    write_sheet(rows, sample_legend(samples, classes), target, 480, max_bytes, headings=PANELS)


def write_sheet(
    rows: Sequence[tuple[str, Sequence[Picture]]],
    legend: Legend,
    target: Target,
    widest: int,
    max_bytes: int,
    headings: Sequence[str] = (),
    colors: int | None = None,
) -> None:
    """Writes pictures in rows, and a legend below, as a PNG of at most `max_bytes`.

    Args:
      rows: title ("": none) and pictures of each row.
      legend: names and colours.
      target: PNG file to write.
      widest: pixels that a picture is wide at most; small ones are enlarged by a whole number.
      max_bytes: all pictures get smaller until the file is as small.
      headings: of the columns.
      colors: of the file's palette; by default every pixel has its own.
    """
    width = max(picture.shape[1] for _, pictures in rows for picture in pictures)
    zoom = widest // width if width <= widest else widest / width
    while True:
        buffer = io.BytesIO()
        save_figure(_draw_sheet(rows, legend, zoom, headings), buffer, format="png")
        if colors:
            picture = Image.open(buffer).convert("RGB").quantize(colors, dither=Image.Dither.NONE)
            buffer = io.BytesIO()
            picture.save(buffer, format="png", optimize=True)
        if buffer.tell() <= max_bytes or zoom * width < 32:
            break
        zoom = zoom - 1 if zoom > 1 else 0.8 * zoom
    if isinstance(target, io.BytesIO | io.BufferedWriter):
        target.write(buffer.getvalue())
    else:
        pathlib.Path(target).write_bytes(buffer.getvalue())


def _draw_sheet(rows, legend: Legend, zoom: float | int, headings: Sequence[str]) -> Figure:
    """The sheet as a figure of 100 dots an inch, pictures placed pixel by pixel."""
    rows = [(title, [resize(picture, zoom) for picture in pictures]) for title, pictures in rows]
    column = max(picture.shape[1] for _, pictures in rows for picture in pictures) + _GAP
    width = _GAP + column * max(len(pictures) for _, pictures in rows)
    heights = [max(picture.shape[0] for picture in pictures) for _, pictures in rows]
    cell = min(width - _GAP, 40 + 7 * max(len(name) for name, _ in legend))
    across = (width - _GAP) // cell
    lines = bool(headings) + sum(bool(title) for title, _ in rows) + -(-len(legend) // across)
    height = _GAP + lines * _LINE + sum(heights) + len(rows) * _GAP
    # The hundredth keeps 1.15 * 100 from being cut to 114 pixels.
    figure = Figure(((width + 0.01) / 100, (height + 0.01) / 100), dpi=100, facecolor="white")

    def write(text: str, left: int, low: int, **font) -> None:
        style = {"fontsize": 9, "color": INK, "parse_math": False, **font}
        figure.text(left / width, low / height, text, **style)

    top = height - _GAP
    if headings:
        top -= _LINE
        for i, heading in enumerate(headings):
            write(heading, _GAP + i * column, top + 7, fontsize=10, fontweight="bold")
    for (title, pictures), tallest in zip(rows, heights, strict=True):
        if title:
            top -= _LINE
            write(title, _GAP, top + 7)
        for i, picture in enumerate(pictures):
            figure.figimage(picture, _GAP + i * column, top - picture.shape[0], origin="upper")
        top -= tallest + _GAP
    for i, (name, color) in enumerate(legend):
        left, low = _GAP + i % across * cell, top - (i // across + 1) * _LINE + _GAP
        figure.figimage(np.full((12, 20, 3), color, np.uint8), left, low)
        write(name, left + 26, low + 2, fontsize=8)
    return figure


def plot_uncertainty(
    sample: Mapping[str, Any],
    classes: ClassTable,
    target: Target,
    limits: Mapping[str, float] | None = None,
) -> None:
    """Writes a PNG: image, prediction and errors above; below the three `MAPS`, with their scales.

    Args:
      sample: name, image uint8 [h, w, 3], label and prediction uint8 [h, w], and float [h, w] under
        the keys of `MAPS`.
      classes: the class table.
      target: PNG file to write.
      limits: upper end of each map's scale, so that pictures can be compared; by default log k for
        the entropy and the map's own largest value for the others.
    """
    height, width = sample["label"].shape
    column = 4.2
    size = (3 * column + 1.2, 2 * (column * height / width + 0.6) + 0.3)
    figure = Figure(size, dpi=110, layout="constrained", facecolor="white")
    axes = figure.subplots(2, 3)
    errors = error_map(sample["image"], sample["label"], sample["prediction"])
    pictures = (sample["image"], classes.colorize(sample["prediction"]), errors)
    titles = ("Image", "Prediction", "Errors")
    for place, title, picture in zip(axes[0], titles, pictures, strict=True):
        place.imshow(picture, interpolation="nearest")
        place.set_title(title, fontsize=10, loc="left", color=INK)
    ends = {"entropy": math.log(len(classes)), **(limits or {})}
    for place, (key, title, unit) in zip(axes[1], MAPS, strict=True):
        end = max(ends.get(key, float(np.max(sample[key]))), 1e-9)
        shown = place.imshow(sample[key], "magma", vmin=0, vmax=end, interpolation="nearest")
        place.set_title(title, fontsize=10, loc="left", color=INK)
        scale = figure.colorbar(shown, ax=place, shrink=0.8, pad=0.02)
        scale.outline.set_visible(False)
        scale.ax.tick_params(labelsize=7, length=0)
        scale.set_label(unit, fontsize=8)
    for place in axes.flat:
        place.set_axis_off()
    figure.suptitle(sample["name"], fontsize=11, color=INK, x=0.01, ha="left", parse_math=False)
    save_figure(figure, target, format="png")
