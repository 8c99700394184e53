"""Values as bytes: the range of the type, a stated range, and what is refused."""

import numpy as np
import pytest

from segjax.data.files.values import (
    option_text,
    parse_range,
    robust_ranges,
    suggested_range,
    to_bytes,
)


@pytest.mark.parametrize(
    "option, ranges, text",
    [
        ((0, 4095), ((0, 4095),), "(0,4095)"),
        ([-1024, 3071.5], ((-1024, 3071.5),), "(-1024,3071.5)"),
        (((0, 3000), [5, 4000]), ((0, 3000), (5, 4000)), "((0,3000),(5,4000))"),
    ],
)
def test_ranges_as_they_are_typed_and_saved(option, ranges, text):
    assert parse_range(option, 2) == ranges
    assert option_text(ranges) == text
    assert (parse_range((), 2), parse_range(("auto",), 2), parse_range("auto", 2)) == (
        (),
        "auto",
        "auto",
    )


@pytest.mark.parametrize(
    "option", [(5, 5), (9, 1), (0, float("nan")), ("a", "b"), (1, 2, 3), (3,), "full"]
)
def test_other_ranges_are_refused(option):
    with pytest.raises(ValueError, match=r"data\.value_range=.*; use \(low, high\)"):
        parse_range(option, 3)


def test_a_pair_for_each_channel_is_as_many_as_there_are_channels():
    with pytest.raises(ValueError, match=r"has 2 pairs, but data\.channels=3"):
        parse_range(((0, 1), (0, 2)), 3)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.uint32, np.int64, np.float32])
def test_a_range_is_linear_clipped_and_rounded(dtype):
    values = np.array([0, 100, 110, 200, 299, 300, 30000], dtype).reshape(7, 1, 1)
    # 255 / 200 = 1.275 levels a value from 100 on: 12.75, 127.5, 253.7
    expected = [0, 0, 13, 128, 254, 255, 255]
    np.testing.assert_array_equal(to_bytes(values, "a", ((100, 300),)).ravel(), expected)
    flipped = to_bytes(values, "a", ((100, 300),), inverted=True)
    np.testing.assert_array_equal(flipped.ravel(), 255 - np.array(expected))


def test_each_channel_has_its_own_range_and_nan_is_lowest():
    values = np.array([[[10, 10.0], [np.nan, np.inf], [-np.inf, 20]]], np.float32)
    ranges = ((0, 10), (10, 30))
    np.testing.assert_array_equal(to_bytes(values, "a", ranges), [[[255, 0], [0, 255], [0, 128]]])
    whole = np.array([[[10, 10], [0, 30]]], np.uint16)
    np.testing.assert_array_equal(to_bytes(whole, "a", ranges), [[[255, 0], [0, 255]]])


def test_12_of_16_bits_by_the_header():
    values = np.array([[[0], [2048], [4095]]], np.uint16)
    assert to_bytes(values, "a", top=4095).ravel().tolist() == [0, 128, 255]


def test_the_range_of_deeper_files_is_not_for_8_bits():
    grey = np.array([[[10], [100]]], np.uint8)
    with pytest.raises(ValueError, match=r"a\.png has 8 bits a value, but .*\(0,4095\); use .*one"):
        to_bytes(grey, "a.png", ((0, 4095),))
    assert to_bytes(grey, "a.png", ((0, 100),)).ravel().tolist() == [26, 255]


@pytest.mark.parametrize(
    "low, high, whole, expected",
    [
        (0, 1691, True, (0, 4095)),
        (0, 900, True, (0, 1023)),
        (0, 10000, True, (0, 16383)),
        (0, 250, True, (0, 255)),
        (-1024, 3071, True, (-1024, 3071)),
        (0.0, 1.5, False, (0, 1.5)),
    ],
)
def test_suggested_ranges_are_those_of_sensors(low, high, whole, expected):
    assert suggested_range(low, high, whole=whole) == (expected,)


def test_robust_ranges_leave_out_a_thousandth_and_what_is_not_finite():
    values = np.arange(1001.0)
    pixels = [np.stack([values, values * 2], 1), np.full((5, 2), np.nan)]
    assert robust_ranges(pixels) == ((1, 999), (2, 1998))
    assert robust_ranges([np.full((9, 2), 7)]) == ((7, 8),)  # one pair for all where equal
