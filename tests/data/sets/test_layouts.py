"""Errors that all published data sets share: no such folder, no such split, missing files."""

import pytest

from segjax.data.datasets import DATASETS, make_source
from segjax.data.errors import DataError
from segjax.data.files.archive import check_split, files_by_key, need_folders, pair_by_key
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


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_split_that_it_does_not_have(name, tmp_path):
    with pytest.raises(DataError, match=r"data split 'dev': .*; use .*\w"):
        make_source(config(name, tmp_path), "dev")


def test_splits_are_listed():
    with pytest.raises(DataError, match=r"'test': voc has train, val; use one of these in data\."):
        check_split("voc", "test", ("train", "val"))


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
    sides = (
        files_by_key(tmp_path / "images", "_rgb.png"),
        files_by_key(tmp_path / "masks", "_ids.png"),
    )
    with pytest.raises(DataError) as error:
        pair_by_key("val", *sides, "images/ and masks/")
    assert str(error.value) == (
        "data split 'val' is incomplete: of 3 images 1 have no mask (b_rgb.png) and of 3 masks 1 "
        "have no image (d_ids.png); use all archives, fully unpacked, as images/ and masks/"
    )
    del sides[0]["b"], sides[1]["d"]
    assert pair_by_key("val", *sides, "")[0] == ["a", "c"]
    photo(tmp_path / "images/a_rgb.png")
    photo(tmp_path / "images/sub/a_rgb.png")
    with pytest.raises(DataError, match=r"sub/a_rgb\.png is in .*images too; use one copy"):
        files_by_key(tmp_path / "images", "_rgb.png")
