"""--crf of evaluate and predict: what is refined, where it is written, what is said of it."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from PIL import Image

from configs import base
from segjax import config as configs
from segjax.commands.compare import compare
from segjax.commands.evaluate import evaluate
from segjax.commands.predict import predict
from segjax.console import Console
from segjax.data.datasets import class_table
from segjax.data.streets.dataset import Streets
from segjax.inference.crf import DenseCRF, dense_crf
from segjax.inference.options import InferenceOptions
from segjax.inference.predictor import Predictor
from segjax.models import build
from segjax.training.checkpoint import CheckpointStore

OPTIONS = {"iterations": 3.0, "bilateral_color_std": 20.0}
WORDS = "dense CRF, 3 iterations, Gaussian kernel 3 (std 3 px), bilateral kernel 4"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, toy):
    """A run that never trained, on three street scenes."""
    folder = tmp_path_factory.mktemp("run")
    config = base.get_config()
    config.model.name, config.model.features = "toy", 2
    config.data.update(image_size=(24, 32), eval_images=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    config.data.update(eval_splits=("val",), label_size=(32, 48))
    config.report.samples = 2
    configs.save(config, folder)
    classes = class_table(config.data)
    configs.save_classes(classes, folder)
    (folder / "run.json").write_text('{"environment": {}, "changes": {}}')
    model = build(config.model, len(classes))
    image = jnp.zeros((1, 24, 32, 3))
    variables = jax.jit(lambda key: model.init(key, image, train=False))(jax.random.key(0))
    with CheckpointStore(folder) as store:
        store.save(1, dict(variables), {})
    return folder


def run(function, *arguments, **options):
    console = Console(file=io.StringIO(), width=100)
    return function(*arguments, console=console, **options), " ".join(
        console.file.getvalue().split()
    )


@pytest.mark.usefixtures("blank_figures")
def test_evaluate_leaves_the_results_without_a_crf_and_compare_tells_them_apart(workdir):
    plain, said = run(evaluate, workdir)
    assert "CRF" not in said
    before = {file: file.read_bytes() for file in workdir.glob("evaluations/*")}
    refined, said = run(evaluate, workdir, crf=OPTIONS)
    assert WORDS in said
    assert refined["val"]["loss"] != plain["val"]["loss"]
    assert {file: file.read_bytes() for file in before} == before
    assert [file.name for file in before] == ["val.npz"]
    assert not (workdir / "crf" / "checkpoints").exists()
    assert WORDS in json.loads((workdir / "crf" / "results.json").read_text())["protocol"]
    both, said = run(compare, [workdir, workdir / "crf"])
    first, second = both["protocols"]
    assert WORDS in second
    assert second.startswith(first)
    assert "CRF" not in first
    assert both["config"]["crf.iterations"] == [None, 3]
    assert both["metrics"]["miou"] == [plain["val"]["miou"], refined["val"]["miou"]]


@pytest.mark.parametrize("inference", ["resize", "slide"])
def test_predict_refines_at_the_image_s_own_size(workdir, tmp_path, inference):
    options, crf = {"gaussian_weight": 30.0}, DenseCRF(gaussian_weight=30)
    pixels = np.array(Streets("val", (40, 56), length=1)[0]["image"])
    images = {"blocks": pixels, "narrow": np.ascontiguousarray(pixels[:, :40])}
    (tmp_path / "in").mkdir()
    for name, image in images.items():
        Image.fromarray(image).save(tmp_path / "in" / f"{name}.png")
    masks, _ = run(
        predict, workdir, tmp_path / "in", tmp_path / "out", crf=options, inference=inference
    )
    assert [mask.stem for mask in masks] == list(images)
    network = Predictor.from_workdir(workdir, options=InferenceOptions(inference))
    changed = 0
    for mask, image in zip(masks, images.values(), strict=True):
        probabilities = scipy.special.softmax(network.logits(image), -1)
        wanted = dense_crf(probabilities, image, crf).argmax(-1)
        np.testing.assert_array_equal(np.asarray(Image.open(mask)), wanted)
        changed += np.sum(wanted != probabilities.argmax(-1))
    assert changed


def test_wrong_options_are_refused_before_anything_is_read(tmp_path):
    for function, arguments in ((evaluate, ["none"]), (predict, ["none", "none"])):
        with pytest.raises(ValueError, match="crf: the option 'colour' is unknown; use iterations"):
            run(function, *arguments, crf={"colour": 1.0})
