import json

import numpy as np
import pytest

from segjax.data.classes import IDD_LEVEL1
from segjax.data.sets.idd_polygons import MASK_ENDINGS, class_table, draw_polygons, label_ids

SQUARE = [[1, 1], [3, 1], [3, 2], [1, 2]]
WHOLE = [[0, 0], [5, 0], [5, 3], [0, 3]]


def annotation(path, *objects, size=(6, 4), **more):
    objects = [{"label": label, "polygon": points, **more} for label, points in objects]
    path.write_text(
        json.dumps({"imgWidth": size[0], "imgHeight": size[1], "objects": objects}), "utf-8"
    )
    return path


@pytest.mark.parametrize(
    "variant, classes", [("level1", 7), ("level2", 16), ("level3", 26), ("level4", 30)]
)
def test_levels_have_the_published_numbers_of_classes(variant, classes):
    ids = set(label_ids(variant).values())
    assert ids == {*range(classes), 255}
    assert len(class_table(variant)) == classes


def test_level_1_is_the_table_that_the_streets_share():
    assert class_table("level1") == IDD_LEVEL1


def test_cityscapes_variant_has_its_19_classes_in_the_order_of_its_train_ids():
    table = class_table("cityscapes")
    assert table.names[:4] == ("road", "sidewalk", "building", "wall")
    assert table.names[9:12] == ("terrain", "sky", "person")
    assert (len(table), table.names[18], table.palette[18]) == (19, "bicycle", (119, 11, 32))


def test_a_merged_class_has_a_name_of_its_own_and_the_colour_of_a_member():
    table, ids = class_table("level3"), label_ids("level3")
    assert ids["person"] == ids["animal"] == 4
    assert (table.names[4], table.palette[4]) == ("person or animal", (220, 20, 60))
    assert (table.names[ids["truck"]], table.palette[ids["truck"]]) == ("truck", (0, 0, 70))


@pytest.mark.parametrize("variant", MASK_ENDINGS)
def test_what_is_void_is_void_at_every_level(variant):
    void = ["unlabeled", "ego vehicle", "rectification border", "out of roi", "license plate"]
    ids = label_ids(variant)
    assert len(ids) == 40
    assert {ids[name] for name in void} == {255}
    if variant != "cityscapes":
        assert [name for name in ids if ids[name] == 255] == void


def test_polygons_are_drawn_with_their_edges_over_a_void_background(tmp_path):
    path = annotation(tmp_path / "a.json", ("car", SQUARE))
    expected = np.full((4, 6), 255)
    expected[1:3, 1:4] = 9  # both corners are in
    np.testing.assert_array_equal(draw_polygons(path, "level3"), expected)
    assert draw_polygons(path, "level3").dtype == np.uint8


@pytest.mark.parametrize("variant", MASK_ENDINGS)
def test_later_polygons_cover_earlier_ones_void_ones_too(tmp_path, variant):
    ids = label_ids(variant)
    path = annotation(
        tmp_path / "a.json",
        ("road", WHOLE),
        ("rider", SQUARE),
        ("license plate", [[3, 1], [3, 2], [2, 2], [2, 1]]),
    )
    expected = np.full((4, 6), ids["road"])
    expected[1:3, 1] = ids["rider"]
    expected[1:3, 2:4] = 255
    np.testing.assert_array_equal(draw_polygons(path, variant), expected)


def test_deleted_objects_and_polygons_of_two_points_are_left_out(tmp_path):
    path = annotation(tmp_path / "a.json", ("road", WHOLE), deleted=1)
    assert (draw_polygons(path, "level1") == 255).all()
    path = annotation(tmp_path / "b.json", ("road", WHOLE), deleted=0)
    assert (draw_polygons(path, "level1") == 0).all()
    path = annotation(tmp_path / "c.json", ("road", WHOLE[:2]), ("nonsense", []))
    assert (draw_polygons(path, "level1") == 255).all()


def test_groups_are_what_they_are_groups_of(tmp_path):
    path = annotation(tmp_path / "a.json", ("persongroup", WHOLE), ("polegroup", SQUARE))
    drawn = draw_polygons(path, "level3")
    assert (drawn[0, 0], drawn[1, 1]) == (4, 20)


def test_coordinates_between_and_outside_pixels(tmp_path):
    points = [[-3.0, -2.5], [8.75, -2.5], [8.75, 1.0], [-3.0, 1.0]]
    path = annotation(tmp_path / "a.json", ("sky", points))
    np.testing.assert_array_equal(
        draw_polygons(path, "level1"), np.repeat([[6] * 6, [255] * 6], 2, axis=0)
    )


def test_an_unknown_label_is_named_with_its_file(tmp_path):
    path = annotation(tmp_path / "a.json", ("cowgroup", WHOLE))
    with pytest.raises(ValueError, match=r"a\.json: label 'cowgroup' is unknown; use .*road, park"):
        draw_polygons(path, "level1")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"imgWidth": 4, "objects": []}',
        '{"imgWidth": 4, "imgHeight": -4, "objects": []}',
        '{"imgWidth": 4, "imgHeight": 4, "objects": [{"label": "car"}]}',
        '{"imgWidth": 4, "imgHeight": 4, "objects": [{"label": "car", "polygon": [[1]]}]}',
    ],
)
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json cannot be drawn: .*; use an intact file"):
        draw_polygons(tmp_path / "a.json", "level1")
    with pytest.raises(ValueError, match=r"b\.json cannot be drawn: FileNotFound"):
        draw_polygons(tmp_path / "b.json", "level1")
