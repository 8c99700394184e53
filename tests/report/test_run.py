"""The files at the end of a run, from counts and a predictor made up here."""

import json
import math
import shutil
import types

import numpy as np
import pytest
from PIL import Image

from segjax.data.class_lists import IDD_LEVEL1
from segjax.data.splits import Splits
from segjax.inference.scoring import FullEvaluation
from segjax.metrics import boundary, by_object
from segjax.metrics.confusion import ImageConfusions
from segjax.report import figures, pictures, provenance
from segjax.report import run as run_report
from segjax.report.numbers import choose_samples
from segjax.training.evaluation import Evaluation
from segjax.training.run_record import load_record, save_record
from tests.report.html import Page


def counted(images=3):
    """All right but for 10 of 90 pixels in each image, more in later ones."""
    confusions = np.zeros((images, 7, 7), np.int64)
    for i, confusion in enumerate(confusions):
        confusion[0, 0], confusion[6, 6], confusion[6, 0] = 40, 40 - i, 10 + i
    return [f"image {i}" for i in range(images)], ImageConfusions.from_dense(confusions)


@pytest.fixture
def run(tiny_config, tmp_path, monkeypatch, unchecked):
    """A workdir and a stand-in predictor that says class 0 everywhere."""
    # Drawing the .png files takes a second; test_figures.py and test_pictures.py look at them.
    monkeypatch.setattr(figures, "save_png", lambda *_, **__: None)
    monkeypatch.setattr(pictures, "sample_grid", lambda *_, **__: None)
    tiny_config.data.eval_splits = ("val",)
    provenance.save_run(tmp_path, None, tiny_config, Splits(tiny_config.data))
    predictor = types.SimpleNamespace(
        config=tiny_config,
        classes=IDD_LEVEL1,
        variables={"params": {"kernel": np.zeros((3, 5))}},
        predict=lambda image: np.zeros(image.shape[:2], np.uint8),
    )
    return tmp_path, predictor


def write(run, evaluation, seconds=None) -> Page:
    path = run_report.write_report(
        *run, {"val": evaluation}, "as here", Splits(run[1].config.data), seconds
    )
    return Page(path.read_text(encoding="utf-8"))


@pytest.mark.versions
def test_what_was_measured_is_in_the_files(run):
    names, confusions = counted()
    bins = [{"low": 0.0, "high": 1.0, "pixels": 9, "confidence": 0.5, "accuracy": 0.25}]
    found = {"ece": 0.25, "mce": 0.25, "brier": math.nan, "nll": 1.5, "bins": bins}
    edges, parts = boundary.Boundaries(7), by_object.StratifiedIoU(7)
    label = np.repeat(np.array([0, 6], np.uint8), 8)[:, None].repeat(16, 1)
    for measure in (edges, parts):
        measure.add(label, label)
    full = FullEvaluation(
        names, confusions, 0.5, edges.summary(), found, parts.summary(), "segnet2017"
    )
    page = write(run, full)
    for heading in ("Boundaries", "Size and distance", "Calibration"):
        assert heading in page.texts
    assert "by the protocol segnet2017" in page.text
    saved = json.loads((run[0] / "results.json").read_text())["results"]["val"]
    assert saved["calibration"] == {**found, "brier": None}
    assert saved["boundary"]["bf"] == 1
    assert saved["boundary"]["bf_per_class"][1] is None
    protocols = {row["protocol"]: row for row in saved["protocols"]}
    assert protocols["segnet2017"]["miou"] == saved["miou"]
    assert protocols["segjax"]["miou"] == pytest.approx(saved["miou"] * 7 / 2)  # two occur
    assert protocols["torchvision"]["miou"] is None
    assert "15" in page.texts  # parameters


def test_training_time_is_kept_for_later_evaluations(run):
    evaluation = Evaluation(*counted(), 0.5)
    assert "training time" not in write(run, evaluation).texts
    assert "2 m 05 s" in write(run, evaluation, seconds=125.0).texts
    assert "2 m 05 s" in write(run, evaluation).texts


def test_data_that_changed_since_the_training_are_named(run):
    evaluation = Evaluation(*counted(), 0.5)
    page = write(run, evaluation)
    assert not {"Boundaries", "Size and distance", "Calibration"} & set(page.texts)
    state = json.loads((run[0] / "run.json").read_text())["data"]
    assert {split: now["images"] for split, now in state.items()} == {"train": 8, "val": 3}
    for now in state.values():
        assert now["fingerprint"] in page.texts
    assert "has changed since" not in page.text
    run[1].config.data.eval_images = 4
    page = write(run, evaluation)
    assert "The val split has changed since the training: 3 images then, 4 now" in page.text


def test_what_befell_the_run_is_in_the_report(run):
    provenance.save_skipped_steps(run[0], 3, 1200)
    record = load_record(run[0])
    found = ["train: the mask of 1 of 8 images changed (a)"]
    record["data_changes"] = [{"step": 40, "found": found, "before": {}, "now": {}}]
    save_record(run[0], record)
    text = write(run, Evaluation(*counted(), 0.5)).text
    assert "3 of 1,200 steps were skipped" in text
    assert "At step 40 the run went on with changed data" in text
    assert found[0] in text


def test_fingerprint_is_that_of_every_copy_and_changes_with_a_file(tiny_config, tmp_path):
    for name in ("0", "1"):
        for kind in ("images", "masks"):
            folder = tmp_path / "one" / kind / "train"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / f"{name}.png")
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copyfile)
    tiny_config.data.update(name="folder", classes="a,b", root=str(tmp_path / "one"))
    one = provenance.data_state(Splits(tiny_config.data), ["train"])
    assert one["train"]["images"] == 2
    assert len(one["train"]["fingerprint"]) == 16
    tiny_config.data.root = str(tmp_path / "two")
    assert provenance.data_state(Splits(tiny_config.data), ["train"]) == one
    changed = np.random.default_rng(0).integers(0, 2, (8, 8)).astype(np.uint8)
    Image.fromarray(changed).save(tmp_path / "two" / "masks" / "train" / "1.png")
    assert provenance.data_state(Splits(tiny_config.data), ["train"]) != one


def test_best_median_and_worst_images():
    miou = np.array([0.2, np.nan, 0.9, 0.5, 0.4, 0.1])
    chosen = choose_samples(miou, 3)
    assert chosen == {"best": [2], "median": [4], "worst": [5]}
    assert choose_samples(np.array([np.nan]), 3) == {
        "best": [],
        "median": [],
        "worst": [],
    }
