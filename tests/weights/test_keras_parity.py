"""What Keras's networks compute, and ours with their weights, layer by layer.

The references are tests/goldens/weights_keras_*.npz, which make_keras_weights.py wrote there.
"""

import flax
import jax
import numpy as np
import pytest

from segjax.models import build
from segjax.models.resnet import ResNet
from segjax.models.vgg import VGGEncoder
from segjax.weights import departures, layer_outputs, load, transfer
from tests.goldens.draw import digest, images
from tests.weights.keras_files import (
    RESNET50,
    golden,
    hollow,
    keras_file,
    leaves,
    listed,
    model_of,
    shapes,
)

TOLERANCE = 1e-4  # of the largest value of what is compared
CAFFE_MEAN = np.array([123.68, 116.779, 103.939]) / 255
slow = pytest.mark.slow


def rgb(height: int, width: int) -> np.ndarray:
    """The image that make_keras_weights.py preprocessed, in [0, 1]."""
    return np.clip(127.5 + 60 * images(1, height, width), 0, 255).astype(np.float32) / 255


def normalised(image: np.ndarray) -> np.ndarray:
    return ((image - CAFFE_MEAN) * 255).astype(np.float32)


def agree(name: str, outputs: dict, report: str, part: str = "norm") -> None:
    """The digest of every layer is that of the golden, in the order of computation.

    Where maps are unpooled, rounding decides which of two equal cells an index names, and a decoder
    sees the value elsewhere: by 1e-4 to 2e-4 of a digest, depending on how XLA compiled.
    """
    file = hollow(shapes(name))
    blocks = transfer.layout_of(file).blocks({}, file.arrays)
    stored = golden(name)
    theirs = dict(zip(listed(stored, "layers"), stored["digests"], strict=True))
    layer = {b: n.norm if part == "norm" else n.conv for b, n in blocks.items()}
    of_block = {f"{block}/{part}": layer[block] for block in blocks if layer[block]}
    ours = {path: digest(outputs[path]) for path in outputs if path in of_block}
    theirs = {path: theirs[of_block[path]] for path in ours}
    assert len(ours) == len(of_block)
    decoders = [p for p in ours if name == "notebook_segnet" and p.startswith("decoder")]
    for paths, tolerance in ((ours.keys() - decoders, TOLERANCE), (decoders, 10 * TOLERANCE)):
        some = {path: ours[path] for path in ours if path in paths}
        found = departures(some, theirs, tolerance) if some else None
        assert not found or found.first is None, f"{report}\n{found}"


def kept(name: str, layer: str, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ours and theirs at the places that the golden keeps, over their largest value."""
    theirs = golden(name)[f"output_{layer}"]
    ours = np.asarray(output).reshape(-1)[:: int(golden(name)[f"step_{layer}"])]
    return ours / np.abs(theirs).max(), theirs / np.abs(theirs).max()


def agree_where_kept(name: str, layer: str, output: np.ndarray) -> None:
    ours, theirs = kept(name, layer, output)
    error = np.abs(ours - theirs).max()
    print(f"{name} {layer}: {error:.1e} of its range")
    assert error <= TOLERANCE


def exactly_normalised(variables):
    """Our encoder with VGG16's weights and a normalisation that does nothing at all."""
    flat = leaves(variables)
    neutral = {"scale": 1, "bias": 0, "mean": 0, "var": 1 - 1e-5}
    for leaf, value in flat.items():
        if "/norm/" in leaf:
            flat[leaf] = np.full(value.shape, neutral[leaf.rsplit("/", 1)[1]], np.float32)
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def encoder_of(variables) -> dict:
    return {kind: tree["encoder"] for kind, tree in variables.items()}


def test_vgg16_features():
    found, _ = load(keras_file("vgg16"), *model_of(name="segnet"))
    variables = encoder_of(exactly_normalised(found))
    outputs = layer_outputs(VGGEncoder(), variables, normalised(rgb(64, 96)))
    for s, count in enumerate((2, 2, 3, 3, 3), 1):
        features = outputs[f"conv{s}_{count}"]
        n, h, w, c = features.shape
        pooled = features.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
        for layer, ours in ((f"block{s}_conv{count}", features), (f"block{s}_pool", pooled)):
            agree_where_kept("vgg16", layer, ours)


@slow
def test_resnet50_features():
    found, report = load(keras_file("resnet50"), *model_of(**RESNET50))
    model = ResNet("resnet50", strided_1x1=True)
    images = normalised(rgb(65, 95))
    outputs = layer_outputs(model, encoder_of(found), images)
    agree("resnet50", {f"encoder/{path}": out for path, out in outputs.items()}, str(report))
    for s, count in enumerate((3, 4, 6, 3), 2):
        layer, block = f"conv{s}_block{count}_out", f"stage{s}_block{count}"
        agree_where_kept("resnet50", layer, outputs[block])


def own_network(name: str):
    """The model that is a file's network, with its drawn weights."""
    file = keras_file(name)
    config = transfer.layout_of(file).describe(file.arrays)
    model = build(config, config.pop("num_classes"))
    return model, *load(file, model, transfer.abstract_variables(model))


def test_ncsu_segnet_logits():
    model, variables, report = own_network("ncsu_segnet")
    outputs = layer_outputs(model, variables, normalised(rgb(208, 304)))
    agree("ncsu_segnet", outputs, str(report))
    # Half the image's size, as the document's network ends.
    agree_where_kept("ncsu_segnet", "conv2d_4", outputs["classifier"])


@slow
@pytest.mark.parametrize(
    ("name", "count", "classifier"),
    [
        ("notebook_segnet", 1, "Final_Conv"),
        ("notebook_pspnet", 2, "Conv2"),
        ("notebook_deeplabv3", 1, "output"),
    ],
)
def test_notebook_logits(name, count, classifier):
    model, variables, report = own_network(name)
    outputs = layer_outputs(model, variables, images(count, 240, 480))
    agree(name, outputs, str(report))
    logits = np.maximum(outputs["classifier"], 0)
    if name == "notebook_segnet":
        ours, theirs = kept(name, classifier, logits)
        # Rounding decides which of two equal cells an index names, and its value goes there: a
        # change of the image by 1e-6 moves as many logits by as much.
        error = np.abs(ours - theirs)
        assert np.mean(error > TOLERANCE) < 0.005
        assert error.max() < 0.05
    else:
        agree_where_kept(name, classifier, logits)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    ours = probabilities.reshape(-1)[:: int(golden(name)["step_Softmax"])]
    error = np.abs(ours - golden(name)["output_Softmax"]).max()
    print(f"{name} probabilities: {error:.1e}")
    assert error <= 1e-4


@slow
def test_notebook_training():
    """Logits in training mode, and what the batch leaves in the moving statistics."""
    name, momentum = "notebook_pspnet", 0.99
    model, variables, _ = own_network(name)

    def step(variables, x):
        return model.apply(variables, x, train=True, mutable=["batch_stats"])

    outputs, changed = jax.jit(step)(variables, images(2, 240, 480))
    theirs = golden(name)["trained_output_Conv2"]
    ours = np.asarray(outputs["logits"]).reshape(-1)[:: int(golden(name)["trained_step_Conv2"])]
    # Through 58 layers of batch statistics, float32 is 2e-4 of the range from float64, in Keras as
    # here.
    assert np.abs(ours - theirs).max() <= 1e-3 * np.abs(theirs).max()

    file = hollow(shapes(name))
    block_of = {n.norm: b for b, n in transfer.layout_of(file).blocks({}, file.arrays).items()}
    norms = [layer for layer in listed(golden(name), "layers") if layer in block_of]
    before, after = leaves(variables["batch_stats"]), leaves(changed["batch_stats"])
    assert len(norms) == len(golden(name)["statistics"]) == len(before) // 2
    for layer, expected in zip(norms, golden(name)["statistics"], strict=True):
        for role, reference in zip(("mean", "var"), expected, strict=True):
            leaf = f"{block_of[layer]}/norm/{role}"
            batch = (np.asarray(after[leaf]) - momentum * before[leaf]) / (1 - momentum)
            error = np.abs(digest(batch) - reference).max()
            assert error <= TOLERANCE * reference[-1], f"{leaf}: {error}"
