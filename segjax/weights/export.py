"""Writes our variables as safetensors, under torch names where torch has the same network."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save as as_safetensors

from segjax.data.files.atomic import replacing
from segjax.models import model_options
from segjax.models.resnet import VARIANTS
from segjax.weights import torch_networks
from segjax.weights.files import (
    CLASSES_KEY,
    FORMAT_KEY,
    MEAN_KEY,
    MODEL_KEY,
    OWN_FORMAT,
    STD_KEY,
)
from segjax.weights.layout import Layout, Names, array_names, role_of
from segjax.weights.merge import model_name
from segjax.weights.transfer import abstract_variables


def save(
    path: str | pathlib.Path,
    model: nn.Module,
    variables: Mapping[str, Any],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    half: bool = False,
) -> str:
    """Writes a safetensors file that `load` and `from_file` read back.

    FCN and DeepLabV3 with torchvision's layers get torchvision's names, PSPNet its authors'
    (hszhao/semseg), U-Net and DeepLabV3+ with segmentation_models.pytorch's layers that project's:
    kernels [o, i, h, w], for `load_state_dict`. Other models keep our paths
    ("params/encoder/conv1_1/conv/kernel", [h, w, i, o]). The metadata hold the model's config, the
    images' mean and std, and the classes' names.

    Args:
      path: the file; ends in .safetensors.
      model, variables: the network and its variables.
      mean, std: of the RGB images in [0, 1] that the model was trained on.
      classes: names in id order.
      half: whether kernels are float16, which halves the file; readers make them float32 again.
        Biases and statistics of batch normalisation, which may be beyond its range, stay float32.

    Returns:
      A message: the file, its number of arrays and values, and how they are named.

    Raises:
      ValueError: for another suffix, or a kernel beyond the range of float16.
    """
    path = pathlib.Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"output {path} should end in .safetensors")
    flat = flatten_dict(dict(variables), sep="/")
    flat = {leaf: np.asarray(value, np.float32) for leaf, value in flat.items()}
    if half:
        flat = {
            leaf: _half(leaf, value) if value.ndim > 1 else value for leaf, value in flat.items()
        }
    config = model_config(model)
    layout = twin(model)
    if layout is None:
        arrays, kind, title = flat, OWN_FORMAT, "segjax's own names"
    else:
        arrays, kind = torch_arrays(layout.blocks(config, {}), flat), "pt"
        title = f"the names of {layout.title}"
    metadata = {FORMAT_KEY: kind, MODEL_KEY: json.dumps(config)}
    for key, values in ((MEAN_KEY, mean), (STD_KEY, std), (CLASSES_KEY, classes)):
        if values:
            metadata[key] = json.dumps(list(values))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Its own `save_file` makes files that only their owner may read.
    data = as_safetensors({name: np.array(a, order="C") for name, a in arrays.items()}, metadata)
    with replacing(path) as partial:
        partial.write_bytes(data)
    values = sum(array.size for array in flat.values())
    text = f"{path}: {len(arrays)} arrays, {values:,} values, under {title}"
    return text + "".join(f"\n  note: {note}" for note in differences(model, layout))


def _half(leaf: str, value: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        result = value.astype(np.float16)
    if not np.isfinite(result).all():
        raise ValueError(
            f"{leaf} holds {np.abs(value).max():.3g}, beyond the range of float16; leave half out"
        )
    return result


def model_config(model: nn.Module) -> dict[str, Any]:
    """A model's config: its name, class count and every option."""
    options = model_options(model_name(model))
    values = {option: getattr(model, option) for option in options}
    return {"name": model_name(model), "num_classes": model.num_classes, **values}


def twin(model: nn.Module) -> Layout | None:
    """The layout of the torch network that has the model's layers, if there is one."""
    config = model_config(model)
    name, encoder = config["name"], config.get("encoder")
    layout = torch_networks.TWINS.get(name if encoder in VARIANTS else f"{name}/{encoder}")
    if layout is None:
        return None
    leaves = flatten_dict(abstract_variables(model), sep="/")
    blocks = {block for block, _ in map(role_of, leaves)}
    return layout if blocks == layout.blocks(config, {}).keys() else None


def torch_arrays(
    blocks: Mapping[str, Names], flat: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Our leaves as a torch state dict."""
    arrays = {}
    for leaf, value in flat.items():
        block, role = role_of(leaf)
        names = blocks[block]
        if role == "kernel":
            value = value.transpose(3, 2, 0, 1)
        arrays[array_names(names, "torch")[role]] = value
        if role == "mean":
            arrays[f"{names.norm}.num_batches_tracked"] = np.zeros((), np.int64)
    return arrays


def differences(model: nn.Module, layout: Layout | None) -> list[str]:
    """Notes on options with which the torch network of the same layers computes other outputs."""
    if layout is None:
        return []
    config = model_config(model)
    zeros: dict[str, Any] = flatten_dict(
        jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), abstract_variables(model)),
        sep="/",
    )
    theirs = layout.describe(torch_arrays(layout.blocks(config, {}), zeros))
    return [
        f"model.{option} is {config[option]} here and {value} in the torch network as its project "
        "builds it: set that there too"
        for option, value in theirs.items()
        if config[option] != value
    ]
