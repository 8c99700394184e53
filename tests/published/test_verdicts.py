"""Numbers beside the paper's, by hand; the order of rows, by all permutations."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from segjax.published.table import Column, PublishedTable, Row, Scale
from segjax.published.verdicts import Cell, judged, number_of, order_of, orders

MIOU = Column("mIoU", "miou")


def row(name="a", paper=50.0, **fields):
    return Row(name, {} if paper is None else {"mIoU": paper}, config="segnet", **fields)


def test_mean_deviation_and_difference_by_hand():
    cell = Cell(50.0, (47.0, 49.0, 54.0))
    assert cell.mean == 50
    assert cell.deviation == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert cell.difference == 0
    assert Cell(50.0, (48.5,)).deviation is None
    assert Cell(50.0, (48.5,)).difference == -1.5
    assert Cell(50.0, ()).mean is None
    assert Cell(50.0, ()).difference is None
    assert Cell(None, (48.5,)).difference is None


@pytest.mark.parametrize(
    "values, verdict",
    [
        # The deviation of x - 1, x, x + 1 is 1.
        ((51.0, 52.0, 53.0), "within 2 deviations"),
        ((47.0, 48.0, 49.0), "within 2 deviations"),
        ((51.1, 52.1, 53.1), "above"),
        ((46.9, 47.9, 48.9), "below"),
        ((50.0, 50.0), "within 2 deviations"),
        ((49.0, 49.0), "below"),
        ((50.0,), "one seed"),
        ((), ""),
    ],
)
def test_verdicts(values, verdict):
    assert judged(row(), MIOU, values, "paper").verdict == verdict


def test_verdicts_of_what_cannot_be_the_papers():
    values = (51.0, 52.0, 53.0)
    assert judged(row(paper=None), MIOU, values, "paper").verdict == ""
    assert judged(row(), MIOU, values, "cpu").verdict == "another size"
    for scale in ("paper", "cpu"):
        other = row(incomparable="other data")
        assert judged(other, MIOU, values, scale).verdict == "not comparable"
        column = Column("mIoU", "miou", incomparable="other data")
        assert judged(row(), column, values, scale).verdict == "not comparable"


def test_a_number_of_results_in_the_papers_unit():
    results = {
        "test": {
            "miou": 0.5,
            "loss": math.nan,
            "fine": True,
            "protocols": [{"protocol": "segjax", "miou": 0.5}, {"protocol": "semseg", "miou": 0.4}],
        },
        "val": {"miou": 0.6},
    }
    assert number_of(results, MIOU) == 50
    assert number_of(results, Column("", "miou", factor=1)) == 0.5
    assert number_of(results, Column("", "miou", split="val")) == 60
    assert number_of(results, Column("", "miou", protocol="semseg")) == 40
    for column in (
        Column("", "loss"),
        Column("", "fine"),
        Column("", "brier"),
        Column("", "miou", split="train"),
        Column("", "miou", protocol="torchvision"),
        Column("", "loss", protocol="semseg"),
        Column("", "miou", split="val", protocol="semseg"),
    ):
        assert number_of(results, column) is None


def of_values(theirs, ours):
    rows = [row(str(k), paper) for k, paper in enumerate(theirs)]
    return order_of(rows, [Cell(p, (o,)) for p, o in zip(theirs, ours, strict=True)])


@pytest.mark.parametrize("ours", [(1, 2, 3, 4), (1, 2, 4, 3), (4, 3, 2, 1), (2, 2, 3, 1)])
def test_the_order_by_all_permutations(ours):
    theirs = (43.3, 44.1, 47.7, 50.1)

    def correlation(x, y):
        return scipy.stats.spearmanr(x, y).statistic

    found = of_values(theirs, ours)
    agreeing = [
        correlation(theirs, each) >= correlation(theirs, ours) - 1e-12
        for each in itertools.permutations(ours)
    ]
    assert len(agreeing) == 24
    assert found.rows == 4
    assert found.correlation == pytest.approx(correlation(theirs, ours))
    assert found.p == pytest.approx(np.mean(agreeing))


def test_the_order_by_hand():
    same = of_values((43.3, 44.1, 47.7), (10, 30, 50))
    assert (same.correlation, same.p) == (pytest.approx(1), pytest.approx(1 / 6))
    assert str(same) == "rank correlation 1.00 over 3 rows (p 0.167)"
    # Of four rows, one neighbouring pair swapped: 1 - 6 * 2 / (4 * 15).
    swapped = of_values((1, 2, 3, 4), (1, 2, 4, 3))
    assert swapped.correlation == pytest.approx(0.8)
    assert of_values((1, 2, 3), (3, 2, 1)).correlation == pytest.approx(-1)


def test_rows_without_an_order():
    assert of_values((1, 2), (1, 2)).correlation is None
    assert of_values((1, 1, 1), (1, 2, 3)).correlation is None
    assert of_values((1, 2, 3), (2, 2, 2)).correlation is None
    assert str(of_values((), ())) == "0 rows: no order to compare"
    assert str(of_values((1,), (1,))) == "1 row: no order to compare"


def test_rows_that_cannot_be_compared_are_left_out_of_the_order():
    rows = [
        row("a", 1.0),
        row("b", 2.0),
        row("c", 3.0),
        row("d", 4.0, incomparable="other data"),
        row("e", None),
        row("f", 5.0),
    ]
    values = [(1.0,), (2.0,), (3.0,), (0.0,), (9.0,), ()]
    column = Column("mIoU", "miou", incomparable="other images")
    table = PublishedTable("t", "", "", "", [column], rows, {"paper": Scale()})
    cells = {
        each.name: {"mIoU": judged(each, column, found, "paper")}
        for each, found in zip(rows, values, strict=True)
    }
    found = orders(table, cells)["mIoU"]
    assert (found.rows, found.correlation) == (3, pytest.approx(1))
    del cells["a"]  # a row that was not asked for
    assert orders(table, cells)["mIoU"].rows == 2
