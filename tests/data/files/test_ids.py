"""Raw ids become labels, or an error that guesses at the cause."""

import numpy as np
import pytest

from segjax.data.classes import IGNORE
from segjax.data.files.ids import IdMap, class_ids
from segjax.data.sets.folder import open_folder
from tests.data.drawn import THREE, mask, photo


@pytest.mark.parametrize(
    "ids, num_classes, ignore_ids, words",
    [
        (
            [0, 5],
            3,
            (255,),
            r"m\.png: bad ids 5 \(1 pixels\); allowed are 0\.\.2 and .*\(255,\); use",
        ),
        (
            [0, 255],
            2,
            (),
            r"use ids 0 and 1 \(np\.asarray\(mask\) // 255\) if .*=\(255,\) if it is void",
        ),
        ([0, 1, 255], 2, (254,), r"use data\.ignore_ids=\(254, 255\) if 255 is void"),
        ([1, 2, 3, 255], 3, (255,), "these run from 1 to 3, so subtract 1"),
        ([0, 1, 11], 11, (255,), r"=\(11, 255\) if 11 is void; if ids count from 1, subtract 1"),
        ([0, 1, 90], 11, (255,), r"=\(90, 255\) if 90 is void, else ids in 0\.\.10"),
        ([7, 8, 9], 3, (255,), r"bad ids 7 \(1 pixels\), 8 .*use a class list \(data\.classes\)"),
        ([-1, 0, 70000], 3, (255,), r"bad ids -1 \(1 pixels\), 70000 \(1 pixels\); allowed"),
    ],
)
def test_bad_ids_come_with_a_guess_at_the_cause(ids, num_classes, ignore_ids, words):
    with pytest.raises(ValueError, match=words):
        class_ids(num_classes, ignore_ids).labels_of(np.array([ids]), "m.png")


def test_jpeg_masks_are_recognised(tmp_path):
    photo(tmp_path / "images/train/a.png", 16, 16)
    ids = np.random.default_rng(0).integers(0, 3, (16, 16), np.uint8)
    mask(tmp_path / "masks/train/a.jpg", ids * 50, 16, 16)
    with pytest.raises(
        ValueError, match=r"a\.jpg: bad ids .*, \.\.\.; allowed .*use PNG for masks"
    ):
        open_folder(tmp_path, "train", THREE)[0]


def test_the_guess_counts_ids_where_labels_are_others():
    """Of a class list whose first line is void, or of merged classes."""
    ids = IdMap({0: IGNORE, 1: 0, 2: 0, IGNORE: IGNORE}, "0..2")
    with pytest.raises(ValueError, match=r"bad ids 9 .* is void, else ids in 0\.\.2$"):
        ids.labels_of(np.array([[0, 1, 9]]), "m.png")
    with pytest.raises(ValueError, match="these run from 1 to 3, so subtract 1"):
        ids.labels_of(np.array([[1, 2, 3]]), "m.png")


def test_labels_do_not_change_the_ids_they_are_made_of():
    ids = np.array([[-1, 0, 2]], np.int32)
    labels = class_ids(3, (-1,)).labels_of(ids, "m.tif")
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[IGNORE, 0, 2]]
    assert ids.tolist() == [[-1, 0, 2]]


def test_ignored_ids_are_numbers():
    with pytest.raises(ValueError, match=r"data\.ignore_ids=\('',\); use whole numbers, such as"):
        class_ids(2, ("",))
