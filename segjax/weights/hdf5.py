"""Keras's HDF5 weight files, old and new, as arrays named "LAYER/VARIABLE".

Old (Keras 1 and 2, `model.save("x.h5")`, `ModelCheckpoint("x.hdf5")`): one group per layer in the
order of `model.layers`, whose attributes list its arrays by name; files of complete models have
these groups under `model_weights`. New (Keras 3, "x.weights.h5"): groups by class and count
(conv2d, conv2d_1, ...) with numbered arrays and, in later versions, the layer's own name in an
attribute.

What a file may hold is what Keras writes: groups, each linked once, and arrays of numbers whose
values are all in the file, plain, in chunks, or deflated. Anything else is refused before it is
read: links to other files or places, virtual and external arrays, other filters (HDF5 would load
plugins for them), arrays that are declared and not filled. One lie is found late: HDF5 clears
as much memory as a text of an attribute says, at most 4 GiB, before it sees that it is shorter.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportInvalidTypeArguments=false
# pyright: reportOptionalSubscript=false
# (h5py types what a group holds as any of its kinds, all over this file.)

import contextlib
import io
import itertools
import math
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5t, h5z

from segjax.weights.reading import Refused, check_size, largest, reading

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
_MAX_OBJECTS, _MAX_DEPTH = 100_000, 64
_LAYOUTS = (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED)
_FILTERS = ([], [h5z.FILTER_SHUFFLE], [h5z.FILTER_DEFLATE])
_FILTERS += ([h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE],)


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
        something that Keras does not write (see the module), or is too large (see
        `segjax.weights.reading`).
    """
    title = title or str(file)
    with reading(title, "HDF5 file"), contextlib.ExitStack() as stack:
        # Through a file of Python, HDF5 reaches no other.
        source = file if isinstance(file, io.IOBase) else stack.enter_context(open(file, "rb"))
        size = source.seek(0, io.SEEK_END)
        root = stack.enter_context(h5py.File(source, "r"))
        _check_tree(root.id)
        weights = root.get("model_weights", root)
        if not isinstance(weights, h5py.Group):
            raise Refused("its model_weights are no group of layers")
        old = bool(_names(weights, "layer_names", source))
        stored = _find_old(weights, source) if old else dict(_find_new(weights))
        if not stored:
            raise Refused("it holds no Keras layers with weights")
        _check_arrays(stored, size)
        # Theano's are true convolutions: to cross-correlations their kernels are turned by 180
        # degrees.
        turned = old and _texts(weights, "backend") == ["theano"]
        return {name: _array(array, turned, name) for name, array in stored.items()}


def _check_tree(root: h5g.GroupID) -> None:
    """Raises `Refused` unless all that is linked is in this file, and linked from one place."""
    seen, left = {h5o.get_info(root).addr}, [("", root)]
    while left:
        path, group = left.pop()
        if path.count("/") > _MAX_DEPTH:
            raise Refused(f"its groups are nested more than {_MAX_DEPTH} deep")
        for name in group:
            place = f"{path}/{name.decode('utf-8', 'backslashreplace')}"
            if group.links.get_info(name).type != h5l.TYPE_HARD:
                raise Refused(f"{place} links to another file or place, which is not followed")
            item = h5o.open(group, name)
            address = h5o.get_info(item).addr
            if address in seen:
                raise Refused(f"{place} is linked from two places; Keras's files have one for each")
            seen.add(address)
            if len(seen) > _MAX_OBJECTS:
                raise Refused(f"it has more than {_MAX_OBJECTS:,} groups and arrays")
            if isinstance(item, h5g.GroupID):
                left.append((place, item))
            elif not isinstance(item, h5d.DatasetID):
                raise Refused(f"{place} is neither a group nor an array")
            else:
                properties = item.get_create_plist()
                if properties.get_layout() not in _LAYOUTS or properties.get_external_count():
                    raise Refused(f"{place} keeps its values in another file, which is not opened")


def _check_arrays(stored: Mapping[str, h5py.Dataset], size: int) -> None:
    """Raises `Refused` unless these are arrays of numbers that are all in the file.

    Args:
      stored: the arrays that are read, by name.
      size: bytes of the file.
    """
    wanted, seen = 0, set()
    for name, array in stored.items():
        array, kind = array.id, array.id.get_type()
        address = h5o.get_info(array).addr
        if address in seen:
            raise Refused(f"{name} is listed twice")
        seen.add(address)
        bfloat16 = kind.get_class() == h5t.OPAQUE and kind.get_size() == 2
        if kind.get_class() not in (h5t.INTEGER, h5t.FLOAT) and not bfloat16:
            raise Refused(f"{name} holds no integers and no floats; weights do")
        if array.shape is None:
            raise Refused(f"{name} has no values")
        wanted += math.prod(array.shape) * max(kind.get_size(), 4)
        check_size(wanted, size, "its arrays as float32")
        _check_stored(array, name, size)


def _check_stored(array: h5d.DatasetID, name: str, size: int) -> None:
    """Raises `Refused` if values of an array are not in the file, or deflated to more than they
    are: HDF5 inflates a chunk without a bound."""
    properties, itemsize = array.get_create_plist(), array.get_type().get_size()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if filters not in _FILTERS:
        raise Refused(f"{name} is stored with filters {filters} of HDF5; store it without, or gzip")
    if properties.get_layout() != h5d.CHUNKED:
        if array.get_storage_size() < math.prod(array.shape) * itemsize:
            raise Refused(f"{name} of shape {array.shape} has no values in the file")
        return
    chunk = properties.get_chunk()
    length = math.prod(chunk) * itemsize
    check_size(length, size, f"a chunk of {name}")
    places = [range(0, n, step) for n, step in zip(array.shape, chunk, strict=True)]
    if array.get_num_chunks() != math.prod(map(len, places)):
        raise Refused(f"{name} of shape {array.shape} has not all of its values in the file")
    for place in itertools.product(*places) if h5z.FILTER_DEFLATE in filters else ():
        inflater = zlib.decompressobj()
        skipped, deflated = array.read_direct_chunk(place)
        if skipped or len(inflater.decompress(deflated, length + 1)) != length or not inflater.eof:
            raise Refused(f"{name} is not deflated from chunks of the size that it declares")


def _fit(count: int, source: io.IOBase) -> bool:
    """Whether so many texts of variable length are within the bounds, all of which may be one.

    HDF5 copies a text as often as an attribute lists it, and cannot be asked for its length: it is
    at most that of the file, or of the largest of the heaps where such texts are.
    """
    size = source.seek(0, io.SEEK_END)
    if count * size <= largest(size):
        return True
    source.seek(0)
    longest, end = 0, b""
    while block := source.read(2**24):
        # "GCOL", its version, three zeros, its size. The end of a block may cut one.
        for found in re.findall(rb"GCOL.{4}(.{8})", end + block, re.DOTALL):
            longest = max(longest, int.from_bytes(found, "little"))
        end = block[-15:]
    return count * longest <= largest(size)


def _texts(group: h5py.Group, attribute: str, source: io.IOBase | None = None) -> list[str]:
    """The texts of an attribute, which may be one; none where there is no such attribute.

    Args:
      group, attribute: where they are.
      source: the file; None: several texts of variable length are refused.
    """
    name = attribute.encode()
    if not h5a.exists(group.id, name):
        return []
    stored = h5a.open(group.id, name)
    kind, count = stored.get_type(), math.prod(stored.shape)
    if not count:  # of any type
        return []
    known = isinstance(kind, h5t.TypeStringID)
    if known and kind.is_variable_str() and count > 1:
        known = source is not None and _fit(count, source)
    if not known:
        raise Refused(f"attribute {attribute} of {group.name} is no text as Keras has it")
    values = np.asarray(group.attrs[attribute]).reshape(-1)
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()]


def _names(group: h5py.Group, attribute: str, source: io.IOBase) -> list[str]:
    """The names that an attribute lists; Keras splits long lists (NAME0, NAME1, ...)."""
    names = _texts(group, attribute, source)
    for part in itertools.count():
        if not (more := _texts(group, f"{attribute}{part}", source)):
            return names
        names += more
    return names


def _find_old(weights: h5py.Group, source: io.IOBase) -> dict[str, h5py.Dataset]:
    arrays = {}
    for layer in _names(weights, "layer_names", source):
        group = _in(weights, layer, h5py.Group)
        stored = {name: _old_name(name) for name in _names(group, "weight_names", source)}
        # Only a model inside the model has arrays of several layers.
        nested = len({inner for inner, _ in stored.values()}) > 1
        for name, (inner, variable) in stored.items():
            inner = inner.removeprefix(f"{layer}/")
            title = "/".join([layer, *[inner] * nested, variable])
            arrays[title] = _in(group, name, h5py.Dataset)
    return arrays


def _in(group: h5py.Group, name: str, kind: type) -> Any:
    """What a group holds under a name, which is of a kind."""
    item = group.get(name)
    if not isinstance(item, kind):
        what = "group" if kind is h5py.Group else "array"
        raise Refused(f"it lists {name}, and has no such {what}")
    return item


def _old_name(name: str) -> tuple[str, str]:
    """Layer and variable of "conv2d_1/kernel:0", or of Keras 1's "conv2d_1_W:0"."""
    layer, _, variable = name.split(":")[0].rpartition("/")
    if match := _KERAS1_NAME.fullmatch(variable):
        layer, variable = match[1], match[2]
    # TensorFlow's graphs number a name that occurs twice: "kernel_1".
    known = "|".join(("kernel", "bias", *NORM_VARIABLES))
    variable = re.sub(rf"^({known})_\d+$", r"\1", variable)
    return layer, _KERAS1.get(variable, variable)


def _find_new(group: h5py.Group, path: str = "") -> Iterator[tuple[str, h5py.Dataset]]:
    """Every layer's arrays below a group of a Keras 3 file."""
    keys = sorted((k for k in group if k not in ("vars", *_SKIPPED)), key=_natural)
    groups = {key: group[key] for key in keys if isinstance(group[key], h5py.Group)}
    names = {key: _own_name(key, child) for key, child in groups.items()}
    if len(set(names.values())) < len(names):
        names = {key: key for key in groups}
    for key, child in groups.items():
        if key in _CONTAINERS:
            yield from _find_new(child, path)
            continue
        stored = _in(child, "vars", h5py.Group) if child.get("vars") is not None else {}
        arrays = [_in(stored, k, h5py.Dataset) for k in sorted(stored, key=_natural)]
        for variable, array in zip(_new_variables(arrays), arrays, strict=True):
            yield f"{path}{names[key]}/{variable}", array
        yield from _find_new(child, f"{path}{key}/")


def _own_name(key: str, group: h5py.Group) -> str:
    """The layer's own name if the file has it, else the group's."""
    if key in _CONTAINERS or not isinstance(group.get("vars"), h5py.Group) or not group["vars"]:
        return key
    return "".join(_texts(group["vars"], "name")) or key


def _array(stored: h5py.Dataset, turned: bool, name: str) -> np.ndarray:
    array = np.asarray(stored)
    if array.dtype == np.dtype("V2"):
        # HDF5 has no type for bfloat16: these are the upper halves of float32.
        array = (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array[::-1, ::-1] if turned and array.ndim == 4 and name.endswith("/kernel") else array


def _new_variables(arrays: list[h5py.Dataset]) -> list[str]:
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
