"""A mask file for each class, one class per pixel."""

import numpy as np
import pytest

from segjax.data.class_lists import read_class_list
from segjax.data.classes import from_names
from segjax.data.sets.folder import open_folder
from tests.data.drawn import photo, save

CRACK, STAIN = [[0, 1, 1], [0, 0, 0]], [[1, 0, 0], [0, 0, 1]]


def folder(root, masks):
    for name in {path.split("/")[-1].split("_")[0].removesuffix(".png") for path in masks}:
        photo(root / f"images/train/{name}.png", 2, 3)
    for path, rows in masks.items():
        save(root / "masks/train" / path, np.array(rows, np.uint8))
    return root


def read(root, classes, **options):
    source = open_folder(root, "train", classes, mask_format="one_per_class", **options)
    return [source[i]["label"].tolist() for i in range(len(source))]


@pytest.mark.parametrize("layout", ["{name}/{image}.png", "{image}_{name}.png"])
@pytest.mark.parametrize("names", ["background,crack,stain", "stain,crack,background"])
@pytest.mark.parametrize("high", [1, 255])
def test_pixels_of_no_mask_are_of_the_class_without_files(tmp_path, layout, names, high):
    names = names.split(",")
    files = {"crack": CRACK, "stain": STAIN}
    masks = {
        layout.format(image="a", name=n): (high * np.array(m)).tolist() for n, m in files.items()
    }
    ids = {name: names.index(name) for name in names}
    expected = np.full((2, 3), ids["background"])
    for name, mask in files.items():
        expected[np.array(mask) == 1] = ids[name]
    ignored = (255,) if high == 1 else ()
    got = read(folder(tmp_path, masks), from_names(names), ignore_ids=ignored)
    assert got == [expected.tolist()]


def test_the_rest_may_be_ignored_and_so_may_pixels_and_missing_files(tmp_path):
    (tmp_path / "classes.txt").write_text("rest ignore\ncrack\nstain\n")
    classes = read_class_list(tmp_path / "classes.txt")
    masks = {"crack/a.png": CRACK, "stain/a.png": [[255, 0, 0], [0, 0, 1]], "stain/b.png": STAIN}
    root = folder(tmp_path, masks)
    with pytest.raises(ValueError, match=r"1 images in .* have no mask \(b\.png\)"):
        read(root, classes)
    got = read(root, classes, missing_is_empty=True)
    assert got == [[[255, 0, 0], [255, 255, 1]], [[1, 255, 255], [255, 255, 1]]]


@pytest.mark.parametrize(
    "stain, classes, words",
    [
        (
            [[0, 1, 0], [0, 0, 0]],
            "background,crack,stain",
            r"stain/a\.png: 1 pixels are in the mask of crack too; use masks that do not",
        ),
        (STAIN, "crack,stain", r"a\.png: 2 pixels are in no mask of the image; use one m"),
        (
            STAIN,
            "background,crack,stain,sky",
            "classes without a mask: background, sky; .* may",
        ),
        ([[0, 2, 0], [0, 0, 0]], "background,crack,stain", r"stain/a\.png: bad ids 2"),
    ],
)
def test_masks_that_do_not_make_one(tmp_path, stain, classes, words):
    root = folder(tmp_path, {"crack/a.png": CRACK, "stain/a.png": stain})
    with pytest.raises(ValueError, match=words):
        read(root, from_names(classes.split(",")))
