"""Runs with a sigmoid head, whole and small: one foreground class, and two labels that overlap."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from configs import base, recipes
from segjax.api import load_pretrained
from segjax.commands.compare import compare
from segjax.commands.doctor import doctor
from segjax.commands.evaluate import evaluate
from segjax.commands.export import export
from segjax.commands.plan import plan
from segjax.commands.predict import predict
from segjax.commands.prepare import prepare
from segjax.commands.train import train
from segjax.commands.uncertainty import uncertainty
from segjax.console import Console
from segjax.data.splits import Splits
from segjax.export.load import load_exported
from segjax.inference.options import InferenceOptions
from segjax.inference.predictor import Predictor
from segjax.layers import resize_bilinear
from segjax.metrics.confusion import mean_of_finite

pytestmark = pytest.mark.usefixtures("toy")

SIZE = (32, 48)


def quiet():
    return Console(file=io.StringIO(), width=120)


def drawn(index):
    """Noise with a red and a blue rectangle, which may overlap; their masks, bool [2, h, w]."""
    random = np.random.default_rng(index)
    image = random.integers(0, 80, (*SIZE, 3), np.uint8)
    masks = np.zeros((2, *SIZE), bool)
    for mask, channel in zip(masks, (0, 2), strict=True):
        top, left = random.integers(0, 14), random.integers(0, 22)
        mask[top : top + 16, left : left + 24] = True
        image[..., channel][mask] += 150
    return image, masks


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def make_data(root, kind):
    """8 + 3 + 2 images. "binary": masks of 0 and 255 of the red; "per_class": of both."""
    for split, first, count in (("train", 0, 8), ("val", 100, 3), ("test", 200, 2)):
        for index in range(first, first + count):
            image, masks = drawn(index)
            save(root / "images" / split / f"{index}.png", image)
            red, blue = 255 * masks.astype(np.uint8)
            if kind == "binary":
                save(root / "masks" / split / f"{index}.png", red)
            else:
                save(root / "masks" / split / "red" / f"{index}.png", red)
                save(root / "masks" / split / "deep blue" / f"{index}.png", blue)
    return root


def make_config(root, **data):
    config = base.get_config("toy")
    config.model.update(features=8, dropout_rate=0.0, head="sigmoid")
    config.data.update(name="folder", root=str(root), image_size=SIZE, ignore_ids=(), **data)
    recipes.nothing(config)
    config.optim.update(name="adamw", learning_rate=0.02, schedule="constant")
    config.train.update(steps=40, batch_size=8, eval_every=20)
    config.report.samples = 3
    config.parallel.data = 1
    return config


def run(folder, kind):
    root = make_data(folder / "data", kind)
    data = {
        "binary": {"classes": "red", "mask_format": "bits"},
        "per_class": {"classes": "red,deep blue", "mask_format": "per_class"},
    }[kind]
    config, console = make_config(root, **data), quiet()
    results = train(config, folder / "run", base.get_config("toy"), console)
    return config, folder / "run", results, console.file.getvalue()


@pytest.fixture(scope="module")
def binary(tmp_path_factory, toy):
    return run(tmp_path_factory.mktemp("binary"), "binary")


@pytest.fixture(scope="module")
def pair(tmp_path_factory, toy):
    return run(tmp_path_factory.mktemp("pair"), "per_class")


def by_hand(workdir, split):
    """IoU of each label over a split, one image after the other, from the network's logits."""
    predictor = Predictor.from_workdir(workdir)
    config, count = predictor.config, len(predictor.classes)
    canvas = Splits(config.data, config.seed).fitted(split)
    both, either = np.zeros(count), np.zeros(count)
    for index in range(len(canvas)):
        image, label = canvas[index]["image"], canvas[index]["label"]
        logits = resize_bilinear(predictor.logits(image)[None], label.shape)[0]
        for k in range(count):
            truth, found = (label >> k & 1 == 1)[label != 255], np.asarray(logits[..., k])
            found = 1 / (1 + np.exp(-found[label != 255])) > 0.5
            both[k] += np.sum(truth & found)
            either[k] += np.sum(truth | found)
    return both / either


@pytest.mark.parametrize(
    "kind, count", [pytest.param("binary", 1, marks=pytest.mark.slow), ("pair", 2)]
)
def test_training_learns_and_leaves_a_report(request, kind, count):
    _, workdir, results, printed = request.getfixturevalue(kind)
    assert set(results) == {"val", "test"}
    for split, numbers in results.items():
        np.testing.assert_allclose(numbers["iou"], by_hand(workdir, split), rtol=1e-6)
        assert numbers["miou"] == pytest.approx(mean_of_finite(np.array(numbers["iou"])))
        assert numbers["miou"] > 0.4  # 0.25 where everything is predicted
        assert numbers["mean_dice"] > numbers["miou"]
        best = numbers["best_threshold_iou"]
        assert len(best) == count
        assert all(b >= iou for b, iou in zip(best, numbers["iou"], strict=True))
    for name in ("report.html", "results.md", "class_iou.png", "samples/grid.png", "curves.png"):
        assert (workdir / name).is_file(), name
    assert not (workdir / "confusion_matrix.png").exists()
    page = (workdir / "report.html").read_text()
    for text in (f"{results['test']['miou']:.4f}", "best threshold", "mean recall", "above 0.5"):
        assert text in page
    assert "Confusion" not in page
    assert f"{results['val']['recall'][0]:.4f}" in (workdir / "results.md").read_text()
    assert "mean Dice (F1)" in printed
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    val = [row for row in rows if row["split"] == "val"]
    assert val[-1]["mean_dice"] == pytest.approx(max(row["mean_dice"] for row in val), abs=0.3)


def test_the_training_counts_of_a_late_step_are_those_of_the_labels(pair):
    _, workdir, _, _ = pair
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    train_rows = [row for row in rows if row["split"] == "train"]
    assert train_rows[-1]["loss"] < train_rows[0]["loss"]
    assert 0.75 < train_rows[-1]["accuracy"] <= 1
    assert 0.4 < train_rows[-1]["miou"] <= 1


@pytest.mark.parametrize(
    "kind, names",
    [
        pytest.param("binary", ["red"], marks=pytest.mark.slow),
        ("pair", ["red", "deep_blue"]),
    ],
)
def test_predicted_files_are_the_labels(request, tmp_path, kind, names):
    config, workdir, _, _ = request.getfixturevalue(kind)
    folder = f"{config.data.root}/images/test"
    masks = predict(workdir, folder, tmp_path, console=quiet())
    assert [path.name for path in masks] == ["200.png", "201.png"]
    legend = (tmp_path / "legend.csv").read_text().splitlines()
    assert legend[0].split(",")[:2] == ["bit", "name"]
    assert [line.split(",")[0] for line in legend[1:]] == [str(k) for k in range(len(names))]
    predictor = Predictor.from_workdir(workdir)
    for index in (200, 201):
        image, truth = drawn(index)
        bits = np.asarray(Image.open(tmp_path / "masks" / f"{index}.png"))
        np.testing.assert_array_equal(bits, predictor.predict(image))
        painted = np.asarray(Image.open(tmp_path / "overlays" / f"{index}.png"))
        np.testing.assert_array_equal(painted[bits == 0], image[bits == 0])
        assert np.any(painted[bits > 0] != image[bits > 0])
        for k, name in enumerate(names):
            mask = np.asarray(Image.open(tmp_path / "labels" / name / f"{index}.png"))
            np.testing.assert_array_equal(mask, 255 * (bits >> k & 1))
            assert np.mean(mask[truth[k]]) > 2 * np.mean(mask[~truth[k]])


@pytest.mark.usefixtures("blank_figures")
def test_another_threshold_is_that_of_evaluate_predict_and_export(pair, tmp_path):
    config, workdir, results, _ = pair
    console, overrides = quiet(), {"model.threshold": "0.9,0.2"}
    again = evaluate(
        workdir, ["test"], output=tmp_path / "on", overrides=overrides, console=console
    )
    assert again["test"]["precision"][0] >= results["test"]["precision"][0]
    assert again["test"]["recall"][1] >= results["test"]["recall"][1]
    assert again["test"]["best_threshold"] == results["test"]["best_threshold"]
    assert "above 0.9, 0.2" in " ".join(console.file.getvalue().split())
    image = drawn(200)[0]
    predictor = Predictor.from_workdir(workdir, overrides=overrides)
    probabilities = 1 / (1 + np.exp(-predictor.logits(image)))
    expected = (probabilities[..., 0] > 0.9) + 2 * (probabilities[..., 1] > 0.2)
    np.testing.assert_array_equal(predictor.predict(image), expected)
    [mask, _] = predict(
        workdir, f"{config.data.root}/images/test", tmp_path, overrides=overrides, console=quiet()
    )
    np.testing.assert_array_equal(np.asarray(Image.open(mask)), expected)
    path = export(workdir, tmp_path / "model.segjax", overrides=overrides, console=console)
    model = load_exported(path)
    np.testing.assert_array_equal(model(image[None])[0], expected)
    assert model.classes == ("red", "deep blue")
    np.testing.assert_array_equal(model.colorize(expected), predictor.classes.colorize(expected))
    assert model.metadata["head"] == "sigmoid"
    folder = export(
        workdir, tmp_path / "hub", format="huggingface", overrides=overrides, console=console
    )
    network = load_pretrained(folder)
    assert (network.head, network.threshold) == ("sigmoid", (0.9, 0.2))
    assert "above 0.9, 0.2" in (folder / "README.md").read_text()
    assert "bit k is set where class k is present" in model.metadata["output"]["values"]


@pytest.mark.parametrize("options", [{"inference": "slide", "window": (32, 32)}, {"flip": True}])
def test_views_and_windows_average_probabilities(pair, options):
    _, workdir, _, _ = pair
    image, truth = drawn(201)
    predictor = Predictor.from_workdir(workdir, options=InferenceOptions(**options))
    bits, scores = predictor.predict(image), predictor.logits(image)
    present = np.asarray(predictor.head.probabilities(scores)) > 0.5
    np.testing.assert_array_equal(bits, present @ [1, 2])
    np.testing.assert_array_equal(predictor.predict_batch([image])[0], bits)
    np.testing.assert_array_equal(predictor.classes.classes_of[bits], present)
    assert np.mean(present.transpose(2, 0, 1) == truth) > 0.75
    if options.get("flip"):
        alone = Predictor.from_workdir(workdir)
        one, other = (
            1 / (1 + np.exp(-alone.logits(view).astype(np.float64)))
            for view in (image, np.ascontiguousarray(image[:, ::-1]))
        )
        mean = (one + other[:, ::-1]) / 2
        np.testing.assert_allclose(1 / (1 + np.exp(-scores)), mean, atol=1e-5)


def test_compare_weights_and_what_is_refused(pair, tmp_path):
    _, workdir, results, _ = pair
    result = compare([workdir, workdir], "test", quiet())
    assert result["metrics"]["mean_dice"] == [results["test"]["mean_dice"]] * 2
    assert "fw_iou" not in result["metrics"]
    assert result["paired"][0]["mean"] == 0
    assert load_pretrained(workdir).classes == ("red", "deep blue")
    with pytest.raises(ValueError, match=r"protocol 'micro' divides the pixels of classes that"):
        evaluate(workdir, ["test"], "micro", console=quiet())
    with pytest.raises(ValueError, match=r"uncertainty is measured of classes that exclude"):
        uncertainty(workdir, console=quiet())
    with pytest.raises(ValueError, match=r"model\.threshold=\(0\.2, 0\.3, 0\.4\); use a number"):
        evaluate(workdir, overrides={"model.threshold": "0.2,0.3,0.4"}, console=quiet())


def test_prepared_data_keep_the_labels(pair, tmp_path):
    config, _, _, _ = pair
    manifest = prepare(config, tmp_path, console=quiet())
    data = config.copy_and_resolve_references().data
    data.update(name="prepared", root=str(manifest.folder))
    prepared, original = Splits(data), Splits(config.data)
    assert prepared.classes == original.classes
    for index in range(3):
        label = prepared.fitted("val")[index]["label"]
        np.testing.assert_array_equal(label, original.fitted("val")[index]["label"])


def test_doctor_and_plan_read_them(pair, tmp_path):
    config, _, _, _ = pair
    diagnosis = doctor(config, tmp_path, console=quiet())
    numbers = diagnosis.splits["train"]
    assert numbers.class_pixels.tolist() == [8 * 16 * 24] * 2
    assert numbers.pixels == 8 * 32 * 48
    assert plan(config, tmp_path, console=quiet())["parameters"] > 0
    assert (tmp_path / "augmentation.png").is_file()


def test_masks_of_0_and_255_with_255_ignored_are_refused(tmp_path):
    config = make_config(make_data(tmp_path, "binary"), classes="red", mask_format="bits")
    config.data.ignore_ids = (255,)
    with pytest.raises(ValueError, match=r"no pixel of any class \(red\) in .*0/255 mask loses"):
        train(config, "unused", console=quiet())
