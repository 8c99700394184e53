import re

import numpy as np
import pytest

from segjax.report.charts import Line, line_chart, reliability_chart
from tests.report.test_html import Page


def places(chart: str) -> list[list[tuple[float, float]]]:
    """The points of each path, split where the pen is lifted."""
    paths = re.findall(r' d="([^"]*)"', chart)
    return [
        [tuple(map(float, p.split(","))) for p in run.split("L")]
        for path in paths
        for run in path.split("M")[1:]
    ]


def test_points_lie_where_the_axes_say():
    line = Line("val", np.array([0.0, 10.0, 20.0]), np.array([0.0, 0.25, 1.0]))
    chart = line_chart("mIoU", [line], "step", (0, 1))
    # The field is 48..410 wide and 208..10 high.
    assert places(chart) == [[(48.0, 208.0), (229.0, 158.5), (410.0, 10.0)]]
    page = Page(chart)
    ticks = {
        text: (float(attrs["x"]), float(attrs["y"]))
        for (tag, attrs), text in zip(
            [tag for tag in page.tags if tag[0] == "text"],
            [text for text in page.texts if re.fullmatch(r"[\d.]+|step", text)],
            strict=True,
        )
    }
    assert ticks["10"][0] == 229.0
    assert ticks["0.6"][1] == pytest.approx(208 - 0.6 * 198 + 4, abs=0.1)
    assert {"mIoU", "val", "step", "val 10: 0.25"} <= set(page.texts)


def test_a_value_that_is_not_finite_leaves_a_gap():
    y = np.array([1.0, np.nan, 2.0, 3.0, np.inf])
    runs = places(line_chart("Loss", [Line("a", np.arange(5.0), y)], "step"))
    assert [len(run) for run in runs] == [1, 2]


def test_nothing_to_draw():
    assert line_chart("Loss", [], "step") == ""
    assert line_chart("Loss", [Line("a", np.arange(2.0), np.full(2, np.nan))], "step") == ""
    assert reliability_chart("r", []) == ""
    empty = {"low": 0.0, "high": 1.0, "pixels": 0, "confidence": np.nan, "accuracy": np.nan}
    assert reliability_chart("r", [empty]) == ""


def test_one_point_and_a_constant_line():
    one = line_chart("Loss", [Line("a", np.array([5.0]), np.array([2.0]))], "step")
    assert 'cx="229.0"' in one
    flat = line_chart("Rate", [Line("a", np.arange(3.0), np.zeros(3))], "step")
    assert {y for run in places(flat) for _, y in run} == {208.0}


def test_long_lines_are_thinned_to_means():
    n = 10_000
    x = np.arange(float(n))
    chart = line_chart("Loss", [Line("a", x, np.where(x % 2, 0.0, 1.0))], "step", (0, 1))
    (run,) = places(chart)
    assert len(run) == 400
    # Each point is the mean of 25 neighbours, 12 or 13 of them 1.
    assert {y for _, y in run} == {round(208 - 198 * share, 1) for share in (12 / 25, 13 / 25)}
    assert len(chart) < 12_000
    assert "circle" not in chart


def test_reliability_bars_are_accuracy_and_gap():
    bins = [
        {"low": 0.0, "high": 0.5, "pixels": 0, "confidence": float("nan"), "accuracy": 0.0},
        {"low": 0.5, "high": 1.0, "pixels": 30, "confidence": 0.75, "accuracy": 0.5},
    ]
    chart = reliability_chart("Reliability", bins, "of <val>")
    rects = re.findall(r'class="(\w+)" x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)"', chart)
    rects = [(kind, *map(float, numbers)) for kind, *numbers in rects]
    x, width = 48 + 181 + 0.5, 181 - 1
    assert rects == [
        ("fill", x, 109.0, width, 99.0),  # accuracy 0.5: half of 198 pixels
        ("gap", x, 59.5, width, 49.5),  # up to the confidence
        ("fill", x, 260.0, width, 44.0),  # the largest share has the full height
    ]
    assert "of &lt;val&gt;" in chart
    assert "confidence 0.50 to 1.00: 100.0% of the pixels" in Page(chart).text
