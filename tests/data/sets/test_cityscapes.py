import pickle

import numpy as np
import pytest

from segjax.data.datasets import make_source
from segjax.data.sets.cityscapes import open_cityscapes
from tests.data.drawn import data_config, mask, photo

# Train id of each raw id 0..33, as the data set's own table of labels lists them.
TRAIN_IDS = [
    *[255] * 7,
    *[0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    *[255, 255, 16, 17, 18],
]
SCENE = "aachen_000000_000019"


def write(root, split, scene=SCENE, annotation="gtFine", kind="labelIds", ids=range(34)):
    city = scene.split("_")[0]
    photo(root / f"leftImg8bit/{split}/{city}/{scene}_leftImg8bit.png", 1, len(ids))
    for other in ("color", "instanceIds"):
        mask(root / f"{annotation}/{split}/{city}/{scene}_{annotation}_{other}.png", 99)
    path = root / f"{annotation}/{split}/{city}/{scene}_{annotation}_{kind}.png"
    mask(path, np.array(ids)[None], 1, len(ids))
    return root


@pytest.mark.parametrize(
    "variant, split, annotation",
    [
        ("", "train", "gtFine"),
        ("fine", "val", "gtFine"),
        ("fine", "test", "gtFine"),
        ("coarse", "train", "gtCoarse"),
        ("coarse", "train_extra", "gtCoarse"),
    ],
)
def test_raw_ids_become_the_19_train_ids(tmp_path, variant, split, annotation):
    config = data_config(name="cityscapes", variant=variant, root=str(tmp_path))
    write(tmp_path, split, annotation=annotation)
    source = pickle.loads(pickle.dumps(make_source(config, split)))
    assert list(source.names) == [SCENE]
    assert source[0]["image"].shape == (1, 34, 3)
    np.testing.assert_array_equal(source[0]["label"], [TRAIN_IDS])


def test_license_plates_are_void_in_a_byte_too_and_other_ids_are_refused(tmp_path):
    write(tmp_path, "train", ids=[7, 255])
    np.testing.assert_array_equal(open_cityscapes(tmp_path, "train")[0]["label"], [[0, 255]])
    write(tmp_path, "train", ids=[7, 34])
    with pytest.raises(ValueError, match=r"labelIds\.png: bad ids 34 \(1 pixels\); allowed are C"):
        open_cityscapes(tmp_path, "train")[0]


def test_train_ids_are_read_where_there_are_no_raw_ids(tmp_path):
    write(tmp_path, "val", kind="labelTrainIds", ids=[*range(19), 255])
    np.testing.assert_array_equal(open_cityscapes(tmp_path, "val")[0]["label"], [[*range(19), 255]])
    write(tmp_path, "val", ids=range(34))
    assert open_cityscapes(tmp_path, "val").mask_paths[0].name.endswith("_labelIds.png")


def test_cities_are_subfolders_and_the_black_image_is_left_out(tmp_path):
    for scene in ("zurich_000001_000019", "troisdorf_000000_000073", SCENE):
        write(tmp_path, "train_extra", scene, "gtCoarse")
    source = open_cityscapes(tmp_path, "train_extra", variant="coarse")
    assert list(source.names) == [SCENE, "zurich_000001_000019"]


def test_variants_have_splits_of_their_own_and_need_raw_or_train_ids(tmp_path):
    write(tmp_path, "train")
    with pytest.raises(ValueError, match=r"has no gtCoarse/train; found of the layout: leftImg8"):
        open_cityscapes(tmp_path, "train", variant="coarse")
    with pytest.raises(
        ValueError, match=r"'train_extra': cityscapes \(fine\) has train, val, test"
    ):
        open_cityscapes(tmp_path, "train_extra")
    (tmp_path / f"gtFine/train/aachen/{SCENE}_gtFine_labelIds.png").unlink()
    words = r"holds no \*_gtFine_labelIds\.png or .*found: aachen_000000_000019_gtFine_color\.png"
    with pytest.raises(ValueError, match=words):
        open_cityscapes(tmp_path, "train")
