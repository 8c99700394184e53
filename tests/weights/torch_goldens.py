"""The networks of tests/goldens/weights_torch_*.npz: state dicts to load, results to compare with.

make_torch_weights.py beside them says what they hold.
"""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from segjax.models import build
from segjax.weights import transfer
from segjax.weights.files import WeightFile
from tests.goldens.draw import draw

GOLDENS = Path(__file__).parents[1] / "goldens"
CLASSES = 5


@functools.cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDENS / f"weights_torch_{name}.npz") as file:
        return dict(file)


def listed(golden, key: str) -> list:
    """What the golden keeps as JSON."""
    return json.loads(str(golden[key]))


# Networks whose outputs are known, and those of which the names are.
COMPUTED = [
    path.stem.removeprefix("weights_torch_")
    for path in sorted(GOLDENS.glob("weights_torch_*.npz"))
    if not path.stem.endswith("_names")
]
NAMED = sorted(golden("names"))


@functools.cache
def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """The network's state dict."""
    names = listed(golden(name), "names") if name in COMPUTED else listed(golden("names"), name)
    return {array: tuple(shape) for array, shape in names}


def unfilled(name: str) -> dict[str, np.ndarray]:
    """The network's arrays, zero, which take no memory."""
    return {array: np.broadcast_to(np.float32(0), shape) for array, shape in shapes(name).items()}


def filled(name: str, prefix: str = "") -> dict[str, np.ndarray]:
    """The network's arrays with the golden's prefix, drawn as they were for the golden."""
    return {
        array: draw(array, shape) if shape else np.zeros((), np.int64)
        for array, shape in shapes(name).items()
        if array.startswith(prefix)
    }


def torch_file(arrays) -> WeightFile:
    return WeightFile("NAME.pth", "torch", arrays)


def network(file: WeightFile, **options) -> tuple[Any, dict]:
    """The model that is the file's network, but for some options, and its shapes."""
    config = transfer.layout_of(file).describe(file.arrays) | options
    model = build(config, config.pop("num_classes"))
    return model, transfer.abstract_variables(model)
