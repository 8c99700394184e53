"""Each format's polygons of one scene become one mask, straight from `data.name=folder`."""

import base64
import io
import json
import pickle
import zlib

import numpy as np
import pytest
import yaml
from PIL import Image

from segjax.data.classes import from_names
from segjax.data.datasets import class_table, make_source
from segjax.data.doctor.diagnose import diagnose
from segjax.data.polygons.formats import annotation_of, annotations_of, left_out_of
from segjax.data.sets.folder import open_folder
from tests.data.drawn import data_config, photo

CRACK, SPALL = [[1, 1], [4, 1], [4, 4], [1, 4]], [[3, 3], [8, 3], [8, 6], [3, 6]]
SCENE = np.zeros((8, 10), np.uint8)  # 0 background, 1 crack, 2 spall on top
SCENE[1:5, 1:5] = 1
SCENE[3:7, 3:9] = 2
CRACK_ON_TOP = SCENE.copy()  # where small shapes come last
CRACK_ON_TOP[1:5, 1:5] = 1
CLASSES = "background,crack,spall"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text), "utf-8")
    return path


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, bool)).save(file, "png")
    return file.getvalue()


def labelme(root, image, *more):
    shapes = [
        {"label": "crack", "points": CRACK, "shape_type": "polygon"},
        {"label": "spall", "points": [SPALL[2], SPALL[0]], "shape_type": "rectangle"},
        {"label": "note", "points": [[1, 1]], "shape_type": "point"},
        *more,
    ]
    content = {"shapes": shapes, "imageData": "x", "imageHeight": 8, "imageWidth": 10}
    write(root / f"{image}.json", content)


def supervisely(root, image):
    objects = [
        {
            "classTitle": "crack",
            "geometryType": "polygon",
            "points": {"exterior": CRACK, "interior": []},
        },
        {
            "classTitle": "spall",
            "geometryType": "bitmap",
            "bitmap": {
                "origin": [3, 3],
                "data": base64.b64encode(zlib.compress(png(np.ones((4, 6))))).decode(),
            },
        },
    ]
    write(root / f"{image}.jpg.json", {"size": {"height": 8, "width": 10}, "objects": objects})


def yolo(root, image):
    lines = [
        " ".join([str(k), *(f"{x / 10:.3f} {y / 8:.4f}" for x, y in points)])
        for k, points in enumerate((CRACK, SPALL))
    ]
    write(root / f"{image}.txt", "\n".join(lines) + "\n")


def coco(root, names, **more):
    flat = [[c for point in points for c in point] for points in (CRACK, SPALL)]
    flat_spall = (SCENE == 2).T.ravel()
    runs = np.diff(np.flatnonzero(np.diff(np.r_[0, flat_spall, 0])), prepend=0).tolist()
    runs = [*runs, flat_spall.size - sum(runs)]
    annotations = []
    for k, _ in enumerate(names):
        crack = {"image_id": k, "category_id": 5, "segmentation": [flat[0]], "iscrowd": 0}
        spall = {"image_id": k, "category_id": 7, "iscrowd": 1}
        spall["segmentation"] = {"size": [8, 10], "counts": runs}
        annotations += [crack, spall]
    content = {
        "images": [
            {"id": k, "file_name": name, "height": 8, "width": 10} for k, name in enumerate(names)
        ],
        "annotations": annotations,
        "categories": [
            {"id": 0, "name": "defects", "supercategory": "none"},
            {"id": 5, "name": "crack", "supercategory": "defects"},
            {"id": 7, "name": "spall", "supercategory": "defects"},
        ],
    }
    return write(root, content | more)


def cvat(path, images, before="", label="spall", subsets=()):
    text = lambda points: ";".join(f"{x},{y}" for x, y in points)  # noqa: E731
    runs = ", ".join(map(str, [0, 24]))
    subsets = subsets or [""] * len(images)
    inner = "".join(
        f'<image id="{k}" name="{name}" width="10" height="8" subset="{subsets[k]}">'
        f'<mask label="{label}" rle="{runs}" left="3" top="3" width="6" height="4" z_order="1"/>'
        f'<polygon label="crack" points="{text(CRACK)}" z_order="0"/>'
        f'<points label="crack" points="1,1"/><tag label="wet"/></image>'
        for k, name in enumerate(images)
    )
    names = "".join(f"<label><name>{n}</name></label>" for n in ("crack", "spall"))
    return write(
        path,
        f'<?xml version="1.0"?>{before}<annotations><version>1.1</version><meta><job><labels>'
        f"{names}</labels></job></meta>{inner}</annotations>",
    )


def via(path, images, key="damage"):
    regions = [
        {
            "shape_attributes": {
                "name": "polygon",
                "all_points_x": [x for x, _ in CRACK],
                "all_points_y": [y for _, y in CRACK],
            },
            "region_attributes": {key: "crack"},
        },
        {
            "shape_attributes": {"name": "rect", "x": 3, "y": 3, "width": 5, "height": 3},
            "region_attributes": {key: {"spall": True, "wet": False}},
        },
    ]
    return write(
        path, {f"{name}99": {"filename": name, "size": 99, "regions": regions} for name in images}
    )


def via_csv(path, images):
    rows = [
        "filename,file_size,file_attributes,region_count,region_id,"
        "region_shape_attributes,region_attributes"
    ]
    polygon = {"name": "polygon", "all_points_x": [1, 4, 4, 1], "all_points_y": [1, 1, 4, 4]}
    rect = {"name": "rect", "x": 3, "y": 3, "width": 5, "height": 3}
    quoted = lambda value: '"' + json.dumps(value).replace('"', '""') + '"'  # noqa: E731
    for name in images:
        for k, (shape, label) in enumerate(((polygon, "crack"), (rect, "spall"))):
            rows.append(f'{name},9,"{{}}",2,{k},{quoted(shape)},{quoted({"class": label})}')
    return write(path, "\n".join(rows) + "\n")


def per_image(draw, folder):
    def make(root):
        for name in ("a", "b"):
            photo(root / f"images/train/{name}.jpg", 8, 10)
            draw(root / folder, name)

    return make


def per_split(draw, file):
    def make(root):
        for name in ("a", "b"):
            photo(root / f"images/train/{name}.jpg", 8, 10)
        draw(root / file, ["a.jpg", "b.jpg"])

    return make


@pytest.mark.parametrize(
    "make, expected",
    [
        (per_image(labelme, "annotations/train"), SCENE),
        (per_image(labelme, "images/train"), SCENE),  # beside the images, as labelme saves them
        (per_image(supervisely, "ann/train"), SCENE),
        (per_image(yolo, "labels/train"), CRACK_ON_TOP),
        (per_split(coco, "annotations/instances_train.json"), CRACK_ON_TOP),
        (per_split(coco, "images/train/_annotations.coco.json"), CRACK_ON_TOP),
        (per_split(cvat, "annotations/train.xml"), SCENE),
        (per_split(via, "images/train/via_region_data.json"), CRACK_ON_TOP),
        (per_split(via_csv, "images/train/via_export_csv.csv"), CRACK_ON_TOP),
    ],
    ids=["labelme", "beside", "supervisely", "yolo", "coco", "roboflow", "cvat", "via", "csv"],
)
def test_one_scene_in_each_format(tmp_path, make, expected):
    make(tmp_path)
    config = data_config(name="folder", root=str(tmp_path), classes=CLASSES)
    source = pickle.loads(pickle.dumps(make_source(config, "train")))
    assert (list(source.names), source.classes.names) == (["a", "b"], tuple(CLASSES.split(",")))
    for index in range(2):
        np.testing.assert_array_equal(source[index]["label"], expected)
    assert any("no" in note and "background" in note for note in source.notes)


@pytest.mark.parametrize(
    "make, ids",
    [
        (per_split(coco, "annotations/instances_train.json"), (0, 5, 7)),
        (per_split(cvat, "annotations/train.xml"), ()),
        (per_split(via, "images/train/via_region_data.json"), ()),
    ],
)
def test_classes_of_the_polygons_with_a_background_before_them(tmp_path, make, ids):
    make(tmp_path)
    config = data_config(name="folder", root=str(tmp_path))
    source = make_source(config, "train")
    assert source.classes == class_table(config)
    assert source.classes.names == ("background", "crack", "spall")
    assert source.classes.ids == ids
    assert np.bincount(source[0]["label"].ravel()).min() > 0
    assert any("names in its polygons" in note for note in source.notes)


def test_yolo_takes_names_from_data_yaml(tmp_path):
    per_image(yolo, "labels/train")(tmp_path)
    write(tmp_path / "data.yaml", yaml.safe_dump({"names": {0: "spall", 1: "crack"}, "nc": 2}))
    source = make_source(data_config(name="folder", root=str(tmp_path)), "train")
    assert source.classes.names == ("background", "spall", "crack")
    swapped = np.array([0, 2, 1])[CRACK_ON_TOP]
    np.testing.assert_array_equal(
        open_folder(tmp_path, "train", from_names(CLASSES.split(",")))[0]["label"], swapped
    )
    np.testing.assert_array_equal(source[0]["label"], CRACK_ON_TOP)


def test_labels_of_no_list_are_listed(tmp_path):
    per_image(labelme, "annotations/train")(tmp_path)
    with pytest.raises(ValueError, match=r"labels crack, spall; use data.classes=background,crack"):
        make_source(data_config(name="folder", root=str(tmp_path)), "train")
    with pytest.raises(
        ValueError,
        match=r"a\.json: label 'spall' of a\.jpg is not in .*, which has"
        " background, crack; use these names, or",
    ):
        open_folder(tmp_path, "train", from_names(["background", "crack"]))[0]


def test_what_is_ignored_and_what_is_left_out(tmp_path):
    photo(tmp_path / "images/train/a.jpg", 8, 10)
    more = [
        {"label": "__ignore__", "points": [[0, 7], [9, 7], [9, 7]], "shape_type": "polygon"},
        {"label": "crack", "points": [[0, 0], [1, 1]], "shape_type": "polygon"},
        {"label": "crack", "points": [[0, 0], [1, 1]], "shape_type": "line"},
        {
            "label": "crack",
            "points": [[8, 0], [9, 0]],
            "shape_type": "mask",
            "mask": base64.b64encode(png([[0, 1]])).decode(),
        },
    ]
    labelme(tmp_path / "annotations/train", "a", *more)
    (tmp_path / "classes.txt").write_text("crack\nspall\nvoid ignore\n")
    config = data_config(name="folder", root=str(tmp_path), ignore_ids=())
    source = make_source(config, "train")
    assert source.classes.names == ("crack", "spall")  # the uncovered are void
    expected = np.where(SCENE == 0, 255, SCENE - 1)
    expected[0, 9] = 0
    np.testing.assert_array_equal(source[0]["label"], expected)
    left_out = left_out_of(source.mask_paths[0], source.image_paths[0], **source.read_ids.keywords)
    assert left_out == {
        "shapes of type point": 1,
        "polygons of fewer than 3 points": 1,
        "shapes of type line": 1,
    }
    findings = {f.code: f for f in diagnose({"train": source}).findings}
    assert "1 polygons of fewer than 3 points, 1 shapes of type" in str(
        findings["left-out-shapes"].found
    )


def test_an_image_of_another_size(tmp_path):
    per_image(labelme, "annotations/train")(tmp_path)
    photo(tmp_path / "images/train/a.jpg", 4, 5)
    photo(tmp_path / "images/train/b.jpg", 10, 8)
    source = open_folder(tmp_path, "train", from_names(CLASSES.split(",")))
    with pytest.raises(
        ValueError,
        match=r"a\.json has polygons of an image of 8x10, but .*a\.jpg is"
        r" 4x5 .*; use the image that was annotated",
    ):
        source[0]
    with pytest.raises(ValueError, match=r"is 10x8 .*; use files turned alike"):
        source[1]


def test_images_and_annotations_without_a_partner(tmp_path):
    per_split(coco, "annotations/instances_train.json")(tmp_path)
    photo(tmp_path / "images/train/c.jpg", 8, 10)
    two = from_names(CLASSES.split(","))
    with pytest.raises(
        ValueError, match=r"1 images .* have no mask \(c\.jpg\) and 0 masks .*skip_un"
    ):
        open_folder(tmp_path, "train", two)
    config = data_config(name="folder", root=str(tmp_path), classes=CLASSES, skip_unlabelled=True)
    source = make_source(config, "train")
    assert len(source) == 2
    assert "1 images without a mask are left out (data.skip_unlabelled)" in source.notes
    (tmp_path / "images/train/a.jpg").unlink()
    with pytest.raises(ValueError, match=r"and 1 masks in .*json have no image \(a\.jpg\)"):
        make_source(config, "train")


DEEP = "[" * 100_000
LAUGHS = '<!DOCTYPE a [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("a.json", "{", "ends too early"),
        ("a.json", f'{{"shapes": {DEEP}', "lie in one another"),
        ("a.json", "[1]", "a list or value"),
        ("a.json", '{"x": 1}', "no known format: it has x"),
        ("a.json", {"shapes": [{"label": "a", "points": [[1e300, 1]]}]}, "over a million pixels"),
        ("a.json", '{"shapes": [{"label": "a", "points": [[NaN, 1]]}]}', "no number"),
        ("a.json", {"shapes": [{"label": "a"}]}, "KeyError 'points'"),
        ("a.txt", "0 0.1 0.2 0.3 0.4\n", "all lines are boxes"),
        ("a.txt", "0 0.1 0.2 0.3\n", "line 1: '0 0.1 0.2 0.3'"),
        ("a.txt", "7 0.1 0.1 0.2 0.1 0.2 0.2\n", "line 1: class 7, but 2 names"),
        ("a.txt", "0 10 10 20 10 20 20\n", "line 1: coordinates are no shares"),
    ],
)
def test_damaged_and_hostile_files_are_named(tmp_path, name, text, words):
    path = write(tmp_path / name, text)
    with pytest.raises(ValueError, match=rf"{name} cannot be drawn: .*{words}"):
        annotation_of(path, (8, 10), ("crack", "spall"))


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda p: cvat(p / "a.xml", ["a"], LAUGHS), "a DTD"),
        (lambda p: write(p / "a.xml", "<a>"), "no element found"),
        (lambda p: write(p / "a.xml", "<annotations><track/></annotations>"), "tracks of a video"),
        (lambda p: coco(p / "a.json", ["a"], categories=[]), "has no category"),
        (lambda p: coco(p / "a.json", ["a"], images=[]), "image_id 0, which is not there"),
        (
            lambda p: coco(p / "a.json", ["a"], annotations=[{"image_id": 0, "category_id": 5}]),
            "boxes alone",
        ),
        (
            lambda p: coco(p / "a.json", ["a"], images=[{"id": 0, "file_name": "a", "height": 9}]),
            "for an image of",
        ),
        (lambda p: write(p / "a.csv", "filename\na.jpg\n"), "KeyError"),
    ],
)
def test_damaged_and_hostile_files_of_many_images(tmp_path, change, words):
    with pytest.raises(ValueError, match=rf"cannot be drawn: .*{words}"):
        annotations_of(change(tmp_path))


def test_a_bitmap_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("segjax.data.polygons.per_image._BITMAP_BYTES", 1000)
    data = base64.b64encode(zlib.compress(bytes(100_000))).decode()
    item = {"classTitle": "a", "geometryType": "bitmap", "bitmap": {"origin": [0, 0], "data": data}}
    path = write(tmp_path / "a.json", {"size": {"height": 8, "width": 10}, "objects": [item]})
    with pytest.raises(ValueError, match="a bitmap of over 1000 bytes"):
        annotation_of(path, (8, 10))


def test_names_with_folders_and_a_file_of_all_images(tmp_path):
    for name in ("north/a.jpg", "south/a.jpg", "south/b.jpg"):
        photo(tmp_path / "images" / name, 8, 10)
    cvat(tmp_path / "annotations.xml", ["north/a.jpg", "south\\a.jpg", "data/else/b.jpg"])
    config = data_config(name="folder", root=str(tmp_path), val_share=0.5)
    train, val = (make_source(config, split) for split in ("train", "val"))
    assert sorted([*train.names, *val.names]) == ["north/a", "south/a", "south/b"]
    assert train.classes.names == ("background", "crack", "spall")
    np.testing.assert_array_equal(train[0]["label"], SCENE)


def test_subsets_of_cvat_are_splits(tmp_path):
    names = ["a.jpg", "b.jpg", "c.jpg"]
    for name in names:
        photo(tmp_path / "images" / name, 8, 10)
    cvat(tmp_path / "annotations.xml", names, subsets=["Train", "Validation", "Train"])
    config = data_config(name="folder", root=str(tmp_path))
    train, val = (make_source(config, split) for split in ("train", "val"))
    assert (list(train.names), list(val.names)) == (["a", "c"], ["b"])
    assert "looks like CVAT: Train (2), Validation (1)" in train.notes[0]


def test_shares_of_a_turned_photo_are_those_of_the_picture_that_tools_show(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = photo(tmp_path / "images/train/a.jpg", 4, 6)
    Image.open(path).save(path, exif=exif)
    write(tmp_path / "labels/train/a.txt", "0 0 0 1 0 1 0.4 0 0.4\n")
    label = open_folder(tmp_path, "train", from_names(["background", "crack"]))[0]["label"]
    np.testing.assert_array_equal(label, np.repeat([1, 0], 3)[:, None] * np.ones((1, 4)))
