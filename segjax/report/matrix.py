"""The confusion matrix as SVG: numbers in the cells up to 20 classes, grouped classes beyond."""

from html import escape

import numpy as np
from jaxtyping import Int
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from segjax.data.classes import ClassTable

_NUMBERED = 20  # classes up to which the cells hold numbers, in the order of the ids
_CELLS = 3000  # drawn at most besides the diagonal: a page of some 300 kB
_LETTER = 0.56  # mean width of a letter over the type size


def confusion_order(confusion: Int[np.ndarray, "k k"]) -> Int[np.ndarray, "k"]:
    """An order of the classes in which those that are confused with one another are neighbours.

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


def confusion_svg(confusion: Int[np.ndarray, "k k"], classes: ClassTable) -> tuple[str, str]:
    """The matrix, each row as shares of that class's labelled pixels, and a sentence about it.

    Blue: right; red: wrong; the deeper the larger the share, on a square-root scale, so that
    mistakes of a few percent show. A cell says its numbers under the pointer. Beyond 20 classes
    the order is that of `confusion_order` and small shares are left out.

    Args:
      confusion: pixels, row = label, column = prediction.
      classes: the class table.

    Returns:
      The SVG, of its own width in pixels (it is to scroll), and plain text.

    Raises:
      ValueError: if the matrix is not [k, k] for the k classes.
    """
    confusion, k = np.asarray(confusion), len(classes)
    if confusion.shape != (k, k):
        raise ValueError(f"confusion has shape {confusion.shape}; {k} classes need ({k}, {k})")
    small = k <= _NUMBERED
    share = _shares(confusion)
    order = np.arange(k) if small else confusion_order(confusion)
    least = 0.0005 if small else _least_share(share)
    cell, letter = (46, 12) if small else (11, 9)
    margin = min(30, max(len(name) for name in classes.names)) * _LETTER * letter + 10
    top, right = (margin * 0.75, margin * 0.7) if small else (margin, 4)
    side = k * cell
    body = f'<rect class="ground" x="{margin:.0f}" y="{top:.0f}" width="{side}" height="{side}"/>'
    for place, index in enumerate(order.tolist()):
        name, middle = escape(_cut(classes.names[index])), (place + 0.5) * cell
        kind = "" if confusion[index].any() else ' class="none"'
        x, y = margin - 6, top + middle + letter * 0.35
        body += f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="end">{name}</text>'
        x, turn = margin + middle + letter * 0.35, -45 if small else -90
        where = f'transform="translate({x:.1f},{top - 6:.1f}) rotate({turn})"'
        body += f"<text{kind} {where}>{name}</text>"
    for row, true in enumerate(order.tolist()):
        for column, predicted in enumerate(order.tolist()):
            value = share[true, predicted]
            if np.isnan(value) or (value < least and row != column):
                continue
            x, y = margin + column * cell, top + row * cell
            told = f"{classes.names[true]} → {classes.names[predicted]}: {100 * value:.2f} % "
            told += f"({confusion[true, predicted]:,} pixels)"
            kind = ' class="hit"' if row == column else ""
            where = f'x="{x:.0f}" y="{y:.0f}" width="{cell - 1}" height="{cell - 1}"'
            depth = f'fill-opacity="{np.sqrt(value):.2f}"'
            body += f"<rect{kind} {where} {depth}><title>{escape(told)}</title></rect>"
            if small and value >= least:
                kind = ' class="light"' if value > 0.35 else ""
                where = f'x="{x + cell / 2:.0f}" y="{y + cell / 2 + 4:.0f}" text-anchor="middle"'
                body += f'<text{kind} {where} pointer-events="none">{_percent(value)}</text>'
    width, height = margin + side + right, top + side + 4
    svg = (
        f'<svg class="matrix" width="{width:.0f}" height="{height:.0f}" role="img" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" style="font-size:{letter}px" '
        f'aria-label="Confusion matrix: row truth, column prediction">{body}</svg>'
    )
    return svg, _sentence(small, least)


def _shares(confusion: np.ndarray) -> np.ndarray:
    """Rows divided by their sum; NaN where a class has no labelled pixel."""
    totals = confusion.sum(1, keepdims=True)
    out = np.full(confusion.shape, np.nan)
    return np.divide(confusion, totals, out=out, where=totals > 0)


def _least_share(share: np.ndarray) -> float:
    """The smallest round share above which there are at most `_CELLS` mistakes."""
    off = np.nan_to_num(share[~np.eye(len(share), dtype=bool)])
    rounds = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
    return next((least for least in rounds if (off >= least).sum() <= _CELLS), 0.1)


def _sentence(small: bool, least: float) -> str:
    text = "Row: truth; column: prediction; percent of the row's labelled pixels."
    if small:
        return f"{text} Blue: right, red: wrong; a class without a number in its row has no label."
    return (
        f"{text} Blue: right, red: wrong, from {100 * least:g} % on. Classes that are confused "
        "with one another stand side by side; grey names have no label. Under the pointer a cell "
        "says its numbers; the worst are listed below."
    )


def _cut(name: str) -> str:
    return name if len(name) <= 30 else f"{name[:29]}…"


def _percent(value: float) -> str:
    return "100" if value >= 0.9995 else f"{100 * value:.1f}"
