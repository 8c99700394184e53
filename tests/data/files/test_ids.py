"""Raw ids become labels, or an error that guesses at the cause."""

import numpy as np
import pytest

from segjax.data.classes import IGNORE
from segjax.data.files.ids import IdMap, class_ids

# Of a class list whose first line is void, or of merged classes: three ids, one label.
MERGED = IdMap({0: IGNORE, 1: 0, 2: 0, IGNORE: IGNORE}, "0..2")


@pytest.mark.parametrize(
    "ids, id_map, words",
    [
        ([0, 5], class_ids(3), r"bad ids 5 \(1 pixels\); allowed are 0\.\.2 and .*\(255,\); use"),
        ([0, 255], class_ids(2, ()), r"use ids 0 and 1 \(np\.as.* 255\) if .*=\(255,\) if it is v"),
        ([0, 1, 255], class_ids(2, (254,)), r"use data\.ignore_ids=\(254, 255\) if 255 is void"),
        ([1, 2, 3, 255], class_ids(3), "these run from 1 to 3, so subtract 1"),
        ([0, 1, 11], class_ids(11), r"=\(11, 255\) if 11 is void; if ids count from 1, subtract 1"),
        ([0, 1, 90], class_ids(11), r"=\(90, 255\) if 90 is void, else ids in 0\.\.10"),
        (
            [7, 8, 9],
            class_ids(3),
            r"bad ids 7 \(1 pixels\), 8 .*use a class list \(data\.",
        ),
        ([-1, 0, 70000], class_ids(3), r"bad ids -1 \(1 pixels\), 70000 \(1 pixels\); allowed"),
        ([0, 1, 9], MERGED, r"bad ids 9 .* is void, else ids in 0\.\.2$"),
        ([1, 2, 3], MERGED, "these run from 1 to 3, so subtract 1"),
    ],
)
def test_bad_ids_come_with_a_guess_at_the_cause(ids, id_map, words):
    with pytest.raises(ValueError, match=rf"m\.png: .*{words}"):
        id_map.labels_of(np.array([ids]), "m.png")
    with pytest.raises(ValueError, match=r"m\.jpg: bad ids .*; allowed .*use PNG for masks"):
        id_map.labels_of(np.array([ids]), "m.jpg")


def test_labels_do_not_change_the_ids_they_are_made_of():
    ids = np.array([[-1, 0, 2]], np.int32)
    labels = class_ids(3, (-1,)).labels_of(ids, "m.tif")
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[IGNORE, 0, 2]]
    assert ids.tolist() == [[-1, 0, 2]]


def test_ignored_ids_are_numbers():
    with pytest.raises(ValueError, match=r"data\.ignore_ids=\('',\); use whole numbers, such as"):
        class_ids(2, ("",))
