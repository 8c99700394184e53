"""Positions, weights and bands of windows, by hand."""

import numpy as np
import pytest

from segjax.inference.windows import bands, blend_weights, bucket, starts


@pytest.mark.parametrize(
    "size, window, overlap, expected",
    [
        (100, 40, 0.5, [0, 20, 40, 60]),
        (100, 40, 0.0, [0, 40, 60]),  # the last one is shifted inward
        (101, 40, 0.25, [0, 30, 60, 61]),
        (40, 40, 0.5, [0]),
        (30, 40, 0.5, [0]),
        (5, 1, 0.9, [0, 1, 2, 3, 4]),  # a stride of no pixel would never end
    ],
)
def test_starts(size, window, overlap, expected):
    assert starts(size, window, overlap) == expected


def test_buckets_are_few_and_waste_little():
    sizes = range(1, 1025)
    buckets = {bucket(n) for n in sizes}
    assert len(buckets) == 16
    assert {bucket(n) for n in range(1025, 2049)} == {1280, 1536, 1792, 2048}
    assert all(n <= bucket(n) for n in sizes)
    assert all(bucket(n) % 32 == 0 for n in sizes)
    assert all(bucket(n) < 1.25 * n for n in range(257, 1025))
    assert all(bucket(n) - n < 32 for n in range(1, 257))


def test_blends():
    np.testing.assert_array_equal(blend_weights((2, 3), "uniform"), np.ones((2, 3)))
    # Distances to the nearer border: 0.5 1.5 1.5 0.5 and 0.5 1.5 0.5, over their largest.
    expected = np.outer([1 / 3, 1, 1, 1 / 3], [1 / 3, 1, 1 / 3])
    np.testing.assert_allclose(blend_weights((4, 3), "linear"), expected, rtol=1e-6)
    gaussian = blend_weights((16, 32), "gaussian")
    # Standard deviations 2 and 4: from the centre pixels (0.5 off) to the corners (7.5, 15.5).
    expected = np.exp(-((7.5**2 - 0.5**2) / 8 + (15.5**2 - 0.5**2) / 32))
    np.testing.assert_allclose(gaussian[0, 0] / gaussian[8, 16], expected, rtol=1e-5)
    assert gaussian.min() > 0
    assert gaussian.max() == 1


def test_linear_windows_that_overlap_by_half_add_up():
    one = blend_weights((1, 8), "linear")[0]
    total = np.zeros(32)
    for start in starts(32, 8, 0.5):
        total[start : start + 8] += one
    np.testing.assert_allclose(total[4:-4], total[4])


@pytest.mark.parametrize("width, strip", [(100, 20), (100, 23), (97, 40), (20, 100), (7, 20)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.7])
def test_bands_are_complete(width, strip, overlap):
    """Every column is in one band, with all windows that touch it, and they fit the strip."""
    window = 10
    lefts = starts(width, window, overlap)
    end = 0
    for band in bands(lefts, width, window, strip):
        assert band.begin == end < band.end
        end = band.end
        touching = [x for x in lefts if x < band.end and x + window > band.begin]
        assert list(band.lefts) == touching
        assert touching[-1] + window - touching[0] <= strip
    assert end == width
