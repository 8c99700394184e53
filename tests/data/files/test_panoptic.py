"""COCO's panoptic form: segments to the classes of their categories."""

import json

import numpy as np
import pytest

from segjax.data.classes import from_names
from segjax.data.datasets import make_source
from segjax.data.doctor.samples import examine
from segjax.data.sets.folder import open_folder
from tests.data.drawn import data_config, photo, save

CATEGORIES = [{"id": 7, "name": "road"}, {"id": 200, "name": "car"}]
SEGMENTS = [
    {"id": 3226956, "category_id": 7},
    {"id": 70000, "category_id": 200},
    {"id": 5, "category_id": 200},
]
IDS = np.array([[3226956, 70000, 5], [0, 3226956, 5]])
LABELS = [[0, 1, 1], [255, 0, 1]]


def panoptic(root, place="panoptic_train.json", segments=SEGMENTS, file_name="a.png"):
    photo(root / "images/train/a.jpg", 2, 3)
    rgb = np.stack([IDS & 255, IDS >> 8 & 255, IDS >> 16], -1).astype(np.uint8)
    save(root / "masks/train/a.png", rgb)
    annotations = [{"file_name": file_name, "image_id": 1, "segments_info": segments}]
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    content = {"images": [], "annotations": annotations, "categories": CATEGORIES}
    (root / place).write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    "place",
    ["masks/train.json", "panoptic_train.json", "annotations/panoptic_train.json", "train.json"],
)
def test_segments_have_the_class_of_their_category(tmp_path, place):
    root = panoptic(tmp_path, place)
    source = open_folder(root, "train", from_names(["road", "car"]), mask_format="panoptic")
    assert source[0]["label"].tolist() == LABELS
    facts = examine(source, 0)
    assert (facts.problems, facts.counts.class_pixels.tolist()) == ((), [2, 3])
    config = data_config(name="folder", root=str(root), classes="car,road", mask_format="panoptic")
    label = make_source(config, "train")[0]["label"]
    assert label.tolist() == [[1, 0, 0], [255, 1, 0]]


@pytest.mark.parametrize(
    "options, classes, words",
    [
        (
            {"place": "other.json"},
            "road,car",
            r"no JSON file of data split 'train'; looked for .*"
            r"masks/train\.json, .*panoptic_train\.json",
        ),
        ({"segments": SEGMENTS[:2]}, "road,car", r"a\.png: segments 5 are not in .*train\.json"),
        (
            {"file_name": "b.png"},
            "road,car",
            r"a\.png is not in .*, which has b\.png; use",
        ),
        ({}, "road,bus", r"a\.png: categories car are not in data\.classes; use data\.classes=/"),
        ({"segments": [{"id": "x"}]}, "road,car", r"train\.json cannot be read: .*; use an intact"),
        ({"segments": [[]]}, "road,car", r"train\.json cannot be read: "),
    ],
)
def test_what_is_missing_is_named(tmp_path, options, classes, words):
    root = panoptic(tmp_path, **options)
    with pytest.raises(ValueError, match=words):
        open_folder(root, "train", from_names(classes.split(",")), mask_format="panoptic")[0]


def test_masks_of_segments_read_as_ids_name_the_format(tmp_path):
    source = open_folder(panoptic(tmp_path), "train", from_names(["road", "car"]))
    with pytest.raises(ValueError, match=r"found mode RGB .*data\.mask_format=panoptic$"):
        source[0]
