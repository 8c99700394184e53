import json
import re

import numpy as np
import pytest

from segjax.data.classes import (
    IGNORE,
    ClassTable,
    default_palette,
    from_file,
    from_names,
    read_class_list,
)


def test_colorize_paints_the_palette_and_leaves_ignored_pixels_black():
    table = ClassTable(("road", "sky"), ((128, 64, 128), (70, 130, 180)))
    painted = table.colorize(np.array([[0, 1], [IGNORE, 0]]))
    assert painted.dtype == np.uint8
    expected = [[(128, 64, 128), (70, 130, 180)], [(0, 0, 0), (128, 64, 128)]]
    np.testing.assert_array_equal(painted, expected)


def test_colorize_paints_ids_beyond_the_table_black():
    np.testing.assert_array_equal(from_names(["a"]).colorize([[1, 254]]), np.zeros((1, 2, 3)))


@pytest.mark.parametrize("count", [0, 256])
def test_table_rejects_a_number_of_classes_that_ids_cannot_hold(count):
    with pytest.raises(ValueError, match=f"needs 1 to 255 classes, found {count}"):
        from_names([f"class {k}" for k in range(count)])


def test_table_rejects_a_palette_of_another_length():
    with pytest.raises(ValueError, match="2 class names but 1 colours"):
        ClassTable(("a", "b"), ((0, 0, 0),))


def test_table_rejects_equal_names_and_names_them():
    with pytest.raises(ValueError, match="twice: car, sky"):
        from_names(["sky", "car", "sky", "car", "road"])


def test_default_palette_is_stable_distinct_and_never_black():
    palette = default_palette(40)
    assert len(set(palette)) == 40
    assert palette[:7] == default_palette(7)
    assert all(0 <= c <= 255 for color in palette for c in color)
    assert (0, 0, 0) not in palette


def test_text_list_takes_names_with_spaces_colours_and_comments(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("# id order\nroad 128 64 128\n\nliving things\nsky, 70, 130, 180\n")
    table = from_file(path)
    assert table.names == ("road", "living things", "sky")
    assert table.palette == ((128, 64, 128), default_palette(3)[1], (70, 130, 180))


def test_text_list_names_the_line_of_a_bad_colour(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("road 1 2 3\nsky 1 2 300\n")
    with pytest.raises(ValueError, match=r"classes\.txt, line 2: colour .*300.* outside 0\.\.255"):
        from_file(path)


def test_json_list_takes_names_and_rows(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(["road", {"name": "sky", "color": [1, 2, 3]}, {"name": "car"}]))
    table = from_file(path)
    assert table.names == ("road", "sky", "car")
    assert table.palette == (default_palette(3)[0], (1, 2, 3), default_palette(3)[2])


@pytest.mark.parametrize("text", ["[", "[1, 2]", '[{"color": [1, 2, 3]}]', "3"])
def test_json_list_that_cannot_be_understood_shows_the_form_to_use(tmp_path, text):
    path = tmp_path / "classes.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r'classes\.json: not a class list .*use \["road"'):
        from_file(path)


@pytest.mark.parametrize(
    "color", ["red", [1, 2], [1, 2, 300], [1, 2, 3, 4], [-1, 2, 3], [0.5, 0.5, 0.5], 7, None]
)
def test_json_colour_that_is_none_names_the_file_and_the_value(tmp_path, color):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps([{"name": "road", "color": color}]))
    shown = re.escape(repr(color))
    with pytest.raises(ValueError, match=rf"classes\.json: not a class list \(colour {shown} is"):
        from_file(path)


def test_class_list_that_is_not_there(tmp_path):
    with pytest.raises(
        ValueError, match=r"none\.txt does not exist; use a file or names for data\."
    ):
        from_file(tmp_path / "none.txt")


@pytest.mark.parametrize(
    "file, text",
    [
        ("c.txt", "road 1 2 3\nvoid 0 0 0 ignore\nliving things\n"),
        ("c.csv", "\ufeffname, r, g, b\nroad,1,2,3\nvoid,0,0,0,ignore\nliving things\n"),
        (
            "c.json",
            '[{"name": "road", "color": [1, 2, 3]}, {"name": "void", "color": [0, 0, 0], '
            '"ignore": true}, "living things"]',
        ),
    ],
)
def test_lines_marked_as_ignored_are_no_classes(tmp_path, file, text):
    (tmp_path / file).write_text(text, encoding="utf-8")
    read = read_class_list(tmp_path / file)
    assert read.classes.names == ("road", "living things")
    assert read.classes.palette == ((1, 2, 3), default_palette(2)[1])
    assert read.names == ("road", "void", "living things")
    assert read.labels == (0, IGNORE, 1)
    assert read.colors == ((1, 2, 3), (0, 0, 0), None)
    assert from_file(tmp_path / file) == read.classes


def test_a_class_may_be_called_ignore_or_name(tmp_path):
    (tmp_path / "c.txt").write_text("ignore\nname\nvoid ignore\n")
    read = read_class_list(tmp_path / "c.txt")
    assert (read.classes.names, read.labels) == (("ignore", "name"), (0, 1, IGNORE))


@pytest.mark.parametrize(
    "file, text, words",
    [
        ("c.txt", "void 0 0 0 ignore", r"c\.txt: a class table needs 1 to 255 classes, found 0"),
        ("c.txt", "a\nb\na", r"c\.txt: class names occur twice: a"),
        ("c.json", '[{"name": "a", "ignore": "yes"}]', "ignore 'yes' is neither true nor false"),
    ],
)
def test_lists_without_classes_or_with_a_flag_that_is_none(tmp_path, file, text, words):
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=words):
        read_class_list(tmp_path / file)
