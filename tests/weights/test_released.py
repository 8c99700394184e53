"""The weights that are released with the project: opened as users do, and as good as their card."""

import pathlib

import numpy as np

import segjax
from segjax import config_files
from segjax.data.datasets import make_source
from segjax.metrics import confusion_matrix, mean_iou

FOLDER = pathlib.Path(__file__).parents[2] / "released" / "pspnet_streets"


def test_they_are_as_good_as_their_card_says():
    """The card has 0.853 on all 64 images of val; these are the first of them."""
    predictor = segjax.Predictor.from_pretrained(FOLDER)
    source = make_source(config_files.get("pspnet:streets").data, "val")
    scenes = [source[i] for i in range(6)]
    labels = [predictor.predict(np.asarray(scene["image"])) for scene in scenes]
    counts = sum(
        np.asarray(confusion_matrix(scene["label"], label, 7))
        for scene, label in zip(scenes, labels, strict=True)
    )
    assert 0.8 < mean_iou(counts)[0] < 0.9


def test_they_open_and_are_small():
    net = segjax.load_pretrained(FOLDER)
    assert net.classes[0] == "drivable"
    assert not net.report.fresh
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 10e6
