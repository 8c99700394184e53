"""Pictures of a run: learning curves, confusion matrix, per-class IoU, sample predictions.

Every figure is drawn on its own Agg canvas (no pyplot, no global state) and written as PNG to
`path`: a file in a folder that exists, or an open binary file.
"""

import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import IO

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from PIL import Image

from segjax.data.classes import IGNORE, ClassTable
from segjax.report.tables import best_step, format_number, series

Target = str | os.PathLike | IO[bytes]

PANELS = ("image", "truth", "prediction", "errors")
WRONG = (230, 25, 35)  # error maps: a labelled pixel with another prediction
_INK, _FAINT, _GRID = "#24292f", "#6b7280", "#e4e7eb"
_PAGE = {"dpi": 150, "layout": "constrained", "facecolor": "white"}
_BLUE, _ORANGE, _GREEN = "#2563a8", "#d9730d", "#2e8b57"


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    label: UInt8[np.ndarray, "h w"],
    classes: ClassTable,
    alpha: float = 0.5,
) -> UInt8[np.ndarray, "h w 3"]:
    """The image tinted with the palette: `alpha` 0 is the image alone, 1 the colours alone.

    Ignored pixels keep the image as it is.
    """
    blended = np.rint((1 - alpha) * image + alpha * classes.colorize(label)).astype(np.uint8)
    return np.where((label == IGNORE)[..., None], image, blended)


def error_map(
    image: UInt8[np.ndarray, "h w 3"],
    label: UInt8[np.ndarray, "h w"],
    prediction: UInt8[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Where a prediction is wrong: those pixels are `WRONG` (red), right ones the greyed image.

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


def smooth(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Centred moving mean over about a twentieth of the run; NaN values do not count."""
    half = (len(values) + 20) // 40
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return np.array([np.nanmean(w) if np.any(np.isfinite(w)) else np.nan for w in windows])


def _bare(axes, title: str) -> None:
    """Quiet axes: no frame, small grey tick labels, a grid behind the data."""
    axes.tick_params(labelsize=8, colors=_FAINT, length=0)
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=11, color=_INK, loc="left", fontweight="bold")


def plot_curves(history: Sequence[Mapping], path: Target, *, stacked: bool = False) -> None:
    """Loss, mIoU and accuracy, and learning rate against the step, in three panels.

    Args:
      history: rows of `metrics.jsonl`; those of "train" and "val" are used (see `series`).
      path: PNG file to write.
      stacked: panels below each other (for a narrow page) instead of side by side.
    """
    figure = Figure((5, 8.4) if stacked else (13, 3.8), **_PAGE)
    panels = figure.subplots(*((3, 1) if stacked else (1, 3)), sharex=True)
    loss, quality, rate = panels

    steps, values = series(history, "train", "loss")
    marker = "." if len(steps) < 3 else None
    loss.plot(steps, values, color=_BLUE, alpha=0.3, linewidth=0.8, marker=marker)
    loss.plot(steps, smooth(values), color=_BLUE, linewidth=1.6, label="train (smoothed)")
    steps, values = series(history, "val", "loss")
    loss.plot(steps, values, color=_ORANGE, marker="o", markersize=3.5, linewidth=1.2, label="val")

    for key, title, color in (
        ("miou", "mIoU", _BLUE),
        ("global_accuracy", "global accuracy", _GREEN),
        ("class_average_accuracy", "class average accuracy", _ORANGE),
    ):
        style = {"color": color, "linewidth": 1.8 if key == "miou" else 1.1, "label": title}
        quality.plot(*series(history, "val", key), marker="o", markersize=3, **style)
    steps, values = series(history, "train", "accuracy")
    style = {"color": _GREEN, "linewidth": 1, "linestyle": ":", "marker": marker}
    quality.plot(steps, smooth(values), label="train accuracy (smoothed)", **style)
    best = best_step(history)
    if best:
        quality.axvline(best[0], color=_FAINT, linewidth=0.8, linestyle=":")
        star = f"best mIoU {best[1]:.4f}, step {best[0]}"
        quality.plot(*best, "*", color=_BLUE, markersize=13, markeredgecolor="white", label=star)
    quality.set_ylim(0, 1)

    rate.plot(*series(history, "train", "learning_rate"), color=_INK, linewidth=1.4, marker=marker)
    rate.yaxis.set_major_formatter(lambda value, position: f"{value:g}")
    rate.set_ylim(bottom=0)

    for axes, title in zip(panels, ("Loss", "mIoU and accuracy", "Learning rate"), strict=True):
        _bare(axes, title)
        axes.grid(color=_GRID, linewidth=0.7)
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("step", fontsize=8, color=_FAINT)
        axes.xaxis.get_major_locator().set_params(integer=True)
        lines = [ln for ln in axes.lines if ln.get_label()[0] != "_" and len(ln.get_xdata())]
        if lines and axes is not rate:
            axes.legend(handles=lines, fontsize=8, frameon=False, labelcolor=_INK)
        if not any(np.isfinite(line.get_ydata()).any() for line in axes.lines):
            axes.text(0.5, 0.5, "nothing logged", transform=axes.transAxes, ha="center", c=_FAINT)
            axes.tick_params(labelleft=False, labelbottom=False)
    figure.savefig(path, format="png")


def plot_confusion(confusion: Int[np.ndarray, "k k"], classes: ClassTable, path: Target) -> None:
    """Confusion matrix, each row in percent of that class's labelled pixels.

    Cells hold their number up to 20 classes. The row of a class without labelled pixels is left
    empty (hatched). The colour scale is a square root, so that mistakes of a few percent show.

    Raises:
      ValueError: if the matrix is not [k, k] for the k classes.
    """
    confusion, k = np.asarray(confusion), len(classes)
    if confusion.shape != (k, k):
        raise ValueError(f"confusion has shape {confusion.shape}; {k} classes need ({k}, {k})")
    totals = confusion.sum(1, keepdims=True)
    percent = np.full((k, k), np.nan)
    np.divide(100 * confusion, totals, out=percent, where=totals > 0)

    # Inches: 0.5 a cell where numbers stand in it, else 0.12 (one line of the smallest type).
    side = 2.2 + (0.5 if k <= 20 else max(0.12, 10 / k)) * k
    figure = Figure((max(side, 5.2) + 0.6, max(side, 4.2)), **_PAGE)
    axes = figure.add_subplot()
    axes.patch.set(hatch="////", edgecolor=_GRID)
    _bare(axes, "Confusion: row = truth, column = prediction")
    picture = axes.imshow(np.ma.masked_invalid(percent), cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    font = {"fontsize": 9 if k <= 20 else 5.5, "color": _INK, "parse_math": False}
    slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(k), classes.names, **font, **(slanted if k <= 20 else {"rotation": 90}))
    axes.set_yticks(range(k), classes.names, **font)
    if k <= 20:
        for (row, column), value in np.ndenumerate(percent):
            if np.isfinite(value):
                color = "white" if value > 35 else _INK if value >= 0.05 else "#b8c0ca"
                text = "0" if value < 0.05 else f"{value:.1f}" if value < 99.95 else "100"
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
        for edge in np.arange(0.5, k - 1):
            axes.axhline(edge, color="white", linewidth=1)
            axes.axvline(edge, color="white", linewidth=1)
    scale = figure.colorbar(
        picture, ax=axes, shrink=0.6, pad=0.02, aspect=max(20, k), ticks=[0, 1, 5, 20, 50, 100]
    )
    scale.outline.set_visible(False)
    scale.ax.tick_params(labelsize=8, colors=_FAINT, length=0)
    scale.set_label("% of the true class's pixels", fontsize=8, color=_FAINT)
    axes.set(xlabel="prediction", ylabel="truth")
    figure.savefig(path, format="png")


def plot_class_iou(results_of_split: Mapping, classes: ClassTable, path: Target) -> None:
    """IoU of every class as a bar in its colour, in id order, and the mean as a dashed line.

    Args:
      results_of_split: what `metrics.summarize` returns; NaN or None: the class does not occur.
      classes: the class table.
      path: PNG file to write.
    """
    iou = np.array([math.nan if v is None else v for v in results_of_split["iou"]], np.float64)
    k = len(classes)
    figure = Figure((7.5, 1.1 + (0.3 if k <= 40 else 0.17) * k), **_PAGE)
    axes = figure.add_subplot()
    font = {"fontsize": 9 if k <= 40 else 7, "color": _INK}
    miou = results_of_split.get("miou")
    _bare(axes, f"IoU by class (dashed: mean {format_number(miou)})")
    axes.axvline(math.nan if miou is None else miou, color=_INK, lw=1, ls="--", zorder=0.5)
    colors = np.array(classes.palette) / 255
    axes.barh(range(k), np.nan_to_num(iou), color=colors, height=0.75, edgecolor="#9aa1ab", lw=0.4)
    for row, value in enumerate(iou):
        text = f"{value:.4f}" if math.isfinite(value) else "– (does not occur)"
        # White ground, so that the line of the mean does not strike the number out.
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        axes.text(np.nan_to_num(value) + 0.01, row, text, va="center", bbox=ground, **font)
    axes.set_yticks(range(k), classes.names, parse_math=False, **font)
    axes.set(xlim=(0, 1.08), ylim=(k - 0.4, -0.6))
    axes.xaxis.grid(color=_GRID, linewidth=0.7)
    figure.savefig(path, format="png")


def sample_panels(sample: Mapping, classes: ClassTable) -> tuple[UInt8[np.ndarray, "h w 3"], ...]:
    """The four pictures of a sample, in the order of `PANELS`; maps in the palette's colours."""
    image, label, prediction = sample["image"], sample["label"], sample["prediction"]
    errors = error_map(image, label, prediction)
    return image, classes.colorize(label), classes.colorize(prediction), errors


def classes_shown(samples: Sequence[Mapping], classes: ClassTable, limit: int = 24) -> list[int]:
    """Ids that a legend needs: all up to `limit` classes, else those that occur in the samples."""
    if len(classes) <= limit:
        return list(range(len(classes)))
    maps = [np.unique(sample[key]) for sample in samples for key in ("label", "prediction")]
    return [int(k) for k in np.unique(np.concatenate([[], *maps])) if k < len(classes)]


def resize(picture: np.ndarray, zoom: float, smooth: bool = False) -> np.ndarray:
    """A uint8 picture at `zoom` times its size: nearest pixel, or area mean where `smooth`."""
    height, width = (max(1, round(zoom * n)) for n in picture.shape[:2])
    method = Image.Resampling.BOX if smooth and zoom < 1 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize((width, height), method))


def sample_grid(
    samples: Sequence[Mapping], classes: ClassTable, path: Target, max_bytes: int = 2_000_000
) -> None:
    """One row a sample: image, truth, prediction, errors, under its name and mIoU; and a legend.

    Pixels are placed as they are: small pictures enlarged by a whole number, pictures wider than
    480 pixels shrunk to that, all smaller until the file has at most `max_bytes`.

    Args:
      samples: dicts of name, image uint8 [h, w, 3], label and prediction uint8 [h, w], miou.
      classes: the class table.
      path: PNG file to write.
      max_bytes: bound of the file size.

    Raises:
      ValueError: if there are no samples, or a sample's arrays differ in height or width.
    """
    if not samples:
        raise ValueError("sample_grid needs at least one sample, found none")
    widest = max(sample["image"].shape[1] for sample in samples)
    zoom = max(1, 480 // widest) if widest <= 480 else 480 / widest
    while True:
        figure, buffer = _draw_grid(samples, classes, zoom), io.BytesIO()
        figure.savefig(buffer, format="png")
        if buffer.tell() <= max_bytes or zoom * widest < 32:
            break
        zoom = zoom - 1 if zoom > 1 else 0.8 * zoom
    figure.savefig(path, format="png")


def _draw_grid(samples: Sequence[Mapping], classes: ClassTable, zoom: float) -> Figure:
    """The grid as a figure of 100 dots an inch, pictures placed pixel by pixel."""
    rows = [
        [resize(p, zoom, smooth=i in (0, 3)) for i, p in enumerate(sample_panels(s, classes))]
        for s in samples
    ]
    gap, line = 8, 24  # pixels
    column = max(panels[0].shape[1] for panels in rows) + gap
    width = 4 * column + gap
    legend = [(classes.names[k], classes.palette[k]) for k in classes_shown(samples, classes)]
    legend += [("wrong", WRONG), ("ignored", (0, 0, 0))]
    cell = min(width - gap, 40 + 7 * max(len(name) for name, _ in legend))
    across = (width - gap) // cell
    height = (-(-len(legend) // across) + 2) * line + sum(
        line + panels[0].shape[0] + gap for panels in rows
    )
    # The hundredth keeps 1.15 * 100 from being cut to 114 pixels.
    figure = Figure(((width + 0.01) / 100, (height + 0.01) / 100), dpi=100, facecolor="white")
    top = height - line
    for i, title in enumerate(PANELS):
        figure.text((gap + i * column) / width, top / height, title, fontweight="bold", color=_INK)
    for sample, panels in zip(samples, rows, strict=True):
        text = f"{sample['name']}   mIoU {format_number(sample['miou'])}"
        top -= line
        figure.text(gap / width, top / height, text, fontsize=9, color=_INK, parse_math=False)
        top -= panels[0].shape[0] + gap // 2
        for i, panel in enumerate(panels):
            figure.figimage(panel, gap + i * column, top, origin="upper")
        top -= gap // 2
    for i, (name, color) in enumerate(legend):
        left, low = gap + i % across * cell, top - (i // across + 1) * line
        figure.figimage(np.full((12, 20, 3), color, np.uint8), left, low)
        where = ((left + 26) / width, (low + 2) / height)
        figure.text(*where, name, fontsize=8, color=_INK, parse_math=False)
    return figure
