import json

import numpy as np
import pytest

from segjax.data.datasets import class_table, make_source
from segjax.data.sets import idd
from segjax.data.sets.idd import MASK_ENDINGS, draw_polygons, label_ids, open_idd, write_masks
from tests.data.drawn import data_config, mask, photo

WHOLE = [[0, 0], [5, 0], [5, 3], [0, 3]]
RIGHT_HALF = [[3, 0], [5, 0], [5, 3], [3, 3]]
SQUARE = [[1, 1], [3, 1], [3, 2], [1, 2]]


def annotation(path, *objects, **more):
    """Polygons (label, points) of a picture of 4x6."""
    objects = [{"label": label, "polygon": points, **more} for label, points in objects]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"imgWidth": 6, "imgHeight": 4, "objects": objects}), "utf-8")
    return path


def frame(root, split="train", name="0/frame01", label="car", ending=".png"):
    """An image of 4x6 whose right half is `label`, beside road."""
    photo(root / "leftImg8bit" / split / f"{name}_leftImg8bit{ending}")
    path = root / "gtFine" / split / f"{name}_gtFine_polygons.json"
    return annotation(path, ("road", WHOLE), (label, RIGHT_HALF))


@pytest.mark.parametrize(
    "variant, car", [("", 3), ("level2", 7), ("level3", 9), ("level4", 11), ("cityscapes", 13)]
)
def test_polygons_become_labels_at_each_level(tmp_path, variant, car):
    frame(tmp_path)
    config = data_config(name="idd", root=str(tmp_path), variant=variant)
    source = make_source(config, "train")
    sample = source[0]
    assert sample["name"] == "0/frame01"
    assert sample["image"].shape == (4, 6, 3)
    np.testing.assert_array_equal(sample["label"], [[0, 0, 0, car, car, car]] * 4)
    assert source.classes == class_table(config)
    assert source.pairing.startswith("1 masks drawn from *_gtFine_polygons.json, 0 read")


@pytest.mark.parametrize(
    "variant, count",
    [("level1", 7), ("level2", 16), ("level3", 26), ("level4", 30), ("cityscapes", 19)],
)
def test_levels_have_the_published_classes(variant, count):
    ids = label_ids(variant)
    assert len(ids) == 40
    assert set(ids.values()) == {*range(count), 255}
    assert len(idd.class_table(variant)) == count
    void = ["unlabeled", "ego vehicle", "rectification border", "out of roi", "license plate"]
    assert {ids[name] for name in void} == {255}
    assert variant == "cityscapes" or [name for name in ids if ids[name] == 255] == void


def test_names_and_colours_of_classes():
    table = idd.class_table("cityscapes")
    assert table.names[:4] == ("road", "sidewalk", "building", "wall")
    assert table.names[9:12] == ("terrain", "sky", "person")
    assert (table.names[18], table.palette[18]) == ("bicycle", (119, 11, 32))
    # A merged class has a name of its own and the colour of a member.
    table, ids = idd.class_table("level3"), label_ids("level3")
    assert ids["person"] == ids["animal"] == 4
    assert (table.names[4], table.palette[4]) == ("person or animal", (220, 20, 60))
    assert (table.names[ids["truck"]], table.palette[ids["truck"]]) == ("truck", (0, 0, 70))


@pytest.mark.parametrize("variant", MASK_ENDINGS)
def test_later_polygons_cover_earlier_ones_and_void_ones_too(tmp_path, variant):
    ids, plate = label_ids(variant), [[3, 1], [3, 2], [2, 2], [2, 1]]
    path = annotation(
        tmp_path / "a.json", ("road", WHOLE), ("rider", SQUARE), ("license plate", plate)
    )
    expected = np.full((4, 6), ids["road"])
    expected[1:3, 1] = ids["rider"]  # both corners are in
    expected[1:3, 2:4] = 255
    drawn = draw_polygons(path, variant)
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn, expected)


def test_objects_that_are_left_out_and_groups(tmp_path):
    path = annotation(tmp_path / "a.json", ("road", WHOLE), deleted=1)
    assert (draw_polygons(path, "level1") == 255).all()  # the background is void
    path = annotation(tmp_path / "a.json", ("road", WHOLE), deleted=0)
    assert (draw_polygons(path, "level1") == 0).all()
    path = annotation(tmp_path / "a.json", ("road", WHOLE[:2]), ("nonsense", []))
    assert (draw_polygons(path, "level1") == 255).all()
    drawn = draw_polygons(
        annotation(tmp_path / "a.json", ("persongroup", WHOLE), ("polegroup", SQUARE)), "level3"
    )
    assert (drawn[0, 0], drawn[1, 1]) == (4, 20)
    points = [[-3.0, -2.5], [8.75, -2.5], [8.75, 1.0], [-3.0, 1.0]]  # between and outside pixels
    drawn = draw_polygons(annotation(tmp_path / "a.json", ("sky", points)), "level1")
    np.testing.assert_array_equal(drawn, np.repeat([[6] * 6, [255] * 6], 2, axis=0))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"imgWidth": 4, "objects": []}',
        '{"imgWidth": 4, "imgHeight": -4, "objects": []}',
        '{"imgWidth": 4, "imgHeight": 4, "objects": [{"label": "car"}]}',
        '{"imgWidth": 4, "imgHeight": 4, "objects": [{"label": "car", "polygon": [[1]]}]}',
        None,
    ],
)
def test_a_damaged_file_is_named(tmp_path, text):
    if text is not None:
        (tmp_path / "a.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"a\.json (cannot be drawn: .*|is missing); use an intact file"
    ):
        draw_polygons(tmp_path / "a.json", "level1")


def test_frames_of_both_parts_and_both_image_types_in_order_of_names(tmp_path):
    frame(tmp_path / "IDD_Segmentation", name="9/b")
    frame(tmp_path / "IDD_Segmentation", name="10/a")
    frame(tmp_path / "idd20kII", name="9/b", label="sky", ending=".jpg")
    frame(tmp_path / "idd20kII", "val")
    source = open_idd(tmp_path, "train")
    assert source.names == ["IDD_Segmentation/10/a", "IDD_Segmentation/9/b", "idd20kII/9/b"]
    assert [source[i]["label"][0, 5] for i in range(3)] == [3, 3, 6]
    assert open_idd(tmp_path, "val").names == ["idd20kII/0/frame01"]


def test_written_masks_are_read_instead_of_polygons(tmp_path):
    for name in ("0/a", "0/b", "1/a"):
        frame(tmp_path, name=name)
    frame(tmp_path, "val")
    calls, splits = [], ("train", "notebook_test", "val")
    assert write_masks(tmp_path, splits, "level3", progress=lambda *n: calls.append(n)) == 4
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    folder = tmp_path / "gtFine" / "train"
    names = [
        f"{frame}_gtFine_{kind}"
        for frame in "ab"
        for kind in ("labellevel3Ids.png", "polygons.json")
    ]
    assert sorted(p.name for p in (folder / "0").iterdir()) == names
    assert open_idd(tmp_path, "train", "level1").pairing.startswith("3 masks drawn")
    drawn = [draw_polygons(path, "level3") for path in sorted(folder.rglob("*.json"))]
    for path in folder.rglob("*.json"):
        path.unlink()  # a copy with masks alone is enough
    source = open_idd(tmp_path, "train", "level3")
    assert source.pairing.endswith("3 read from *_gtFine_labellevel3Ids.png")
    np.testing.assert_array_equal([source[i]["label"] for i in range(3)], drawn)


def test_writing_goes_on_where_it_was_stopped(tmp_path):
    for name in ("0/a", "0/b"):
        frame(tmp_path, name=name)
    bad = frame(tmp_path, name="0/c", label="spaceship")
    with pytest.raises(
        ValueError, match=r"c_gtFine_polygons.json: label 'spaceship' .* use .*road"
    ):
        write_masks(tmp_path, ["train"])
    kept = bad.with_name("a_gtFine_labellevel1Ids.png")
    before = kept.stat().st_mtime_ns
    frame(tmp_path, name="0/c")
    calls = []
    assert write_masks(tmp_path, ["train"], progress=lambda *n: calls.append(n)) == 1
    assert calls == [(3, 3)]
    assert kept.stat().st_mtime_ns == before
    assert write_masks(tmp_path, ["train"]) == 0


def test_processes_write_the_same_masks(tmp_path):
    for k, label in enumerate(["car", "sky", "person", "road", "wall"]):
        frame(tmp_path / "one", name=f"0/{k}", label=label)
        frame(tmp_path / "two", name=f"0/{k}", label=label)
    calls = []
    assert write_masks(tmp_path / "one", ["train"]) == 5
    two = tmp_path / "two"
    assert write_masks(two, ["train"], workers=2, progress=lambda *n: calls.append(n)) == 5
    assert calls == [(k, 5) for k in range(1, 6)]
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.png"))
    assert len(files) == 10  # images too
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (two / file).read_bytes()


def test_the_notebooks_held_back_4011_of_14027_training_images(tmp_path, monkeypatch):
    images = {f"{k // 100}/{k:05d}": tmp_path / f"{k}.png" for k in range(14027)}
    monkeypatch.setattr(idd, "_find_files", lambda *_: (images, images))
    config = data_config(name="idd", root=str(tmp_path))
    train, test = (make_source(config, f"notebook_{s}", 3) for s in ("train", "test"))
    assert (len(train), len(test)) == (10016, 4011)
    assert set(train.names) | set(test.names) == set(images)
    assert test.image_paths == [images[name] for name in test.names]
    order = np.random.default_rng(3).permutation(14027)  # the rule, counted another way
    assert set(test.names) == {sorted(images)[i] for i in order[-4011:]}
    assert set(make_source(config, "notebook_test", 1).names) != set(test.names)
    few = dict(list(images.items())[:7])
    monkeypatch.setattr(idd, "_find_files", lambda *_: (few, few))
    assert [len(make_source(config, f"notebook_{s}")) for s in ("train", "test")] == [5, 2]


def test_layouts_that_will_not_do(tmp_path):
    (tmp_path / "images" / "train").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"it holds: images; use .*leftImg8bit/<split>/<drive>"):
        open_idd(tmp_path, "train")
    path = frame(tmp_path)
    with pytest.raises(ValueError, match=r"'valid': no images.*gtFine/train.*notebook_train"):
        open_idd(tmp_path, "valid")
    photo(tmp_path / "leftImg8bit" / "test" / "0" / "a_leftImg8bit.png")
    with pytest.raises(ValueError, match=r"'test': IDD's authors keep its labels.*use val"):
        open_idd(tmp_path, "test")
    mask(path.with_name("frame01_gtFine_labellevel1Ids.png"), 9)
    with pytest.raises(ValueError, match=r"bad ids 9 .* are 0..6 and 255; use masks of level1"):
        open_idd(tmp_path, "train")[0]
    frame(tmp_path, name="0/a").unlink()
    frame(tmp_path, name="0/b")
    (tmp_path / "leftImg8bit" / "train" / "0" / "b_leftImg8bit.png").unlink()
    with pytest.raises(ValueError, match=r"1 images have no labels \(0/a\) and 1 .*image \(0/b\)"):
        open_idd(tmp_path, "train")
