import json

import numpy as np
import pytest

from segjax.data.classes import IDD_LEVEL1
from segjax.data.datasets import class_table, make_source
from segjax.data.sets.idd import open_idd, write_masks
from tests.data.drawn import data_config, mask, photo

RIGHT_HALF = [[3, 0], [5, 0], [5, 3], [3, 3]]


def frame(root, split="train", name="0/frame01", label="car", ending=".png"):
    """An image of 4x6 whose right half is `label`, beside road."""
    whole = [[0, 0], [5, 0], [5, 3], [0, 3]]
    objects = [{"label": "road", "polygon": whole}, {"label": label, "polygon": RIGHT_HALF}]
    photo(root / "leftImg8bit" / split / f"{name}_leftImg8bit{ending}")
    path = root / "gtFine" / split / f"{name}_gtFine_polygons.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"imgWidth": 6, "imgHeight": 4, "objects": objects}))
    return path


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


def test_level_1_is_the_default():
    assert class_table(data_config(name="idd")) == IDD_LEVEL1


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
    told = []
    written = write_masks(
        tmp_path, ("train", "notebook_test", "val"), "level3", progress=lambda *n: told.append(n)
    )
    assert written == 4
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    folder = tmp_path / "gtFine" / "train" / "0"
    assert sorted(p.name for p in folder.iterdir()) == [
        "a_gtFine_labellevel3Ids.png",
        "a_gtFine_polygons.json",
        "b_gtFine_labellevel3Ids.png",
        "b_gtFine_polygons.json",
    ]
    drawn = [open_idd(tmp_path, "train", "level3")[i]["label"] for i in range(3)]
    for path in folder.parent.rglob("*.json"):
        path.unlink()  # a copy with masks alone is enough
    source = open_idd(tmp_path, "train", "level3")
    assert source.pairing.endswith("3 read from *_gtFine_labellevel3Ids.png")
    np.testing.assert_array_equal([source[i]["label"] for i in range(3)], drawn)


def test_a_mask_of_another_level_is_not_read(tmp_path):
    frame(tmp_path)
    write_masks(tmp_path, ["train"], "cityscapes")
    assert open_idd(tmp_path, "train", "level1").pairing.startswith("1 masks drawn")
    assert open_idd(tmp_path, "train", "cityscapes").pairing.startswith("0 masks drawn")


def test_writing_goes_on_where_it_was_stopped(tmp_path):
    for name in ("0/a", "0/b"):
        frame(tmp_path, name=name)
    bad = frame(tmp_path, name="0/c", label="spaceship")
    with pytest.raises(ValueError, match=r"c_gtFine_polygons.json: label 'spaceship'"):
        write_masks(tmp_path, ["train"])
    kept = bad.with_name("a_gtFine_labellevel1Ids.png")
    before = kept.stat().st_mtime_ns
    frame(tmp_path, name="0/c")
    told = []
    assert write_masks(tmp_path, ["train"], progress=lambda *n: told.append(n)) == 1
    assert told == [(3, 3)]
    assert kept.stat().st_mtime_ns == before
    assert write_masks(tmp_path, ["train"]) == 0


def test_processes_write_the_same_masks(tmp_path):
    labels = ["car", "sky", "person", "road", "wall"]
    for k, label in enumerate(labels):
        frame(tmp_path / "one", name=f"0/{k}", label=label)
        frame(tmp_path / "two", name=f"0/{k}", label=label)
    told = []
    assert write_masks(tmp_path / "one", ["train"]) == 5
    assert (
        write_masks(tmp_path / "two", ["train"], workers=2, progress=lambda *n: told.append(n)) == 5
    )
    assert told == [(k, 5) for k in range(1, 6)]
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.png"))
    assert len(files) == 10  # images too
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_notebooks_held_back_4011_of_14027_training_images(tmp_path, monkeypatch):
    images = {f"{k // 100}/{k:05d}": tmp_path / f"{k}.png" for k in range(14027)}
    monkeypatch.setattr("segjax.data.sets.idd._find_files", lambda *_: (images, images))
    train, test = (open_idd(tmp_path, f"notebook_{s}", seed=0) for s in ("train", "test"))
    assert (len(train), len(test)) == (10016, 4011)
    assert set(train.names) | set(test.names) == set(images)
    assert test.image_paths == [images[name] for name in test.names]
    # As the rule says it, with another way to count.
    order = np.random.default_rng(0).permutation(14027)
    assert set(test.names) == {sorted(images)[i] for i in order[-4011:]}
    assert set(open_idd(tmp_path, "notebook_test", seed=1).names) != set(test.names)


def test_other_counts_are_split_in_the_same_shares_by_the_runs_seed(tmp_path):
    for k in range(7):
        frame(tmp_path, name=f"0/{k}")
    config = data_config(name="idd", root=str(tmp_path))
    for seed in (0, 5):
        train = make_source(config, "notebook_train", seed)
        test = make_source(config, "notebook_test", seed)
        assert (len(train), len(test)) == (5, 2)
        assert sorted([*train.names, *test.names]) == [f"0/{k}" for k in range(7)]


def test_the_test_split_has_no_labels(tmp_path):
    frame(tmp_path)
    photo(tmp_path / "leftImg8bit" / "test" / "0" / "a_leftImg8bit.png")
    with pytest.raises(ValueError, match=r"'test': IDD's authors keep its labels.*use val"):
        open_idd(tmp_path, "test")


def test_another_layout_is_told_with_what_is_there(tmp_path):
    (tmp_path / "images" / "train").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"it holds: images; use .*leftImg8bit/<split>/<drive>"):
        open_idd(tmp_path, "train")
    frame(tmp_path)
    with pytest.raises(ValueError, match=r"'valid': no images.*gtFine/train.*notebook_train"):
        open_idd(tmp_path, "valid")


def test_frames_without_partners_are_named(tmp_path):
    frame(tmp_path, name="0/a").unlink()
    frame(tmp_path, name="0/b")
    (tmp_path / "leftImg8bit" / "train" / "0" / "b_leftImg8bit.png").unlink()
    with pytest.raises(ValueError, match=r"1 images have no labels \(0/a\) and 1 .*image \(0/b\)"):
        open_idd(tmp_path, "train")


def test_a_mask_of_other_ids_is_refused_with_the_way_out(tmp_path):
    path = frame(tmp_path)
    mask(path.with_name("frame01_gtFine_labellevel1Ids.png"), 9)
    with pytest.raises(ValueError, match=r"bad ids 9 .* are 0..6 and 255; use masks of level1"):
        open_idd(tmp_path, "train")[0]
