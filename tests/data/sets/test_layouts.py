"""The published data sets' classes, and the errors that all of them share."""

import pickle

import numpy as np
import pytest

from segjax.data.class_lists import IDD_LEVEL1
from segjax.data.datasets import DATASETS, class_table, make_source
from segjax.data.errors import DataError
from segjax.data.files.archive import files_by_key, need_folders, pair_by_key
from tests.data.drawn import data_config, mask, photo

ARCHIVES = ("camvid", "cityscapes", "voc", "ade20k", "sunrgbd", "idd")


def config(name, root):
    return data_config(name=name, root=str(root), variant="original" * (name == "camvid"))


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_root_that_is_missing_or_holds_other_files(name, tmp_path):
    split = DATASETS[name].splits[0]
    with pytest.raises(DataError, match=r"gone is not an existing folder; use one with \S+"):
        make_source(config(name, tmp_path / "gone"), split)
    (tmp_path / "holiday").mkdir()
    with pytest.raises(DataError, match=rf"'{split}'.*data\.root={tmp_path}.* holds: holiday"):
        make_source(config(name, tmp_path), split)
    with pytest.raises(DataError, match=r"data split 'dev': .*; use .*\w"):
        make_source(config(name, tmp_path), "dev")


@pytest.mark.parametrize(
    "name, classes",
    [
        ("camvid", {0: ("Sky", (128, 128, 128)), 10: ("Bicyclist", (0, 128, 192))}),
        ("cityscapes", {0: ("road", (128, 64, 128)), 18: ("bicycle", (119, 11, 32))}),
        ("voc", {0: ("background", (0, 0, 0)), 1: ("aeroplane", (128, 0, 0))}),
        ("voc", {8: ("cat", (64, 0, 0)), 20: ("tvmonitor", (0, 64, 128))}),
        ("ade20k", {0: ("wall", (120, 120, 120)), 149: ("flag", (92, 0, 255))}),
        ("ade20k", {2: ("sky", (6, 230, 230)), 44: ("chest of drawers", (6, 51, 255))}),
        ("sunrgbd", {0: ("wall", (242, 61, 61)), 36: ("bag", (152, 242, 61))}),
        ("idd", dict(enumerate(zip(IDD_LEVEL1.names, IDD_LEVEL1.palette, strict=True)))),
    ],
)
def test_published_classes_in_the_order_of_their_ids(name, classes):
    table = class_table(data_config(name=name))
    sizes = {"camvid": 11, "cityscapes": 19, "voc": 21, "ade20k": 150, "sunrgbd": 37, "idd": 7}
    assert len(table) == sizes[name]
    assert len(set(table.palette)) == len(table) or name == "ade20k"
    assert {k: (table.names[k], table.palette[k]) for k in classes} == classes


def test_splits_are_listed(tmp_path):
    with pytest.raises(DataError, match=r"'test': voc has train, val, trainval; use one of these"):
        make_source(config("voc", tmp_path), "test")


@pytest.mark.parametrize("parent", ["", "ADEChallengeData2016"])
@pytest.mark.parametrize("split", ["training", "train", "validation", "val"])
def test_ids_of_ade20k_count_from_1_and_0_is_ignored(tmp_path, parent, split):
    folder = "training" if split.startswith("train") else "validation"
    for name in ("ADE_00000001", "ADE_00000002"):
        photo(tmp_path / parent / f"images/{folder}/{name}.jpg", 1, 151)
        ids = tmp_path / parent / f"annotations/{folder}/{name}.png"
        mask(ids, np.arange(151)[None], 1, 151)
    source = pickle.loads(pickle.dumps(make_source(config("ade20k", tmp_path), split)))
    assert list(source.names) == ["ADE_00000001", "ADE_00000002"]
    assert source[1]["image"].shape == (1, 151, 3)
    np.testing.assert_array_equal(source[1]["label"], [[255, *range(150)]])
    mask(ids, 151, 1, 151)
    with pytest.raises(ValueError, match=r"00000002\.png: bad ids 151 \(151 pixels\); allowed are"):
        source[1]


def test_folders_that_are_missing_and_there(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / ".hidden").mkdir()
    assert need_folders(tmp_path, "val", [("pictures", "images")], "X") == [tmp_path / "images"]
    with pytest.raises(DataError) as error:
        need_folders(tmp_path, "val", ["images", ("masks", "labels"), "lists"], "X/ and Y/")
    assert str(error.value) == (
        f"data split 'val': data.root={tmp_path} has no masks or labels and no lists; found of the "
        "layout: images; data.root holds: images; use a root with X/ and Y/"
    )


def test_images_and_masks_without_a_partner(tmp_path):
    for name in ("a", "b", "sub/c"):
        photo(tmp_path / f"images/{name}_rgb.png")
    for name in ("a", "c", "d"):
        mask(tmp_path / f"masks/{name}_ids.png")
    sides = [
        files_by_key(tmp_path / folder, suffix)
        for folder, suffix in (("images", "_rgb.png"), ("masks", "_ids.png"))
    ]
    with pytest.raises(DataError) as error:
        pair_by_key("val", *sides, "images/ and masks/")
    assert str(error.value) == (
        "data split 'val' is incomplete: of 3 images 1 have no mask (b_rgb.png) and of 3 masks 1 "
        "have no image (d_ids.png); use all archives, fully unpacked, as images/ and masks/"
    )
    del sides[0]["b"], sides[1]["d"]
    assert pair_by_key("val", *sides, "")[0] == ["a", "c"]
    photo(tmp_path / "images/sub/a_rgb.png")
    with pytest.raises(DataError, match=r"sub/a_rgb\.png is in .*images too; use one copy"):
        files_by_key(tmp_path / "images", "_rgb.png")
