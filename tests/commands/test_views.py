"""--scales and --flip of evaluate: what is measured, where it is written, what is said of it."""

import json

import numpy as np
import pytest

from segjax import config as configs
from segjax.commands.compare import compare
from segjax.commands.evaluate import evaluate
from segjax.training.evaluation import Evaluation
from tests.commands.test_crf import OPTIONS, WORDS, run, workdir  # noqa: F401

VIEWS = {"scales": (0.75, 1, 1.25), "flip": True}
SAID = "scales 0.75, 1, 1.25, mirrored too"
TWO = ("plain", "one")


@pytest.mark.usefixtures("blank_figures")
def test_evaluate_leaves_the_plain_results_and_compare_tells_them_apart(workdir):  # noqa: F811
    plain, said = run(evaluate, workdir)
    assert "single scale, no flip" in said
    before = {
        file: file.read_bytes()
        for file in (workdir / "results.json", workdir / "config.json", *workdir.glob("*/*.npz"))
    }
    found, said = run(evaluate, workdir, **VIEWS)
    assert SAID in said
    assert "single scale" not in said
    assert found["val"]["pixels"] == plain["val"]["pixels"]
    assert found["val"]["loss"] != plain["val"]["loss"]
    refined, said = run(evaluate, workdir, crf=OPTIONS, **VIEWS)
    assert SAID in said
    assert WORDS in said
    assert refined["val"]["loss"] != found["val"]["loss"]
    assert {file: file.read_bytes() for file in before} == before

    folders = [workdir, workdir / "views", workdir / "views_crf"]
    assert not (workdir / "views" / "checkpoints").exists()
    assert SAID in json.loads((workdir / "views" / "results.json").read_text())["protocol"]
    assert configs.load(folders[1])["views"].to_dict() == {"scales": [0.75, 1, 1.25], "flip": True}
    both, _ = run(compare, folders)
    assert [SAID in words for words in both["protocols"]] == [False, True, True]
    assert [WORDS in words for words in both["protocols"]] == [False, False, True]
    assert both["config"]["views.flip"] == [None, True, True]
    assert both["metrics"]["miou"] == [r["val"]["miou"] for r in (plain, found, refined)]


@pytest.mark.usefixtures("blank_figures")
def test_one_view_is_the_plain_evaluation(workdir, tmp_path):  # noqa: F811
    run(evaluate, workdir, output=tmp_path / "plain")
    _, said = run(evaluate, workdir, output=tmp_path / "one", scales=(1,), flip=False)
    assert "single scale, no flip" in said
    plain, one = (Evaluation.load(tmp_path / name / "evaluations/val.npz") for name in TWO)
    np.testing.assert_array_equal(one.confusion, plain.confusion)
    assert one.loss == plain.loss
    configs_of = [(tmp_path / name / "config.json").read_text() for name in TWO]
    assert configs_of[0] == configs_of[1]


def test_another_network_needs_a_folder_of_its_own(workdir):  # noqa: F811
    before = {file: file.stat().st_mtime_ns for file in workdir.iterdir()}
    message = r"model.features=3 makes another network of the run .*; give an output"
    with pytest.raises(ValueError, match=message):
        run(evaluate, workdir, overrides={"model.features": 3})
    assert {file: file.stat().st_mtime_ns for file in workdir.iterdir()} == before


def test_a_wrong_scale_is_refused_before_anything_is_read():
    for scales in ((), (0.0, 1.0), (float("nan"),), (101,)):
        with pytest.raises(ValueError, match=r"^scales=\(.*\); use factors above 0"):
            run(evaluate, "none", scales=scales)
