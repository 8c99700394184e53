import os
import pathlib
import pickle

import numpy as np
import pytest
from PIL import Image

from segjax.data.classes import CAMVID, IGNORE, from_names
from segjax.data.sets.camvid import open_segnet
from segjax.data.sets.folder import open_folder

THREE = from_names(["road", "car", "sky"])
LAYOUTS = ("images/{split} masks/{split}", "{split}/images {split}/masks")
CAMVID_ROOT = pathlib.Path(
    os.environ.get("SEGJAX_CAMVID", pathlib.Path(__file__).parents[3] / "shared" / "camvid")
)
needs_camvid = pytest.mark.skipif(
    not (CAMVID_ROOT / "train.txt").is_file(), reason="SEGJAX_CAMVID is not CamVid's folder"
)


def save(path: pathlib.Path, array) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)
    return path


def photo(path, height=4, width=6):
    return save(path, np.full((height, width, 3), 90, np.uint8))


def mask(path, ids=1, height=4, width=6):
    return save(path, np.broadcast_to(np.asarray(ids, np.uint8), (height, width)))


def tree(root, image_names, mask_names, layout=LAYOUTS[0], split="train"):
    images, masks = layout.format(split=split).split()
    for name in image_names:
        photo(root / images / name)
    for name in mask_names:
        mask(root / masks / name)
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folder_reads_both_layouts(tmp_path, layout):
    tree(tmp_path, ["b.jpg", "a.PNG", "deep/er/c.webp"], [], layout)
    tree(tmp_path, [], ["a.png", "b.tif", "deep/er/c.bmp"], layout)
    source = open_folder(tmp_path, "train", THREE)
    assert len(source) == 3
    assert [source[i]["name"] for i in range(3)] == ["a", "b", "deep/er/c"]
    assert [p.name for p in source.image_paths] == ["a.PNG", "b.jpg", "c.webp"]
    assert [p.name for p in source.mask_paths] == ["a.png", "b.tif", "c.bmp"]
    assert source.classes is THREE
    sample = source[2]
    assert sample["image"].dtype == sample["label"].dtype == np.uint8
    assert sample["image"].shape == (4, 6, 3)
    np.testing.assert_array_equal(sample["label"], np.ones((4, 6)))


@pytest.mark.parametrize(
    "image_names, mask_names, pairing",
    [
        (["a.jpg", "b.jpg"], ["a.png", "b.png"], "* with *"),
        (["a.jpg"], ["a_mask.png"], "* with *_mask"),
        (["cat.jpg", "dog.jpg"], ["catMask.png", "dogMask.png"], "* with *Mask"),
        (["img_003.jpg"], ["mask_003.png"], "img* with mask*"),
        (["img_001.jpg", "img_002.jpg"], ["gt_001.png", "gt_002.png"], "img* with gt*"),
        (["im10.jpg", "im11.jpg"], ["label10.png", "label11.png"], "im* with label*"),
        (
            ["bonn/bonn_01_leftImg8bit.png", "ulm/ulm_02_leftImg8bit.png"],
            ["bonn/bonn_01_gtFine_labelIds.png", "ulm/ulm_02_gtFine_labelIds.png"],
            "*leftImg8bit with *gtFine_labelIds",
        ),
        (["aachen_01_leftImg8bit.png"], ["aachen_01_gtFine_labelIds.png"], None),
        (["0001TP_1.png", "0001TP_2.png"], ["0001TP_1_L.png", "0001TP_2_L.png"], "* with *_L"),
        (["rgb_1_day.png", "rgb_2_day.png"], ["1.png", "2.png"], "rgb_*_day with *"),
    ],
)
def test_names_pair_without_the_affixes_that_all_share(tmp_path, image_names, mask_names, pairing):
    source = open_folder(tree(tmp_path, image_names, mask_names), "train", THREE)
    assert [p.name for p in source.image_paths] == [pathlib.Path(n).name for n in image_names]
    assert [p.name for p in source.mask_paths] == [pathlib.Path(n).name for n in mask_names]
    assert pairing is None or source.pairing == pairing


@pytest.mark.parametrize(
    "image_names, mask_names",
    [
        (["img_1.jpg"], ["img_2.png"]),
        (["img_001.jpg", "img_002.jpg"], ["img_101.png", "img_102.png"]),
        (["seq1_004.jpg"], ["seq2_004.png"]),
        (["004_1.jpg", "005_1.jpg"], ["004_2.png", "005_2.png"]),
        (["north/a.jpg"], ["south/a.png"]),
    ],
)
def test_ids_are_never_left_out_to_make_names_pair(tmp_path, image_names, mask_names):
    with pytest.raises(ValueError, match=r"\d images in .* have no mask .*names read as \* with"):
        open_folder(tree(tmp_path, image_names, mask_names), "train", THREE)


def test_files_without_a_partner_are_counted_and_five_are_named(tmp_path):
    names = [f"{k:02}" for k in range(20)]
    tree(tmp_path, [f"{n}.jpg" for n in names[:18]], [f"{n}_mask.png" for n in names[10:]])
    with pytest.raises(ValueError) as error:
        open_folder(tmp_path, "train", THREE)
    message = str(error.value)
    assert "10 images in" in message
    assert "(00.jpg, 01.jpg, 02.jpg, 03.jpg, 04.jpg, ...)" in message
    assert "2 masks in" in message
    assert "(18_mask.png, 19_mask.png)" in message
    assert "names read as * with *_mask; use one mask of class ids per image" in message


def test_two_masks_of_one_name_are_ambiguous(tmp_path):
    tree(tmp_path, ["a.jpg"], ["a.png", "a.bmp"])
    with pytest.raises(ValueError, match=r"a\.png has the same name as a\.bmp; use one"):
        open_folder(tmp_path, "train", THREE)


def test_hidden_files_and_other_types_are_passed_over(tmp_path):
    tree(tmp_path, ["a.jpg", ".b.jpg", ".ipynb_checkpoints/c.jpg"], ["a.png"])
    (tmp_path / "masks/train/polygons.json").write_text("{}")
    assert len(open_folder(tmp_path, "train", THREE)) == 1


@pytest.mark.parametrize(
    "files, words",
    [
        ([], r"data\.root=.* is not an existing folder; .*images/<split>.*or <split>/images"),
        (["images/dev/a.png", "masks/dev/a.png"], "found of these: none; splits found: dev; data"),
        (["dev/images/a.png", "dev/masks/a.png"], "splits found: dev; data.root holds: dev; use"),
        (["images/train/a.png"], "with masks/<split>.*found of these: images/train; splits"),
        (
            ["images/train/a.png", "masks/train/a.png", "train/images/a.png", "train/masks/a.png"],
            "one of the two; found of these: images/train, masks/train, train/images, train/masks",
        ),
    ],
)
def test_folders_that_are_not_as_they_must_be_are_named(tmp_path, files, words):
    for file in files:
        mask(tmp_path / "data" / file)
    with pytest.raises(ValueError, match=words):
        open_folder(tmp_path / "data", "train", THREE)


def test_empty_folder_says_which_types_it_holds(tmp_path):
    tree(tmp_path, [], ["a.png"])
    (tmp_path / "images/train").mkdir(parents=True)
    (tmp_path / "images/train/a.gif").write_text("")
    with pytest.raises(ValueError, match=r"images/train holds no images \(types found: \.gif\); u"):
        open_folder(tmp_path, "train", THREE)


def test_ignored_ids_become_255_and_a_class_may_be_ignored(tmp_path):
    photo(tmp_path / "images/train/a.png", 1, 6)
    save(tmp_path / "masks/train/a.png", np.array([[0, 1, 2, 7, 9, 255]], np.uint8))
    source = open_folder(tmp_path, "train", THREE, ignore_ids=(0, 7, 9, 255))
    np.testing.assert_array_equal(source[0]["label"], [[255, 1, 2, 255, 255, 255]])


def test_ids_above_255_can_be_ignored_in_16_bit_masks(tmp_path):
    photo(tmp_path / "images/train/a.png", 1, 3)
    save(tmp_path / "masks/train/a.png", np.array([[1, 2, 65535]], np.uint16))
    label = open_folder(tmp_path, "train", THREE, ignore_ids=(65535,))[0]["label"]
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, [[1, 2, 255]])


@pytest.mark.parametrize(
    "size, words",
    [
        ((2, 3), r"images/train/a\.png is 4x6 .*masks/train/a\.png is 2x3 \(height .*nearest"),
        ((6, 4), r"is 4x6 but its mask .* is 6x4 .*use files turned alike .*EXIF"),
    ],
)
def test_size_mismatch_names_both_files_and_sizes(tmp_path, size, words):
    photo(tmp_path / "images/train/a.png", 4, 6)
    mask(tmp_path / "masks/train/a.png", 1, *size)
    with pytest.raises(ValueError, match=words):
        open_folder(tmp_path, "train", THREE)[0]


def test_source_pickles_and_decodes_nothing_when_made(tmp_path):
    tree(tmp_path, ["a.jpg"], ["a.png"])
    (tmp_path / "images/train/a.jpg").write_bytes(b"no image")
    source = pickle.loads(pickle.dumps(open_folder(tmp_path, "train", THREE)))
    with pytest.raises(ValueError, match=r"a\.jpg cannot be read: cannot identify .*; use"):
        source[0]
    photo(tmp_path / "images/train/a.jpg")
    assert source[0]["name"] == "a"
    with pytest.raises(IndexError):
        source[1]


def test_repr_does_not_depend_on_where_the_data_are(tmp_path):
    sources = [
        open_folder(tree(tmp_path / d, ["a.jpg"], ["a.png"]), "train", THREE)
        for d in ("one", "two")
    ]
    assert repr(sources[0]) == repr(sources[1]) == "Folder(split='train', samples=1)"


def small_camvid(root, lines):
    photo(root / "train/x_1.png", 1, 12)
    save(root / "trainannot/x_1.png", np.arange(12, dtype=np.uint8)[None])
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


def test_camvid_list_may_hold_longer_paths_below_the_root(tmp_path):
    photo(tmp_path / "day/one/left/x.png")
    mask(tmp_path / "day/one/ids/x.png")
    (tmp_path / "val.txt").write_text("day/one/left/x.png day/one/ids/x.png")
    assert open_segnet(tmp_path, "val")[0]["name"] == "x"


@pytest.mark.parametrize(
    "lines, words",
    [
        (
            "train/x_1.png trainannot/x_1.png\n/Seg/train/y.png z",
            r"line 2: /Seg/train/y\.png is not",
        ),
        ("train/x_1.png", r"line 1: 'train/x_1\.png'; use `image\.png mask\.png`"),
        ("\n", "lists no images; use lines of"),
    ],
)
def test_camvid_list_errors_name_list_line_and_path(tmp_path, lines, words):
    with pytest.raises(ValueError, match=rf"train\.txt,? {words}"):
        open_segnet(small_camvid(tmp_path, lines), "train")


def test_camvid_split_that_is_not_there(tmp_path):
    small_camvid(tmp_path, None)
    with pytest.raises(ValueError, match=r"'dev': no dev\.txt.*holds: train, trainannot; use"):
        open_segnet(tmp_path, "dev")
    with pytest.raises(ValueError, match=r"data\.root=.*gone is not an existing folder; use"):
        open_segnet(tmp_path / "gone", "train")


@needs_camvid
@pytest.mark.parametrize("split, count", [("train", 367), ("val", 101), ("test", 233)])
def test_real_camvid_has_the_papers_splits(split, count):
    source = open_segnet(CAMVID_ROOT, split)
    assert len(source) == len(set(source.names)) == count
    sample = source[count - 1]
    assert sample["image"].shape == (360, 480, 3)
    assert sample["label"].shape == (360, 480)
    assert set(np.unique(sample["label"])) <= {*range(11), IGNORE}
