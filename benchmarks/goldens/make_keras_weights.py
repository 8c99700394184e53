"""Writes weights_keras_*.npz and keras_tiny.*: what Keras computes, and how it writes files.

Only this script needs Keras; the tests read what it leaves behind.

    pip install keras==3.15.1 torch h5py
    KERAS_BACKEND=torch python -m benchmarks.goldens.make_keras_weights [NAME ...]

Every array of a network is `draw(NAME, shape)` with the name that Keras gives it, "LAYER/VARIABLE",
so a golden holds no weights, but:

  names: JSON, [[name, shape], ...] in the order of `model.layers`.
  groups: JSON, {layer: its group in a .weights.h5 file}, from a file that Keras wrote.
  layers, digests: JSON list of layers, and `draw.digest` of each one's output, [layers, 9].
  outputs: JSON list of layers of which more is kept: every `step_LAYER`-th value, in
    `output_LAYER`.
  trained_*: (one network) the same after a step in training mode; and `statistics`, digests of the
    batch's mean and variance in each normalisation, [layers, 2, 9].

weights_keras_names.npz has `names` and `groups` of more networks, by network. The keras_tiny files
hold one small network in the four ways in which Keras has written files, weights_keras_tiny.npz its
names.
"""

import json
import sys
import tempfile
from pathlib import Path

import h5py
import keras
import numpy as np
from keras import applications
from keras.applications.imagenet_utils import preprocess_input
from keras.src.legacy.saving import legacy_h5_format

from benchmarks.goldens import keras_seed_networks as seeds
from tests.goldens.draw import digest, draw, images

GOLDENS = Path(__file__).parents[2] / "tests" / "goldens"
VALUES = 3000  # kept of an output, about
LAYERS = (keras.layers.Conv2D, keras.layers.BatchNormalization, keras.layers.MaxPooling2D)
MOMENTUM = 0.99


def rgb(height: int, width: int) -> np.ndarray:
    """An RGB image on the scale of 0 to 255."""
    return np.clip(127.5 + 60 * images(1, height, width), 0, 255).astype(np.float32)


def caffe(height: int, width: int) -> np.ndarray:
    return preprocess_input(rgb(height, width).copy(), mode="caffe")


# Network, input, layers of which more is kept.
STAGE_ENDS = ["conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"]
VGG_ENDS = [
    f"block{s}_{end}" for s, n in enumerate((2, 2, 3, 3, 3), 1) for end in (f"conv{n}", "pool")
]
NETWORKS = {
    "vgg16": (lambda: applications.VGG16(False, None), lambda: caffe(64, 96), VGG_ENDS),
    "resnet50": (lambda: applications.ResNet50(False, None), lambda: caffe(65, 95), STAGE_ENDS),
    "notebook_segnet": (
        lambda: seeds.notebook_segnet((240, 480), 7),
        lambda: images(1, 240, 480),
        ["Final_Conv", "Softmax"],
    ),
    "notebook_pspnet": (
        lambda: seeds.notebook_pspnet((240, 480), 7),
        lambda: images(2, 240, 480),
        ["Conv2", "Softmax"],
    ),
    "notebook_deeplabv3": (
        lambda: seeds.notebook_deeplabv3((240, 480), 7),
        lambda: images(1, 240, 480),
        ["output", "Softmax"],
    ),
    "ncsu_segnet": (
        lambda: seeds.ncsu_segnet((208, 304), 101),
        lambda: caffe(208, 304),
        ["conv2d_4"],
    ),
}
TRAINED = "notebook_pspnet"
# Of these the names are kept, not what they compute.
NAMED = {
    "vgg16_top": lambda: applications.VGG16(weights=None),
    "vgg19": lambda: applications.VGG19(False, None),
    "resnet50_top": lambda: applications.ResNet50(weights=None),
    "resnet101": lambda: applications.ResNet101(False, None),
    "resnet152": lambda: applications.ResNet152(False, None),
    "resnet50_v2": lambda: applications.ResNet50V2(False, None),
}


def array_names(model: keras.Model) -> list[tuple[str, keras.Variable]]:
    """Every array of a model, in the order of its layers."""
    named = []
    for layer in model.layers:
        inner = array_names(layer) if isinstance(layer, keras.Model) else []
        own = inner or [(variable.name, variable) for variable in layer.weights]
        named += [(f"{layer.name}/{name}".replace(seeds.DOT, "."), array) for name, array in own]
    return named


def fill(model: keras.Model) -> list[tuple[str, list[int]]]:
    named = array_names(model)
    for name, array in named:
        array.assign(draw(name, tuple(array.shape), channels_last=True))
    return [(name, list(array.shape)) for name, array in named]


def groups(model: keras.Model) -> dict[str, str]:
    """Each layer's group in a .weights.h5 file."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/x.weights.h5"
        model.save_weights(path)
        with h5py.File(path) as file:
            stored = {key: file["layers"][key]["vars"] for key in file["layers"]}
            return {
                variables.attrs["name"].replace(seeds.DOT, "."): key
                for key, variables in stored.items()
                if len(variables)
            }


def kept(name: str, output: np.ndarray) -> dict[str, np.ndarray]:
    # An odd step visits all channels.
    step = output.size // VALUES | 1
    return {f"output_{name}": output.reshape(-1)[::step], f"step_{name}": np.array(step)}


def run(model: keras.Model, wanted: list[keras.layers.Layer], x: np.ndarray, training: bool):
    twin = keras.Model(model.inputs, [layer.output for layer in wanted])
    outputs = twin([x], training=training)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    return [keras.ops.convert_to_numpy(output) for output in outputs]


def make(name: str) -> None:
    keras.backend.clear_session()
    build, make_input, more = NETWORKS[name]
    model, x = build(), make_input()
    names = fill(model)
    layers = [layer for layer in model.layers if isinstance(layer, LAYERS)]
    wanted = layers + [model.get_layer(layer) for layer in more]
    outputs = run(model, wanted, x, training=False)
    golden = {
        "names": json.dumps(names),
        "groups": json.dumps(groups(model)),
        "layers": json.dumps([layer.name.replace(seeds.DOT, ".") for layer in layers]),
        "digests": np.stack([digest(o) for o in outputs[: len(layers)]]),
        "outputs": json.dumps(more),
    }
    for layer, output in zip(more, outputs[len(layers) :], strict=True):
        golden |= kept(layer, output)
        mean, largest = output.mean(), np.abs(output).max()
        print(f"  {layer}: {output.shape}, mean {mean:.3g}, up to {largest:.3g}")
    if name == TRAINED:
        golden |= trained(model, layers, x, more[0])
    path = GOLDENS / f"weights_keras_{name}.npz"
    np.savez_compressed(path, **golden)
    print(f"{path.name}: {len(names)} arrays, {path.stat().st_size} bytes")


def trained(model: keras.Model, layers: list, x: np.ndarray, logits: str) -> dict[str, np.ndarray]:
    """One forward pass in training mode, and the batch statistics that it left behind."""
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    moving = [v for layer in norms for v in (layer.moving_mean, layer.moving_variance)]
    before = [keras.ops.convert_to_numpy(v).copy() for v in moving]
    (output,) = run(model, [model.get_layer(logits)], x, training=True)
    after = [keras.ops.convert_to_numpy(v) for v in moving]
    batch = [
        (new - MOMENTUM * old) / (1 - MOMENTUM) for old, new in zip(before, after, strict=True)
    ]
    found = {f"trained_{key}": value for key, value in kept(logits, output).items()}
    return found | {"statistics": np.stack([digest(b) for b in batch]).reshape(len(norms), 2, -1)}


def make_names() -> None:
    found = {}
    for name, build in NAMED.items():
        keras.backend.clear_session()
        model = build()
        shapes = [(array, list(variable.shape)) for array, variable in array_names(model)]
        found[name] = json.dumps({"names": shapes, "groups": groups(model)})
    path = GOLDENS / "weights_keras_names.npz"
    np.savez_compressed(path, **found)
    print(f"{path.name}: {len(found)} networks, {path.stat().st_size} bytes")


def make_tiny() -> None:
    """A compiled model with a model inside, in Keras 2's two kinds of file and Keras 3's two."""
    keras.backend.clear_session()
    inputs = x = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="first")(x)
    x = keras.layers.BatchNormalization()(x)
    for _ in range(10):  # conv2d_10 is not between conv2d_1 and conv2d_2
        x = keras.layers.Conv2D(2, 1, use_bias=False)(x)
    inner = [keras.layers.Conv2D(2, 1, name="within"), keras.layers.BatchNormalization()]
    x = keras.Sequential(inner, name="inner")(x)
    x = keras.layers.Dense(5, name="top")(keras.layers.Flatten()(keras.layers.Dropout(0.5)(x)))
    model = keras.Model(inputs, x)
    model.compile("sgd", "mse")
    model.train_on_batch(np.zeros((1, 8, 8, 3)), np.zeros((1, 5)))
    names = fill(model)
    np.savez_compressed(GOLDENS / "weights_keras_tiny.npz", names=json.dumps(names))
    model.save(GOLDENS / "keras_tiny_model.h5")
    with h5py.File(GOLDENS / "keras_tiny_weights.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    model.save_weights(GOLDENS / "keras_tiny.weights.h5")
    model.save(GOLDENS / "keras_tiny.keras")
    for path in sorted(GOLDENS.glob("keras_tiny*")):
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    print(f"keras {keras.__version__} on {keras.backend.backend()}")
    others = {"tiny": make_tiny, "names": make_names}
    for chosen in sys.argv[1:] or [*others, *NETWORKS]:
        others[chosen]() if chosen in others else make(chosen)
