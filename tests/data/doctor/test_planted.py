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
from tests.data.drawn import CAMVID_ROOT, THREE, TWO, mask, photo

SEVERITY = {
    "unreadable": ERROR,
    "unknown-ids": ERROR,
    "size-mismatch": ERROR,
    "rgb-mask": ERROR,
    "interpolated-mask": WARNING,
    "exif-orientation": WARNING,
    "jpeg-mask": WARNING,
    "duplicates-across-splits": WARNING,
    "constant-image": INFO,
    "all-void": INFO,
    "duplicates": INFO,
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    root = tmp_path_factory.mktemp("planted")
    files, calls = planted.plant(root), []
    diagnosis = diagnose(planted.sources(root), progress=lambda *call: calls.append(call))
    assert calls == [(k, 14) for k in range(1, 15)]
    return files, diagnosis


@pytest.mark.parametrize("code", SEVERITY)
def test_each_planted_defect_is_found_with_its_file(found, code):
    files, diagnosis = found
    findings = [f for f in diagnosis.findings if f.code == code]
    (finding,) = findings
    assert finding.severity == SEVERITY[code]
    assert str(files[code]) in finding.files
    assert any(str(files[code]) in line for line in finding.found)
    pairs = code.startswith("duplicates")
    assert len(finding.files) == (2 if pairs else 1), "nothing else is accused"
    assert finding.remedy


def test_what_the_messages_say(found):
    _, diagnosis = found
    by_code = {f.code: f for f in diagnosis.findings}
    assert (
        by_code["unknown-ids"]
        .found[0]
        .endswith("bad ids 42 (20 pixels); allowed are 0..6 and data.ignore_ids=(255,)")
    )
    assert "data.ignore_ids=(42, 255) if 42 is void" in by_code["unknown-ids"].remedy
    assert "72x144 but its mask" in by_code["size-mismatch"].found[0]
    assert "nearest" in by_code["size-mismatch"].remedy
    assert "#804080 is drivable" in by_code["rgb-mask"].remedy
    assert "NEAREST" in by_code["interpolated-mask"].remedy
    assert "EXIF orientation 3" in by_code["exif-orientation"].found[0]
    assert "(the same pixels, another mask)" in by_code["duplicates"].found[0]
    assert by_code["duplicates-across-splits"].title == (
        "images occur in several splits: 1 of train in val"
    )
    unseen = [f for f in diagnosis.findings if f.code == "unseen-class"]
    assert [(f.split, f.severity) for f in unseen] == [("train", WARNING), ("val", INFO)]
    assert all(f.found == ("living things",) for f in unseen)


def test_the_worst_comes_first(found):
    severities = [f.severity for f in found[1].findings]
    assert severities == sorted(severities, key=[ERROR, WARNING, INFO].index)


def test_json_holds_plain_types(found):
    diagnosis = found[1]
    again = json.loads(json.dumps(diagnosis.to_json(), allow_nan=False))
    assert [f["code"] for f in again["findings"]] == [f.code for f in diagnosis.findings]
    assert again["splits"]["train"]["images"] == 10
    assert again["splits"]["train"]["usable"] == 6
    assert again["splits"]["val"]["class_images"][2] == 0
    assert again["options"]["loss.class_weights, enet"].startswith("--config.loss.class_weights=")


def test_masks_of_0_and_255_in_a_second_data_set(tmp_path):
    for name in "abc":
        photo(tmp_path / f"images/train/{name}.png")
        mask(tmp_path / f"masks/train/{name}.png", [0, 0, 0, 255, 255, 255])
    ignoring = open_folder(tmp_path, "train", TWO)
    (finding,) = diagnose({"train": ignoring}).of(ERROR)
    assert finding.code == "mask-0-255"
    assert finding.files == tuple(str(tmp_path / f"masks/train/{n}.png") for n in "abc")
    assert "np.asarray(mask) // 255" in finding.remedy
    refusing = open_folder(tmp_path, "train", THREE, ignore_ids=())
    (finding,) = diagnose({"train": refusing}).of(ERROR)
    assert finding.code == "mask-0-255", "255 is no class here"
    assert "bad ids 255 (12 pixels)" in finding.found[0]
    # With a third class 255 may well be void, and class 0 all there is in these images.
    diagnosis = diagnose({"train": open_folder(tmp_path, "train", THREE)})
    assert not diagnosis.of(ERROR)
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
        return dataclasses.replace(
            source,
            names=[source.names[i] for i in indices],
            image_paths=[source.image_paths[i] for i in indices],
            mask_paths=[source.mask_paths[i] for i in indices],
        )

    names = list(open_segnet(CAMVID_ROOT, "test").names)
    standing = names.index("0001TP_009360")
    sources = {
        "train": some("train", range(0, 367, 8)),
        "val": some("val", range(0, 101, 8)),
        "test": some("test", range(standing - 6, standing + 6)),
    }
    config = base.get_config()
    config.data.image_size = (360, 480)
    diagnosis = diagnose(sources, config=config)
    assert not diagnosis.of(ERROR)
    assert not diagnosis.of(WARNING)
    assert {f.code for f in diagnosis.findings} <= {"class-imbalance", "unseen-class"}
