"""The folder for a model hub, written and read back."""

import io
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import segjax
from segjax.commands import export as command
from segjax.commands.evaluate import evaluate
from segjax.commands.predict import predict
from segjax.console import Console
from segjax.export import huggingface
from segjax.inference.options import InferenceOptions
from segjax.inference.predictor import Predictor
from segjax.training.pretrained import open_weights
from tests.export.test_program import small_config, small_predictor


@pytest.fixture(scope="module")
def predictor():
    return small_predictor(small_config("segnet_basic"))


@pytest.fixture
def export(predictor, monkeypatch, tmp_path):
    """The command, on a run that has been evaluated; returns the folder."""
    monkeypatch.setattr(command.Predictor, "from_workdir", lambda *_, **__: predictor)
    (tmp_path / "results.md").write_text("| | val |\n|---|---|\n| mIoU | 0.1234 |\n")
    state = {"images": 3, "fingerprint": "abc123"}
    record = {"data": {"val": state}, "environment": {"started": "2026-01-02T03:04:05+00:00"}}
    (tmp_path / "run.json").write_text(json.dumps(record))

    def run(output=None, **options):
        console = Console(file=io.StringIO())
        return command.export(tmp_path, output, format="huggingface", console=console, **options)

    return run


def test_a_folder_is_a_network(export, predictor, tmp_path):
    folder = export(license="mit")
    assert folder == tmp_path / "huggingface"
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    net = segjax.load_pretrained(folder)
    assert net.model == predictor.model
    assert (net.head, net.threshold) == ("softmax", None)
    assert net.classes == tuple("abcdefg")
    np.testing.assert_allclose(net.mean, [0.4] * 3, rtol=1e-6)
    equal = jax.tree.map(np.array_equal, net.variables, dict(predictor.variables))
    assert all(jax.tree.leaves(equal))
    assert open_weights(folder).config["name"] == "segnet_basic"  # as `init_from` reads it
    config = json.loads((folder / "config.json").read_text())
    assert config["preprocessing"]["image_size"] == [32, 48]
    assert len(config["palette"]) == 7
    assert config["ids"] == list(range(7))


def test_kernels_in_half_precision(export, predictor):
    full = (export() / "model.safetensors").stat().st_size
    folder = export(half=True)
    assert (folder / "model.safetensors").stat().st_size < 0.75 * full
    net = segjax.load_pretrained(folder)  # the digest in config.json fits
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-7),
        net.variables,
        dict(predictor.variables),
    )


def test_the_card_is_filled_from_the_run(export):
    card = (export(license="mit") / "README.md").read_text()
    for text in (
        'license: "mit"',
        "| mIoU | 0.1234 |",
        "fingerprint abc123",
        "a, b, c, d, e, f, g",
    ):
        assert text in card
    assert card.startswith("---\n")
    assert "Measured on 20" in card
    assert "started: 2026-01-02" in card
    assert 'license: "unknown"' in (export() / "README.md").read_text()


def test_only_its_own_folder_is_replaced(export, tmp_path):
    folder = export()
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    assert export(license="mit") == folder
    assert (folder / ".gitattributes").exists()
    assert segjax.load_pretrained(folder).classes == tuple("abcdefg")
    other = tmp_path / "other"
    other.mkdir()
    assert export(other) == other  # empty
    shutil.rmtree(other)
    other.mkdir()
    (other / "config.json").write_text('{"model": {"name": "pspnet"}}')  # a run's, say
    with pytest.raises(ValueError, match="other exists and is no folder that this export wrote"):
        export(other)
    assert [p.name for p in other.iterdir()] == ["config.json"]


def test_nothing_is_left_of_a_write_that_fails(export, predictor, monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(huggingface, "_config", full)
    with pytest.raises(OSError, match="No space"):
        export()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results.md", "run.json"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c | {"format_version": 2}, "has format_version 2; this segjax reads 1"),
        (lambda c: c | {"weights_sha256": 64 * "0"}, r"SHA-256 .*, not the 000000000000\.\.\."),
    ],
)
def test_a_folder_that_does_not_fit(export, damage, message):
    path = export() / "config.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=message):
        segjax.load_pretrained(path.parent)


def test_a_folder_predicts_as_its_run_does(export, predictor, tmp_path):
    folder = export()
    loaded = Predictor.from_pretrained(folder)
    assert loaded.classes == predictor.classes
    assert loaded.model == predictor.model
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    np.testing.assert_array_equal(loaded.predict(image), predictor.predict(image))
    Image.fromarray(image).save(tmp_path / "image.png")
    console = Console(file=io.StringIO())
    masks = predict(folder, tmp_path / "image.png", tmp_path / "out", console=console)
    with Image.open(masks[0]) as mask:
        np.testing.assert_array_equal(np.asarray(mask), predictor.predict(image))
    slide = InferenceOptions("slide")
    assert Predictor.from_pretrained(folder, options=slide).predict(image).shape == (40, 50)


@pytest.mark.parametrize(
    "section, values, message",
    [
        ("palette", [[1, 2]] * 7, "a colour is"),
        ("palette", [[1, 2, 3]], "shorter"),
        ("ids", [0] * 7, "occur twice"),
        ("ids", "0123456", "ids is"),
        ("dtype", "float8", "dtype"),
        ("preprocessing", {"image_size": [32]}, "image_size"),
        ("preprocessing", {"image_size": [0, 48]}, "image_size"),
        ("preprocessing", {"image_size": "big"}, "image_size is"),
        ("preprocessing", {"channels": 4}, "data.mean and data.std have 3"),
        ("preprocessing", {"value_range": [[3, 2]]}, "value_range"),
        ("preprocessing", {"local_contrast": -1}, "local_contrast"),
    ],
)
def test_a_described_model_that_cannot_predict(export, section, values, message):
    path = export() / "config.json"
    config = json.loads(path.read_text())
    config[section] = {**config[section], **values} if isinstance(values, dict) else values
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message) as error:
        Predictor.from_pretrained(path.parent)
    assert "config.json" in str(error.value)


def test_commands_that_need_a_run_say_so(export):
    folder = export()
    with pytest.raises(ValueError, match="holds an exported model, which --mode=predict takes"):
        evaluate(folder, console=Console(file=io.StringIO()))
