"""Writes torch's files without torch: sound ones, and ones that torch would never write."""

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

STORAGES = {
    "<f4": "FloatStorage",
    "<f8": "DoubleStorage",
    "<f2": "HalfStorage",
    "<i8": "LongStorage",
    "<i4": "IntStorage",
    "<i2": "ShortStorage",
    "|i1": "CharStorage",
    "|u1": "ByteStorage",
    "|b1": "BoolStorage",
    np.dtype(ml_dtypes.bfloat16).str: "BFloat16Storage",
}


class Global(NamedTuple):
    """A class or function by its name."""

    module: str
    name: str


class Call(NamedTuple):
    """A call that the pickle asks for."""

    function: Global
    arguments: tuple


class Persistent(NamedTuple):
    """An object that lies outside the pickle."""

    identity: Any


class Storage(NamedTuple):
    """Numbers of their own, or shared by several tensors."""

    key: str
    numbers: np.ndarray


def dumps(value: Any) -> bytes:
    """A pickle, protocol 2, that may name anything."""
    out = io.BytesIO(b"\x80\x02")
    out.seek(2)
    _write(out, value)
    out.write(pickle.STOP)
    return out.getvalue()


def _write(out: io.BytesIO, value: Any) -> None:
    if isinstance(value, Global):
        out.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
    elif isinstance(value, Call):
        _write(out, value.function)
        _write(out, value.arguments)
        out.write(pickle.REDUCE)
    elif isinstance(value, Persistent):
        _write(out, value.identity)
        out.write(pickle.BINPERSID)
    elif type(value) is dict:
        out.write(pickle.EMPTY_DICT + pickle.MARK)
        for pair in value.items():
            for item in pair:
                _write(out, item)
        out.write(pickle.SETITEMS)
    elif type(value) in (tuple, list):
        out.write(pickle.MARK)
        for item in value:
            _write(out, item)
        out.write(pickle.TUPLE if type(value) is tuple else pickle.LIST)
    else:  # numbers and texts, as Python writes them
        out.write(pickle.dumps(value, 2)[2:-1])


def tensor(storage: Storage, offset: int = 0, shape=None, strides=None, size=None) -> Call:
    """A tensor of a storage, by default all of it."""
    shape = storage.numbers.shape if shape is None else shape
    strides = contiguous(shape) if strides is None else strides
    kind = Global("torch", STORAGES[storage.numbers.dtype.newbyteorder("<").str])
    size = storage.numbers.size if size is None else size
    identity = ("storage", kind, storage.key, "cpu", size)
    hooks = Call(Global("collections", "OrderedDict"), ())
    arguments = (Persistent(identity), offset, tuple(shape), tuple(strides), False, hooks)
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), arguments)


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[i + 1 :], dtype=int)) for i in range(len(shape)))


def state_dict(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Call], list[Storage]]:
    """Tensors with a storage each."""
    storages = [Storage(str(i), np.asarray(a)) for i, a in enumerate(arrays.values())]
    return {n: tensor(s) for n, s in zip(arrays, storages, strict=True)}, storages


def write_zip(
    path, stored: Any, storages: list[Storage], byteorder: str | None = "little", **options
) -> None:
    """The form of torch since 1.6."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", stored if type(stored) is bytes else dumps(stored))
        if byteorder is not None:
            archive.writestr("archive/byteorder", byteorder)
        for storage in storages:
            numbers = storage.numbers
            if byteorder == "big":
                numbers = numbers.byteswap()
            archive.writestr(f"archive/data/{storage.key}", numbers.tobytes())
        archive.writestr("archive/version", "3\n")


def write_stream(path, stored: Any, storages: list[Storage]) -> None:
    """The form before torch 1.6."""
    sizes = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    content = b"".join(
        [
            *map(dumps, (0x1950A86A20F9469CFC6C, 1001, sizes)),
            stored if type(stored) is bytes else dumps(stored),
            dumps([storage.key for storage in storages]),
            *(struct.pack("<q", s.numbers.size) + s.numbers.tobytes() for s in storages),
        ]
    )
    path.write_bytes(content)
