import pathlib
import pickle

import numpy as np
import pytest
import tifffile

from segjax.data.checks import check_source
from segjax.data.class_lists import read_class_list
from segjax.data.sets.folder import open_folder
from segjax.data.statistics import class_statistics
from tests.data.drawn import THREE, TWO, mask, pairs, photo, save

LAYOUTS = ("images/{split} masks/{split}", "{split}/images {split}/masks")


def tree(root, image_names, mask_names, layout=LAYOUTS[0], split="train"):
    images, masks = layout.format(split=split).split()
    for name in image_names:
        photo(root / images / name)
    for name in mask_names:
        mask(root / masks / name)
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folder_reads_both_layouts(tmp_path, layout):
    images = ["b.jpg", "a.PNG", "deep/er/c.webp", ".b.jpg", ".ipynb_checkpoints/c.jpg"]
    tree(tmp_path, images, ["a.png", "b.tif", "deep/er/c.bmp"], layout)
    (tmp_path / layout.format(split="train").split()[1] / "polygons.json").write_text("{}")
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


BONN = ["bonn/bonn_01_leftImg8bit.png", "ulm/ulm_02_leftImg8bit.png"]
BONN_MASKS = [name.replace("leftImg8bit", "gtFine_labelIds") for name in BONN]


@pytest.mark.parametrize(
    "image_names, mask_names, pairing",
    [
        (["a.jpg", "b.jpg"], ["a.png", "b.png"], "* with *"),
        (["a.jpg"], ["a_mask.png"], "* with *_mask"),
        (["cat.jpg", "dog.jpg"], ["catMask.png", "dogMask.png"], "* with *Mask"),
        (["img_003.jpg"], ["mask_003.png"], "img* with mask*"),
        (["img_001.jpg", "img_002.jpg"], ["gt_001.png", "gt_002.png"], "img* with gt*"),
        (["im10.jpg", "im11.jpg"], ["label10.png", "label11.png"], "im* with label*"),
        (BONN, BONN_MASKS, "*leftImg8bit with *gtFine_labelIds"),
        (["aachen_01_leftImg8bit.png"], ["aachen_01_gtFine_labelIds.png"], None),
        (["0001TP_1.png", "0001TP_2.png"], ["0001TP_1_L.png", "0001TP_2_L.png"], "* with *_L"),
        (["rgb_1_day.png", "rgb_2_day.png"], ["1.png", "2.png"], "rgb_*_day with *"),
        # Affixes with a number: of DRIVE, of CHASE_DB1, of tools.
        (["21_training.tif"], ["21_manual1.gif"], "*training with *manual1"),
        (["Image_01L.jpg", "Image_01R.jpg"], ["Image_01L_1stHO.png", "Image_01R_1stHO.png"], None),
        (["x1.jpg", "y2.jpg"], ["x1_class0.png", "y2_class0.png"], "* with *_class0"),
        (["site 1.jpg", "site 2.jpg"], ["site 1-mask-1.png", "site 2-mask-1.png"], None),
        (["1_rgb_v2.png", "2_rgb_v2.png"], ["1_mask_v2.png", "2_mask_v2.png"], None),
        (["a.jpg", "b.jpeg", "c.png"], ["a.jpg.png", "b.jpeg.png", "c.png.png"], "*.* with *"),
    ],
)
def test_names_pair_without_the_affixes_that_all_share(tmp_path, image_names, mask_names, pairing):
    source = open_folder(tree(tmp_path, image_names, mask_names), "train", THREE)
    assert [p.name for p in source.image_paths] == [pathlib.Path(n).name for n in image_names]
    assert [p.name for p in source.mask_paths] == [pathlib.Path(n).name for n in mask_names]
    assert pairing is None or source.pairing == pairing


TWENTY = [f"{k:02}" for k in range(20)]


@pytest.mark.parametrize(
    "image_names, mask_names, words",
    [
        # An id is never left out to make names pair.
        (["img_1.jpg"], ["img_2.png"], "1 images in .* have no mask .*names read as . with"),
        (["img_001.jpg", "img_002.jpg"], ["img_101.png", "img_102.png"], "2 images in"),
        (["seq1_004.jpg"], ["seq2_004.png"], "1 images in .* have no mask"),
        (["cam1_04.jpg", "cam1_05.jpg"], ["cam2_mask_04.png", "cam2_mask_05.png"], "2 images in"),
        (["a_1.jpg", "b_1.jpg"], ["a.png", "b.png"], "2 images in"),
        (["004_1.jpg", "005_1.jpg"], ["004_2.png", "005_2.png"], "2 images in .* have no mask"),
        (["north/a.jpg"], ["south/a.png"], "1 images in .* have no mask"),
        (
            [f"{n}.jpg" for n in TWENTY[:18]],
            [f"{n}_mask.png" for n in TWENTY[10:]],
            r"^10 images in .* \(00.jpg, 01.jpg, 02.jpg, 03.jpg, 04.jpg, \.\.\.\) and 2 masks .* "
            r"\(18_mask.png, 19_mask.png\), names read as \* with \*_mask; use one mask of",
        ),
        (["a.jpg"], ["a.png", "a.bmp"], r"a\.png has the same name as a\.bmp; use one"),
    ],
)
def test_files_without_a_partner_are_counted_and_named(tmp_path, image_names, mask_names, words):
    with pytest.raises(ValueError, match=words):
        open_folder(tree(tmp_path, image_names, mask_names), "train", THREE)


@pytest.mark.parametrize(
    "files, words",
    [
        ([], r"data\.root=.* is not an existing folder; .*images/<split>.*or <split>/images"),
        (["images/dev/a.png", "masks/dev/a.png"], "looks like .*; splits found: dev; use one"),
        (
            ["dev/images/a.png", "dev/masks/a.png"],
            "'train' is not in data.root=.*splits found: dev; use",
        ),
        (["images/train/a.png"], "with masks/<split>.*found of these: images/train; splits"),
        (
            ["images/train/a.png", "masks/train/a.png", "train/images/a.png", "train/masks/a.png"],
            r"fits 2 layouts: .*data\.images=images/{split} data\.masks=masks/{split}\) and .*"
            r"data\.images={split}/images data\.masks={split}/masks\); choose",
        ),
        (["images/train/a.tga", "masks/train/a.png"], r"holds no images \(types .*: \.tga\)"),
    ],
)
def test_folders_that_are_not_as_they_must_be_are_named(tmp_path, files, words):
    for file in files:
        mask(tmp_path / "data" / file)
    with pytest.raises(ValueError, match=words):
        open_folder(tmp_path / "data", "train", THREE)


@pytest.mark.parametrize(
    "ids, ignore_ids, expected",
    [
        (np.array([[0, 1, 2, 7, 9, 255]], np.uint8), (0, 7, 9, 255), [[255, 1, 2, 255, 255, 255]]),
        (np.array([[1, 2, 65535]], np.uint16), (65535,), [[1, 2, 255]]),
    ],
)
def test_ignored_ids_become_255_class_ids_too(tmp_path, ids, ignore_ids, expected):
    photo(tmp_path / "images/train/a.png", *ids.shape)
    save(tmp_path / "masks/train/a.png", ids)
    label = open_folder(tmp_path, "train", THREE, ignore_ids=ignore_ids)[0]["label"]
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize(
    "size, words",
    [
        ((2, 3), r"images/train/a\.png is 4x6 .*masks/train/a\.png is 2x3 \(height .*nearest"),
        ((6, 4), r"is 4x6 but its mask .* is 6x4 .*use files that are turned alike"),
    ],
)
def test_size_mismatch_names_both_files_and_sizes(tmp_path, size, words):
    mask(pairs(tmp_path, "a") / "masks/train/a.png", 1, *size)
    with pytest.raises(ValueError, match=words):
        open_folder(tmp_path, "train", THREE)[0]


def test_source_pickles_decodes_nothing_when_made_and_has_no_place_in_its_text(tmp_path):
    image = pairs(tmp_path, "a") / "images/train/a.png"
    image.write_bytes(b"no image")
    source = pickle.loads(pickle.dumps(open_folder(tmp_path, "train", THREE)))
    with pytest.raises(ValueError, match=r"a\.png cannot be read: cannot identify .*; use"):
        source[0]
    photo(image)
    assert source[0]["name"] == "a"
    with pytest.raises(IndexError):
        source[1]
    assert repr(source) == "Folder(split='train', samples=1)"


def test_colours_and_ids_of_a_class_list_become_labels_and_count_apart(tmp_path):
    def listed(lines):
        (tmp_path / "classes.txt").write_text(lines)
        return read_class_list(tmp_path / "classes.txt")

    pairs(tmp_path, "b", ids=[0, 1, 2, 255], size=(1, 4))
    photo(tmp_path / "images/train/a.png", 1, 3)
    colours = [[(0, 0, 0), (128, 64, 128), (0, 0, 142)]]
    save(tmp_path / "masks/train/a.png", np.array(colours, np.uint8))
    colored = listed("void 0 0 0 ignore\nroad 128 64 128\ncar 0 0 142\n")
    source = pickle.loads(pickle.dumps(open_folder(tmp_path, "train", colored)))
    assert source.classes.names == ("road", "car")
    np.testing.assert_array_equal(source.ids(0), [[0, 1, 2]])
    np.testing.assert_array_equal(source[0]["label"], [[255, 0, 1]])
    np.testing.assert_array_equal(source[1]["label"], [[255, 0, 1, 255]])
    cache = tmp_path / "s.json"
    for _ in range(2):
        assert class_statistics(source, cache)["class_pixels"].tolist() == [2, 2]
    swapped = listed("void 0 0 0 ignore\nroad 0 0 142\ncar 128 64 128\n")
    source = open_folder(tmp_path, "train", swapped)  # other colours, of the same files
    np.testing.assert_array_equal(source[0]["label"], [[255, 1, 0]])
    mask(tmp_path / "masks/train/b.png", [0, 1, 2, 2], 1, 4)
    assert class_statistics(source, cache)["class_pixels"].tolist() == [2, 3]
    mask(tmp_path / "masks/train/b.png", [0, 1, 2, 3], 1, 4)
    with pytest.raises(ValueError, match=r"bad ids 3 \(1 pixels\); allowed are 0\.\.2 of data"):
        source[1]


def test_masks_of_0_and_255_with_nothing_ignored(tmp_path):
    pairs(tmp_path, "a", ids=[0, 0, 0, 255, 255, 0])
    photo(tmp_path / "images/train/b.png")
    save(tmp_path / "masks/train/b.png", np.tile([False, True], (4, 3)))
    counts = check_source(open_folder(tmp_path, "train", TWO, ignore_ids=()), "train")
    assert (counts.class_pixels.tolist(), counts.ignored_pixels) == ([28, 20], 0)


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_images_of_other_channels(tmp_path, channels):
    bands = np.random.default_rng(0).integers(0, 256, (4, 6, channels), np.uint8)
    tree(tmp_path, [], ["a.png", "b.png"])
    (tmp_path / "images/train").mkdir(parents=True)
    np.save(tmp_path / "images/train/a.npy", bands)
    options = dict(planarconfig="contig") if channels > 1 else {}
    tifffile.imwrite(tmp_path / "images/train/b.tif", bands, photometric="minisblack", **options)
    source = pickle.loads(pickle.dumps(open_folder(tmp_path, "train", THREE, channels=channels)))
    for index in range(2):
        np.testing.assert_array_equal(source[index]["image"], bands)
    assert check_source(source, "train").class_pixels.tolist() == [0, 48, 0]
    if channels > 2:
        with pytest.raises(ValueError, match=rf"a\.npy has {channels} channels, but .*=3"):
            open_folder(tmp_path, "train", THREE)[0]
