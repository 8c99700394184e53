"""Masks as people bring them become ids of a class list, or an error says what they are."""

import numpy as np
import pytest
from PIL import Image

from segjax.data.class_lists import listed, read_class_list
from segjax.data.classes import from_names
from segjax.data.files.colors import ids_of_colors, rows_of_colors
from segjax.data.files.ids import class_ids
from segjax.data.files.masks import Foreground, read_listed_mask

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
    np.testing.assert_array_equal(read_listed_mask(path, colored).ids, [[0, 1, 2], [3, 0, 0]])


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
        ([[0, 1], [2, 3]], [(9, 9, 9), (1, 2, 3), (5, 5, 5), (7, 8, 9)]),  # colours for show
        ([[0, 1], [2, 3]], [(9, 9, 9), CAR, (5, 5, 5), (7, 8, 9)]),  # that agree
        ([[0, 255]], [ROAD] * 255 + [SKY]),
    ],
)
def test_one_channel_and_palette_files_are_ids(tmp_path, colored, ids, palette):
    path = save(tmp_path / "m.png", ids, palette=palette)
    np.testing.assert_array_equal(read_listed_mask(path, colored).ids, ids)


@pytest.mark.parametrize(
    "ids, palette, expected",
    [
        ([[0, 1]], [SKY, ROAD], [[3, 0]]),
        ([[0, 7, 255]], [ROAD] + [CAR] * 255, [[0, 1, 255]]),
        ([[0, 0]], [VOID], [[2, 2]]),
    ],
)
def test_a_palette_of_the_lists_colours_is_read_by_them(tmp_path, colored, ids, palette, expected):
    """In which order an encoder puts them says nothing."""
    path = save(tmp_path / "p.png", ids, palette=palette)
    np.testing.assert_array_equal(read_listed_mask(path, colored).ids, expected)


def test_a_palette_with_some_of_the_lists_colours_at_other_ids(tmp_path, colored):
    path = save(tmp_path / "p.png", [[0, 1]], palette=[SKY, (1, 2, 3)])
    with pytest.raises(ValueError, match=r"p\.png: some .*, but of other ids: 0 is #4682b4; use a"):
        read_listed_mask(path, colored)


TWO, THREE = (listed(from_names(names)) for names in (["background", "crack"], "abc"))
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


@pytest.mark.parametrize(
    "ids, palette, classes, words",
    [
        ([[0, 1]], [WHITE, BLACK], TWO, r"0 is #ffffff, 1 is #000000; use a class list with col"),
        ([[0, 0]], [WHITE, BLACK], TWO, "0 is #ffffff"),
        ([[0, 1]], [BLACK, WHITE], TWO, ""),
        ([[0, 1]], [BLACK, (9, 0, 0)], TWO, ""),
        ([[0, 1]], [(2, 2, 2), (1, 1, 1)], THREE, "0 is #020202; use"),
        ([[0, 2]], [WHITE, WHITE, BLACK], THREE, ""),  # a display on white
    ],
)
def test_a_palette_of_grey_levels_that_contradict_the_indices(
    tmp_path, ids, palette, classes, words
):
    path = save(tmp_path / "p.png", ids, palette=palette)
    if words:
        with pytest.raises(ValueError, match=rf"p\.png: the palette's grey levels are .*{words}"):
            read_listed_mask(path, classes)
    else:
        np.testing.assert_array_equal(read_listed_mask(path, classes).ids, ids)


def test_colours_of_no_class_come_with_pixels_and_the_nearest_class(tmp_path, colored):
    path = save(tmp_path / "m.png", [[ROAD, (0, 0, 140), (0, 0, 140), (70, 131, 180)]])
    with pytest.raises(ValueError) as error:
        read_listed_mask(path, colored)
    assert str(error.value) == (
        f"{path}: 2 colours of no class: #00008c (2 pixels, nearest is car #00008e), "
        "#4683b4 (1 pixels, nearest is sky #4682b4); use data.color_distance=2, which reads them "
        "as the nearest class: they are no further from it in any channel; or a line `NAME r g b` "
        "in data.classes for each, ending with `ignore` if it is void"
    )


NOISE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    "name, pixels, words",
    [
        ("m.png", [[ROAD, (255, 255, 255)]], r"1 colours .*use a line `NAME 255 255 255` in data"),
        ("a.jpg", NOISE, r"a\.jpg: \d+ colours .*, \.\.\.; use PNG for masks: JPEG"),
        ("b.png", NOISE, r"64 colours of no class.*; use masks without blended"),
        ("c.png", [[(255, 0, 0), (0, 255, 0), (0, 0, 255)]], r"3 .*use np\.argmax\(mask, -1\)"),
        ("d.png", [[(0, 0, 0), (1, 0, 0), (2, 0, 0)]], r"2 colours .*use the red channel if it"),
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
    assert [voids.labels[i] for i in read_listed_mask(path, voids).ids[0]] == [255, 0]
    with pytest.raises(ValueError, match=r"found mode RGB with 2.*data\.classes.*=panoptic$"):
        read_listed_mask(path, TWO)  # a list without colours


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
    path = save(tmp_path / "m.png", ids)
    np.testing.assert_array_equal(read_listed_mask(path, TWO, ignore_ids).ids, expected)


def test_255_beside_1_is_not_taken_for_the_foreground(tmp_path):
    path = save(tmp_path / "m.png", [[0, 1, 255]])
    with pytest.raises(ValueError, match=r"m\.png: ids 1 and 255 .*data\.ignore_ids=\(255,\) if"):
        read_listed_mask(path, TWO, ())
    np.testing.assert_array_equal(read_listed_mask(path, THREE, ()).ids, [[0, 1, 255]])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "gif", "tif", "bmp", "webp"])
def test_black_and_white_in_any_channels_and_types(tmp_path, mode, suffix):
    """One picture gives one mask, and an all-white one is not all black."""
    for name, pixels in (("m", [[0, 255, 255], [0, 0, 255]]), ("w", [[255, 255, 255]])):
        picture = Image.fromarray(np.array(pixels, np.uint8)).convert(mode)
        path = tmp_path / f"{name}.{suffix}"
        try:
            picture.save(path, **({"lossless": True} if suffix == "webp" else {}))
        except OSError:
            pytest.skip(f"{suffix} has no mode {mode}")
        ids = read_listed_mask(path, TWO, ()).ids
        np.testing.assert_array_equal(ids, np.array(pixels) // 255)


GREY = "ground 0 0 0\nsquare 150 150 150\ndisc 250 250 250\n"


def test_class_ids_in_all_channels(tmp_path, colored):
    path = save(tmp_path / "m.png", [[[0] * 3, [1] * 3, [2] * 3]])
    for classes in (THREE, class_list(tmp_path, GREY)):
        np.testing.assert_array_equal(read_listed_mask(path, classes).ids, [[0, 1, 2]])
    # In this list black is void, which an all-black file would be too.
    with pytest.raises(ValueError, match=r"2 colours of no class.*use one of the channels if they"):
        read_listed_mask(path, colored)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB"])
@pytest.mark.parametrize("lines", [GREY, "sky 9 9 200 ignore\n" + GREY])
def test_grey_colours_of_the_list_are_tried_where_ids_do_not_fit(tmp_path, mode, lines):
    first = 0 if lines is GREY else 1
    classes = class_list(tmp_path, lines.replace("0 0 0", "9 9 9") if first else lines)
    pixels = np.array([[9 * first, 150, 250, 150]], np.uint8)
    path = save(tmp_path / "m.png", pixels, mode)
    expected = np.array([[0, 1, 2, 1]]) + first
    np.testing.assert_array_equal(read_listed_mask(path, classes).ids, expected)
    path = save(tmp_path / "m.png", np.array([[9 * first, 147, 252, 149]], np.uint8), mode)
    if first == 0:
        with pytest.raises(ValueError, match=r"3 colours .*: #939393 .*_distance=3, which"):
            read_listed_mask(path, classes)
    near = read_listed_mask(path, classes, color_distance=3).ids
    np.testing.assert_array_equal(near, expected)


@pytest.mark.parametrize(
    "lines, ids, ignore_ids, expected",
    [
        ("ground 0 0 0\ncrack 255 255 255\n", [0, 255], (255,), [0, 1]),
        ("ground 0 0 0\ncrack 255 255 255\n", [0, 1], (255,), [0, 1]),
        ("ground 0 0 0\ncrack 255 255 255\n", [0, 1, 255], (255,), None),
        ("square 9 9 9\nground 0 0 0\n", [0, 0], (255,), None),
        ("square 9 9 9\nground 0 0 0\n", [0, 9], (255,), [1, 0]),
        ("road 1 2 3\nvoid 0 0 0 ignore\n", [0, 1, 255], (255,), [0, 1, 255]),
    ],
)
def test_values_that_may_be_ids_or_grey_colours(tmp_path, lines, ids, ignore_ids, expected):
    classes, path = class_list(tmp_path, lines), save(tmp_path / "m.png", [ids])
    if expected is None:
        with pytest.raises(ValueError, match=r"m\.png: the values 0.* grey colours of data\.cl"):
            read_listed_mask(path, classes, ignore_ids)
    else:
        np.testing.assert_array_equal(read_listed_mask(path, classes, ignore_ids).ids, [expected])


@pytest.mark.parametrize("distance, expected", [(0, None), (1, None), (2, [[0, 1, 3]])])
def test_the_nearest_colour_within_a_distance(tmp_path, colored, distance, expected):
    pixels = [[(128, 64, 128), (2, 0, 140), (70, 131, 180)]]
    for path in (
        save(tmp_path / "m.png", pixels),
        save(tmp_path / "p.png", [[0, 1, 2]], palette=pixels[0]),
    ):
        if expected is not None:
            ids = read_listed_mask(path, colored, color_distance=distance).ids
            np.testing.assert_array_equal(ids, expected)
        elif path.name == "m.png":
            with pytest.raises(ValueError, match=r"m\.png: \d colours .* data\.color_distance=2,"):
                read_listed_mask(path, colored, color_distance=distance)


def test_distances_agree_with_a_search_over_all_classes(colored):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (30, 40, 3), np.uint8)
    table = np.array([ROAD, CAR, VOID, SKY], int)
    away = np.abs(rgb[:, :, None].astype(int) - table).max(-1)
    expected = np.where(away.min(-1) <= 40, away.argmin(-1), -1)
    np.testing.assert_array_equal(rows_of_colors(rgb, colored, 40), expected)


def test_no_distance_is_advised_that_is_large_or_between_two_classes(tmp_path, colored):
    near = class_list(tmp_path, "road 0 0 0\ncar 0 0 6\n")
    for classes, color in ((colored, (128, 64, 145)), (near, (0, 0, 3))):
        with pytest.raises(ValueError, match=r"1 colours of no class.*; use a line `NAME"):
            read_listed_mask(save(tmp_path / "m.png", [[color]]), classes)


SOFT = np.uint8(np.concatenate([np.zeros(40), np.linspace(0, 255, 12), np.full(40, 255)]))[None]


@pytest.mark.parametrize("ignore_ids", [(), (255,)])
@pytest.mark.parametrize("scale", [1, 257])
def test_a_soft_mask_names_the_threshold_that_reads_it(tmp_path, ignore_ids, scale):
    path = tmp_path / "m.png"
    Image.fromarray(SOFT.astype(np.uint16) * scale if scale > 1 else SOFT).save(path)
    value = 128 if scale == 1 else 32768
    ids = read_listed_mask(path, TWO, ignore_ids).ids
    with pytest.raises(ValueError, match=rf"bad ids .*use data\.mask_threshold={value} if"):
        class_ids(2, ignore_ids).labels_of(ids, path)
    mask = read_listed_mask(path, TWO, ignore_ids, threshold=value)
    np.testing.assert_array_equal(mask.ids, SOFT.astype(int) * scale >= value)


def test_a_jpeg_mask_is_read_with_a_threshold_alone(tmp_path):
    picture = np.zeros((32, 48), np.uint8)
    picture[8:20, 10:30] = 255
    path = save(tmp_path / "m.jpg", picture)
    with pytest.raises(ValueError, match=r"m\.jpg: bad ids .* use data\.mask_threshold=128 if"):
        class_ids(2, ()).labels_of(read_listed_mask(path, TWO, ()).ids, path)
    mask = read_listed_mask(path, TWO, (255,), threshold=128)
    np.testing.assert_array_equal(mask.ids, picture // 255)


@pytest.mark.parametrize(
    "pixels, threshold, expected",
    [
        (np.float32([[0.0, 0.4, 0.5, 1.0]]), 0.5, [[0, 0, 1, 1]]),
        (np.array([[False, True]]), 128, [[0, 1]]),
        (np.int16([[0, 200, -9999]]), 100, [[0, 1, -9999]]),
        (np.uint8([[0, 1, 1]]), 128, None),
        (np.uint8([[0, 0]]), 128, [[0, 0]]),
    ],
)
def test_thresholds_of_other_types(tmp_path, pixels, threshold, expected):
    np.save(tmp_path / "m.npy", pixels)
    if expected is None:
        with pytest.raises(
            ValueError, match=r"values of at most 1, all below data\.mask_threshold"
        ):
            read_listed_mask(tmp_path / "m.npy", TWO, threshold=threshold)
        return
    mask = read_listed_mask(tmp_path / "m.npy", TWO, (255, -9999), threshold=threshold)
    np.testing.assert_array_equal(mask.ids, expected)


@pytest.mark.parametrize(
    "ids, ignore_ids, expected",
    [
        ([0, 1], (255,), Foreground(ones=1)),
        ([0, 255], (255,), Foreground(highs=1)),
        ([0, 1, 255], (255,), Foreground(voids=1)),
        ([0, 0], (255,), Foreground()),
        ([255, 255], (255,), Foreground()),
        ([0, 255], (), Foreground()),  # is read
    ],
)
def test_how_a_file_gives_the_foreground(tmp_path, ids, ignore_ids, expected):
    path = save(tmp_path / "m.png", [ids])
    assert read_listed_mask(path, TWO, ignore_ids).foreground == expected
    assert read_listed_mask(path, THREE, ignore_ids).foreground == Foreground()


def test_grey_levels_for_show_come_with_the_lines_of_a_list(tmp_path):
    path = save(tmp_path / "m.png", [[0, 150, 250]])
    with pytest.raises(ValueError, match=r"each value: `0 NAME`, `150 NAME`, `250 NAME` \(ending"):
        class_ids(3).labels_of(read_listed_mask(path, THREE).ids, path)
