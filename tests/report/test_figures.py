"""Figures: what they show, that no label is cut off, and that SVG follows the page."""

import io
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from segjax.data.class_lists import IDD_LEVEL1
from segjax.data.classes import from_names
from segjax.metrics.confusion import summarize
from segjax.report import figures
from tests.report.html import Page


def numbered(k):
    return from_names([f"a class with a rather long name {i}" for i in range(k)])


def history(rows=60, scale=1):
    train = [
        {"step": s * scale, "split": "train", "loss": 2.0 / s, "learning_rate": 0.01}
        for s in range(1, rows + 1)
    ]
    val = [
        {"step": s * scale, "split": "val", "loss": 1.0, "miou": s / 100}
        for s in range(10, rows, 10)
    ]
    return train + val


def painted(panel):
    """The panel's axes, after a layout."""
    figure = figures._figure([panel], 1)
    figure.draw_without_rendering()
    return figure.subfigs[0].axes[0]


def texts(panel) -> list[str]:
    return [t for t in Page(figures.to_svg(panel)).texts if t]


def matrix(k):
    return np.random.default_rng(0).integers(0, 100, (k, k)) + 500 * np.eye(k, dtype=np.int64)


BINS = [{"low": 0.5, "high": 1.0, "pixels": 30, "confidence": 0.75, "accuracy": 0.5}]
PANELS = {
    "curves": lambda: figures.curves(history(scale=2_000)),
    "trimap": lambda: [figures.trimap({"val": {1: 0.2, 3: None, 20: 1.0}, "test": {"1": 0.5}})],
    "reliability": lambda: [figures.reliability("Reliability, a very long split name", BINS)],
    "confusion of few": lambda: [figures.confusion("val", matrix(7), numbered(7))],
    "confusion of one": lambda: [figures.confusion("val", matrix(1), from_names(["a"]))],
    "confusion of many": lambda: [figures.confusion("val", matrix(60), numbered(60))],
    "classes": lambda: [figures.class_iou("test", summarize(matrix(7)), IDD_LEVEL1)],
    "many classes": lambda: [figures.class_iou("test", summarize(matrix(60)), numbered(60))],
    "grouped": lambda: [
        figures.bars(
            "by size", ["0-2 px\n30.3% of the pixels"] * 2, {"a": [0.0, 1.0], "b": [None, 1.0]}
        )
    ],
    "logarithmic": lambda: [
        figures.bars(
            "share", ["a", "b"], {"train": [0.0, 100.0], "val": [1e-5, 50.0]}, logarithmic=True
        )
    ],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", PANELS)
def test_no_label_is_cut_off(kind):
    for panel in PANELS[kind]():
        figure = figures._figure([panel], 1)
        figure.draw_without_rendering()
        part = figure.subfigs[0]
        axes = part.axes[0]
        labels = [t for t in axes.findobj(lambda a: hasattr(a, "get_text")) if t.get_text()]
        labels += [part._suptitle, *(t for legend in part.legends for t in legend.get_texts())]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            hidden = [t.label1 for t in axis.get_major_ticks() if not low <= t.get_loc() <= high]
            labels = [label for label in labels if label not in hidden]
        assert len(labels) > 3
        for label in labels:
            box = label.get_window_extent()
            assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, label
            assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, label


def test_curves_show_every_series_and_the_best_step():
    rows = [*history(), {"step": 60, "split": "val", "global_accuracy": 0.5}]
    panels = {panel.title: panel for panel in figures.curves(rows)}
    assert list(panels) == ["Loss", "mIoU", "Accuracy", "Learning rate"]
    lines = {line.get_label(): line for line in painted(panels["Loss"]).lines}
    np.testing.assert_array_equal(lines["val"].get_xdata(), [10, 20, 30, 40, 50])
    assert lines["train (smoothed)"].get_ydata()[-1] == pytest.approx(2 / 59.5, rel=0.01)
    assert "best 0.5000, step 50" in texts(panels["mIoU"])
    axes = painted(figures.curves(history(scale=10_000))[0])
    assert axes.xaxis.get_major_formatter()(200_000) == "200k"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "rows, titles",
    [
        ([], []),
        ([{"step": 1, "split": "train", "loss": 1.0}], ["Loss"]),
        (
            [{"step": s, "split": "train", "loss": None, "learning_rate": 0.1} for s in (1, 2)],
            ["Learning rate"],
        ),
        ([{"step": 5, "split": "val", "loss": float("nan"), "miou": None}], []),
        ([{"step": 5, "split": "val", "loss": 0.3, "miou": 0.4}], ["Loss", "mIoU"]),
    ],
)
def test_curves_of_odd_histories(rows, titles, tmp_path):
    panels = figures.curves(rows)
    assert [panel.title for panel in panels] == titles
    figures.save_png(panels, tmp_path / "curves.png", columns=2)
    with Image.open(tmp_path / "curves.png") as picture:
        assert min(picture.size) > 300


def test_smoothing_is_a_moving_mean_without_gaps():
    values = np.array([1.0, np.nan, 3.0] + [2.0] * 27)
    np.testing.assert_allclose(figures.smooth(values)[:3], [1.0, 2.0, 2.5])


def test_confusion_shows_percent_of_the_row_right_and_wrong():
    counts = np.array([[3, 1, 0], [0, 0, 0], [1, 0, 1]])
    panel = figures.confusion("val", counts, from_names(["a", "$b", "<c>"]))
    axes = painted(panel)
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {
        **{(0, 0): "75.0", (1, 0): "25.0", (2, 0): "0"},
        **{(0, 2): "50.0", (1, 2): "0", (2, 2): "50.0"},
    }
    picture = axes.images[0].get_array()
    # Square-root scale: a quarter of the pixels is half as deep; no label, no colour.
    np.testing.assert_allclose(picture[0, :, 3], [0.75**0.5, 0.5, 0])
    np.testing.assert_allclose(picture[1, :, 3], 0)
    assert picture[0, 0, 2] > picture[0, 0, 0]  # blue
    assert picture[0, 1, 0] > picture[0, 1, 2]  # red
    assert {"$b", "<c>", "truth", "prediction"} <= set(texts(panel))


def test_order_brings_confused_classes_together():
    rng = np.random.default_rng(0)
    group = np.arange(24) % 4  # classes 0, 4, 8, ... are confused with one another
    counts = 1000 * np.eye(24, dtype=np.int64) + 100 * (group[:, None] == group)
    counts += rng.integers(0, 5, (24, 24))
    counts[7] = 0
    order = figures.confusion_order(counts)
    assert sorted(order) == list(range(24))
    assert order[-1] == 7
    assert np.sum(np.diff(group[order[:-1]]) != 0) == 3


@pytest.mark.parametrize("k", [1, 2, 3, 21])
def test_order_of_few_and_of_empty_matrices(k):
    assert sorted(figures.confusion_order(np.zeros((k, k), int))) == list(range(k))
    assert sorted(figures.confusion_order(np.eye(k, dtype=int))) == list(range(k))


def test_class_iou_bars_have_the_values_and_the_palette():
    counts = np.diag([5, 0, 3, 2, 2, 2, 2])
    counts[0, 2] = 5
    axes = painted(figures.class_iou("val", summarize(counts), IDD_LEVEL1))
    (bars,) = axes.containers
    assert [round(bar.get_width(), 4) for bar in bars][:3] == [0.5, 0, 0.375]
    for bar, color in zip(bars, IDD_LEVEL1.palette, strict=True):
        np.testing.assert_allclose(bar.get_facecolor()[:3], np.array(color) / 255)
    assert [text.get_text() for text in axes.texts][:3] == ["0.5000", "–", "0.3750"]
    mean = summarize(counts)["miou"]
    assert [line.get_xdata()[0] for line in axes.lines] == [mean]


def test_logarithmic_bars_mark_what_is_zero():
    values = {"train": [0.0, 100.0], "val": [0.02, 50.0]}
    axes = painted(figures.bars("share", ["a", "b"], values, logarithmic=True))
    assert axes.get_xlim() == (0.01, 100)
    assert [text.get_text() for text in axes.texts] == ["×"]
    widths = [[bar.get_width() for bar in bars] for bars in axes.containers]
    assert widths == [[0, 100], [0.02, 50]]


def test_reliability_bars_are_accuracy_and_gap():
    accuracy, gap, share = painted(figures.reliability("r", BINS)).containers
    (bar,) = accuracy
    assert (bar.get_x() + bar.get_width() / 2, bar.get_height()) == (0.75, 0.5)
    assert (gap[0].get_y(), gap[0].get_height()) == (0.5, 0.25)
    assert share[0].get_height() == 0.25


def test_svg_is_text_in_the_colours_of_the_page():
    panel = figures.bars("<b>&", ["$x_{", "b"], {"<i>": [0.5, None], "other": [1.0, 0.0]}, mean=0.5)
    svg = figures.to_svg(panel)
    page = Page(svg)
    assert page.tags[0][1]["aria-label"] == "<b>&"
    assert {"<b>&", "$x_{", "<i>", "0.5000", "–"} <= set(page.texts)
    assert {"b", "i"}.isdisjoint(tag for tag, _ in page.tags)
    assert "font-family" not in svg
    assert not re.search("https?:", svg)
    assert {"var(--c0)", "var(--c1)", "var(--ink)", "var(--faint)"} <= set(
        re.findall(r"var\(--\w+\)", svg)
    )
    assert figures.to_svg(panel) == svg


@pytest.mark.filterwarnings("error")
def test_letters_that_the_font_lacks_stay_in_the_page():
    panel = figures.class_iou("val", {"iou": [0.5], "miou": 0.5}, from_names(["道路"]))
    assert "道路" in texts(panel)
    figures.save_png([panel], io.BytesIO())


def test_figures_are_drawn_from_many_threads():
    panels = [figures.class_iou(str(i), summarize(matrix(7)), IDD_LEVEL1) for i in range(4)]
    alone = [figures.to_svg(panel) for panel in panels]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(figures.to_svg, panels)) == alone
