"""What the tests of Keras's files share: the goldens' networks, models to load them into, and
writers of Keras's kinds of HDF5 file."""

import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import flax
import h5py
import numpy as np

from segjax.models import build
from segjax.weights import hdf5, reading, transfer
from segjax.weights.files import WeightFile
from tests.goldens.draw import draw

GOLDENS = Path(__file__).parents[1] / "goldens"
# The encoder options with which our models have keras.applications' ResNet50.
RESNET50 = {"name": "fcn", "encoder": "resnet50", "stem": "7x7", "strided_1x1": True}

Shapes = Iterable[tuple[str, tuple[int, ...]]]


@functools.cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDENS / f"weights_keras_{name}.npz") as file:
        return dict(file)


def listed(golden, key: str):
    return json.loads(str(golden[key]))


def shapes(name: str) -> list[tuple[str, tuple[int, ...]]]:
    """Every array of a network, in the order of `model.layers`."""
    found = listed(golden("names"), name)["names"] if name in golden("names") else None
    found = found or listed(golden(name), "names")
    return [(array, tuple(shape)) for array, shape in found]


def groups(name: str) -> dict[str, str]:
    if name in golden("names"):
        return listed(golden("names"), name)["groups"]
    return listed(golden(name), "groups")


def keras_file(name: str) -> WeightFile:
    """A network's drawn arrays, as they are read from an old file."""
    arrays = {array: draw(array, shape, channels_last=True) for array, shape in shapes(name)}
    return WeightFile("NAME.h5", "keras", arrays)


def hollow(names) -> WeightFile:
    """Arrays of zeros, which take no memory."""
    arrays = {array: np.broadcast_to(np.float32(0), shape) for array, shape in names}
    return WeightFile("NAME.h5", "keras", arrays)


def model_of(**config):
    """A model of 5 classes and its shapes."""
    model = build(config, 5)
    return model, transfer.abstract_variables(model)


def leaves(variables) -> dict[str, np.ndarray]:
    return flax.traverse_util.flatten_dict(variables, sep="/")


def write_old(
    target,
    shapes: Shapes,
    value: Callable,
    whole: bool = False,
    suffix: str = ":0",
    **attributes,
):
    """A file of Keras 2 on TensorFlow.

    Args:
      target: a path or an open binary file.
      shapes: "LAYER/VARIABLE" and shape, in the order of `model.layers`.
      value: name and shape to an array, or to a number that fills it; a large array takes no room
        then, see `read_fill_values`.
      whole: a whole model's, as `model.save` writes it; else `model.save_weights`'s.
    """
    layers: dict[str, list] = {}
    for name, shape in shapes:
        layers.setdefault(name.split("/")[0], []).append((name, shape))
    with h5py.File(target, "w") as file:
        root = file.create_group("model_weights") if whole else file
        root.attrs.update({"layer_names": [layer.encode() for layer in layers], **attributes})
        for layer, arrays in layers.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [f"{name}{suffix}".encode() for name, _ in arrays]
            for name, shape in arrays:
                _put(group, name + suffix, shape, value(name, shape))


def write_new(
    target, shapes: Shapes, groups: dict[str, str], value: Callable, own_names: bool = True
):
    """A .weights.h5 file of Keras 3.

    Args:
      target, shapes, value: as for `write_old`.
      groups: layer to its group.
      own_names: with the layers' own names, as later versions write them.
    """
    with h5py.File(target, "w") as file:
        for name, shape in shapes:
            layer = name.rsplit("/", 1)[0]
            variables = file.require_group(f"layers/{groups[layer]}/vars")
            if own_names:
                variables.attrs["name"] = layer
            _put(variables, str(len(variables)), shape, value(name, shape))


def _put(group: h5py.Group, name: str, shape: tuple[int, ...], value) -> None:
    if np.ndim(value) or np.prod(shape) < 1000:
        group[name] = np.broadcast_to(np.float32(value), shape)
    else:
        group.create_dataset(name, shape, np.float32, fillvalue=np.float32(value))


def read_fill_values(monkeypatch) -> None:
    """Lets large arrays be read that `write_old` and `write_new` filled with one number, which is
    not in the file: no file of others may have such."""
    monkeypatch.setattr(hdf5, "_check_stored", lambda *_: None)
    monkeypatch.setattr(reading, "SLACK", 2**40)
