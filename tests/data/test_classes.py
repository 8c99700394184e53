import json
import re

import numpy as np
import pytest

from segjax.data.class_lists import from_file, read_class_list
from segjax.data.classes import IGNORE, ClassTable, default_palette, from_names


def written(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def test_colorize_paints_the_palette_and_leaves_all_other_ids_black():
    table = ClassTable(("road", "sky"), ((128, 64, 128), (70, 130, 180)))
    painted = table.colorize(np.array([[0, 1], [IGNORE, 2]]))
    assert painted.dtype == np.uint8
    expected = [[(128, 64, 128), (70, 130, 180)], [(0, 0, 0), (0, 0, 0)]]
    np.testing.assert_array_equal(painted, expected)


@pytest.mark.parametrize(
    "names, colours, message",
    [
        ([], 0, "needs 1 to 255 classes, found 0"),
        ([str(k) for k in range(256)], 256, "needs 1 to 255 classes, found 256"),
        (["a", "b"], 1, "2 class names but 1 colours"),
        (["sky", "car", "sky", "car", "road"], 5, "twice: car, sky"),
    ],
)
def test_tables_that_will_not_do(names, colours, message):
    with pytest.raises(ValueError, match=message):
        ClassTable(tuple(names), default_palette(colours))


def test_default_palette_is_stable_distinct_and_never_black():
    palette = default_palette(40)
    assert len({*palette, (0, 0, 0)}) == 41
    assert palette[:7] == default_palette(7)
    assert from_names("ab").palette == palette[:2]
    assert all(0 <= c <= 255 for color in palette for c in color)


@pytest.mark.parametrize(
    "file, text",
    [
        ("c.txt", "# ids\nroad 1 2 3\n\nvoid 0 0 0 ignore\nliving things\n"),
        ("c.csv", "\ufeffname, r, g, b\nroad,1,2,3\nvoid,0,0,0,ignore\nliving things\n"),
        (
            "c.json",
            '[{"name": "road", "color": [1, 2, 3]}, {"name": "void", "color": [0, 0, 0], '
            '"ignore": true}, "living things"]',
        ),
    ],
)
def test_lists_of_each_form_and_lines_that_are_no_classes(tmp_path, file, text):
    listed = read_class_list(written(tmp_path, file, text))
    assert listed.classes.names == ("road", "living things")
    assert listed.classes.palette == ((1, 2, 3), default_palette(2)[1])
    assert listed.names == ("road", "void", "living things")
    assert listed.labels == (0, IGNORE, 1)
    assert listed.colors == ((1, 2, 3), (0, 0, 0), None)
    assert from_file(tmp_path / file) == listed.classes


def test_a_class_may_be_called_ignore_or_name(tmp_path):
    listed = read_class_list(written(tmp_path, "c.txt", "ignore\nname\nvoid ignore\n"))
    assert (listed.classes.names, listed.labels) == (("ignore", "name"), (0, 1, IGNORE))


@pytest.mark.parametrize(
    "file, text, words",
    [
        ("c.txt", "road 1 2 3\nsky 1 2 300\n", r"c\.txt, line 2: colour .*300.* in 0\.\.255; use"),
        ("c.txt", "void 0 0 0 ignore", r"c\.txt: a class table needs 1 to 255 classes, found 0"),
        ("c.txt", "a\nb\na", r"c\.txt: class names occur twice: a"),
        ("c.json", '[{"name": "a", "ignore": "yes"}]', "ignore 'yes' is neither true nor false"),
        *(
            ("c.json", text, r'c\.json: not a class list .*use \["road"')
            for text in ("[", "[1, 2]", '[{"color": [1, 2, 3]}]', "3")
        ),
    ],
)
def test_lists_that_will_not_do(tmp_path, file, text, words):
    with pytest.raises(ValueError, match=words):
        read_class_list(written(tmp_path, file, text))
    with pytest.raises(ValueError, match=r"no\.txt does not exist; use a file or names for data\."):
        read_class_list(tmp_path / "no.txt")


@pytest.mark.parametrize(
    "color", ["red", [1, 2], [1, 2, 300], [1, 2, 3, 4], [-1, 2, 3], [0.5, 0.5, 0.5], 7, None]
)
def test_json_colour_that_is_none_names_the_file_and_the_value(tmp_path, color):
    path = written(tmp_path, "c.json", json.dumps([{"name": "road", "color": color}]))
    shown = re.escape(repr(color))
    with pytest.raises(ValueError, match=rf"c\.json: not a class list \(colour {shown} is not"):
        from_file(path)
