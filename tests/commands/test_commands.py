"""The whole way, small: train, evaluate and predict from the workdir, and what users get wrong."""

import io
import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from configs import base, recipes
from segjax import config as configs
from segjax.commands.compare import compare
from segjax.commands.evaluate import evaluate
from segjax.commands.plan import plan
from segjax.commands.predict import predict
from segjax.commands.score import score
from segjax.commands.train import train
from segjax.console import Console
from segjax.data.splits import Splits
from segjax.data.streets.dataset import render
from segjax.inference.predictor import Predictor
from segjax.metrics.confusion import mean_iou
from segjax.training.evaluation import Evaluation, evaluation_path

ROOT = pathlib.Path(__file__).parents[2]


def quiet():
    return Console(file=io.StringIO(), width=100)


def make_data(root, counts, seed=0):
    """A folder data set of images of two sizes: `counts` of each split."""
    for split, count in counts.items():
        for index in range(count):
            image, label = render(seed, index, (32, 48) if index % 2 else (45, 61), split=split)
            for kind, array in (("images", image), ("masks", label)):
                folder = root / kind / split
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(folder / f"{index:03d}.png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder data set of 8 + 3 + 2 images, and a run trained on it."""
    root = tmp_path_factory.mktemp("data")
    make_data(root, {"train": 8, "val": 3, "test": 2})
    config = base.get_config()
    config.parallel.data = 1
    config.model.name = "segnet_basic"
    config.model.features = 4
    config.data.name = "folder"
    config.data.root = str(root)
    config.data.classes = "a,b,c,d,e,f,g"
    config.data.image_size = (32, 48)
    config.data.label_size = ("own",)
    config.loss.class_weights = "median_present"
    config.train.steps = 4
    config.train.batch_size = 3
    config.train.eval_every = 2
    config.report.samples = 3
    workdir = tmp_path_factory.mktemp("run")
    console = quiet()
    results = train(config, workdir, base.get_config(), console)
    return config, workdir, results, console.file.getvalue()


@pytest.mark.versions
def test_train_leaves_everything(finished):
    _, workdir, results, printed = finished
    for name in (
        "config.json",
        "classes.json",
        "results.json",
        "results.md",
        "metrics.jsonl",
        "report.html",
        "curves.png",
        "confusion_matrix.png",
        "samples/grid.png",
        "evaluations/val.npz",
        "evaluations/test.npz",
        "checkpoints",
        "tensorboard",
    ):
        assert (workdir / name).exists(), name
    assert set(results) == {"val", "test"}
    assert results["val"]["images"] == 3
    (events,) = (workdir / "tensorboard").iterdir()
    assert all(name in events.read_bytes() for name in (b"results/test/miou", b"val/miou", b"PNG"))
    assert "classes: 7 of data.classes (a, b, c, d, e, f, g), ids 0..6" in printed
    assert sum(map(bool, ("mIoU" in printed, "own size" in " ".join(printed.split())))) == 2
    report = (workdir / "report.html").read_text()
    assert f"{results['val']['miou']:.4f}" in report
    assert "optim" in report
    saved = json.loads((workdir / "results.json").read_text())
    assert saved["results"]["test"]["miou"] == pytest.approx(results["test"]["miou"])


@pytest.mark.versions
@pytest.mark.usefixtures("blank_figures")
def test_evaluate_from_the_workdir_alone(finished):
    _, workdir, results, _ = finished
    console = quiet()
    again = evaluate(workdir, ["test"], "micro", console=console)
    by_protocol = {row["protocol"]: row["miou"] for row in again["test"]["protocols"]}
    assert by_protocol["segjax"] == pytest.approx(results["test"]["miou"])
    assert by_protocol["micro"] == again["test"]["miou"]
    assert again["test"]["fw_iou"] == pytest.approx(results["test"]["fw_iou"])
    printed = " ".join(console.file.getvalue().split())
    assert "Micro average: true positives" in printed
    assert "scored at the labels' own size" in printed
    saved = json.loads((workdir / "results.json").read_text())
    assert saved["protocol"].startswith("micro average")
    assert saved["results"]["test"]["protocol"] == "micro"
    with pytest.raises(ValueError, match="protocol 'voc' is unknown; use segjax"):
        evaluate(workdir, ["test"], "voc", console=console)
    assert again["test"]["pixels"] == results["test"]["pixels"] > 0


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.usefixtures("blank_figures")
def test_evaluate_on_other_data(finished, tmp_path):
    """Its numbers go into a folder of its own; the run keeps those of its own data."""
    config, workdir, _, _ = finished
    other, console = tmp_path / "other", quiet()
    make_data(other, {"val": 2}, seed=5)
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    overrides = {"data.root": str(other), "data.eval_splits": "('val',)"}
    results = evaluate(workdir, overrides=overrides, console=console)
    folder = workdir / "on_folder_other"
    assert list(results) == ["val"]
    assert results["val"]["images"] == 2
    predictor = Predictor.from_workdir(workdir)
    config = config.copy_and_resolve_references()
    config.data.root = str(other)
    assert results["val"]["miou"] == pytest.approx(miou_by_hand(predictor, config))
    saved = results_of(folder)
    assert saved["results"]["val"]["miou"] == results["val"]["miou"]
    assert f"on folder in {other} (changed: data.root)" in saved["protocol"]
    assert {path: path.read_bytes() for path in before} == before
    printed = console.file.getvalue()
    assert f"evaluated on folder in {other}; images: val 2" in printed
    assert f"report: {folder / 'report.html'}" in printed
    report = (folder / "report.html").read_text()
    assert "has changed since the training" not in report
    # The folder is a run that `compare` takes beside the run itself.
    assert compare([workdir, folder], "val", quiet())["config"].keys() == {
        "data.root",
        "data.eval_splits",
    }


def miou_by_hand(predictor, config):
    """The mIoU of a split at the labels' own size, one image after the other."""
    confusion = np.zeros((7, 7), int)
    for sample in Splits(config.data, config.seed).source("val"):
        label, prediction = sample["label"], predictor.predict(sample["image"])
        kept = label != 255
        np.add.at(confusion, (label[kept], prediction[kept]), 1)
    return mean_iou(confusion)[0]


def test_evaluate_refuses_other_data_that_do_not_fit(finished, tmp_path):
    _, workdir, _, _ = finished

    def refused(message, **options):
        overrides = {f"data.{name}": value for name, value in options.items()}
        with pytest.raises(ValueError, match=message) as error:
            evaluate(workdir, overrides=overrides, console=quiet())
        assert "\n" not in str(error.value)

    fewer = (
        r"the data have the classes a, b, but the run .* \(class 2 is no class, not c; 3 .*; use"
    )
    refused(fewer, classes="a,b")
    refused(r"\(class 0 is b, not a; 1 is a, not b\); use data with", classes="b,a,c,d,e,f,g")
    refused("--config.data.rooot is unknown; known are .*data.root", rooot="a")
    refused("--config.data.channels=many", channels="many")
    gone = tmp_path / "gone"
    refused(f"data.root={gone} any more; say where .* with --config.data.root=FOLDER", root=gone)
    assert not list(workdir.glob("on_folder_gone*"))


@pytest.mark.usefixtures("blank_figures")
def test_evaluate_where_the_data_moved(finished, tmp_path):
    """The run as its owner finds it after moving both: the same numbers once the root is given."""
    config, workdir, results, _ = finished
    run, data = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(workdir, run)
    shutil.copytree(config.data.root, data)
    moved = configs.load(run)
    moved.data.root = str(tmp_path / "before")
    configs.save(moved, run)
    with pytest.raises(ValueError, match=r"the data of the run are not in data.root=.*before"):
        evaluate(run, ["test"], console=quiet())
    again = evaluate(run, ["test"], overrides={"data.root": data}, console=quiet())
    assert again["test"]["miou"] == results["test"]["miou"]


@pytest.mark.versions
def test_predict_a_folder_at_its_own_sizes(finished, tmp_path):
    config, workdir, _, _ = finished
    source = pathlib.Path(config.data.root) / "images" / "val"
    masks = predict(workdir, source, tmp_path, console=quiet())
    assert [m.name for m in masks] == ["000.png", "001.png", "002.png"]
    for mask, image in zip(masks, sorted(source.iterdir()), strict=True):
        label = np.asarray(Image.open(mask))
        assert label.shape == Image.open(image).size[::-1]
        assert label.max() < 7
        for kind in ("colors", "overlays"):
            assert Image.open(tmp_path / kind / mask.name).size == Image.open(image).size
    one = predict(workdir, source / "001.png", tmp_path / "one", console=quiet())
    np.testing.assert_array_equal(Image.open(one[0]), Image.open(masks[1]))


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("named_by", ["workdir", "config"])
def test_scores_of_written_masks_are_those_of_evaluate(finished, tmp_path, named_by):
    """Predict, then score: the counts that training's evaluation kept."""
    config, workdir, results, _ = finished
    images = pathlib.Path(config.data.root) / "images"
    predict(workdir, images, tmp_path / "out", console=quiet())
    data = {"workdir": workdir} if named_by == "workdir" else {"config": config}
    output = tmp_path / "scores"
    console = quiet()
    found = score(tmp_path / "out", **data, split="val", output=output, console=console)
    ours, theirs = (Evaluation.load(evaluation_path(w, "val")) for w in (output, workdir))
    assert list(ours.names) == list(theirs.names)
    np.testing.assert_array_equal(ours.confusion, theirs.confusion)
    np.testing.assert_array_equal(ours.image_miou, theirs.image_miou)
    for key in ("miou", "boundary", "by_object", "protocols"):
        np.testing.assert_equal(found[key], results["val"][key])
    # The test split's masks lie there too.
    assert "3 label maps of val, named val/* after the images" in console.file.getvalue()
    assert "10 files belong to no image of val" in console.file.getvalue()
    report = (output / "report.html").read_text()
    assert f"{found['miou']:.4f}" in report
    assert "own size" in report
    compared = compare([workdir, output], "val", quiet())
    assert compared["metrics"]["miou"] == [found["miou"]] * 2
    assert compared["paired"][0]["images"] == 3
    assert compared["paired"][0]["notes"] == []
    assert compared["config"].keys() == {"scored.ids", "scored.predictions", "scored.void"}
    assert f"label maps of {tmp_path / 'out'}" in compared["protocols"][1]
    with pytest.raises(ValueError, match="holds the scores of label maps, which --mode=compare"):
        evaluate(output, console=quiet())


def test_another_config_in_the_same_workdir(finished):
    config, workdir, _, _ = finished
    config = config.copy_and_resolve_references()
    config.optim.learning_rate = 0.5
    message = r"optim.learning_rate: 0.01 there, 0.5 now(.|\n)*\(with init_from=.* to train on"
    with pytest.raises(ValueError, match=message):
        train(config, workdir, console=quiet())


def test_a_bad_mask_is_named_before_training(finished, tmp_path):
    """One id out of range in one file: named, with its count, and no workdir is left behind."""
    config, _, _, _ = finished
    config = config.copy_and_resolve_references()
    root = tmp_path / "data"
    shutil.copytree(config.data.root, root)
    bad = root / "masks" / "val" / "001.png"
    label = np.array(Image.open(bad))
    label[:2, :5] = 77
    Image.fromarray(label).save(bad)
    config.data.root = str(root)
    with pytest.raises(ValueError, match=r"001\.png(.|\n)*77(.|\n)*10"):
        train(config, tmp_path / "run", console=quiet())
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.versions
def test_plan(finished, tmp_path, capsys):
    config, console = finished[0].copy_and_resolve_references(), quiet()
    recipes.nothing(config)  # few pictures
    numbers = plan(config, tmp_path, console=console)
    printed = console.file.getvalue()
    # Four encoder and four decoder stages of 4 channels, and the classifier.
    convolutions = 3 * 49 * 4 + 4 + 7 * (4 * 49 * 4 + 4)
    assert numbers["parameters"] == convolutions + 8 * 8 + 4 * 7 + 7
    assert f"{numbers['parameters']:,} parameters" in printed
    assert "encoder1/conv/kernel" in printed
    assert sum(row["parameters"] for row in numbers["parts"]) == numbers["parameters"]
    assert {row["part"] for row in numbers["parts"]} == {"encoder", "head"}
    assert "weight decay" in printed
    assert numbers["flops"] > 1e6
    assert 0 < numbers["temporaries"] <= numbers["peak"]
    assert json.loads((tmp_path / "plan.json").read_text()) == numbers
    for step, kinds in (("train", 3), ("evaluate", 1)):  # forward; and two gradients
        counted = numbers[step]
        assert counted["kernels"] > 10
        assert counted["moved"] > 2 * 4 * numbers["parameters"]
        assert sum(c["count"] for c in counted["convolutions"]) in range(7, 9 * kinds + 1)
        assert "fits" not in counted  # nothing is known of this machine's memory
    with Image.open(tmp_path / "augmentation.png") as picture:
        assert picture.width > 300
