"""A paired comparison of two networks over the images of a split."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

_RESAMPLES = 10_000
_EXACT_UP_TO = 13  # images: 2**13 sign patterns are fewer than `_RESAMPLES`


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """A paired comparison of two runs over the images of a split.

    Attributes:
      images: pairs in which both runs have a number.
      mean: mean difference.
      low, high: 95 % interval of the mean, by the percentile bootstrap over images.
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
    """Tests whether the mean difference of paired images is 0.

    The interval is that of the percentile bootstrap with 10,000 resamples. The p-value is the share
    of sign patterns whose mean is as far from 0 as the observed mean: of all 2**n patterns up to
    n = 13, of 10,000 random ones and the observed one beyond that. Both are overconfident where
    images are not independent, as the frames of one drive.

    Args:
      differences: one per image; values that are not finite are left out.
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
    # Rounding must not exclude a pattern whose mean equals the observed one.
    far = abs(mean) - 1e-12 * float(np.abs(differences).max())
    if n <= _EXACT_UP_TO:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        p_value = float(np.mean(np.abs(signs @ differences / n) >= far))
    else:
        means = _in_parts(_flipped_means, differences, rng)
        p_value = (int(np.sum(np.abs(means) >= far)) + 1) / (_RESAMPLES + 1)
    better, worse = int(np.sum(differences > 0)), int(np.sum(differences < 0))
    return PairedTest(n, mean, float(low), float(high), p_value, better, worse, n - better - worse)


def _bootstrap_means(differences: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    n = len(differences)
    return differences[rng.integers(0, n, (count, n))].mean(1)


def _flipped_means(differences: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    n = len(differences)
    return (1 - 2 * rng.integers(0, 2, (count, n))) @ differences / n


def _in_parts(
    means: Callable[..., np.ndarray],
    differences: np.ndarray,
    rng: np.random.Generator,
    part: int = 500,
) -> np.ndarray:
    """`_RESAMPLES` means, `part` at a time to bound the memory of the indices."""
    return np.concatenate([means(differences, rng, part) for _ in range(0, _RESAMPLES, part)])
