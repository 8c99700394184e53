"""Reads the named weights (initialisers) of an ONNX file without the onnx package.

The file is a protobuf message; only its wire format and the few fields of onnx.proto that lead to
the weights are known here: ModelProto.graph, GraphProto.initializer and TensorProto.
"""

import math
import mmap
import pathlib
import re
from collections.abc import Iterator, Mapping

import ml_dtypes
import numpy as np

from segjax.weights.reading import Refused, reading

# Field numbers of onnx.proto.
_GRAPH, _INITIALIZER = 7, 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
# TensorProto.DataType: the type, and the field of its values where they are not raw bytes. Small
# types lie in int32_data: a number each, or their bits.
_FLOATS, _INT32S, _INT64S, _DOUBLES, _UINT64S = 4, 5, 7, 10, 11
_TYPES = {
    1: (np.dtype("<f4"), _FLOATS),
    2: (np.dtype("u1"), _INT32S),
    3: (np.dtype("i1"), _INT32S),
    4: (np.dtype("<u2"), _INT32S),
    5: (np.dtype("<i2"), _INT32S),
    6: (np.dtype("<i4"), _INT32S),
    7: (np.dtype("<i8"), _INT64S),
    9: (np.dtype("?"), _INT32S),
    10: (np.dtype("<f2"), _INT32S),
    11: (np.dtype("<f8"), _DOUBLES),
    12: (np.dtype("<u4"), _UINT64S),
    13: (np.dtype("<u8"), _UINT64S),
    16: (np.dtype(ml_dtypes.bfloat16), _INT32S),
}
_BITS = (10, 16)  # half and bfloat16 lie in int32_data as their bits
_MAX_DIMENSIONS = 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_MAX_FIELDS = 5_000_000  # of all messages of a file; each takes some microseconds

Span = tuple[int, int]


class _Broken(Refused):
    def __init__(self, what: str):
        super().__init__(f"it is cut short, or no ONNX file ({what})")


def read_onnx(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a model's initialisers.

    Returns:
      Arrays by name, in the file's order and of the file's type; convolutions' kernels are
      [o, i, h, w].

    Raises:
      ValueError: naming the file, if it is cut short or no ONNX, has no weights, keeps them in
        another file, or an array's bytes do not fill its shape.
    """
    path = pathlib.Path(path)
    with reading(path, "ONNX file"):
        if path.stat().st_size == 0:
            raise Refused("it is empty")
        arrays = {}
        with path.open("rb") as file, _File(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for number, value in _fields(data, (0, len(data))):
                if number == _GRAPH:
                    for inner, tensor in _fields(data, _span(value)):
                        if inner == _INITIALIZER:
                            name, array = _tensor(data, _span(tensor))
                            if name in arrays:
                                raise Refused(f"it has two arrays of the name {name[:100]}")
                            arrays[name] = array
        if not arrays:
            raise Refused("it is no ONNX file, or one without weights")
        return arrays


class _File(mmap.mmap):
    """The file's bytes, and how many fields were read in them."""

    fields = 0


def _varint(data: _File, at: int, end: int) -> tuple[int, int]:
    """A number of up to 64 bits and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _Broken("a number ends after its message")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise _Broken("a number has more than 10 bytes")


def _fields(data: _File, span: Span) -> Iterator[tuple[int, int | Span]]:
    """The fields of a message: number and value, which is a span for bytes and fixed sizes."""
    at, end = span
    while at < end:
        data.fields += 1
        if data.fields > _MAX_FIELDS:
            raise Refused(f"it has more than {_MAX_FIELDS:,} fields; weights are few long ones")
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise _Broken("a field has number 0")
        if wire == _VARINT:
            value, at = _varint(data, at, end)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at, end)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise _Broken(f"wire type {wire} is not known")
        if length > end - at:
            raise _Broken(f"field {number} has {length:,} bytes where {end - at:,} are left")
        yield number, (at, at + length)
        at += length


def _span(value: int | Span) -> Span:
    if isinstance(value, int):
        raise _Broken("a number stands where a message should")
    return value


def _numbers(data: _File, value: int | Span) -> np.ndarray:
    """A repeated field of numbers, packed or not: uint64 [n]."""
    if isinstance(value, int):
        return np.array([value], np.uint64)
    start, end = value
    content = np.frombuffer(data[start:end], np.uint8)
    last = np.flatnonzero(content < 0x80)  # the last byte of each number
    if len(content) and not (len(last) and last[-1] == len(content) - 1):
        raise _Broken("a number ends after its message")
    first = np.concatenate([[0], last[:-1] + 1]) if len(last) else last
    numbers = np.zeros(len(last), np.uint64)
    for place in range(10):
        there = first + place <= last
        bits = content[first[there] + place].astype(np.uint64) & np.uint64(0x7F)
        numbers[there] |= bits << np.uint64(7 * place)
    if (last - first >= 10).any():
        raise _Broken("a number has more than 10 bytes")
    return numbers


# The fields that lead from a model to all its tensors, by the messages of onnx.proto.
_INSIDE = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_METADATA = 14


def read_model(path: str | pathlib.Path) -> tuple[bytes, dict[str, str]]:
    """The content of an ONNX file for a runtime, and the texts of its metadata by name.

    Raises:
      ValueError: naming the file, if it is no ONNX, or any tensor in it, of subgraphs and functions
        too, lies in another file, which a runtime would open.
    """
    path, texts = pathlib.Path(path), {}
    with (
        reading(path, "ONNX file"),
        path.open("rb") as file,
        _File(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        left = [("model", (0, len(data)))]
        while left:
            kind, span = left.pop()
            for number, value in _fields(data, span):
                if kind == "tensor" and number in (_EXTERNAL_DATA, _DATA_LOCATION) and value:
                    raise Refused("it keeps tensors in another file, which is not opened")
                if inner := _INSIDE.get(kind, {}).get(number):
                    left.append((inner, _span(value)))
                if kind == "model" and number == _METADATA:
                    pair = {n: data[slice(*_span(v))] for n, v in _fields(data, _span(value))}
                    texts[pair.get(1, b"").decode()] = pair.get(2, b"").decode()
        return data[:], texts


def _tensor(data: _File, span: Span) -> tuple[str, np.ndarray]:
    """A TensorProto's name and array."""
    dims: list[int] = []
    name, kind, location = "", 0, 0
    raw: Span | None = None
    typed: dict[int, list[int | Span]] = {}
    for number, value in _fields(data, span):
        if number == _DIMS:
            dims += _numbers(data, value).tolist()
            if len(dims) > _MAX_DIMENSIONS:
                raise _Broken(f"an array has more than {_MAX_DIMENSIONS} dimensions")
        elif number in (_DATA_TYPE, _DATA_LOCATION):
            if not isinstance(value, int):
                raise _Broken(f"field {number} is no number")
            kind, location = (value, location) if number == _DATA_TYPE else (kind, value)
        elif number == _NAME:
            start, end = _span(value)
            name = data[start:end].decode("utf-8", "replace")
        elif number == _RAW_DATA:
            raw = _span(value)
        elif number == _EXTERNAL_DATA:
            location = 1
        elif number in (_FLOATS, _INT32S, _INT64S, _DOUBLES, _UINT64S):
            typed.setdefault(number, []).append(value)
    if location:
        raise Refused(
            f"the values of {name[:100]} are in another file (external data), which is not opened; "
            "save the model as one file: onnx.save(onnx.load(PATH), 'NAME.onnx')"
        )
    if kind not in _TYPES:
        raise Refused(f"{name[:100]} has the ONNX data type {kind}, which is not read")
    dtype, field = _TYPES[kind]
    size = math.prod(dims)
    if size * dtype.itemsize > span[1] - span[0] and raw is not None:
        raise _Broken(f"{name[:100]} of shape {dims} has more values than its bytes")
    values = _raw(data, raw, dtype) if raw is not None else _typed(data, typed, field, kind)
    if values.size != size:
        raise _Broken(f"{name[:100]} of shape {dims} has {values.size:,} values")
    return name, values.reshape(dims)


def _raw(data: _File, span: Span, dtype: np.dtype) -> np.ndarray:
    start, end = span
    if (end - start) % dtype.itemsize:
        raise _Broken(f"{end - start:,} bytes are no array of {dtype}")
    if dtype.kind == "b":
        return np.frombuffer(data[start:end], "u1") != 0
    return np.frombuffer(data[start:end], dtype)


def _typed(data: _File, typed: Mapping, field: int, kind: int) -> np.ndarray:
    """The values of a tensor that has a field of its type instead of raw bytes."""
    dtype, _ = _TYPES[kind]
    parts = typed.get(field, [])
    if field in (_FLOATS, _DOUBLES):
        spans = [data[start:end] for start, end in map(_span, parts)]
        content = b"".join(spans)
        if len(content) % dtype.itemsize:
            raise _Broken(f"{len(content):,} bytes are no array of {dtype}")
        return np.frombuffer(content, dtype)
    # Negative numbers are written as 64-bit two's complements.
    whole = np.concatenate([_numbers(data, part) for part in parts] or [np.zeros(0, np.uint64)])
    if kind in _BITS:
        return whole.astype(np.uint16).view(dtype)
    return whole != 0 if dtype.kind == "b" else whole.astype(dtype)


# tf2onnx's names of a Keras layer's arrays: "MODEL/LAYER_1/convolution/ReadVariableOp:0" and
# ".../Squeeze:0" (Keras 3), "MODEL/LAYER/Conv2D/ReadVariableOp:0" and ".../BiasAdd/..." (Keras 2).
_KERAS_NAME = re.compile(
    r"(?:.*/)?(?P<layer>[^/]+?)(?P<count>_\d+)?/"
    r"(?:(?P<kernel>(?:convolution|Conv2D|MatMul|Cast)/ReadVariableOp)"
    r"|(?:Squeeze|BiasAdd/ReadVariableOp)):0"
)


def keras_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A Keras network's arrays as Keras's own files have them: "LAYER/kernel", channels-last.

    Returns:
      Empty if tf2onnx did not write the names. Arrays that are no kernel or bias keep their names.
    """
    matches = {name: match for name in arrays if (match := _KERAS_NAME.fullmatch(name))}
    kernels = [match for match in matches.values() if match["kernel"]]
    # Keras 3 numbers the scope of every layer: block1_conv1_1. A layer's own number stays.
    numbered = all(match["count"] for match in kernels)
    numbered = numbered and len({match["layer"] for match in kernels}) == len(kernels)
    renamed = {}
    for name, array in arrays.items() if kernels else ():
        if match := matches.get(name):
            layer = match["layer"] + ("" if numbered else match["count"] or "")
            name = f"{layer}/{'kernel' if match['kernel'] else 'bias'}"
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        renamed[name] = array
    return renamed
