"""Figures of the reports: learning curves, confusion matrices, bars, reliability diagrams.

A `Panel` paints one picture on matplotlib axes. `save_png` writes panels as a PNG file, `to_svg`
gives a panel as inline SVG in the colours and the font of the page around it. Figures are drawn
without pyplot; a lock guards the little global state that saving needs.
"""

import contextlib
import dataclasses
import io
import math
import os
import pathlib
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from segjax.data.classes import ClassTable
from segjax.data.files.atomic import replacing
from segjax.report.numbers import best_step, format_number, series
from segjax.terminal import one_line, printable

# A file in a folder that exists, or an open one.
Target = str | os.PathLike | io.BytesIO | io.BufferedWriter

INK, FAINT, GRID, GROUND = "#24292f", "#6b7280", "#e4e7eb", "#f6f8fa"
RIGHT, WRONG = "#2563a8", "#cf222e"
PAGE = "#fffffe"  # the ground, where a text must hide a line
SERIES = (RIGHT, "#d9730d", "#2e8b57", "#8a63d2")
_VARIABLES = {INK: "ink", FAINT: "faint", GRID: "line", GROUND: "card", PAGE: "page"}
_VARIABLES[WRONG] = "wrong"
_VARIABLES |= {color: f"c{i}" for i, color in enumerate(SERIES)}  # of templates/style.css
_NUMBERED = 20  # classes up to which the cells of a confusion matrix hold numbers
_SLIM = 40  # rows beyond which bars are slim
_LONGEST_NAME = 31  # letters; longer names would leave no room for the data
_SAVING = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
      title: plain text.
      draw: paints the picture on axes, under the title.
      size: width and height in inches.
    """

    title: str
    draw: Callable[[Axes], None]
    size: tuple[float, float] = (4.4, 2.7)


def save_png(panels: Sequence[Panel], target: Target, columns: int = 1) -> None:
    """Writes panels row by row, `columns` in a row, on a white ground."""
    buffer = io.BytesIO()
    with _drawing():
        _figure(panels, columns).savefig(buffer, format="png", dpi=150, facecolor="white")
    write_bytes(target, buffer.getvalue())


def write_bytes(target: Target, content: bytes) -> None:
    """Writes a file, which appears when it is complete."""
    if isinstance(target, io.BytesIO | io.BufferedWriter):
        target.write(content)
    else:
        with replacing(pathlib.Path(target)) as partial:
            partial.write_bytes(content)


def to_svg(panel: Panel) -> Markup:
    """A panel as an SVG element without ground, whose texts are text.

    Its colours are the page's variables and its font is the page's (see templates/style.css), so
    that it follows the reader's light or dark theme.
    """
    buffer = io.BytesIO()
    with _drawing(printable(panel.title)):
        _figure([panel], 1).savefig(buffer, format="svg", facecolor="none")
    svg = buffer.getvalue().decode()
    width, height = (72 * side for side in panel.size)
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</defs>", "", body, flags=re.S)
    body = re.sub(r'<g id="[^"]*"/>', "", body)  # of what is not drawn
    body = re.sub(r'<g id="[^"]*">', "<g>", body)
    body = re.sub(r"\n\s*", "\n", body)
    body = re.sub(r'style="[^"]*"', _restyled, body)
    body = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), body)
    return Markup(
        f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" width="{width:g}pt" role="img" '
        f'aria-label="{escape(one_line(panel.title))}">{body}'
    )


def _restyled(style: re.Match) -> str:
    text = re.sub(r"font-family: [^;\"]*(; ?)?", "", style[0])
    return re.sub(r"#[0-9a-f]{6}", lambda hex: _variable(hex[0]), text)


def _variable(color: str) -> str:
    return f"var(--{_VARIABLES[color]})" if color in _VARIABLES else color


def _figure(panels: Sequence[Panel], columns: int) -> Figure:
    """To be drawn and saved inside `_drawing`."""
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [max(panel.size[1] for panel in row) for row in rows]
    width = max((sum(panel.size[0] for panel in row) for row in rows), default=4.4)
    figure = Figure((width, sum(heights) or 2.7), layout="constrained")
    if not panels:
        figure.text(0.5, 0.5, "nothing logged", ha="center", color=FAINT)
        return figure
    grid = figure.subfigures(len(rows), columns, squeeze=False, height_ratios=heights)
    for place, panel in enumerate(panels):
        part = grid[place // columns, place % columns]
        font = {"fontsize": 10, "fontweight": "bold"}
        part.suptitle(one_line(panel.title), x=0.02, ha="left", color=INK, **font)
        axes = part.add_subplot()
        axes.tick_params(which="both", labelsize=9, colors=FAINT, length=0)
        axes.spines[:].set_visible(False)
        axes.set_axisbelow(True)
        axes.set_facecolor("none")
        panel.draw(axes)
    return figure


@contextlib.contextmanager
def _drawing(salt: str = "") -> Iterator[None]:
    """A context to draw and save a figure in, from any thread.

    Texts are plain: no formulas, whatever their dollar signs. In an SVG they stay text, and its ids
    follow from `salt`. matplotlib's warnings about letters that its font lacks are left out: a PNG
    shows a box for each, an SVG the reader's own font.
    """
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.parse_math": False,
        "text.usetex": False,
    }
    with _SAVING, matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        yield


def smooth(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Centred moving mean over about a twentieth of the run; NaN values do not count."""
    half = (len(values) + 20) // 40
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return np.array([np.nanmean(w) if np.any(np.isfinite(w)) else np.nan for w in windows])


def curves(history: Sequence[Mapping]) -> list[Panel]:
    """Loss, mIoU, accuracy and learning rate against the step; panels without a value are left out.

    Args:
      history: rows of `metrics.jsonl`; those of "train" and "val" are used (see `series`).
    """
    best = best_step(history)

    def panel(title: str, lines: Sequence[tuple[str, str, str]], top: float | None) -> Panel | None:
        logged = [(name, split, *series(history, split, key)) for name, split, key in lines]
        logged = [line for line in logged if np.isfinite(line[3]).any()]

        def draw(axes: Axes) -> None:
            for color, (name, split, x, y) in zip(SERIES, logged, strict=False):
                if split == "train" and len(x) >= 20 and name:
                    axes.plot(x, y, color=color, linewidth=0.8, alpha=0.35)
                    name, y = f"{name} (smoothed)", smooth(y)
                mark = {"marker": "o", "markersize": 3} if len(x) <= 40 else {}
                axes.plot(x, y, color=color, linewidth=1.5, label=name or None, **mark)
            if title == "mIoU" and best:
                axes.axvline(best[0], color=FAINT, linewidth=0.8, linestyle=":")
                star = {"markersize": 11, "color": INK, "markeredgecolor": "white"}
                axes.plot(*best, "*", label=f"best {best[1]:.4f}, step {best[0]:,}", **star)
            lowest = min(np.nanmin(line[3]) for line in logged)
            axes.set_ylim(min(0, lowest), top)
            _steps(axes)
            _legend(axes)

        return Panel(title, draw) if logged else None

    loss = ("train", "train", "loss"), ("val", "val", "loss")
    miou = ("train", "train", "miou"), ("val", "val", "miou")
    accuracy = ("train", "train", "accuracy"), ("val", "val", "global_accuracy")
    accuracy += (("val, mean over classes", "val", "class_average_accuracy"),)
    panels = (
        panel("Loss", loss, None),
        panel("mIoU", miou, 1.0),
        panel("Accuracy", accuracy, 1.0),
        panel("Learning rate", [("", "train", "learning_rate")], None),
    )
    return [panel for panel in panels if panel]


def _steps(axes: Axes, title: str = "step") -> None:
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_xlabel(title, fontsize=9, color=FAINT)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k" if abs(x) >= 10_000 else f"{x:g}")
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")


def _legend(axes: Axes, **options) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9, frameon=False, labelcolor=INK, **options)


def trimap(widths: Mapping[str, Mapping]) -> Panel:
    """mIoU of the pixels near label boundaries against the distance, a line per split.

    Args:
      widths: split -> {width in pixels: mIoU in [0, 1], None or NaN}.
    """

    def draw(axes: Axes) -> None:
        for color, (split, values) in zip(_cycle(len(widths)), widths.items(), strict=True):
            x, y = np.array(sorted((float(w), v) for w, v in values.items()), np.float64).T
            axes.plot(x, y, "o-", color=color, label=_cut(split), markersize=3, linewidth=1.5)
        axes.set_ylim(bottom=0)
        _steps(axes, "pixels from the nearest boundary")
        _legend(axes)

    return Panel("mIoU near boundaries", draw)


def _cycle(count: int) -> list[str]:
    return [SERIES[i % len(SERIES)] for i in range(count)]


def bars(
    title: str,
    names: Sequence[str],
    values: Mapping[str, Sequence[float | None] | Float[np.ndarray, "rows"]],
    *,
    colors: Sequence[Sequence[int]] | None = None,
    mean: float | None = None,
    logarithmic: bool = False,
) -> Panel:
    """Horizontal bars: a row for each name, in it a bar for each entry of `values`.

    Args:
      title: plain text.
      names: of the rows, from top to bottom.
      values: name of the bars in the legend -> a number per row; in [0, 1], or percent > 0 if
        `logarithmic`. NaN, None and a zero of a logarithmic axis are no bar, but a mark.
      colors: RGB 0..255 of the rows; by default bars have the colour of their place in `values`.
      mean: is drawn as a dashed line.
      logarithmic: the axis ends at 100 %, and bars have no number.
    """
    table = {
        name: np.array([math.nan if v is None else v for v in row], np.float64)
        for name, row in values.items()
    }
    least = 0.36 if any("\n" in name for name in names) else 0.17 if len(names) > _SLIM else 0.26
    bar = 0.09 if len(names) > _SLIM else 0.18
    inches = 0.75 + len(names) * max(least, bar * len(table))

    def draw(axes: Axes) -> None:
        rows, thick = np.arange(len(names)), 0.8 / max(1, len(table))
        for place, (name, row) in enumerate(table.items()):
            y = rows + (place - (len(table) - 1) / 2) * thick
            shown = np.where(row > 0, row, math.nan) if logarithmic else row
            color = np.array(colors) / 255 if colors else SERIES[place % len(SERIES)]
            style = {"edgecolor": "#8888", "linewidth": 0.4, "label": _cut(name) or None}
            axes.barh(y, np.nan_to_num(shown), thick * 0.94, color=color, **style)
            for at, value in zip(y, shown, strict=True):
                if not logarithmic:
                    _write(axes, format_number(float(value)), float(np.nan_to_num(value)), at)
                elif math.isnan(value):
                    _write(axes, "×", 0.0, at, xycoords=axes.get_yaxis_transform())
        if logarithmic:
            all_values = np.concatenate([*table.values(), [100.0]])
            lowest = np.min(all_values[all_values > 0])
            axes.set_xlim(10 ** np.floor(np.log10(lowest) - 0.01), 100)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}%")
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_xlim(0, 1.18)
            axes.set_xticks(np.arange(0, 1.01, 0.2), [f"{x:g}" for x in np.arange(0, 6) / 5])
        if mean is not None and math.isfinite(mean):
            axes.axvline(mean, color=FAINT, linewidth=1, linestyle="--", zorder=0.5)
        axes.set_yticks(rows, [_cut(n) for n in names], fontsize=9, color=INK)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.xaxis.grid(color=GRID, linewidth=0.7)
        if len(table) > 1:
            axes.figure.legend(
                loc="outside lower left", ncols=4, fontsize=9, frameon=False, labelcolor=INK
            )

    return Panel(title, draw, (4.4, inches + (0.25 if len(table) > 1 else 0)))


def _write(axes: Axes, text: str, x: float, y: float, **where) -> None:
    """Writes a number at the end of a bar; its ground hides the line of the mean."""
    ground = {"facecolor": PAGE, "edgecolor": "none", "pad": 0.5}
    style = {"textcoords": "offset points", "va": "center_baseline", "bbox": ground, **where}
    axes.annotate(text, (x, y), (3, 0), fontsize=9, color=INK, **style)


def class_iou(split: str, results: Mapping, classes: ClassTable) -> Panel:
    """IoU of every class as a bar in its colour, in id order, and the mean as a dashed line.

    Args:
      split: name in the title.
      results: of the split: `iou`, a list of k, and `miou`; NaN or None: does not occur.
      classes: the class table.
    """
    title = f"IoU by class, {split} (dashed: mean)"
    miou = results.get("miou")
    return bars(title, classes.names, {"": results["iou"]}, colors=classes.palette, mean=miou)


def reliability(title: str, bins: Sequence[Mapping]) -> Panel:
    """Accuracy against confidence, and below it each bin's share of the pixels.

    Blue bars are the accuracy; red is the gap between it and the mean confidence.

    Args:
      title: plain text.
      bins: at least one dict of low, high, pixels > 0, confidence, accuracy; all others in [0, 1].

    Reference: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, figure 1.
    """
    names = ("low", "high", "pixels", "confidence", "accuracy")
    low, high, pixels, confidence, accuracy = (np.array([b[name] for b in bins]) for name in names)

    def draw(axes: Axes) -> None:
        style = {"width": 0.94 * (high - low), "align": "center"}
        middle = (low + high) / 2
        axes.bar(middle, accuracy, color=RIGHT, alpha=0.75, **style)
        axes.bar(middle, confidence - accuracy, bottom=accuracy, color=WRONG, alpha=0.3, **style)
        axes.bar(middle, 0.25 * pixels / pixels.max(), bottom=-0.35, color=RIGHT, **style)
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--")
        axes.axhline(-0.35, color=GRID, linewidth=0.7)
        axes.set(xlim=(0, 1), ylim=(-0.37, 1))
        ticks = np.arange(6) / 5
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.yaxis.grid(color=GRID, linewidth=0.7)
        axes.set_xlabel("confidence; below: share of the pixels", fontsize=9, color=FAINT)

    return Panel(title, draw, (4.4, 3.4))


def confusion_order(confusion: Int[np.ndarray, "k k"]) -> Int[np.ndarray, "k"]:
    """An order of the classes that puts those confused with one another side by side.

    Average-linkage clustering on 1 - the larger of the two shares that a pair of classes takes
    from one another, leaves in the order of the shortest path. Classes without a labelled pixel
    come last.

    Reference: Bar-Joseph et al., "Fast optimal leaf ordering for hierarchical clustering", 2001.
    """
    share = np.nan_to_num(_shares(confusion))
    occurs = np.flatnonzero(share.any(1))
    rest = np.setdiff1d(np.arange(len(share)), occurs)
    if len(occurs) < 3:
        return np.concatenate([occurs, rest])
    near = share[np.ix_(occurs, occurs)]
    distance = 1 - np.maximum(near, near.T)
    np.fill_diagonal(distance, 0)
    distances = squareform(distance, checks=False)
    tree = optimal_leaf_ordering(linkage(distances, "average"), distances)
    return np.concatenate([occurs[leaves_list(tree)], rest])


def _shares(confusion: Int[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
    """Rows divided by their sum; NaN where a class has no labelled pixel."""
    totals = confusion.sum(1, keepdims=True)
    out = np.full(confusion.shape, np.nan)
    return np.divide(confusion, totals, out=out, where=totals > 0)


def confusion(split: str, counts: Int[np.ndarray, "k k"], classes: ClassTable) -> Panel:
    """The confusion matrix, each row as shares of that class's labelled pixels.

    Blue is right, red is wrong, on a square-root scale, so that mistakes of a few percent show.
    Up to 20 classes the order is that of the ids and cells hold percent; beyond, the order is
    `confusion_order`'s.

    Args:
      split: name in the title.
      counts: pixels, row = label, column = prediction.
      classes: the class table, of k classes.
    """
    k = len(classes)
    few = k <= _NUMBERED
    order = np.arange(k) if few else confusion_order(counts)
    share = _shares(counts)[np.ix_(order, order)]
    names = [_cut(classes.names[i]) for i in order]
    cell, letter = (0.5, 9) if few else (0.12, 6)
    side = 0.8 + cell * k + max(map(len, names)) * letter * 0.62 / 72

    def draw(axes: Axes) -> None:
        right, wrong = (to_rgba(color) for color in (RIGHT, WRONG))
        picture = np.where(np.eye(k, dtype=bool)[..., None], right, wrong)
        picture[..., 3] = np.sqrt(np.nan_to_num(share))
        axes.set_facecolor(GROUND)
        axes.imshow(picture, interpolation="nearest")
        font: dict[str, Any] = {"fontsize": letter, "color": INK}
        turned: dict[str, Any] = {"rotation": 90}
        if few:
            turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(k), names, **font, **turned)
        axes.set_yticks(range(k), names, **font)
        for name, row in zip(axes.get_yticklabels(), share, strict=True):
            name.set_color(FAINT if np.isnan(row).all() else INK)
        axes.set_xlabel("prediction", fontsize=9, color=FAINT)
        axes.set_ylabel("truth", fontsize=9, color=FAINT)
        for (row, column), value in np.ndenumerate(share if few else np.empty((0, 0))):
            if np.isfinite(value):
                color = "white" if value > 0.35 else INK if value >= 0.0005 else FAINT
                style = {"ha": "center", "va": "center_baseline", "fontsize": 9, "color": color}
                axes.text(column, row, _percent(value), **style)

    return Panel(f"Confusion, {split}", draw, (side, side + 0.1))


def _percent(share: float) -> str:
    return "0" if share < 0.0005 else "100" if share >= 0.9995 else f"{100 * share:.1f}"


def _cut(name: str) -> str:
    """The name; a long one loses its middle, since names often differ at the end."""
    name = printable(name)
    if len(name) <= _LONGEST_NAME or "\n" in name:
        return name
    half = (_LONGEST_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"
