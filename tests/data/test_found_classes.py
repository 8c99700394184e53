"""Classes that are found in masks which nobody has described."""

import numpy as np
import pytest
from PIL import Image

from segjax.data.class_lists import published, read_class_list
from segjax.data.found_classes import classes_of_masks, write_class_list


def masks(folder, *arrays):
    paths = []
    for k, array in enumerate(arrays):
        paths.append(folder / f"{k}.png")
        Image.fromarray(np.array(array, np.uint8)).save(paths[-1])
    return paths


@pytest.mark.parametrize(
    "arrays, ids, ignore_ids",
    [
        ([[[0, 255]], [[0, 0]]], {0: "background", 255: "foreground"}, ()),
        ([[[0, 1]], [[1, 255]]], {0: "background", 1: "foreground"}, (255,)),
        ([[[7, 26]], [[0, 255]]], {0: "class 0", 7: "class 7", 26: "class 26"}, (255,)),
        ([[[0, 9, 40, 90, 150, 200, *[255] * 20]]], {0: "background", 1: "foreground"}, ()),
        ([[[[3, 3, 3], [9, 9, 9]]]], {3: "class 3", 9: "class 9"}, (255,)),
    ],
    ids=["0 and 255", "with void", "gaps", "soft edges", "grey in three channels"],
)
def test_ids(tmp_path, arrays, ids, ignore_ids):
    found = classes_of_masks(masks(tmp_path, *arrays))
    assert ({row.id: row.name for row in found.rows}, found.ignore_ids) == (ids, ignore_ids)
    assert (found.in_colors, found.looked_at) == (False, len(arrays))


def test_colours_of_a_published_list_have_its_names(tmp_path):
    table = published("camvid32")
    void = table.names.index("Void")
    found = classes_of_masks(masks(tmp_path, [[table.colors[2], table.colors[void]]]))
    assert {row.name: row.is_void for row in found.rows} == {table.names[2]: False, "Void": True}
    write_class_list(found, tmp_path / "classes.csv")
    listed = read_class_list(tmp_path / "classes.csv")
    assert listed.classes.names == (table.names[2],)
    assert set(listed.colors) == {table.colors[2], table.colors[void]}
    assert 255 in listed.labels


def test_other_colours_are_numbered(tmp_path):
    found = classes_of_masks(masks(tmp_path, [[[1, 2, 3], [0, 0, 9]]]))
    assert [(row.name, row.color) for row in found.rows] == [
        ("class 0", (0, 0, 9)),
        ("class 1", (1, 2, 3)),
    ]


@pytest.mark.parametrize(
    "arrays, message",
    [
        ([[[0, 1]], [[[9, 0, 0], [0, 0, 0]]]], "of 2 masks some hold colours and others ids; make"),
        ([[[[k // 20, k % 20, 7] for k in range(300)]]], "1 masks hold 300 values, so they are"),
    ],
)
def test_masks_that_will_not_do(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        classes_of_masks(masks(tmp_path, *arrays))
