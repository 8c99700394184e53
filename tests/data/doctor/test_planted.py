"""Planted defects are found, all in one run, and clean data are left alone."""

import dataclasses
import json

import numpy as np
import pytest

from configs import base
from segjax.data.doctor import ERROR, INFO, WARNING, diagnose
from segjax.data.sets.camvid import open_segnet
from segjax.data.sets.folder import open_folder
from segjax.data.streets.dataset import Streets
from tests.data.doctor import planted
from tests.data.drawn import CAMVID_ROOT, THREE, TWO, pairs

# The severity of each planted defect, and words of its first line, its title and its remedy.
DEFECTS = {
    "unreadable": (ERROR, "cannot be read", "1 of 10 samples", "use an intact image"),
    "unknown-ids": (
        ERROR,
        "bad ids 42 (20 pixels); allowed are 0..6 and data.ignore_ids=(255,)",
        "ids that are no class",
        "data.ignore_ids=(42, 255) if 42 is void",
    ),
    "size-mismatch": (ERROR, "72x144 but its mask", "of their image's size", "nearest"),
    "rgb-mask": (ERROR, "mode RGB", "colours instead", "#804080 is drivable"),
    "interpolated-mask": (WARNING, "pixels of such lines", "thin lines of id", "NEAREST"),
    "exif-orientation": (ERROR, "EXIF orientation 3", "1 of 10 images", "data.exif=apply"),
    "jpeg-mask": (WARNING, "ids 0", "JPEG", "PNG"),
    "duplicates-across-splits": (WARNING, "(the same pixels", ": 1 of train in val", "take them"),
    "constant-image": (INFO, "deviation 0.00 of 255", "one colour", "leave them out"),
    "all-void": (INFO, "10,368 pixels, all ignored", "val: 1 of 4 masks", "data.ignore_ids"),
    "duplicates": (INFO, "(the same pixels, another mask)", "1 of them with", "contradict"),
}


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    root = tmp_path_factory.mktemp("planted")
    files, calls = planted.plant(root), []
    diagnosis = diagnose(planted.sources(root), progress=lambda *call: calls.append(call))
    assert calls == [(k, 14) for k in range(1, 15)]
    return files, diagnosis


@pytest.mark.parametrize("code", DEFECTS)
def test_each_planted_defect_is_found_with_its_file(examined, code):
    files, diagnosis = examined
    (finding,) = (f for f in diagnosis.findings if f.code == code)
    severity, line, title, remedy = DEFECTS[code]
    assert finding.severity == severity
    assert str(files[code]) in finding.files
    assert any(str(files[code]) in line for line in finding.found)
    assert len(finding.files) == (2 if "duplicates" in code else 1), "nothing else is accused"
    assert line in finding.found[0]
    assert title in finding.title
    assert remedy in finding.remedy


def test_the_worst_comes_first_and_json_holds_plain_types(examined):
    diagnosis = examined[1]
    severities = [f.severity for f in diagnosis.findings]
    assert severities == sorted(severities, key=[ERROR, WARNING, INFO].index)
    unseen = [f for f in diagnosis.findings if f.code == "unseen-class"]
    assert [(f.split, f.severity) for f in unseen] == [("train", WARNING), ("val", INFO)]
    assert all(f.found == ("living things",) for f in unseen)
    again = json.loads(json.dumps(diagnosis.to_json(), allow_nan=False))
    assert [f["code"] for f in again["findings"]] == [f.code for f in diagnosis.findings]
    train = again["splits"]["train"]
    assert (train["images"], train["usable"], train["class_images"][2]) == (10, 5, 0)
    assert again["options"]["loss.class_weights, enet"].startswith("--config.loss.class_weights=")


def test_masks_of_0_and_255_in_a_second_data_set(tmp_path):
    pairs(tmp_path, "abc", ids=[0, 0, 0, 255, 255, 255])
    (finding,) = diagnose({"train": open_folder(tmp_path, "train", TWO)}).of(ERROR)
    assert finding.code == "mask-0-255"
    assert finding.files == tuple(str(tmp_path / f"masks/train/{n}.png") for n in "abc")
    assert "np.asarray(mask) // 255" in finding.remedy
    refusing = open_folder(tmp_path, "train", THREE, ignore_ids=())
    (finding,) = diagnose({"train": refusing}).of(ERROR)
    assert finding.code == "mask-0-255", "255 is no class here"
    assert "bad ids 255 (12 pixels)" in finding.found[0]
    # With a third class 255 may well be void, and class 0 all there is in these images.
    diagnosis = diagnose({"train": open_folder(tmp_path, "train", THREE)})
    assert [f.code for f in diagnosis.of(ERROR)] == ["one-class-labels"]
    assert "mask-0-255" in [f.code for f in diagnosis.of(WARNING)]


def test_clean_data_stop_nothing_and_harm_nothing(tmp_path):
    lengths = {"train": 24, "val": 16}
    planted.clean(tmp_path, lengths)
    diagnosis = diagnose(planted.sources(tmp_path, lengths))
    assert not diagnosis.of(ERROR)
    assert not diagnosis.of(WARNING)
    drawn = diagnose({s: Streets(s, planted.SIZE, length=n, seed=3) for s, n in lengths.items()})
    for split, numbers in diagnosis.splits.items():
        np.testing.assert_array_equal(numbers.class_pixels, drawn.splits[split].class_pixels)
        np.testing.assert_allclose(numbers.mean, drawn.splits[split].mean, rtol=1e-12)
    assert diagnosis.weights == drawn.weights


@pytest.mark.skipif(not CAMVID_ROOT.is_dir(), reason="CamVid is not here")
def test_camvid_raises_no_false_alarm():
    """On every 8th frame, and on 12 of the standing car, the most alike of the data set."""

    def some(split, indices):
        source = open_segnet(CAMVID_ROOT, split)
        names = ("names", "image_paths", "mask_paths")
        kept = {name: [getattr(source, name)[i] for i in indices] for name in names}
        return dataclasses.replace(source, **kept)

    standing = list(open_segnet(CAMVID_ROOT, "test").names).index("0001TP_009360")
    sources = {
        "train": some("train", range(0, 367, 8)),
        "val": some("val", range(0, 101, 8)),
        "test": some("test", range(standing - 6, standing + 6)),
    }
    config = base.get_config()
    config.data.image_size = (360, 480)
    codes = {f.code for f in diagnose(sources, config=config).findings}
    assert codes <= {"class-imbalance", "unseen-class"}
