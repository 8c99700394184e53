"""Pictures of single images: overlays, error maps, sheets of samples, maps of uncertainty."""

import base64
import functools
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib import font_manager
from matplotlib.axes import Axes
from PIL import Image, ImageDraw, ImageFont

from segjax.data.classes import IGNORE, ClassTable
from segjax.report.figures import INK, Panel, Target, save_png, write_bytes
from segjax.report.numbers import format_number
from segjax.terminal import one_line

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

    Pixels that are ignored, or have no class, keep the image.
    """
    share = np.float32(alpha)  # float64 would take twice the memory
    blended = np.rint((1 - share) * image + share * classes.colorize(label)).astype(np.uint8)
    return np.where(classes.is_painted(label)[..., None], blended, image)


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
    black = "no class, or ignored" if classes.multilabel else "ignored"
    return [*classes_shown(maps, classes), ("wrong", WRONG), (black, (0, 0, 0))]


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
        return {
            "name": sample["name"],
            "miou": sample["miou"],
            "small": sample["label"].shape[1] < 300,
            "pictures": list(zip(PANELS, uris, strict=True)),
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
        sheet, buffer = _draw_sheet(rows, legend, zoom, headings), io.BytesIO()
        if colors:
            sheet = sheet.quantize(colors, dither=Image.Dither.NONE)
        sheet.save(buffer, format="png", optimize=bool(colors))
        if buffer.tell() <= max_bytes or zoom * width < 32:
            break
        zoom = zoom - 1 if zoom > 1 else 0.8 * zoom
    write_bytes(target, buffer.getvalue())


def _draw_sheet(
    rows: Sequence[tuple[str, Sequence[Picture]]],
    legend: Legend,
    zoom: float | int,
    headings: Sequence[str],
) -> Image.Image:
    """The sheet, from top to bottom: headings, rows under their titles, legend."""
    rows = [(title, [resize(picture, zoom) for picture in pictures]) for title, pictures in rows]
    column = max(picture.shape[1] for _, pictures in rows for picture in pictures) + _GAP
    width = _GAP + column * max(len(pictures) for _, pictures in rows)
    cell = min(width - _GAP, 40 + 7 * max(len(name) for name, _ in legend))
    across = (width - _GAP) // cell
    lines = bool(headings) + sum(bool(title) for title, _ in rows) + -(-len(legend) // across)
    heights = [max(picture.shape[0] for picture in pictures) for _, pictures in rows]
    height = _GAP + lines * _LINE + sum(heights) + len(rows) * _GAP
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.truetype(_font_file(), 12)

    def write(text: str, left: int, line: int) -> None:
        pen.text((left, line + 4), one_line(text), fill=INK, font=font)

    top = _GAP
    for i, heading in enumerate(headings):
        write(heading, _GAP + i * column, top)
    top += _LINE * bool(headings)
    for (title, pictures), tallest in zip(rows, heights, strict=True):
        if title:
            write(title, _GAP, top)
            top += _LINE
        for i, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (_GAP + i * column, top))
        top += tallest + _GAP
    for i, (name, color) in enumerate(legend):
        left, line = _GAP + i % across * cell, top + i // across * _LINE
        pen.rectangle((left, line + 6, left + 19, line + 17), fill=tuple(map(int, color)))
        write(name, left + 26, line)
    return sheet


@functools.cache
def _font_file() -> str:
    """The file of matplotlib's font, which figures use too."""
    return font_manager.findfont("DejaVu Sans")


def plot_uncertainty(
    sample: Mapping[str, Any],
    classes: ClassTable,
    target: Target,
    limits: Mapping[str, float],
) -> None:
    """Writes a PNG: image, prediction and errors above; below the three `MAPS`, with their scales.

    Args:
      sample: name, image uint8 [h, w, 3], label and prediction uint8 [h, w], and float [h, w] under
        the keys of `MAPS`.
      classes: the class table.
      target: PNG file to write.
      limits: upper end of each map's scale, except for the entropy, whose scale ends at log k. The
        same limits make pictures comparable.
    """
    image, label, prediction = sample["image"], sample["label"], sample["prediction"]
    size = 4.4, 4.2 * label.shape[0] / label.shape[1] + 0.5
    ends = {**limits, "entropy": math.log(len(classes))}

    def panel(title: str, picture: np.ndarray, end: float | None = None, unit: str = "") -> Panel:
        def draw(axes: Axes) -> None:
            shown = axes.imshow(picture, "magma", vmin=0, vmax=end, interpolation="nearest")
            axes.set_axis_off()
            if end is not None:
                scale = axes.figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.02)
                scale.set_label(unit, fontsize=8)
                scale.outline.set_visible(False)
                scale.ax.tick_params(labelsize=7, length=0)

        return Panel(title, draw, size)

    panels = [
        panel(sample["name"], image),
        panel("Prediction", classes.colorize(prediction)),
        panel("Errors", error_map(image, label, prediction)),
        *(panel(title, sample[key], max(ends[key], 1e-9), unit) for key, title, unit in MAPS),
    ]
    save_png(panels, target, columns=3)
