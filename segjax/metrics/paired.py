"""A paired comparison of two networks over the images of a split."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

_RESAMPLES = 10_000
_EXACT_UP_TO = 13  # images whose 2**n signs are all tried, fewer than the random ones


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """A paired comparison of two runs over the images of a split.

    Attributes:
      images: pairs that count: both runs have a number.
      mean: of the differences.
      low, high: 95 % interval of the mean by the bootstrap over images (percentiles).
      p_value: two-sided, by flipping the signs of the differences.
      better, worse, equal: images by the sign of their difference.
    """

    images: int
    mean: float
    low: float
    high: float
    p_value: float
    better: int
    worse: int
    equal: int


def paired_test(differences: Float[np.ndarray, "n"], seed: int = 0) -> PairedTest:
    """Tests whether differences of paired images are about 0.

    The interval is the percentile bootstrap's with 10,000 resamples. The p-value is the share of
    sign patterns whose mean is as far from 0 as the one found: all 2**n up to n = 13, else 10,000
    random ones and the one found. Images of one drive are not independent, and neither are two
    runs of one seed; then both are too sure.

    Args:
      differences: one per image; those that are not finite are left out.
      seed: of the resamples.

    References: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 15;
    Fisher, "The Design of Experiments", 1935, section 21.
    """
    differences = np.asarray(differences, np.float64)
    differences = differences[np.isfinite(differences)]
    n, nan = len(differences), math.nan
    if not n:
        return PairedTest(0, nan, nan, nan, nan, 0, 0, 0)
    rng, mean = np.random.default_rng(seed), float(differences.mean())
    low, high = np.quantile(_in_parts(_bootstrap_means, differences, rng), [0.025, 0.975])
    # A pattern that is the found one but for rounding is as far from 0.
    far = abs(mean) - 1e-12 * float(np.abs(differences).max())
    if n <= _EXACT_UP_TO:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        p_value = float(np.mean(np.abs(signs @ differences / n) >= far))
    else:
        means = _in_parts(_flipped_means, differences, rng)
        p_value = (int(np.sum(np.abs(means) >= far)) + 1) / (_RESAMPLES + 1)
    better, worse = int(np.sum(differences > 0)), int(np.sum(differences < 0))
    return PairedTest(n, mean, float(low), float(high), p_value, better, worse, n - better - worse)


def _bootstrap_means(differences, rng, count) -> np.ndarray:
    n = len(differences)
    return differences[rng.integers(0, n, (count, n))].mean(1)


def _flipped_means(differences, rng, count) -> np.ndarray:
    n = len(differences)
    return (1 - 2 * rng.integers(0, 2, (count, n))) @ differences / n


def _in_parts(means, differences, rng, part: int = 500) -> np.ndarray:
    """`_RESAMPLES` means, a few at a time: one index per image and resample is much memory."""
    return np.concatenate([means(differences, rng, part) for _ in range(0, _RESAMPLES, part)])
