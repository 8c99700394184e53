"""The painter against counts by hand, and run lengths against a twin."""

import numpy as np
import pytest

from segjax.data.polygons.paint import Shape, box, by_area, ellipse, paint, ring
from segjax.data.polygons.rle import Runs, decompress

IDS = {"a": 1, "b": 2}


def square(label, left, top, right, bottom, *holes):
    holes = tuple(box(*hole) for hole in holes)
    return Shape(label, (box(left, top, right, bottom),), holes)


def test_later_shapes_cover_earlier_ones_and_outsides_are_cut_off():
    shapes = square("a", -5, -5, 3, 2), square("b", 2, 1, 99, 99)
    expected = np.zeros((4, 6), int)
    expected[:3, :4] = 1
    expected[1:, 2:] = 2
    np.testing.assert_array_equal(paint((4, 6), shapes, IDS, 0), expected)
    expected[:3, :4] = 1
    np.testing.assert_array_equal(paint((4, 6), shapes[::-1], IDS, 0), expected)


def test_small_shapes_lie_on_top_by_area():
    small, large = square("a", 2, 1, 3, 2), square("b", 0, 0, 5, 3)
    assert [shape.label for shape in by_area([small, large])] == ["b", "a"]
    drawn = paint((4, 6), by_area([small, large]), IDS, 0)
    assert (np.bincount(drawn.ravel()).tolist(), drawn[1, 2]) == ([0, 4, 20], 1)


def test_holes_show_what_lies_below():
    shapes = square("a", 0, 0, 5, 4), square("b", 0, 0, 4, 4, (1, 1, 3, 3))
    drawn = paint((5, 6), shapes, IDS, 0)
    expected = np.full((5, 6), 2)
    expected[1:4, 1:4] = 1
    expected[:, 5] = 1
    np.testing.assert_array_equal(drawn, expected)
    assert (square("b", 0, 0, 4, 4, (1, 1, 3, 3)).area, shapes[0].area) == (12, 20)


def test_bitmaps_at_their_place_and_large_ids():
    bitmap = np.array([[True, False], [True, True]])
    drawn = paint((3, 4), [Shape("a", bitmap=bitmap, place=(3, 1))], {"a": 1000}, 7)
    assert drawn.dtype == np.int32
    np.testing.assert_array_equal(drawn, [[7] * 4, [7, 7, 7, 1000], [7, 7, 7, 1000]])


def test_circles_and_turned_boxes():
    circle = paint((41, 41), [Shape("a", (ellipse((20, 20), (15, 15)),))], IDS, 0)
    assert circle.sum() == pytest.approx(np.pi * 15.5**2, rel=0.03)
    assert (circle[20, 5], circle[20, 4], circle[8, 8]) == (1, 0, 0)
    turned = paint((21, 21), [Shape("a", (box(5, 9, 15, 11, degrees=90),))], IDS, 0)
    np.testing.assert_array_equal(np.argwhere(turned).min(0), [5, 9])
    np.testing.assert_array_equal(np.argwhere(turned).max(0), [15, 11])


@pytest.mark.parametrize("points", [[(0, float("nan"))], [(1e9, 0)], [(0, 1, 2)], [("x", 1)]])
def test_points_that_are_none(points):
    with pytest.raises((ValueError, TypeError)):
        ring(points)


def compressed(runs):
    """COCO's string of run lengths, written anew from the description of the format."""
    text = ""
    for k, run in enumerate(runs):
        value = run - runs[k - 2] if k > 2 else run
        while True:
            bits, value = value & 31, value >> 5
            last = (value == 0 and not bits & 16) or (value == -1 and bits & 16)
            text += chr(48 + bits + (0 if last else 32))
            if last:
                break
    return text


def test_run_lengths_against_a_twin():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((9, 13)) < 0.4
        flat, runs, value = mask.T.ravel(), [0], False
        for pixel in flat:
            if pixel != value:
                runs.append(0)
                value = pixel
            runs[-1] += 1
        assert decompress(compressed(runs)) == runs
        read = Runs(np.array(runs), (9, 13), by_column=True)
        np.testing.assert_array_equal(read.mask(), mask)
        assert read.pixels == mask.sum()
    large = [0, 70000, 3, 12, 69999, 1]
    assert decompress(compressed(large)) == large
    # Of pycocotools: encode(np.asfortranarray([[0, 1], [1, 1]], np.uint8))["counts"]
    assert decompress("13") == [1, 3]


@pytest.mark.parametrize("runs", [[3], [-1, 5], [0, 2, 0, 3], [2**62, 2**62]])
def test_runs_that_do_not_fill_the_mask(runs):
    with pytest.raises(ValueError, match="do not fill a mask of 2x2"):
        Runs(np.array(runs), (2, 2), by_column=True)


@pytest.mark.parametrize("text", ["1 3", "o", "oooooooooooooooo0"])
def test_strings_that_are_no_run_lengths(text):
    with pytest.raises(ValueError, match="compressed run lengths"):
        decompress(text)
