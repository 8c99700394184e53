"""The paired test by hand, and against normal theory."""

import itertools

import numpy as np
import pytest
from scipy import stats

from segjax.metrics import paired_test


def test_exact_sign_flips_by_hand():
    differences = np.array([0.3, -0.1, 0.2, 0.4])
    sums = [sum(signs) for signs in itertools.product(*((d, -d) for d in differences))]
    share = sum(abs(s) >= 0.8 - 1e-9 for s in sums) / 16
    test = paired_test(np.append(differences, np.nan))
    assert test.p_value == share == 4 / 16  # all alike, or the 0.1 the other way: both sides
    assert (test.images, test.better, test.worse) == (4, 3, 1)
    assert test.mean == pytest.approx(0.2)
    assert paired_test(differences) == test


def test_interval_and_p_value_of_a_normal_sample():
    """Against the normal theory that both approximate at 400 images."""
    sample = np.random.default_rng(2).normal(0.01, 0.1, 400)
    test = paired_test(sample)
    error = sample.std() / 20
    np.testing.assert_allclose(
        [test.low, test.high], sample.mean() + np.array([-1.96, 1.96]) * error, atol=0.1 * error
    )
    assert test.p_value == pytest.approx(stats.ttest_1samp(sample, 0).pvalue, abs=0.02)
    assert paired_test(sample, seed=1) != test


def test_nothing_to_pair():
    test = paired_test(np.array([np.nan]))
    assert test.images == 0
    assert np.isnan([test.mean, test.low, test.high, test.p_value]).all()
