"""Charts as SVG inside the page: they follow its theme, stay sharp in print and need no picture."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from jaxtyping import Float
from matplotlib.ticker import MaxNLocator

_WIDTH, _HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 410, 10, 208  # of the field where the data are
_POINTS = 400  # of a line: more cannot be told apart
_DOTTED = 40  # points up to which each has its dot


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
      name: in the legend; "" for none.
      x, y: float [n], x rising; a y that is not finite leaves a gap.
      colour: 0..3, of the page's series.
      raw: thin and pale, behind the others.
    """

    name: str
    x: Float[np.ndarray, "n"]
    y: Float[np.ndarray, "n"]
    colour: int = 0
    raw: bool = False


def line_chart(
    title: str,
    lines: Sequence[Line],
    x_title: str,
    y_range: tuple[float, float] | None = None,
    remark: str = "",
) -> str:
    """Lines over a common x axis, with legend and remark as text above them.

    Args:
      title: plain text.
      lines: those without a finite value are left out.
      x_title: of the x axis.
      y_range: of the y axis; None: as the data, from 0 on where they are never negative.
      remark: plain text after the legend.

    Returns:
      HTML; "" if no line has a finite value.
    """
    lines = [_thinned(line) for line in lines if np.isfinite(line.y).any()]
    if not lines:
        return ""
    x = np.concatenate([line.x[np.isfinite(line.y)] for line in lines])
    y = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
    if y_range is None:
        y_range = min(0.0, y.min()), 1.05 * y.max() if y.max() > 0 else 1.0
    field = _Field((x.min(), x.max()), y_range)
    body = field.axes(x_title, x.max() < 10 or np.any(x % 1))
    for line in sorted(lines, key=lambda line: not line.raw):
        body += _drawn(line, field)
    keys = "".join(
        f'<span class="key c{line.colour}"><i></i>{escape(line.name)}</span>'
        for line in lines
        if line.name
    )
    return _figure(title, keys, remark, _svg(body, title))


def reliability_chart(title: str, bins: Sequence[Mapping], remark: str = "") -> str:
    """Accuracy against confidence, and below it each bin's share of the pixels.

    The bars are the accuracy; the red part is what lies between it and the mean confidence.

    Args:
      title: plain text.
      bins: dicts of low, high, pixels, confidence, accuracy; the last two in [0, 1], not used
        where there are no pixels.
      remark: plain text under the title.

    Returns:
      HTML; "" if no bin has pixels.

    Reference: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, figure 1.
    """
    bins = [row for row in bins if row["pixels"]]
    if not bins:
        return ""
    field, total = _Field((0, 1), (0, 1)), sum(row["pixels"] for row in bins)
    body = field.axes("confidence; below: share of the pixels", True)
    most = max(row["pixels"] for row in bins)
    for row in bins:
        left, right = field.x(row["low"]) + 0.5, field.x(row["high"]) - 0.5
        accuracy, confidence = field.y(row["accuracy"]), field.y(row["confidence"])
        share = 44 * row["pixels"] / most
        told = (
            f"confidence {row['low']:.2f} to {row['high']:.2f}: {row['pixels'] / total:.1%} of the "
            f"pixels, mean confidence {row['confidence']:.3f}, accuracy {row['accuracy']:.3f}"
        )
        body += f"<g><title>{told}</title>{_rect('fill', left, right, accuracy, _BOTTOM)}"
        body += _rect("gap", left, right, min(accuracy, confidence), max(accuracy, confidence))
        body += f"{_rect('fill', left, right, 304 - share, 304)}</g>"
    body += f'<line class="even" x1="{_LEFT}" y1="{_BOTTOM}" x2="{_RIGHT}" y2="{_TOP}"/>'
    body += f'<line class="axis" x1="{_LEFT}" y1="304" x2="{_RIGHT}" y2="304"/>'
    return _figure(title, "", remark, _svg(body, title, 312))


def _figure(title: str, keys: str, remark: str, svg: str) -> str:
    remark = f" {escape(remark)}" if remark else ""
    caption = f"<figcaption><b>{escape(title)}</b>{remark}{keys}</figcaption>"
    return f"<figure>{caption}{svg}</figure>"


def _svg(body: str, title: str, height: int = _HEIGHT) -> str:
    shape = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH * 1.25:g}"'
    return f'<svg {shape} role="img" aria-label="{escape(title)}">{body}</svg>'


def _rect(kind: str, left: float, right: float, top: float, bottom: float) -> str:
    where = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
    return f'<rect class="{kind}" {where}/>'


class _Field:
    """From data to places in the drawing."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float]):
        self._x, self._y = x_range, y_range

    def x(self, value: float) -> float:
        low, high = self._x
        share = 0.5 if low == high else (value - low) / (high - low)
        return _LEFT + (_RIGHT - _LEFT) * share

    def y(self, value: float) -> float:
        low, high = self._y
        return _BOTTOM - (_BOTTOM - _TOP) * (min(max(value, low), high) - low) / (high - low)

    def axes(self, x_title: str, fractions: bool) -> str:
        body = ""
        for tick in _ticks(*self._y, 5):
            y = self.y(tick)
            body += f'<line class="axis" x1="{_LEFT}" y1="{y:.1f}" x2="{_RIGHT}" y2="{y:.1f}"/>'
            body += f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in _ticks(*self._x, 6, integer=not fractions):
            place = f'x="{self.x(tick):.1f}" y="{_BOTTOM + 18}"'
            body += f'<text {place} text-anchor="middle">{_number(tick)}</text>'
        place = f'x="{(_LEFT + _RIGHT) / 2}" y="{_BOTTOM + 36}"'
        return f'{body}<text {place} text-anchor="middle">{escape(x_title)}</text>'


def _ticks(low: float, high: float, count: int, integer: bool = False) -> list[float]:
    if low == high:
        return [low]
    ticks = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10], integer=integer).tick_values(low, high)
    slack = 1e-9 * (high - low)
    return [round(float(t), 12) for t in ticks if low - slack <= t <= high + slack]


def _number(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def _thinned(line: Line) -> Line:
    """At most `_POINTS` points, each the mean of as many neighbours."""
    n = len(line.x)
    if n <= _POINTS:
        return line
    finite = np.isfinite(line.y)
    bucket = (np.arange(n) * _POINTS // n)[finite]
    count = np.bincount(bucket, minlength=_POINTS)
    kept = count > 0
    x, y = (np.bincount(bucket, v[finite], _POINTS)[kept] / count[kept] for v in (line.x, line.y))
    return dataclasses.replace(line, x=x, y=y)


def _drawn(line: Line, field: _Field) -> str:
    """The path, broken at gaps, and dots where there are few."""
    path, dots, pen = "", "", "M"
    few = not line.raw and len(line.x) <= _DOTTED
    for x, y in zip(line.x.tolist(), line.y.tolist(), strict=True):
        if not math.isfinite(y):
            pen = "M"
            continue
        place = field.x(x), field.y(y)
        path += f"{pen}{place[0]:.1f},{place[1]:.1f}"
        pen = "L"
        if few:
            told = f"<title>{escape(line.name)} {x:g}: {y:.4g}</title>"
            dots += f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="3">{told}</circle>'
    kind = ' class="raw"' if line.raw else ""
    return f'<g class="c{line.colour}"><path{kind} d="{path}"/>{dots}</g>'
