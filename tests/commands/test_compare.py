"""Runs side by side, from configs and evaluations that the tests write: nothing is trained."""

import io
import json

import numpy as np
import pytest

from segjax import config as configs
from segjax.commands.compare import compare
from segjax.console import Console
from segjax.data.classes import from_names
from segjax.metrics.confusion import ImageConfusions, summarize
from segjax.training.evaluation import Evaluation, evaluation_path

K, CLASSES = 3, from_names(["road", "[sky]", "car"])


def matrices(share_right: float, images: int, seed=0) -> np.ndarray:
    """[n, K, K]: 100 pixels of every class in each image, so many of them right."""
    rng = np.random.default_rng(seed)
    right = rng.binomial(100, share_right, (images, K))
    return np.stack(
        [np.diag(r) + np.roll(np.diag(100 - r), 1, axis=1) for r in right]
    )  # the wrong pixels of class k go to class k + 1


@pytest.fixture
def make_run(tmp_path, tiny_config):
    def make(name, confusions, *, names=None, split="test", classes=CLASSES, **options):
        workdir = tmp_path / name
        workdir.mkdir(exist_ok=True)
        config = tiny_config.copy_and_resolve_references()
        for option, value in options.items():
            section, _, key = option.partition("_")
            config[section][key] = value
        configs.save(config, workdir)
        configs.save_classes(classes, workdir)
        if confusions is not None:
            names = names or [f"image {i}" for i in range(len(confusions))]
            evaluation = Evaluation(names, ImageConfusions.from_dense(confusions), 0.5)
            evaluation.save(evaluation_path(workdir, split))
        return workdir

    return make


def compared(*runs, **options):
    console = Console(file=io.StringIO(), width=100)
    return compare(runs, console=console, **options), " ".join(console.file.getvalue().split())


def test_two_runs_side_by_side(make_run):
    a, b = matrices(0.6, 30), matrices(0.7, 30, seed=1)
    runs = make_run("a", a), make_run("b", b, optim_learning_rate=0.5, data_label_size=(64, 96))
    result, printed = compared(*runs)
    assert result["split"] == "test"
    assert result["config"]["optim.learning_rate"] == [0.05, 0.5]
    assert set(result["config"]) == {"optim.learning_rate", "data.label_size"}
    wanted = [summarize(m.sum(0)) for m in (a, b)]
    assert result["metrics"]["miou"] == [w["miou"] for w in wanted]
    assert result["iou"]["car"] == [w["iou"][2] for w in wanted]
    assert f"({wanted[1]['miou'] - wanted[0]['miou']:+.4f})" in printed
    assert "[sky]" in printed
    assert "A: images at 32x48, scored at 32x48" in printed
    assert "B: images at 32x48, scored at 64x96" in printed
    (test,) = result["paired"]
    assert test["images"] == 30
    # The means of two independent samples of 30 images with 10 points between them.
    assert 0 < test["low"] < test["mean"] < test["high"]
    assert test["p_value"] < 0.001
    assert test["notes"] == []
    json.dumps(result)


def test_a_run_with_itself(make_run):
    run = make_run("a", matrices(0.6, 20))
    result, printed = compared(run, run)
    (test,) = result["paired"]
    assert (test["mean"], test["low"], test["high"], test["p_value"]) == (0, 0, 0, 1)
    assert (test["better"], test["worse"], test["equal"]) == (0, 0, 20)
    assert "no option differs" in printed


def test_images_are_paired_by_name(make_run):
    ours = matrices(0.6, 6)
    names = [f"image {i}" for i in range(6)]
    shuffled = [3, 0, 5, 1]
    first = make_run("a", ours, names=names)
    second = make_run("b", ours[shuffled], names=[names[i] for i in shuffled])
    (test,), printed = compared(first, second)[0]["paired"], compared(first, second)[1]
    assert (test["images"], test["equal"]) == (4, 4)
    assert "of 6 and 4 images 4 have the same name" in test["notes"][0]
    assert test["notes"][0] in printed
    third = make_run("c", ours[::-1], names=names[::-1])
    (test,) = compared(first, third)[0]["paired"]
    assert (test["images"], test["equal"]) == (6, 6)
    assert "another order" in test["notes"][0]
    repeated = make_run("d", ours, names=["same"] * 6)
    (test,) = compared(first, repeated)[0]["paired"]
    assert test["images"] == 0
    assert "no image is paired" in test["notes"][0]


def test_other_labels_are_noticed(make_run):
    ours = matrices(0.6, 5)
    theirs = ours.copy()
    theirs[:2] *= 4
    theirs[4] = 0
    (test,) = compared(make_run("a", ours), make_run("b", theirs))[0]["paired"]
    assert "label pixels of 3 images differ" in test["notes"][0]
    assert "1 images have nothing labelled" in test["notes"][1]
    assert test["images"] == 4


def test_three_runs_and_more_metrics(make_run):
    runs = [make_run(name, matrices(0.6, 4, seed)) for seed, name in enumerate("abc")]
    (runs[1] / "results.json").write_text(
        json.dumps({"results": {"test": {"boundary_f1": 0.5, "ece": None}}})
    )
    result, printed = compared(*runs)
    assert [test["run"] for test in result["paired"]] == [str(runs[1]), str(runs[2])]
    np.testing.assert_equal(result["metrics"]["boundary_f1"], [np.nan, 0.5, np.nan])
    assert "ece" not in result["metrics"]
    assert "C minus A" in printed


def test_split_is_the_first_in_common(make_run):
    ours = matrices(0.6, 4)
    runs = make_run("a", ours, split="val"), make_run("b", ours, split="val")
    make_run("b", ours, split="test")
    assert compared(*runs)[0]["split"] == "val"
    make_run("a", ours, split="test")
    assert compared(*runs)[0]["split"] == "test"
    assert compared(*runs, split="val")[0]["split"] == "val"


def test_what_users_get_wrong(make_run, tmp_path):
    ours = matrices(0.6, 4)
    run, bare = make_run("a", ours), make_run("bare", None)
    with pytest.raises(ValueError, match="has 1 workdir"):
        compare([run])
    with pytest.raises(ValueError, match=r"no evaluated split in common .*--mode=evaluate"):
        compare([run, bare])
    with pytest.raises(
        ValueError, match=r"'val' \(it has: test\).*--mode=evaluate --workdir=.*a --splits=val"
    ):
        compare([run, bare], split="val")
    with pytest.raises(ValueError, match="holds no run"):
        compare([run, tmp_path / "nowhere"])
    other = make_run("c", ours, classes=from_names(["x", "y", "z"]))
    with pytest.raises(ValueError, match=r"classes road, \[sky\], car, but .* has x, y, z"):
        compare([run, other])
