"""Writes the part of ONNX files that holds weights, without the onnx package."""

import struct

import numpy as np

KINDS = {"f4": 1, "u1": 2, "i1": 3, "u2": 4, "i2": 5, "i4": 6, "i8": 7, "b1": 9, "f2": 10}
KINDS |= {"f8": 11, "u4": 12, "u8": 13}


def varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    """A field with a number, or with bytes and their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name: str, array: np.ndarray, raw: bool = True, packed: bool = True) -> bytes:
    """A TensorProto; dimensions as separate fields or as a packed one."""
    array = np.asarray(array)
    kind = array.dtype.str[1:] if array.dtype.kind != "V" else "bf"
    dims = [field(1, int(n)) for n in array.shape]
    if packed:
        dims = [field(1, b"".join(varint(int(n)) for n in array.shape))]
    head = b"".join(dims) + field(2, KINDS.get(kind, 16)) + field(8, name.encode())
    if raw:
        return head + field(9, array.tobytes())
    return head + _typed(array, kind, packed)


def _typed(array: np.ndarray, kind: str, packed: bool) -> bytes:
    if kind in ("f4", "f8"):
        return field(4 if kind == "f4" else 10, array.tobytes())
    numbers = array.view(np.uint16) if kind in ("f2", "bf") else array
    where = {"i8": 7, "u4": 11, "u8": 11}.get(kind, 5)
    values = [int(n) for n in numbers.ravel()]
    if packed:
        return field(where, b"".join(map(varint, values)))
    return b"".join(field(where, n) for n in values)


def model(*tensors: bytes) -> bytes:
    """A ModelProto; a node and a version stand before the weights, as in real files."""
    graph = field(1, field(4, b"Conv")) + b"".join(field(5, t) for t in tensors)
    fixed = varint(99 << 3 | 5) + struct.pack("<f", 1.0) + varint(98 << 3 | 1) + bytes(8)
    return field(1, 7) + field(2, b"maker") + fixed + field(7, graph) + field(8, field(2, 13))
