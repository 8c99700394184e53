import pickle

import numpy as np
import pytest
import scipy.io
from PIL import Image

from segjax.data.datasets import make_source
from segjax.data.sets.voc import open_voc
from tests.data.drawn import data_config, mask, photo, uint8

LISTS = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"]}
LISTS["trainval"] = sorted(LISTS["train"] + LISTS["val"])
# In SBD alone, in both with VOC's train, and in both with VOC's val.
SBD = ["2008_000002", "2008_000019", "2007_000032", "2007_000033"]


def palette_mask(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(ids, np.uint8), "P")
    image.putpalette([7, 8, 9] * 256)
    image.save(path)


def write_voc(root):
    for name in [*LISTS["trainval"], *SBD]:
        photo(root / f"JPEGImages/{name}.jpg", 2, 3)
    for name in LISTS["trainval"]:
        palette_mask(root / f"SegmentationClass/{name}.png", [[0, 1, 20], [255, 255, 15]])
    folder = root / "ImageSets/Segmentation"
    folder.mkdir(parents=True)
    for split, names in LISTS.items():
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def write_sbd(folder):
    """`GTcls` is a 1x1 struct, as in the files of SBD."""
    (folder / "cls").mkdir(parents=True)
    ids = uint8([0, 7, 7], [7, 0, 12])
    fields = {"Boundaries": np.zeros((20, 1), object), "Segmentation": ids}
    for name in SBD:
        scipy.io.savemat(folder / f"cls/{name}.mat", {"GTcls": fields}, do_compression=True)
    return ids


@pytest.mark.parametrize("parent", ["", "VOC2012", "VOCdevkit/VOC2012"])
@pytest.mark.parametrize("split", ["train", "val", "trainval"])
def test_voc_is_read_by_its_lists_and_the_border_is_ignored(tmp_path, parent, split):
    write_voc(tmp_path / parent)
    config = data_config(name="voc", root=str(tmp_path))
    source = pickle.loads(pickle.dumps(make_source(config, split)))
    assert list(source.names) == LISTS[split]
    sample = source[0]
    assert sample["image"].shape == (2, 3, 3)
    np.testing.assert_array_equal(sample["label"], [[0, 1, 20], [255, 255, 15]])


@pytest.mark.parametrize(
    "sbd", ["benchmark_RELEASE/dataset", "SBD/benchmark_RELEASE/dataset", "SBD/dataset", "SBD"]
)
def test_sbd_adds_all_that_is_not_in_val_and_vocs_masks_win(tmp_path, sbd):
    write_voc(tmp_path / "VOCdevkit/VOC2012")
    ids = write_sbd(tmp_path / sbd)
    config = data_config(name="voc", variant="sbd", root=str(tmp_path))
    source = pickle.loads(pickle.dumps(make_source(config, "train")))
    assert list(source.names) == ["2007_000032", "2007_000039", "2008_000002", "2008_000019"]
    assert [p.suffix for p in source.mask_paths] == [".png", ".png", ".mat", ".mat"]
    np.testing.assert_array_equal(source[0]["label"], [[0, 1, 20], [255, 255, 15]])
    assert source[2]["label"].dtype == np.uint8
    np.testing.assert_array_equal(source[2]["label"], ids)
    assert list(make_source(config, "val").names) == LISTS["val"]
    assert make_source(config, "val").mask_paths[0].suffix == ".png"
    both = make_source(config, "trainval")
    assert sorted(both.names) == sorted([*source.names, *LISTS["val"]])


def test_sbd_may_lie_beside_the_root_and_its_images_are_used_where_voc_has_none(tmp_path):
    voc = write_voc(tmp_path / "VOC2012")
    write_sbd(tmp_path / "SBD/dataset")
    assert len(open_voc(voc, "train", sbd=True)) == 4
    (voc / "JPEGImages/2008_000002.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of 4 listed files are not in .*JPEGImages \(2008_000"):
        open_voc(voc, "train", sbd=True)
    photo(tmp_path / "SBD/dataset/img/2008_000002.jpg", 2, 3)
    source = open_voc(voc, "train", sbd=True)
    assert source.image_paths[2] == tmp_path / "SBD/dataset/img/2008_000002.jpg"
    assert source.image_paths[0] == voc / "JPEGImages/2007_000032.jpg"


def test_converted_masks_of_sbd(tmp_path):
    write_voc(tmp_path)
    for name in SBD:
        mask(tmp_path / f"SegmentationClassAug/{name}.png", 5, 2, 3)
    source = open_voc(tmp_path, "train", sbd=True)
    assert list(source.names) == ["2007_000032", "2007_000039", "2008_000002", "2008_000019"]
    np.testing.assert_array_equal(source[0]["label"], [[0, 1, 20], [255, 255, 15]])
    np.testing.assert_array_equal(source[3]["label"], np.full((2, 3), 5))


def test_files_that_are_missing_or_damaged_are_named(tmp_path):
    write_voc(tmp_path)
    with pytest.raises(ValueError, match=r"variant=sbd: SBD's masks are not in .*, which holds: "):
        open_voc(tmp_path, "train", sbd=True)
    write_sbd(tmp_path / "SBD")
    (tmp_path / "SBD/cls/2008_000002.mat").write_bytes(b"MATLAB 5.0")
    scipy.io.savemat(tmp_path / "SBD/cls/2008_000019.mat", {"GTinst": uint8([1])})
    source = open_voc(tmp_path, "train", sbd=True)
    for index in (2, 3):
        with pytest.raises(ValueError, match=r"2008_\d+\.mat no GTcls can be read"):
            source[index]
    (tmp_path / "SegmentationClass/2007_000039.png").unlink()
    words = r"'train' is incomplete: 1 of 2 listed files are not in .*Class \(2007_000039\); use al"
    with pytest.raises(ValueError, match=words):
        open_voc(tmp_path, "train")
    (tmp_path / "ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(ValueError, match=r"no ImageSets/Segmentation/val\.txt in .*found: train"):
        open_voc(tmp_path, "val")
