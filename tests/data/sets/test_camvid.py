import itertools
import pickle
import re

import numpy as np
import pytest

from segjax.data.classes import IGNORE
from segjax.data.datasets import DATASETS, class_table, make_source
from segjax.data.sets.camvid import (
    CAMVID,
    open_original,
    open_segnet,
    split_of,
)
from tests.data.drawn import CAMVID_ROOT, data_config, mask, photo, save, uint8

needs_camvid = pytest.mark.skipif(
    not (CAMVID_ROOT / "train.txt").is_file(), reason="SEGJAX_CAMVID is not CamVid's folder"
)

# Name, colour in the original and label among the SegNet authors' 11, as they describe it.
# fmt: off
ORIGINAL = [
    ("Animal", (64, 128, 64), 9), ("Archway", (192, 0, 128), 1), ("Bicyclist", (0, 128, 192), 10),
    ("Bridge", (0, 128, 64), 1), ("Building", (128, 0, 0), 1), ("Car", (64, 0, 128), 8),
    ("CartLuggagePram", (64, 0, 192), 9), ("Child", (192, 128, 64), 9),
    ("Column_Pole", (192, 192, 128), 2), ("Fence", (64, 64, 128), 7),
    ("LaneMkgsDriv", (128, 0, 192), 3), ("LaneMkgsNonDriv", (192, 0, 64), 3),
    ("Misc_Text", (128, 128, 64), 6), ("MotorcycleScooter", (192, 0, 192), 10),
    ("OtherMoving", (128, 64, 64), 8), ("ParkingBlock", (64, 192, 128), 4),
    ("Pedestrian", (64, 64, 0), 9), ("Road", (128, 64, 128), 3),
    ("RoadShoulder", (128, 128, 192), 4), ("Sidewalk", (0, 0, 192), 4),
    ("SignSymbol", (192, 128, 128), 6), ("Sky", (128, 128, 128), 0),
    ("SUVPickupTruck", (64, 128, 192), 8), ("TrafficCone", (0, 0, 64), 2),
    ("TrafficLight", (0, 64, 64), 6), ("Train", (192, 64, 128), 8), ("Tree", (128, 128, 0), 5),
    ("Truck_Bus", (192, 128, 192), 8), ("Tunnel", (64, 0, 64), 1),
    ("VegetationMisc", (192, 192, 0), 5), ("Wall", (64, 192, 0), 1), ("Void", (0, 0, 0), 255),
]
# fmt: on
COLOURS = uint8(*[colour for _, colour, _ in ORIGINAL]).reshape(4, 8, 3)
NAMES = {
    "train": ("0001TP_006690", "0006R0_f00930", "0016E5_00901", "0016E5_07980"),
    "val": ("0016E5_07959", "0016E5_08159"),
    "test": ("0001TP_008550", "Seq05VD_f02610"),
}


def write_original(root, images="701_StillsRaw_full", labels="LabeledApproved_full"):
    for name in itertools.chain(*NAMES.values()):
        photo(root / images / f"{name}.png", 4, 8)
        save(root / labels / f"{name}_L.png", COLOURS)
    return root


def small_camvid(root, lines):
    photo(root / "train/x_1.png", 1, 12)
    mask(root / "trainannot/x_1.png", np.arange(12), 1, 12)
    if lines is not None:
        (root / "train.txt").write_text(lines)
    return root


@pytest.mark.parametrize(
    "lines",
    [
        "/SegNet/CamVid/train/x_1.png /SegNet/CamVid/trainannot/x_1.png\n\n",
        "train/x_1.png trainannot/x_1.png",
        None,
    ],
)
def test_camvid_finds_its_files_by_list_or_by_folder(tmp_path, lines):
    source = open_segnet(small_camvid(tmp_path, lines), "train")
    assert len(source) == 1
    assert source.classes is CAMVID
    assert source[0]["name"] == "x_1"
    np.testing.assert_array_equal(source[0]["label"], [[*range(11), IGNORE]])


def test_camvid_split_that_is_not_there(tmp_path):
    small_camvid(tmp_path, None)
    with pytest.raises(ValueError, match=r"'dev': no dev\.txt.*holds: train, trainannot; use"):
        open_segnet(tmp_path, "dev")


@needs_camvid
@pytest.mark.parametrize("split, count", [("train", 367), ("val", 101), ("test", 233)])
def test_real_camvid_has_the_papers_splits(split, count):
    source = open_segnet(CAMVID_ROOT, split)
    assert len(source) == len(set(source.names)) == count
    sample = source[count - 1]
    assert sample["image"].shape == (360, 480, 3)
    assert sample["label"].shape == (360, 480)
    assert set(np.unique(sample["label"])) <= {*range(11), IGNORE}


@pytest.mark.parametrize(
    "images, labels", [("701_StillsRaw_full", "LabeledApproved_full"), ("images", "labels")]
)
def test_original_colours_are_grouped_to_the_11_classes(tmp_path, images, labels):
    write_original(tmp_path, images, labels)
    source = pickle.loads(pickle.dumps(open_original(tmp_path, "train")))
    assert tuple(source.names) == NAMES["train"]
    assert source.classes == CAMVID
    sample = source[1]
    assert sample["image"].shape == (4, 8, 3)
    assert sample["label"].dtype == np.uint8
    np.testing.assert_array_equal(sample["label"].ravel(), [label for *_, label in ORIGINAL])


def test_original32_keeps_the_31_classes_in_their_own_colours(tmp_path):
    config = data_config(name="camvid", variant="original32", root=str(write_original(tmp_path)))
    table = class_table(config)
    assert table.names == tuple(name for name, *_ in ORIGINAL[:-1])
    assert table.palette == tuple(colour for _, colour, _ in ORIGINAL[:-1])
    source = make_source(config, "val")
    label = source[0]["label"]
    np.testing.assert_array_equal(label.ravel(), [*range(31), 255])
    np.testing.assert_array_equal(table.colorize(label), COLOURS)


def test_original_is_split_by_sequence_and_frame(tmp_path):
    config = data_config(name="camvid", variant="original", root=str(write_original(tmp_path)))
    for split, names in NAMES.items():
        assert tuple(make_source(config, split).names) == names
    assert class_table(config) is CAMVID


def test_stray_colours_are_void_in_the_one_file_that_has_them_and_an_error_elsewhere(tmp_path):
    write_original(tmp_path)
    bad = COLOURS.copy()
    bad[0, 0], bad[1, 2:4] = (26, 26, 26), (128, 128, 51)
    for name in ("Seq05VD_f02610", "0001TP_008550"):
        save(tmp_path / f"LabeledApproved_full/{name}_L.png", bad)
    source = open_original(tmp_path, "test")
    expected = uint8(*[label for *_, label in ORIGINAL]).reshape(4, 8)
    expected[0, 0] = expected[1, 2:4] = IGNORE
    np.testing.assert_array_equal(source[1]["label"], expected)
    words = (
        r"0001TP_008550_L\.png: 3 pixels of 2 colours that are not CamVid's 32: "
        r"#808033 \(2 pixels\), #1a1a1a \(1 pixels\); use label files as they are"
    )
    with pytest.raises(ValueError, match=words):
        source[0]


def test_original_names_are_checked_and_the_other_release_is_recognised(tmp_path):
    (tmp_path / "701_StillsRaw_full").mkdir()
    with pytest.raises(ValueError, match=r"use data\.variant=original for the original release"):
        open_segnet(tmp_path, "train")
    write_original(tmp_path)
    photo(tmp_path / "701_StillsRaw_full/mine.png")
    with pytest.raises(ValueError, match=r"mine is not named as CamVid's pictures are, 0001TP_0"):
        open_original(tmp_path, "train")


@needs_camvid
def test_the_rule_of_the_split_gives_the_lists_of_the_authors():
    rows = [(s, line) for s in NAMES for line in (CAMVID_ROOT / f"{s}.txt").read_text().split("\n")]
    listed = {re.findall(r"(\w+)\.png", line)[0]: split for split, line in rows if line.strip()}
    assert len(listed) == 701
    assert {name: split_of(name) for name in listed} == listed


def test_published_weights_are_for_the_11_classes():
    weights = DATASETS["camvid"].weights
    assert weights["segnet"] == weights["original"]
    assert len(weights["segnet"]) == len(CAMVID)
    assert "original32" not in weights
