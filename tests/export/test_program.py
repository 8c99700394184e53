"""The exported program against the network it comes from."""

import io
import zipfile

import jax
import numpy as np
import pytest

import segjax
from segjax.commands import export as command
from segjax.console import Console
from segjax.data.splits import Splits
from segjax.export import load as exported
from segjax.export import program as export
from segjax.inference.predictor import Predictor
from segjax.models import MODELS
from segjax.weights import files
from tests.export.thin import SIZE, K, balance, pixelwise_predictor, small_config, small_predictor

slow = pytest.mark.slow


# SegNets and U-Net take any multiple of their stride; the others take the canvas only.
MULTIPLES = {
    "segnet_basic": 16,
    "segnet": 32,
    "notebook_segnet": 32,
    "unet": 32,
    **dict.fromkeys(set(MODELS) - {"segnet_basic", "segnet", "notebook_segnet", "unet"}),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.versions if name == "segnet_basic" else slow)
        for name in sorted(MULTIPLES)
    ],
)
def test_same_labels_as_the_predictor(name, tmp_path):
    size = (32, 64) if MULTIPLES[name] == 32 else SIZE
    predictor = small_predictor(small_config(name, size))
    images = np.random.default_rng(1).integers(0, 256, (3, *size // np.array([8, 8]), 3), np.uint8)
    images = images.repeat(8, 1).repeat(8, 2)
    balance(predictor, images[0])
    path = tmp_path / "m.segjax"
    metadata = export.write(path, predictor, None)
    # The weights are in the file once: the program itself is small.
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo(exported.PROGRAM).file_size < 500_000
    model = segjax.load_exported(path)
    assert model.multiple == metadata["multiple"] == MULTIPLES[name]
    assert metadata["platforms"] == ["cpu", "cuda", "tpu"]
    labels = model(images)
    assert len(np.unique(labels)) > 1
    np.testing.assert_array_equal(labels, [predictor.predict(image) for image in images])
    # Another batch size is another shape of the same program.
    np.testing.assert_array_equal(model(images[1:2]), labels[1:2])


@pytest.mark.versions
def test_free_height_and_width(tmp_path):
    """At another size than the canvas, a program gives the labels of a predictor for that size."""
    config = small_config("segnet_basic", local_contrast=3)
    predictor = pixelwise_predictor(config)
    export.write(tmp_path / "m.segjax", predictor, None)
    there = pixelwise_predictor(small_config("segnet_basic", (64, 16), local_contrast=3))
    image = np.random.default_rng(2).integers(0, 256, (64, 16, 3), np.uint8)
    labels = segjax.load_exported(tmp_path / "m.segjax")(image[None])[0]
    assert len(np.unique(labels)) > 1
    np.testing.assert_array_equal(labels, there.predict(image))


@slow
def test_free_height_and_width_of_a_network(tmp_path):
    predictor = small_predictor(small_config("segnet_basic"))
    export.write(tmp_path / "m.segjax", predictor, None)
    there = Predictor(
        predictor.model,
        predictor.variables,
        predictor.classes,
        small_config("segnet_basic", (64, 32)),
    )
    image = np.random.default_rng(2).integers(0, 256, (64, 32, 3), np.uint8)
    labels = segjax.load_exported(tmp_path / "m.segjax")(image[None])[0]
    assert len(np.unique(labels)) > 1
    np.testing.assert_array_equal(labels, there.predict(image))


def test_a_canvas_of_no_multiple_is_the_only_size():
    config = small_config("segnet_basic", (30, 44), channels=2, mean=(0.5,) * 2, std=(0.2,) * 2)
    labels = export.labels_fn(pixelwise_predictor(config).forward)
    given = {"params/kernel": np.ones((2, K), np.float32)}
    program, multiple = export.make_program(labels, given, (30, 44, 2), ("cpu",))
    assert multiple is None
    shape = jax.export.deserialize(bytearray(program)).out_avals[0].shape
    assert str(shape) == "(b, 30, 44)"


def miou_by_hand(canvas, predict):
    """Class by class, over the labelled pixels of the split; absent classes are left out."""
    samples = [canvas[i] for i in range(len(canvas))]
    found = [predict(sample["image"]) for sample in samples]
    ious = []
    for k in range(K):
        inter = union = 0
        for sample, prediction in zip(samples, found, strict=True):
            counts = sample["label"] != 255
            inter += np.sum((sample["label"] == k) & (prediction == k))
            union += np.sum(counts & ((sample["label"] == k) | (prediction == k)))
        ious += [inter / union] if union else []
    return np.mean(ious)


@pytest.mark.versions
def test_the_command_writes_scores_before_and_after(monkeypatch, tmp_path):
    config = small_config("segnet_basic")
    config.data.label_size = (64, 96)
    predictor = pixelwise_predictor(config)
    monkeypatch.setattr(command.Predictor, "from_workdir", lambda *_, **__: predictor)
    console = Console(file=io.StringIO(), width=100)
    path = command.export(tmp_path, console=console)
    assert path == tmp_path / "model.segjax"
    assert [p.name for p in tmp_path.iterdir()] == ["model.segjax"]
    metadata = segjax.load_exported(path).metadata
    config.data.label_size = (0, 0)
    expected = miou_by_hand(Splits(config["data"], config["seed"]).fitted("val"), predictor.predict)
    scores = metadata["validation"]
    assert scores["miou_before"] == pytest.approx(expected, abs=1e-9)
    assert scores["miou_after"] == pytest.approx(expected, abs=1e-9)
    assert (scores["pixels_differing"], scores["images"], scores["split"]) == (0, 3, "val")
    assert metadata["preprocessing"]["mean"] == [0.4, 0.4, 0.4]
    assert metadata["versions"]["jax"] == jax.__version__
    printed = console.file.getvalue()
    assert "H and W any multiples of 16" in printed
    assert f"{expected:.4f} before, {expected:.4f} after" in printed


def test_the_command_writes_safetensors_too(monkeypatch, tmp_path):
    predictor = small_predictor(small_config("segnet_basic"))
    monkeypatch.setattr(command.Predictor, "from_workdir", lambda *_, **__: predictor)
    console = Console(file=io.StringIO())
    given = command.export(tmp_path, tmp_path / "a.safetensors", console=console)
    default = command.export(tmp_path, format="safetensors", console=console)
    assert default == tmp_path / "model.safetensors"
    (one, config), (other, _) = ((f.arrays, f.config) for f in map(files.read, (given, default)))
    assert config["name"] == "segnet_basic"
    assert one.keys() == other.keys()
    kernel = predictor.variables["params"]["classifier"]["kernel"]
    np.testing.assert_array_equal(one["params/classifier/kernel"], kernel)
    with pytest.raises(ValueError, match="--format=zip; export has stablehlo, onnx, safetensors"):
        command.export(tmp_path, format="zip", console=console)
    with pytest.raises(ValueError, match=r"--output=.*m\.zip; .* ends in \.segjax"):
        command.export(tmp_path, tmp_path / "m.zip", console=console)


def test_a_program_with_other_labels_is_not_written(monkeypatch, tmp_path):
    """The program exchanges the classes a and b, as after a fault in lowering."""
    config = small_config("segnet_basic")
    predictor = pixelwise_predictor(config)
    faithful = export.make_program

    def faulty(labels, *arguments):
        return faithful(lambda w, images: labels(w, images) ^ 1, *arguments)

    monkeypatch.setattr(export, "make_program", faulty)
    with pytest.raises(ValueError, match=r"100.00% of the validation pixels .* is not written"):
        export.write(
            tmp_path / "m.segjax", predictor, Splits(config["data"], config["seed"]).fitted("val")
        )
    # Without a validation split the stored test finds it.
    with pytest.raises(ValueError, match=r"does not compute here"):
        export.write(tmp_path / "m.segjax", predictor, None)
    assert list(tmp_path.iterdir()) == []


def test_tolerance_by_platform_and_dtype():
    """0.1 % on the kind of device that wrote the file, 5 % where products are rounded."""
    coarse = {"cpu": 0.05, "cuda": 0.05, "tpu": 0.05}
    assert export.test_tolerance(export.PLATFORMS, "float32") == {**coarse, "cpu": 0.001}
    assert export.test_tolerance(export.PLATFORMS, "bfloat16") == coarse


def test_the_test_picture_is_varied_and_always_the_same():
    def darkness(images):
        return (images.mean(-1) < 128).astype(np.uint8)

    image = export.test_image(darkness, (30, 50, 3))
    assert image.dtype == np.uint8
    assert (image.min(), image.max()) == (0, 255)
    assert 0.2 < np.mean(darkness(image)) < 0.8
    np.testing.assert_array_equal(image, export.test_image(darkness, (30, 50, 3)))
