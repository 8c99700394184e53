"""The weights of ONNX files: every type, and files that lie about their sizes."""

import contextlib
import pathlib

import ml_dtypes
import numpy as np
import pytest

from segjax.weights import load
from segjax.weights.files import read
from segjax.weights.onnx_file import keras_names, read_onnx
from segjax.weights.transfer import abstract_variables
from tests.weights.onnx_files import KINDS, field, model, tensor, varint

KERNEL = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)


def test_a_file_that_onnx_wrote():
    """benchmarks/goldens/make_weight_files.py says what is in it."""
    arrays = read_onnx(pathlib.Path(__file__).parents[1] / "goldens" / "onnx_types.onnx")
    assert len(arrays) == 18
    for name, array in arrays.items():
        assert array.dtype.name == name.partition(".")[2]
        np.testing.assert_array_equal(array, np.arange(6).reshape(2, 3))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("kind", [*KINDS, "bfloat16"])
def test_every_type_of_number(tmp_path, kind, raw, packed):
    dtype = np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
    values = np.array([[0, 1, 2], [100, 0, 3]]).astype(dtype)
    if dtype.kind in "if":
        values = -values
    (tmp_path / "x.onnx").write_bytes(model(tensor("a", values, raw, packed)))
    array = read_onnx(tmp_path / "x.onnx")["a"]
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, values)


def test_names_order_scalars_and_empty_arrays(tmp_path):
    arrays = {"b": KERNEL, "a/b:0": np.float32(2), "none": np.zeros((0, 3), np.float32)}
    content = model(*(tensor(n, a, packed=False) for n, a in arrays.items()))
    (tmp_path / "x.onnx").write_bytes(content)
    found = read_onnx(tmp_path / "x.onnx")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == np.shape(array)


HEAD = field(1, 2) + field(2, 1) + field(8, b"a")
BROKEN = {
    "cut short": field(7, field(5, HEAD + field(9, bytes(8))))[:-3],
    "huge length": field(7, field(5, HEAD + varint(9 << 3 | 2) + varint(2**40))),
    "length of 64 bits": varint(7 << 3 | 2) + varint(2**64 - 1),
    "too few bytes": model(HEAD + field(9, bytes(4))),
    "too many bytes": model(HEAD + field(9, bytes(12))),
    "odd bytes": model(HEAD + field(9, bytes(7))),
    "no bytes": model(HEAD),
    "huge shape": model(field(1, 2**40) * 2 + field(2, 1) + field(9, bytes(8))),
    "negative shape": model(field(1, -1) + field(2, 1) + field(9, bytes(8))),
    "many dimensions": model(field(1, 1) * 1000 + field(2, 1) + field(9, bytes(4))),
    "endless number": varint(7 << 3 | 2) + b"\xff" * 20,
    "group": varint(7 << 3 | 3),
    "field 0": b"\x00\x00",
    "number for a graph": field(7, 3) + b"x",
    "number for a tensor": field(7, field(5, 3)),
    "floats of a wrong field": model(HEAD + field(7, b"".join(map(varint, [1, 2])))),
    "text": b"<html>not found</html>",
    "empty": b"",
}


@pytest.mark.parametrize("case", BROKEN)
def test_files_that_lie(tmp_path, case):
    (tmp_path / "x.onnx").write_bytes(BROKEN[case])
    with pytest.raises(ValueError, match=r"weight file .*x\.onnx .*(cut short|is empty)"):
        read_onnx(tmp_path / "x.onnx")


def test_truncated_anywhere_and_changed_bytes(tmp_path):
    content = model(tensor("a", KERNEL), tensor("b", KERNEL, raw=False))
    generator = np.random.default_rng(0)
    changed = [content[:length] for length in range(0, len(content), 3)]
    for _ in range(150):
        other = bytearray(content)
        for place in generator.integers(len(content), size=2):
            other[place] = generator.integers(256)
        changed.append(bytes(other))
    for other in changed:
        (tmp_path / "x.onnx").write_bytes(other)
        with contextlib.suppress(ValueError):
            read_onnx(tmp_path / "x.onnx")


def test_what_is_not_read(tmp_path):
    outside = HEAD + field(13, field(1, b"location") + field(2, b"/etc/passwd")) + field(14, 1)
    (tmp_path / "x.onnx").write_bytes(model(outside))
    with pytest.raises(
        ValueError, match=r"x\.onnx cannot be read: the values of a are in another file .* onnx\."
    ):
        read_onnx(tmp_path / "x.onnx")
    (tmp_path / "x.onnx").write_bytes(model(field(1, 1) + field(2, 14) + field(8, b"complex")))
    with pytest.raises(ValueError, match="complex has the ONNX data type 14"):
        read_onnx(tmp_path / "x.onnx")
    (tmp_path / "x.onnx").write_bytes(model())
    with pytest.raises(ValueError, match="no ONNX file, or one without weights"):
        read_onnx(tmp_path / "x.onnx")


def test_keras_names():
    """tf2onnx of Keras 3 numbers every layer's scope, of Keras 2 none."""
    matrix = np.ones((4, 5), np.float32)
    three = {
        "functional_1/block1_conv1_1/convolution/ReadVariableOp:0": KERNEL,
        "functional_1/block1_conv1_1/Squeeze:0": KERNEL[0, 0, 0],
        "functional_1/dense_1/Cast/ReadVariableOp:0": matrix,
        "functional_1/dense_1_2/Cast/ReadVariableOp:0": matrix,
        "const__96": matrix,
    }
    found = keras_names(three)
    assert list(found) == [
        "block1_conv1/kernel",
        "block1_conv1/bias",
        "dense/kernel",
        "dense_1/kernel",
        "const__96",
    ]
    np.testing.assert_array_equal(found["block1_conv1/kernel"], KERNEL.transpose(2, 3, 1, 0))
    two = {
        "model/block1_conv1/Conv2D/ReadVariableOp:0": KERNEL,
        "model/block1_conv1/BiasAdd/ReadVariableOp:0": KERNEL[0, 0, 0],
        "model/dense_1/MatMul/ReadVariableOp:0": matrix,
    }
    names = ["block1_conv1/kernel", "block1_conv1/bias", "dense_1/kernel"]
    assert list(keras_names(two)) == names
    assert keras_names({"features.0.weight": KERNEL}) == {}


def test_torch_names(tmp_path):
    (tmp_path / "x.onnx").write_bytes(model(tensor("features.0.weight", KERNEL)))
    file = read(tmp_path / "x.onnx")
    assert (file.kind, list(file.arrays)) == ("torch", ["features.0.weight"])


def test_vgg16_of_keras(tmp_path):
    """Its kernels come channels-last, its first one reads RGB in place of BGR."""
    from segjax.models import build

    channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    layers = [(b, i) for b, count in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, count + 1)]
    tensors = []
    for (block, i), c, n in zip(layers, channels, channels[1:], strict=False):
        scope = f"functional_1/block{block}_conv{i}_1"
        shape = (max(1, n // 8), c if c == 3 else c // 8, 3, 3)
        kernel = np.arange(np.prod(shape)).reshape(shape).astype(np.float32)
        tensors.append(tensor(f"{scope}/convolution/ReadVariableOp:0", kernel))
        tensors.append(tensor(f"{scope}/Squeeze:0", np.full(shape[0], block, np.float32)))
        if (block, i) == (1, 1):
            first = kernel
    (tmp_path / "x.onnx").write_bytes(model(*tensors))
    network = build({"name": "segnet", "width": 0.125}, 3)
    variables, report = load(tmp_path / "x.onnx", network, abstract_variables(network))
    assert len(report.loaded) == 26
    assert "keras.applications VGG16" in report.source
    kernel = variables["params"]["encoder"]["conv1_1"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, first.transpose(2, 3, 1, 0)[:, :, ::-1])
    np.testing.assert_allclose(np.multiply(report.mean, 255), [123.68, 116.779, 103.939], rtol=1e-6)
