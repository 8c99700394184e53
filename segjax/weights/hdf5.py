"""Keras's HDF5 weight files, old and new, as arrays named "LAYER/VARIABLE".

Old (Keras 1 and 2, `model.save("x.h5")`, `ModelCheckpoint("x.hdf5")`): one group per layer in the
order of `model.layers`, whose attributes list its arrays by name; files of complete models have
these groups under `model_weights`. New (Keras 3, "x.weights.h5"): groups by class and count
(conv2d, conv2d_1, ...) with numbered arrays and, in later versions, the layer's own name in an
attribute.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportInvalidTypeArguments=false
# pyright: reportOptionalSubscript=false
# (h5py types what a group holds as any of its kinds, all over this file.)

import io
import os
import re
from collections.abc import Iterator

import h5py
import numpy as np

NORM_VARIABLES = ("gamma", "beta", "moving_mean", "moving_variance")
# The names of Keras 1. Its "running_std" is a variance in spite of the name.
_KERAS1 = {
    "W": "kernel",
    "b": "bias",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",
}
# "block1_conv1_W_1:0": the layer's name, the variable's, and a number that keeps names apart.
_KERAS1_NAME = re.compile(r"(.+)_(W|b|gamma|beta|running_mean|running_std)(_\d+)?")
# Groups of a Keras 3 file that hold layers and are none themselves.
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
# Groups of a Keras 3 file that no forward pass in evaluation reads.
_SKIPPED = ("optimizer", "seed_generator", "top_level_model_weights")


def read_hdf5(file: str | os.PathLike | io.IOBase, title: str = "") -> dict[str, np.ndarray]:
    """Reads every layer's arrays; kernels are channels-last, as cross-correlations.

    Args:
      file: a path, or a binary file that can seek.
      title: the file's name in messages; by default its path.

    Returns:
      Arrays by "LAYER/VARIABLE": kernel, bias, gamma, beta, moving_mean, moving_variance, or the
      file's own name of another; "MODEL/LAYER/VARIABLE" for layers of a model inside the model.
      Layers come in the order of `model.layers`; in a Keras 3 file within each class of layer only.

    Raises:
      ValueError: naming the file, if it is cut short or no HDF5, holds no layers with weights, or
        refers to other files.
    """
    title = title or str(file)
    try:
        with h5py.File(file, "r") as root:
            _refuse_other_files(root, title)
            weights = root.get("model_weights", root)
            if _names(weights, "layer_names"):
                arrays = _read_old(weights)
            else:
                arrays = dict(_walk_new(weights))
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(
            f"weight file {title} cannot be read: it is cut short, or no HDF5 file ({error})"
        ) from error
    if not arrays:
        raise ValueError(f"weight file {title} holds no Keras layers with weights")
    return arrays


def _refuse_other_files(group: h5py.Group, title: str) -> None:
    """Raises ValueError for links to other files of the machine: weights need none."""
    for key in group:
        if isinstance(group.get(key, getlink=True), h5py.ExternalLink):
            raise ValueError(f"weight file {title} links to another file at {group.name}/{key}")
        item = group[key]
        if isinstance(item, h5py.Group):
            _refuse_other_files(item, title)
        elif isinstance(item, h5py.Dataset) and item.external:
            raise ValueError(f"weight file {title} keeps {item.name} in another file")


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """The names that an attribute lists; Keras splits long lists (NAME0, NAME1, ...)."""
    parts = [group.attrs[attribute]] if attribute in group.attrs else []
    while f"{attribute}{len(parts)}" in group.attrs:
        parts.append(group.attrs[f"{attribute}{len(parts)}"])
    return [n.decode() if isinstance(n, bytes) else str(n) for part in parts for n in part]


def _read_old(weights: h5py.Group) -> dict[str, np.ndarray]:
    backend = weights.attrs.get("backend", "")
    # Theano's are true convolutions: to cross-correlations their kernels are turned by 180 degrees.
    flipped = (backend.decode() if isinstance(backend, bytes) else backend) == "theano"
    arrays = {}
    for layer in _names(weights, "layer_names"):
        stored = {name: _old_name(name) for name in _names(weights[layer], "weight_names")}
        # Only a model inside the model has arrays of several layers.
        nested = len({inner for inner, _ in stored.values()}) > 1
        for name, (inner, variable) in stored.items():
            array = _array(weights[layer][name])
            if flipped and variable == "kernel" and array.ndim == 4:
                array = array[::-1, ::-1]
            inner = inner.removeprefix(f"{layer}/")
            arrays["/".join([layer, *[inner] * nested, variable])] = array
    return arrays


def _old_name(name: str) -> tuple[str, str]:
    """Layer and variable of "conv2d_1/kernel:0", or of Keras 1's "conv2d_1_W:0"."""
    layer, _, variable = name.split(":")[0].rpartition("/")
    if match := _KERAS1_NAME.fullmatch(variable):
        layer, variable = match[1], match[2]
    # TensorFlow's graphs number a name that occurs twice: "kernel_1".
    known = "|".join(("kernel", "bias", *NORM_VARIABLES))
    variable = re.sub(rf"^({known})_\d+$", r"\1", variable)
    return layer, _KERAS1.get(variable, variable)


def _walk_new(group: h5py.Group, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Every layer's arrays below a group of a Keras 3 file."""
    keys = sorted((k for k in group if k not in ("vars", *_SKIPPED)), key=_natural)
    groups = {key: group[key] for key in keys if isinstance(group[key], h5py.Group)}
    names = {key: _own_name(key, child) for key, child in groups.items()}
    if len(set(names.values())) < len(names):
        names = {key: key for key in groups}
    for key, child in groups.items():
        if key in _CONTAINERS:
            yield from _walk_new(child, path)
            continue
        stored = child.get("vars", {})
        arrays = [_array(stored[k]) for k in sorted(stored, key=_natural)]
        for variable, array in zip(_new_variables(arrays), arrays, strict=True):
            yield f"{path}{names[key]}/{variable}", array
        yield from _walk_new(child, f"{path}{key}/")


def _own_name(key: str, group: h5py.Group) -> str:
    """The layer's own name if the file has it, else the group's."""
    if key in _CONTAINERS or "vars" not in group or not len(group["vars"]):
        return key
    name = group["vars"].attrs.get("name", key)
    return name.decode() if isinstance(name, bytes) else str(name)


def _array(stored: h5py.Dataset) -> np.ndarray:
    array = np.asarray(stored)
    if array.dtype == np.dtype("V2"):
        # HDF5 has no type for bfloat16: these are the upper halves of float32.
        array = (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array


def _new_variables(arrays: list[np.ndarray]) -> list[str]:
    """Names for the numbered arrays of a layer, whose ranks tell its kind."""
    ranks = [array.ndim for array in arrays]
    if ranks == [1] * 4:
        return list(NORM_VARIABLES)
    if ranks and ranks[0] >= 2 and ranks[1:] in ([], [1]):
        return ["kernel", "bias"][: len(ranks)]
    return [str(i) for i in range(len(ranks))]


def _natural(key: str) -> list:
    """Sorts conv2d, conv2d_2, conv2d_10 by their numbers."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", key)]
