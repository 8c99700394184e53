"""Masks as people bring them become ids of a class list, or an error says what they are."""

import numpy as np
import pytest
from PIL import Image

from segjax.data.class_lists import listed, read_class_list
from segjax.data.classes import from_names
from segjax.data.files.masks import ids_of_colors, read_listed_mask

ROAD, CAR, VOID, SKY = (128, 64, 128), (0, 0, 142), (0, 0, 0), (70, 130, 180)


def class_list(tmp_path, lines):
    (tmp_path / "classes.txt").write_text(lines)
    return read_class_list(tmp_path / "classes.txt")


@pytest.fixture
def colored(tmp_path):
    """road, car, void (ignored), sky, with colours."""
    lines = "road 128 64 128\ncar 0 0 142\nvoid 0 0 0 ignore\nsky 70 130 180\n"
    return class_list(tmp_path, lines)


def save(path, pixels, mode=None, palette=None):
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    if palette:
        image.putpalette([channel for color in palette for channel in color])
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_become_the_ids_of_their_lines(tmp_path, colored, mode):
    path = save(tmp_path / "m.png", [[ROAD, CAR, VOID], [SKY, ROAD, ROAD]], mode)
    np.testing.assert_array_equal(read_listed_mask(path, colored), [[0, 1, 2], [3, 0, 0]])


def test_colours_agree_with_a_comparison_per_class(colored):
    rng = np.random.default_rng(0)
    rgb = np.array([ROAD, CAR, VOID, SKY], np.uint8)[rng.integers(0, 4, (37, 41))]
    expected = np.full((37, 41), -1)
    for id_, color in enumerate((ROAD, CAR, VOID, SKY)):
        expected[(rgb == color).all(-1)] = id_
    np.testing.assert_array_equal(ids_of_colors(rgb, colored, "m.png"), expected)


@pytest.mark.parametrize(
    "ids, palette",
    [
        ([[0, 1], [2, 3]], None),
        ([[0, 1], [2, 3]], [ROAD, CAR, VOID, SKY]),
        ([[0, 1], [2, 3]], [(9, 9, 9), (1, 2, 3), (5, 5, 5), ROAD]),  # colours for show
        ([[0, 255]], [ROAD] * 255 + [SKY]),
    ],
)
def test_one_channel_and_palette_files_are_ids(tmp_path, colored, ids, palette):
    path = save(tmp_path / "m.png", ids, palette=palette)
    np.testing.assert_array_equal(read_listed_mask(path, colored), ids)


@pytest.mark.parametrize(
    "ids, palette, words",
    [
        ([[0, 1]], [SKY, ROAD], r"0 is #4682b4, 1 is #804080; use RGB \(mask\.convert\('RGB'\)"),
        ([[0, 7]], [ROAD] + [CAR] * 7, r"but of other ids: 7 is #00008e; use RGB"),
    ],
)
def test_a_palette_that_contradicts_the_list(tmp_path, colored, ids, palette, words):
    path = save(tmp_path / "p.png", ids, palette=palette)
    with pytest.raises(ValueError, match=rf"p\.png: the palette's colours are those of .*{words}"):
        read_listed_mask(path, colored)


def test_colours_of_no_class_come_with_pixels_and_the_nearest_class(tmp_path, colored):
    path = save(tmp_path / "m.png", [[ROAD, (0, 0, 140), (0, 0, 140), (70, 131, 180)]])
    with pytest.raises(ValueError) as error:
        read_listed_mask(path, colored)
    assert str(error.value) == (
        f"{path}: 2 colours of no class: #00008c (2 pixels, nearest is car #00008e), "
        "#4683b4 (1 pixels, nearest is sky #4682b4); use a line `NAME r g b` in data.classes for "
        "each, ending with `ignore` if it is void"
    )


NOISE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    "name, pixels, words",
    [
        ("m.png", [[ROAD, (255, 255, 255)]], r"1 colours .*use a line `NAME 255 255 255` in data"),
        ("a.jpg", NOISE, r"a\.jpg: \d+ colours .*, \.\.\.; use PNG for masks: JPEG"),
        ("b.png", NOISE, r"64 colours of no class.*; use masks without blended"),
        (
            "c.png",
            [[[0] * 3, [1] * 3, [2] * 3]],
            r"2 colours .*use one of the channels if they",
        ),
    ],
)
def test_unknown_colours_come_with_a_remedy(tmp_path, colored, name, pixels, words):
    with pytest.raises(ValueError, match=words):
        read_listed_mask(save(tmp_path / name, pixels), colored)


def test_one_colour_for_two_classes_cannot_be_read(tmp_path):
    path = save(tmp_path / "m.png", [[(1, 1, 3), (2, 2, 2)]])
    same = class_list(tmp_path, "road 1 1 3\ncar 1 1 3 ignore\n")
    with pytest.raises(ValueError, match=r"gives the colour #010103 to 'road' and to 'car'; use"):
        read_listed_mask(path, same)
    voids = class_list(tmp_path, "void 1 1 3 ignore\nroad 2 2 2\nout 1 1 3 ignore\n")
    assert [voids.labels[i] for i in read_listed_mask(path, voids)[0]] == [255, 0]
    with pytest.raises(ValueError, match=r"one class id per pixel, found mode RGB.*data\.classes"):
        read_listed_mask(path, listed(from_names(["road", "car"])))  # a list without colours


@pytest.mark.parametrize(
    "ids, ignore_ids, expected",
    [
        ([[0, 255]], (), [[0, 1]]),
        ([[255, 255]], (), [[1, 1]]),
        ([[0, 255, 128]], (128,), [[0, 1, 128]]),
        ([[0, 1]], (), [[0, 1]]),
        ([[0, 255]], (255,), [[0, 255]]),
        ([[0, 1, 255]], (255,), [[0, 1, 255]]),
    ],
)
def test_255_is_the_foreground_of_two_classes_only_if_it_is_not_ignored(
    tmp_path, ids, ignore_ids, expected
):
    two = listed(from_names(["background", "crack"]))
    path = save(tmp_path / "m.png", ids)
    np.testing.assert_array_equal(read_listed_mask(path, two, ignore_ids), expected)


def test_255_beside_1_is_not_taken_for_the_foreground(tmp_path):
    path = save(tmp_path / "m.png", [[0, 1, 255]])
    with pytest.raises(ValueError, match=r"m\.png: ids 1 and 255 .*data\.ignore_ids=\(255,\) if"):
        read_listed_mask(path, listed(from_names(["background", "crack"])), ())
    three = listed(from_names(["background", "crack", "edge"]))
    np.testing.assert_array_equal(read_listed_mask(path, three, ()), [[0, 1, 255]])
