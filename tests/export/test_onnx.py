"""ONNX files of runs: onnxruntime computes what the network does."""

import io
import json
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import segjax
from segjax.commands import export as command
from segjax.console import Console
from segjax.data.splits import Splits
from segjax.export.onnx import load
from segjax.export.onnx import write as export
from segjax.export.onnx.convert import convert
from segjax.models import MODELS
from segjax.training.forward import logits_fn
from tests.export.thin import SIZE, K, balance, pixelwise_predictor, small_config, small_predictor

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

slow = pytest.mark.slow
FAST = ("deeplabv3",)  # SegNet-Basic: the test in bfloat16
NETWORKS = [
    *((name, {}) for name in MODELS),
    ("deeplabv3", {"cascade": 3, "with_aspp": False, "output_stride": 64}),
    ("pspnet", {"pooling": "max", "reduce": False}),
]


def blocks(n, size=SIZE):
    image = np.random.default_rng(1).integers(0, 256, (n, *(s // 8 + 1 for s in size), 3), np.uint8)
    return image.repeat(8, 1).repeat(8, 2)[:, : size[0], : size[1]]


@pytest.mark.parametrize(
    "name, options",
    [
        (name, options) if name in FAST and not options else pytest.param(name, options, marks=slow)
        for name, options in NETWORKS
    ],
)
def test_same_logits_as_the_network(name, options, tmp_path):
    """To 1e-4 of the largest logit, for one image and two, of odd sizes too where it is slow."""
    size = SIZE if name in FAST and not options else (45, 67)
    config = small_config(name, size)
    config.model.update(options)
    predictor = small_predictor(config)
    images = blocks(2, size)
    balance(predictor, images[0])
    path = tmp_path / "m.onnx"
    metadata = export.write(path, predictor, None)
    assert metadata["logits"]["differ_by"] < 1e-4
    assert metadata["logits"]["pixels_differing"] == 0
    session = load.Session(path)
    expected = np.asarray(jax.jit(predictor.forward)(predictor.variables, images))
    for n in (1, 2):
        found = session.run(images[:n], "logits")
        assert found.shape == (n, *size, K)
        np.testing.assert_allclose(found, expected[:n], atol=1e-4 * max(1, abs(expected).max()))
        labels = segjax.load_exported(path)(images[:n])
        np.testing.assert_array_equal(labels, found.argmax(-1))
    assert len(np.unique(labels)) > 1


def ops_of(path):
    return [node.op_type for node in onnx.load(path).graph.node]


def test_a_network_in_bfloat16_is_written_in_float32(tmp_path):
    """And the graph is plain: channels first from the first convolution to the last, with a
    transposition before and one after."""
    predictor = small_predictor(small_config("segnet_basic"), "bfloat16")
    metadata = export.write(tmp_path / "m.onnx", predictor, None)
    assert metadata["dtype"] == "float32"
    model = predictor.model.clone(dtype=jnp.float32)
    images = blocks(1)
    expected = jax.jit(logits_fn(model, predictor.normalization))(predictor.variables, images)
    found = load.Session(tmp_path / "m.onnx").run(images, "logits")
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(1, np.abs(expected).max()))
    ops = ops_of(tmp_path / "m.onnx")
    # Four blocks with normalisation and ReLU, four without ReLU, a classifier; nothing is left of
    # the normalisations, and pooled values are maxima.
    assert ops.count("Transpose") == 2
    assert (ops.count("Conv"), ops.count("Relu"), ops.count("Max")) == (9, 4, 12)
    assert not {"Mul", "Sqrt", "Expand"} & set(ops)


def test_the_command_writes_scores_and_metadata(monkeypatch, tmp_path):
    predictor = pixelwise_predictor(small_config("segnet_basic", local_contrast=3))
    monkeypatch.setattr(command.Predictor, "from_workdir", lambda *_, **__: predictor)
    console = Console(file=io.StringIO(), width=100)
    path = command.export(tmp_path, format="onnx", console=console)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    printed = console.file.getvalue()
    assert "takes images, uint8 [n, 32, 48, 3], n free" in printed
    assert "logits, float32 [n, 32, 48, 7]" in printed
    assert "of the largest, and by more than 1e-04 at 0.00% of the pixels" in printed.replace(
        "\n", " "
    )
    model = segjax.load_exported(path)
    scores = model.metadata["validation"]
    assert scores["miou_after"] == pytest.approx(scores["miou_before"], abs=1e-3)
    assert scores["images"] == 3
    assert f"{scores['miou_after']:.4f} after" in printed
    assert model.classes == tuple("abcdefg")
    assert model.size == SIZE
    assert model.colorize([[0]]).tolist() == [[list(model.palette[0])]]
    np.testing.assert_array_equal(model(blocks(2)), [predictor.predict(i) for i in blocks(2)])
    with pytest.raises(ValueError, match=r"takes uint8 images \[n, 32, 48, 3\], found uint8 \[1, "):
        model(np.zeros((1, 40, 48, 3), np.uint8))
    # What other readers find in the file.
    proto = onnx.load(path)
    assert {(o.domain, o.version) for o in proto.opset_import} == {("", 17)}
    assert [v.name for v in (*proto.graph.input, *proto.graph.output)] == [
        "images",
        "labels",
        "logits",
    ]
    texts = {p.key: json.loads(p.value) for p in proto.metadata_props}
    assert texts["preprocessing"]["mean"] == [0.4, 0.4, 0.4]
    assert texts["versions"]["jax"] == jax.__version__
    assert texts["model"]["name"] == "segnet_basic"
    # The suffix says the format, and a second file replaces the first.
    assert command.export(tmp_path, path, console=console) == path
    assert ops_of(path) == [node.op_type for node in proto.graph.node]


class Sorted(nn.Module):
    """A stand-in for a network with an operation that has no rule."""

    @nn.compact
    def __call__(self, images, *, train):
        return {"logits": jnp.sort(jnp.concatenate([images, images, images[..., :1]], -1))}


def test_a_network_without_a_form_is_refused_by_name(tmp_path):
    predictor = pixelwise_predictor(small_config("segnet_basic"))
    predictor.model, predictor.variables = Sorted(), {}
    message = (
        r"model.name='segnet_basic' with model.features=2 cannot be written as ONNX: sort in "
        "Sorted: it has no form in ONNX here; use --format=stablehlo"
    )
    with pytest.raises(ValueError, match=message):
        export.write(tmp_path / "m.onnx", predictor, None)
    with pytest.raises(ValueError, match=r"--output=.*m\.segjax; an ONNX file's name ends in"):
        export.write(tmp_path / "m.segjax", predictor, None)
    assert not list(tmp_path.iterdir())


def test_other_numbers_are_not_written(monkeypatch, tmp_path):
    """Logits by those of the test picture, decisions by those of the validation split."""
    predictor = pixelwise_predictor(small_config("segnet_basic"))
    (tmp_path / "m.onnx").write_text("as it was")
    run = load.Session.run

    def faulty(factor, other):
        def run_faulty(session, images, output):
            result = run(session, images, output)
            return result * factor if output == "logits" else result ^ other

        return run_faulty

    monkeypatch.setattr(load.Session, "run", faulty(np.float32(1.001), 0))
    with pytest.raises(ValueError, match=r"differ by 1\.0e-03 of the largest .* than 1e-04 at"):
        export.write(tmp_path / "m.onnx", predictor, None)
    monkeypatch.setattr(load.Session, "run", faulty(np.float32(1), 1))
    config = predictor.config
    with pytest.raises(ValueError, match=r"100.00% of the validation pixels .* is not written"):
        export.write(
            tmp_path / "m.onnx", predictor, Splits(config["data"], config["seed"]).fitted("val")
        )
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("m.onnx", "as it was")]


def test_without_the_packages(monkeypatch, tmp_path):
    predictor = pixelwise_predictor(small_config("segnet_basic"))
    monkeypatch.setattr(command.Predictor, "from_workdir", lambda *_, **__: predictor)
    console = Console(file=io.StringIO(), width=100)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    path = command.export(tmp_path, format="onnx", console=console)
    assert "not checked, as onnxruntime is not installed" in console.file.getvalue()
    with pytest.raises(ValueError, match=r"model.onnx needs onnxruntime.*pip install onnxruntime"):
        segjax.load_exported(path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"--format=onnx needs .*pip install 'segjax\[onnx\]'"):
        export.write(tmp_path / "other.onnx", predictor, None)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "m.onnx"
    with pytest.raises(ValueError, match=r"m\.onnx does not exist; write it with --mode=export"):
        segjax.load_exported(path)
    predictor = pixelwise_predictor(small_config("segnet_basic"))
    export.write(path, predictor, None)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=r"m\.onnx cannot be read: it is cut short, or no ONNX file"
    ):
        segjax.load_exported(path)
    graph = convert(lambda x: {"y": x + 1}, (None, 3), np.float32)
    path.write_bytes(export.serialize(graph, {"format": '"other"'}, "0"))
    with pytest.raises(ValueError, match=r"m\.onnx is no ONNX file of segjax: its metadata name"):
        segjax.load_exported(path)
