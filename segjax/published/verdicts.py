"""Our numbers beside the paper's: mean and deviation over seeds, difference, verdict, order."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from segjax.published.table import PAPER, Column, PublishedTable, Row

DEVIATIONS = 2  # within so many standard deviations a number is the paper's
_FEWEST_ROWS = 3  # that have an order worth a test
_PERMUTATIONS = 9999  # all of them up to 7 rows


@dataclasses.dataclass(frozen=True)
class Cell:
    """A number of the paper and ours, in the paper's unit.

    Attributes:
      paper: None where the paper has none.
      values: ours, one for each seed that is there.
      verdict: what the two say to each other, in words.
    """

    paper: float | None
    values: Sequence[float]
    verdict: str = ""

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation over the seeds; None of fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        if self.mean is None or self.paper is None:
            return None
        return self.mean - self.paper


@dataclasses.dataclass(frozen=True)
class Order:
    """Whether a column has the paper's order of the rows.

    Attributes:
      rows: how many have both numbers.
      correlation: Spearman's, in [-1, 1]; None with fewer than three rows, or rows all equal.
      p: the share of random orders that agree as well with the paper's.
    """

    rows: int
    correlation: float | None
    p: float | None

    def __str__(self) -> str:
        if self.correlation is None:
            return f"{self.rows} row{'' if self.rows == 1 else 's'}: no order to compare"
        return f"rank correlation {self.correlation:.2f} over {self.rows} rows (p {self.p:.3f})"


def number_of(results: Mapping[str, Any], column: Column) -> float | None:
    """A number of results.json's `results`, or of a flat mapping of a row with `cost` or `dropout`,
    in the paper's unit; None where it is missing or not finite.

    Args:
      results: split -> numbers.
      column: which of them.
    """
    numbers = results.get(column.split, {})
    if column.protocol != "segjax":
        rows = numbers.get("protocols", ())
        numbers = next((row for row in rows if row["protocol"] == column.protocol), {})
    value = numbers.get(column.measure)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value * column.factor


def judged(row: Row, column: Column, values: Sequence[float], scale: str) -> Cell:
    """The cell of a row and a column, with its verdict."""
    cell = Cell(row.paper.get(column.name), tuple(values))
    comparable = not (row.incomparable or column.incomparable)
    return dataclasses.replace(cell, verdict=_verdict(cell, comparable, scale))


def _verdict(cell: Cell, comparable: bool, scale: str) -> str:
    if cell.difference is None:
        return ""
    if not comparable:
        return "not comparable"
    if scale != PAPER:
        return "another size"
    if cell.deviation is None:
        return "one seed"
    if abs(cell.difference) <= DEVIATIONS * cell.deviation:
        return f"within {DEVIATIONS} deviations"
    return "above" if cell.difference > 0 else "below"


def order_of(rows: Sequence[Row], cells: Sequence[Cell]) -> Order:
    """Compares the order of the rows in a column, those that cannot be compared left out."""
    pairs = [
        (cell.paper, cell.mean)
        for row, cell in zip(rows, cells, strict=True)
        if cell.difference is not None and not row.incomparable
    ]
    theirs, ours = np.asarray(pairs, np.float64).reshape(-1, 2).T
    if len(pairs) < _FEWEST_ROWS or np.ptp(theirs) == 0 or np.ptp(ours) == 0:
        return Order(len(pairs), None, None)
    test = scipy.stats.permutation_test(
        (theirs,),
        lambda x: scipy.stats.spearmanr(x, ours).statistic,
        permutation_type="pairings",
        alternative="greater",
        n_resamples=_PERMUTATIONS,
        rng=np.random.default_rng(0),
    )
    return Order(len(pairs), float(test.statistic), float(test.pvalue))


def orders(table: PublishedTable, cells: Mapping[str, Mapping[str, Cell]]) -> dict[str, Order]:
    """The order in every column, of the rows that have cells."""
    rows = [row for row in table.rows if row.name in cells]
    return {
        column.name: order_of(rows, [cells[row.name][column.name] for row in rows])
        for column in table.columns
    }
