"""The commands uncertainty and recalibrate, on runs that were drawn instead of trained."""

import io
import json

import jax
import numpy as np
import pytest
from PIL import Image

from segjax import config as configs
from segjax.commands.evaluate import evaluate
from segjax.commands.recalibrate import recalibrate
from segjax.commands.train import train
from segjax.commands.uncertainty import uncertainty
from segjax.console import Console
from segjax.data.batches import eval_batches
from segjax.data.class_lists import IDD_LEVEL1
from segjax.data.datasets import make_source
from segjax.data.scored import nearest_pixels
from segjax.data.splits import Splits
from segjax.inference.predictor import Predictor
from segjax.inference.uncertainty_scores import score_split
from segjax.layers import atrous_conv
from segjax.metrics.confusion import mean_iou
from segjax.models import build
from segjax.report.provenance import save_run
from segjax.training import optim, schedules
from segjax.training.checkpoint import CheckpointStore
from segjax.training.mesh import make_devices
from segjax.training.run_state import RunState
from segjax.training.state import create_state
from tests.conftest import make_tiny_config


def quiet():
    return Console(file=io.StringIO(), width=160)


def drawn_run(workdir, config, seed=0, ema=False):
    """A run folder as training leaves it; every array is drawn by numpy."""
    model = build(config.model, 7)
    optimizer = optim.make_optimizer(config.optim, schedules.make_schedule(config.optim, 6))
    shape = (*config.data.image_size, 3)
    state = jax.eval_shape(
        lambda key: create_state(model, optimizer, shape, key, ema=ema), jax.random.key(0)
    )
    rng = np.random.default_rng(seed)

    def draw(leaf):
        if leaf.ndim == 4:
            deviation = np.sqrt(2 / np.prod(leaf.shape[:3]))
            return (rng.standard_normal(leaf.shape) * deviation).astype(leaf.dtype)
        return rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype)

    state = jax.tree.map(draw, state)
    workdir.mkdir()
    configs.save(config, workdir)
    configs.save_classes(IDD_LEVEL1, workdir)
    save_run(workdir, None, config, Splits(config.data, config.seed))
    with CheckpointStore(workdir) as store:
        store.save(3, state, {"run_state": RunState().to_json(), "data": {"next": 6}})
    return state


@pytest.fixture
def config(toy):
    tiny_config = make_tiny_config("toy")
    tiny_config.model.features = 2
    tiny_config.model.dropout_rate = 0.5
    tiny_config.data.mean, tiny_config.data.std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    tiny_config.data.label_size = (48, 72)
    return tiny_config


def test_dropout(config, tmp_path):
    config.report.samples = 1
    drawn_run(tmp_path / "run", config)
    console = quiet()
    results = uncertainty(tmp_path / "run", samples=3, console=console)
    folder = tmp_path / "run" / "uncertainty"
    saved = json.loads((folder / "uncertainty.json").read_text())
    assert saved["mean"]["miou"] == results["mean"]["miou"]
    assert (saved["method"], saved["samples"], saved["images"]) == ("dropout", 3, 3)
    pixels = results["mean"]["pixels"]
    assert 0 < pixels <= 3 * 48 * 72
    for row in (results["mean"], *results["alone"]):
        assert row["pixels"] == row["calibration"]["pixels"] == pixels
        wrong = 1 - row["global_accuracy"]
        assert row["risk"]["entropy"]["risk"][-1] == pytest.approx(wrong)
    assert set(results["mean"]["risk"]) == {"entropy", "mutual_information", "variance"}
    assert results["mean"]["miou"] != results["alone"][0]["miou"]
    pictures = sorted(folder.glob("*.png"))
    assert len(pictures) == 1
    with Image.open(pictures[0]) as picture:
        assert picture.width > 600
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 100
    printed = console.file.getvalue()
    for text in ("3 dropout samples", "without dropout", "mutual information of the mean", "ECE"):
        assert text in printed
    assert f"{results['mean']['miou']:.4f}" in printed


def test_ensemble_is_the_mean_of_its_members(config, tmp_path):
    """Scores of an ensemble of two, by numpy from the members' own logits."""
    config.model.dropout_rate = 0.0
    runs = [tmp_path / "a", tmp_path / "b"]
    for seed, run in enumerate(runs):
        drawn_run(run, config, seed)
    predictors = [Predictor.from_workdir(run) for run in runs]
    canvas, devices = Splits(config.data, config.seed).fitted("val"), make_devices(config.parallel)
    batches = eval_batches(canvas, 2)
    scores, evaluation, maps = score_split(predictors, batches, devices, canvas.names, shown=[2])

    batch = np.stack([canvas[i]["image"] for i in range(3)]) / np.float32(255)
    batch = predictors[0].normalization(batch)
    forward = jax.jit(lambda v: predictors[0].model.apply(v, batch, train=False)["logits"])

    def probabilities(predictor):
        logits = forward(predictor.variables)
        rows, columns = nearest_pixels((32, 48), (48, 72))  # from the labels' own size
        return np.asarray(jax.nn.softmax(logits), np.float64)[:, rows, columns]

    each = np.stack([probabilities(predictor) for predictor in predictors])
    labels = np.stack([canvas[i]["label"] for i in range(3)])
    mean = each.mean(0)
    kept = labels != 255
    cells = labels[kept].astype(int) * 7 + mean.argmax(-1)[kept]
    confusion = np.bincount(cells, minlength=49).reshape(7, 7)
    # A few pixels may tie within the last bits of resizing.
    assert scores["mean"]["miou"] == pytest.approx(mean_iou(confusion)[0], abs=1e-3)
    assert scores["mean"]["pixels"] == confusion.sum()
    assert list(evaluation.names) == [canvas.names[i] for i in range(3)]
    assert evaluation.summary()["miou"] == scores["mean"]["miou"]
    own = np.bincount(
        labels[2][kept[2]].astype(int) * 7 + mean.argmax(-1)[2][kept[2]], minlength=49
    )
    assert evaluation.image_miou[2] == pytest.approx(mean_iou(own.reshape(7, 7))[0], abs=1e-3)
    of_label = mean[kept][np.arange(kept.sum()), labels[kept]]
    assert scores["mean"]["calibration"]["nll"] == pytest.approx(-np.log(of_label).mean(), rel=1e-4)
    entropy = -(mean * np.log(mean)).sum(-1)
    information = entropy + (each * np.log(each)).sum(-1).mean(0)
    assert list(maps) == [2]
    np.testing.assert_allclose(maps[2]["entropy"], entropy[2], atol=1e-5)
    np.testing.assert_allclose(maps[2]["mutual_information"], information[2], atol=1e-5)
    np.testing.assert_allclose(maps[2]["variance"], each[:, 2].var(0).mean(-1), atol=1e-6)


def test_wrong_uncertainty(config, tmp_path):
    drawn_run(tmp_path / "a", config)
    drawn_run(tmp_path / "other", config)
    other = configs.load(tmp_path / "other")
    other.data.image_size = (32, 64)
    configs.save(other, tmp_path / "other")
    with pytest.raises(ValueError, match=r"image_size=\(32, 64\) of .*other, but \(32, 48\) of"):
        uncertainty(runs=[tmp_path / "a", tmp_path / "other"], console=quiet())
    classes = json.loads((tmp_path / "other" / "classes.json").read_text())
    classes[0]["name"] = "street"
    (tmp_path / "other" / "classes.json").write_text(json.dumps(classes))
    with pytest.raises(ValueError, match=r"classes of .*other: street.* those of .*a: "):
        uncertainty(runs=[tmp_path / "a", tmp_path / "other"], console=quiet())
    with pytest.raises(ValueError, match="given twice"):
        uncertainty(runs=[tmp_path / "a", tmp_path / "a"], console=quiet())
    with pytest.raises(ValueError, match="samples=1; use 2 or more"):
        uncertainty(tmp_path / "a", samples=1, console=quiet())
    with pytest.raises(ValueError, match=r"either --workdir, .* or --runs"):
        uncertainty(console=quiet())
    config.model.dropout_rate = 0.0
    drawn_run(tmp_path / "plain", config)
    with pytest.raises(ValueError, match=r"toy has no dropout .*segnet.py:bayesian"):
        uncertainty(tmp_path / "plain", console=quiet())


@pytest.mark.usefixtures("blank_figures")
def test_recalibrate(config, tmp_path):
    """A run whose statistics were drawn gets those of its training images; the first layer's
    input is made again here. Its weights, a running average, and the old run stay."""
    state = drawn_run(tmp_path / "run", config, ema=True)
    console = quiet()
    output = recalibrate(tmp_path / "run", console=console)
    assert output == (tmp_path / "run_recalibrated").resolve()
    old, new = (Predictor.from_workdir(w).variables for w in (tmp_path / "run", output))
    for variables in (old, new):
        equal = jax.tree.map(np.array_equal, variables["params"], state.ema["params"])
        assert jax.tree.all(equal)
    assert jax.tree.all(jax.tree.map(np.array_equal, old["batch_stats"], state.ema["batch_stats"]))
    assert not jax.tree.leaves(
        jax.tree.map(lambda a, b: np.any(a == b) or None, old["batch_stats"], new["batch_stats"])
    )
    source = make_source(config.data, "train", config.seed)
    images = np.stack([source[i]["image"] for i in range(8)]).astype(np.float32) / 255
    images = (images - np.array((0.5, 0.4, 0.3))) / np.array((0.2, 0.25, 0.3))
    kernel = new["params"]["encoder"]["conv"]["kernel"]
    inputs = np.asarray(atrous_conv(images.astype("f4"), kernel, strides=2), "f8")
    norm = new["batch_stats"]["encoder"]["norm"]
    np.testing.assert_allclose(norm["mean"], inputs.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm["var"], inputs.var((0, 1, 2)), rtol=1e-4)
    note = json.loads((output / "run.json").read_text())["environment"]["batch_stats"]
    assert "8 images of train in 4 batches, from step 3 of" in note
    assert note in console.file.getvalue().replace("\n", "")
    with pytest.raises(ValueError, match="run_recalibrated exists; give another folder"):
        recalibrate(tmp_path / "run", console=quiet())
    results = evaluate(output, ["val"], console=quiet())
    assert results["val"]["images"] == 3
    assert "recomputed over 8 images" in (output / "report.html").read_text()
    with pytest.raises(ValueError, match=r"made by --mode=recalibrate .* cannot be trained"):
        train(config, output, console=quiet())


def test_the_running_average_gets_the_statistics(config, tmp_path):
    """A run that is evaluated with an average of its weights keeps that average."""
    state = drawn_run(tmp_path / "run", config, ema=True)
    recalibrate(tmp_path / "run", tmp_path / "new", console=quiet())
    variables = Predictor.from_workdir(tmp_path / "new").variables
    assert jax.tree.all(jax.tree.map(np.array_equal, variables["params"], state.ema["params"]))


def test_nothing_to_recompute(config, tmp_path):
    config.model = type(config.model)(
        {"name": "deeplab_largefov", "width": 1 / 16, "fc_features": 4, "dropout_rate": 0.5}
    )
    drawn_run(tmp_path / "run", config)
    with pytest.raises(ValueError, match="DeepLabLargeFOV has no batch normalisation"):
        recalibrate(tmp_path / "run", console=quiet())
    assert not (tmp_path / "run_recalibrated").exists()
