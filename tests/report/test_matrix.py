import re

import numpy as np
import pytest

from segjax.data.classes import from_names
from segjax.report.matrix import confusion_order, confusion_svg
from tests.report.test_html import Page

CELL = re.compile(r'<rect( class="hit")? x="(\d+)" y="(\d+)" [^>]*fill-opacity="([\d.]+)"><title>')


def numbered(k):
    return from_names([f"class {i}" for i in range(k)])


def test_cells_say_and_show_the_share_of_their_row():
    confusion = np.array([[3, 1, 0], [0, 0, 0], [1, 0, 1]])
    svg, told = confusion_svg(confusion, from_names(["a", "b", "<c>"]))
    page = Page(svg)
    titles = [text for text in page.texts if "→" in text]
    assert "a → a: 75.00 % (3 pixels)" in titles
    assert "a → b: 25.00 % (1 pixels)" in titles
    assert "<c> → a: 50.00 % (1 pixels)" in titles
    assert not any(title.startswith("b →") for title in titles)  # it has no label
    numbers = [text for text in page.texts if re.fullmatch(r"[\d.]+", text)]
    assert numbers == ["75.0", "25.0", "50.0", "50.0"]
    cells = CELL.findall(svg)
    assert [bool(hit) for hit, *_ in cells] == [True, False, False, True]
    # Square-root scale: a quarter of the pixels is half as deep.
    assert [float(depth) for *_, depth in cells] == pytest.approx([0.87, 0.5, 0.71, 0.71])
    left, top = int(cells[0][1]), int(cells[0][2])
    assert [(int(x) - left, int(y) - top) for _, x, y, _ in cells] == [
        (0, 0),
        (46, 0),
        (0, 92),
        (92, 92),
    ]
    assert "Row: truth; column: prediction" in told


def test_order_brings_confused_classes_together():
    rng = np.random.default_rng(0)
    group = np.arange(24) % 4  # classes 0, 4, 8, ... are confused with one another
    confusion = 1000 * np.eye(24, dtype=np.int64) + 100 * (group[:, None] == group)
    confusion += rng.integers(0, 5, (24, 24))
    confusion[7] = 0
    order = confusion_order(confusion)
    assert sorted(order) == list(range(24))
    assert order[-1] == 7
    assert np.sum(np.diff(group[order[:-1]]) != 0) == 3


@pytest.mark.parametrize("k", [1, 2, 3, 21])
def test_order_of_few_and_of_empty_matrices(k):
    assert sorted(confusion_order(np.zeros((k, k), int))) == list(range(k))
    assert sorted(confusion_order(np.eye(k, dtype=int))) == list(range(k))


def test_150_classes_stay_small_and_lose_no_large_mistake():
    k = 150
    rng = np.random.default_rng(0)
    confusion = rng.integers(0, 100, (k, k)) + 20_000 * np.eye(k, dtype=np.int64)
    confusion[3, 77] = 9_000
    svg, told = confusion_svg(confusion, numbered(k))
    assert len(svg) < 700_000
    titles = [text for text in Page(svg).texts if "→" in text]
    assert any(title.startswith("class 3 → class 77:") for title in titles)
    share = confusion / confusion.sum(1, keepdims=True)
    least = float(re.search(r"from ([\d.]+) % on", told)[1]) / 100
    assert len(titles) == k + np.sum(share[~np.eye(k, dtype=bool)] >= least) <= 3000 + k
    names = [text for text in Page(svg).texts if re.fullmatch(r"class \d+", text)]
    assert len(names) == 2 * k
    assert not re.findall(r">[\d.]+</text>", svg)  # no numbers in cells that small


def test_matrix_must_fit_the_classes():
    with pytest.raises(ValueError, match=r"7 classes need \(7, 7\)"):
        confusion_svg(np.eye(6), numbered(7))
