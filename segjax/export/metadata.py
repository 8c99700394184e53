"""What an exported model says of itself, whatever the format."""

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from segjax.data.classes import ClassTable
from segjax.data.files.values import option_text
from segjax.data.image_options import ranges_of
from segjax.inference.predictor import Predictor


def describe(
    predictor: Predictor, multiple: int | None, fixed_size_because: str | None
) -> dict[str, Any]:
    """The entries that all formats share, for JSON.

    Args:
      predictor: of the run.
      multiple: of which H and W are multiples; None: they are the canvas's.
      fixed_size_because: why they are.
    """
    config, data = predictor.config, predictor.config["data"]
    (height, width), channels = data["image_size"], data["channels"]
    sides = [f"{multiple}*h", f"{multiple}*w"] if multiple else [height, width]
    return {
        "model": _plain(config["model"]),
        "dtype": config["dtype"],
        "classes": list(predictor.classes.names),
        "palette": _colors(predictor.classes),
        "ids": list(predictor.classes.raw_ids),
        "head": predictor.head.name,
        "channels": channels,
        "value_range": [list(pair) for pair in ranges_of(data)],
        "size": [height, width],
        "multiple": multiple,
        "fixed_size_because": fixed_size_because,
        "input": {"dtype": "uint8", "shape": ["b", *sides, channels]},
        "output": {"dtype": "uint8", "shape": ["b", *sides], "values": _values(predictor)},
        "preprocessing": {
            "values": _value_range(data),
            "outside": f"resize to fit {height}x{width} with the same shape (antialiased "
            "bilinear), top left; the rest is the image's mean colour",
            "inside": "x / 255, then (x - mean) / std per channel, or local contrast "
            "normalisation in windows of this side where it is not 0",
            "mean": list(predictor.normalization.mean),
            "std": list(predictor.normalization.std),
            "local_contrast": predictor.normalization.local_contrast,
        },
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")},
    }


def _value_range(data: Mapping[str, Any]) -> str:
    """How values of image files become 0..255, in words."""
    ranges = ranges_of(data)
    if not ranges:
        return "0 to the highest value of the file's type (255, 65535; 1 of floats) become 0 to 255"
    each = " channel by channel" * (len(ranges) > 1)
    return f"{option_text(ranges)}{each} become 0 and 255, linear between, clipped and rounded"


def _colors(classes: ClassTable) -> list[list[int]]:
    """The colour of each value that the program may give."""
    return classes.colors[: len(classes.values)].tolist()


def _values(predictor: Predictor) -> str:
    """What the program's values mean, in words."""
    rule = predictor.head.rule
    return f"bits: bit k is set where class k is present; {rule}" if rule else "class ids"


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in options.items()}
