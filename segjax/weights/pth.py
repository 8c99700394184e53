"""Reads the tensors of torch's files without torch, and runs nothing that a file names.

A `.pth` is a pickle of names and strides beside raw arrays of numbers: in a zip since torch 1.6,
in one stream before. The pickle is read here instruction by instruction. Tensors, dicts, lists and
plain values are known; every other object becomes an `Unread`, which only keeps its name.
"""

import dataclasses
import math
import mmap
import pathlib
import pickletools
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from segjax.weights.reading import Refused, check_size, member_bytes, members, reading

# Training scripts save the state dict beside their own state, under one of these.
STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
DTYPES = {
    "FloatStorage": np.dtype("f4"),
    "DoubleStorage": np.dtype("f8"),
    "HalfStorage": np.dtype("f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("i8"),
    "IntStorage": np.dtype("i4"),
    "ShortStorage": np.dtype("i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
# Values of the standard library that training scripts leave beside their weights; any other of its
# names is code. Other packages' objects are common in checkpoints (mmengine, numpy, lightning).
PLAIN_VALUES = {
    "_codecs": {"encode"},
    "argparse": {"Namespace"},
    "builtins": {"bytearray", "complex", "dict", "frozenset", "list", "object", "set", "tuple"},
    "collections": {"Counter", "OrderedDict", "defaultdict", "deque"},
    "copyreg": {"_reconstructor"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "uuid": {"UUID"},
}
_PYTHON2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_MAGIC = 0x1950A86A20F9469CFC6C  # opens the stream form
# Of one pickle: a tensor takes about 50, each some microseconds and up to 100 bytes.
_MAX_INSTRUCTIONS = 3_000_000
_MAX_DIMENSIONS = 16
_MAX_NESTED = 4  # trainers keep a state dict in a dict in a dict
# Tied weights are stored once and read several times; more than this is no network.
_MAX_REUSE = 8


class _Cut(Refused):
    def __init__(self, what: str):
        super().__init__(f"it is cut short, or no torch file ({what})")


@dataclasses.dataclass(frozen=True, eq=False)
class Unread:
    """An object that was not built: `name` is its class or function."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class _Storage:
    key: str
    dtype: np.dtype
    size: int  # in elements


@dataclasses.dataclass(frozen=True, eq=False)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pth(path: str | pathlib.Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Reads the state dict of a torch file.

    The state dict is the file's dict, or its entry "state_dict", "model_state_dict" or "model".
    Entries of it that are plain values are left out. Objects beside it (an optimiser's, a logger's)
    are never imported or built.

    Returns:
      Arrays by name, in the file's order and of the file's type; names of the classes outside the
      state dict that were not read.

    Raises:
      ValueError: naming the file, if it is cut short, of another format, holds code or objects
        where tensors belong, or a tensor that its numbers do not fill, or is too large (see
        `segjax.weights.reading`).
    """
    path = pathlib.Path(path)
    with reading(path, "torch file"):
        with path.open("rb") as file:
            start = file.read(4)
        return (_read_zip if start == b"PK\x03\x04" else _read_stream)(path)


def _objects(names: str) -> Refused:
    return Refused(
        f"it holds pickled objects or code ({names}), which are not run; save the state dict "
        "only: torch.save(model.state_dict(), 'NAME.pth')"
    )


# The two containers ------------------------------------------------------------------------------


def _read_zip(path: pathlib.Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = members(archive, size)
        if any("/code/" in name for name in entries):
            raise _objects("a TorchScript archive")
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise Refused("its zip is compressed, which torch's are not; save it again with torch")
        if sum(info.file_size for info in entries.values()) > size:
            raise Refused("its zip's entries are larger than the file")
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise Refused(f"its zip holds {len(pickles)} data.pkl instead of one; no torch file")
        folder = pickles[0].removesuffix("data.pkl")

        def content(name: str) -> bytes:
            if name not in entries:
                raise _Cut(f"{name} is missing")
            return member_bytes(archive, entries[name])

        stored, _ = _run(content(pickles[0]))
        order = content(f"{folder}byteorder") if f"{folder}byteorder" in entries else b"little"
        tensors, unread = _state_dict(stored)
        numbers = lambda storage: content(f"{folder}data/{storage.key}")  # noqa: E731
        return _arrays(tensors, numbers, size, big=order.strip() == b"big"), unread


def _read_stream(path: pathlib.Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    if path.stat().st_size == 0:
        raise _Cut("it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        if stream[:2] != b"\x80\x02":
            tar = stream[257:262] == b"ustar"
            raise Refused(
                "it is a tar, the form of torch before 0.1.10; load and save it once with torch"
                if tar
                else "it is no torch file: neither a zip nor a pickle"
            )
        if _run(stream)[0] != _MAGIC:
            raise Refused("it is a pickle that torch.save did not write")
        if _run(stream)[0] != 1001:
            raise Refused("its torch protocol is not 1001, the only one in use")
        system, _ = _run(stream)
        stored, storages = _run(stream)
        keys, _ = _run(stream)
        if not isinstance(keys, list):
            raise _Cut("the list of its storages is missing")
        tensors, unread = _state_dict(stored)
        spans, position = {}, stream.tell()
        for key in keys:
            if position + 8 > len(stream):
                raise _Cut(f"storage {key} is missing")
            (count,) = struct.unpack("<q", stream[position : position + 8])
            position += 8
            if key not in storages or count != storages[key].size:
                raise _Cut(f"storage {key} is not the one that the pickle names")
            spans[key] = (position, position + count * storages[key].dtype.itemsize)
            position = spans[key][1]
            if position > len(stream):
                raise _Cut(f"storage {key} ends after the file")
        big = isinstance(system, dict) and system.get("little_endian") is False

        def numbers(storage: _Storage) -> bytes:
            if storage.key not in spans:
                raise _Cut(f"storage {storage.key} is missing")
            start, end = spans[storage.key]
            return stream[start:end]

        return _arrays(tensors, numbers, len(stream), big), unread


# From names to numbers ---------------------------------------------------------------------------


def _state_dict(stored: Any) -> tuple[dict[str, _Tensor], tuple[str, ...]]:
    """The tensors of the state dict, and the names of the objects that lie beside it."""
    beside: list[Any] = []
    for _ in range(_MAX_NESTED):
        inside = stored if isinstance(stored, dict) else {}
        key = next((k for k in STATE_DICT_KEYS if isinstance(inside.get(k), dict)), None)
        if key is None:
            break
        beside += [value for name, value in inside.items() if name != key]
        stored = inside[key]
    if isinstance(stored, Unread):
        raise _objects(stored.name)
    if not isinstance(stored, dict):
        raise Refused(f"it holds a {type(stored).__name__}; a state dict was expected")
    for key, value in stored.items():
        name = getattr(value, "name", "")
        if name.startswith("torch._utils._rebuild_"):
            raise Refused(
                f"{key!s} is made by {name}; only dense tensors of usual "
                "types are read: save v.detach().cpu().to_dense().float() of each"
            )
    objects = {f"{key}: {v.name}" for key, v in stored.items() if isinstance(v, Unread)}
    if objects:
        raise _objects(", ".join(sorted(objects)[:4]))
    tensors = {name: t for name, t in stored.items() if isinstance(t, _Tensor)}
    if not all(isinstance(name, str) for name in tensors):
        raise Refused("its dict has keys that are no texts; a state dict has its modules' names")
    return tensors, _unread_names(beside)


def _unread_names(values: list[Any]) -> tuple[str, ...]:
    names, seen, left = set(), set(), list(values)
    while left:
        value = left.pop()
        if id(value) in seen:  # a pickle may refer to itself
            continue
        seen.add(id(value))
        if isinstance(value, Unread):
            names.add(value.name)
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list | tuple):
            left += value
    return tuple(sorted(names))


def _arrays(
    tensors: Mapping[str, _Tensor], numbers: Callable[[_Storage], bytes], stored: int, big: bool
) -> dict[str, np.ndarray]:
    """Fills the tensors from their storages, which are in a file of so many bytes."""
    sizes = {t.storage.key: t.storage.size for t in tensors.values()}
    values = 0
    for name, tensor in tensors.items():
        size, strides = math.prod(tensor.shape), tensor.strides
        last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, strides, strict=True))
        if size and last >= tensor.storage.size:
            raise Refused(
                f"tensor {name} of shape {tensor.shape} and strides {strides} reaches past its "
                f"storage of {tensor.storage.size:,} values"
            )
        values += size
    if values > _MAX_REUSE * sum(sizes.values()):
        raise Refused(f"its tensors have {values:,} values, its file {sum(sizes.values()):,}")
    check_size(4 * values, stored, "its tensors as float32")
    by_storage: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        by_storage.setdefault(tensor.storage.key, []).append(name)
    arrays = {}
    for names in by_storage.values():  # each storage is read once, and let go
        storage = tensors[names[0]].storage
        data = numbers(storage)
        dtype = storage.dtype
        if len(data) != storage.size * dtype.itemsize:
            raise _Cut(f"storage {storage.key} has {len(data):,} bytes for {storage.size:,} values")
        flat = np.frombuffer(data, f"u{dtype.itemsize}")
        if big == (sys.byteorder == "little"):
            flat = flat.byteswap()
        flat = (flat != 0) if dtype.kind == "b" else flat.view(dtype)
        for name in names:
            tensor = tensors[name]
            strides = [s * dtype.itemsize for s in tensor.strides]
            start = flat[tensor.offset :] if math.prod(tensor.shape) else flat[:0]
            view = np.lib.stride_tricks.as_strided(start, tensor.shape, strides, writeable=False)
            arrays[name] = np.array(view, order="C")
    return {name: arrays[name] for name in tensors}


# The pickle --------------------------------------------------------------------------------------

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_KEY_TYPES = (str, int, float, bool, type(None))


def _run(pickle: bytes | mmap.mmap) -> tuple[Any, dict[str, _Storage]]:
    """One pickle's value, and the storages that it names by their keys."""
    machine = _Machine()
    try:
        file: Any = pickle  # an mmap has `read` and `readline`, which is all that is used
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if opcode.name == "STOP":
                return machine.stack.pop(), machine.storages
            if count > _MAX_INSTRUCTIONS:
                raise Refused(f"its pickle has more than {_MAX_INSTRUCTIONS:,} instructions")
            machine.step(opcode, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise _Cut(f"its pickle: {error}") from error
    raise _Cut("its pickle has no end")


class _Machine:
    """Carries out the instructions of a pickle on plain values; calls nothing but its methods."""

    def __init__(self):
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, _Storage] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name, stack = opcode.name, self.stack
        if name in ("PROTO", "FRAME"):
            pass
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append({"D": {}, "L": [], "T": ()}[name[6]])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[5])
            items = tuple(stack[-count:])
            if len(items) != count:
                raise ValueError("a tuple lacks items")
            stack[-count:] = [items]
        elif name in ("TUPLE", "LIST", "DICT"):
            items = self.to_mark()
            if name == "DICT":
                stack.append({})
                self.set_items(items)
            else:
                stack.append(tuple(items) if name == "TUPLE" else items)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self.to_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self.to_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self.to_mark()
            self.set_items(items)
        elif name in ("EMPTY_SET", "FROZENSET", "ADDITEMS"):
            # Sets hash their items; no state dict has one.
            if name != "EMPTY_SET":
                self.to_mark()
            if name != "ADDITEMS":
                stack.append(Unread("builtins.set"))
        elif name == "GLOBAL":
            stack.append(_global(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack.append(_global(stack.pop(-2), stack.pop()))
        elif name in ("REDUCE", "NEWOBJ"):
            stack.append(self.call(stack.pop(-2), stack.pop()))
        elif name == "NEWOBJ_EX":
            stack.pop()
            stack.append(self.call(stack.pop(-2), stack.pop()))
        elif name == "INST":
            self.to_mark()
            stack.append(self.call(_global(*argument.split(" ", 1)), None))
        elif name == "OBJ":
            stack.append(self.call(self.to_mark()[0], None))
        elif name == "BUILD":
            stack.pop()  # attributes; those of a state dict are its modules' versions
        elif name == "BINPERSID":
            stack.append(self.storage(stack.pop()))
        elif opcode.arg is not None and name not in ("EXT1", "EXT2", "EXT4", "PERSID"):
            stack.append(argument)  # a number or a text
        else:
            raise ValueError(f"instruction {name} is not known")

    def to_mark(self) -> list[Any]:
        """Takes what lies above the last mark off the stack, and the mark."""
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def set_items(self, items: list[Any]) -> None:
        """Puts keys and values into the dict on top; other objects stay unread."""
        if len(items) % 2:
            raise ValueError("a dict's key lacks its value")
        if isinstance(self.stack[-1], dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            self.stack[-1].update((_key(k), v) for k, v in pairs)

    def storage(self, identity: Any) -> _Storage:
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise ValueError("an external object is no storage")
        _, kind, key, _, size = identity[:5]
        if len(identity) > 5 and identity[5] is not None:
            raise Refused("its storages are views of others; load and save it once with torch")
        name = kind.name if isinstance(kind, Unread) else str(kind)
        dtype = DTYPES.get(name.removeprefix("torch."))
        if dtype is None or not name.startswith("torch."):
            raise Refused(f"its numbers are of type {name}; known are {', '.join(DTYPES)}")
        if not isinstance(key, str) or type(size) is not int or not 0 <= size < 2**63:
            raise ValueError("a storage's key or size")
        storage = _Storage(key, dtype, size)
        known = self.storages.setdefault(key, storage)
        if (known.dtype, known.size) != (dtype, size):
            raise ValueError(f"storage {key} has two types or sizes")
        return known

    def call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Unread):
            raise ValueError("a call of what is no function")
        name = function.name
        if name == "collections.OrderedDict" and isinstance(arguments, tuple):
            items = arguments[0] if arguments else []
            if all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in items):
                return {_key(k): v for k, v in items}
        if name == "torch.Size" and isinstance(arguments, tuple):
            return arguments[0]
        if name == "torch._utils._rebuild_parameter" and isinstance(arguments[0], _Tensor):
            return arguments[0]
        if name == "torch._utils._rebuild_tensor_v2":
            return _tensor(*arguments[:4])
        return function


def _key(key: Any) -> Any:
    """A dict's key. Nested tuples take exponential time to hash, and name no tensors."""
    return key if isinstance(key, _KEY_TYPES) else Unread(type(key).__name__)


def _global(module: Any, name: Any) -> Unread:
    """The name of a class or function, which nothing imports."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("a global's name is no text")
    module = _PYTHON2.get(module, module)
    full = f"{module}.{name}"
    code = module.split(".")[0] in {*sys.stdlib_module_names, "nt"}
    if code and name not in PLAIN_VALUES.get(module, ()):
        raise _objects(repr(full[:100]))
    return Unread(full)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    numbers = (offset, *shape, *strides)
    if any(type(n) is not int or not 0 <= n < 2**63 for n in numbers):
        raise Refused("a tensor's offset, shape or strides are no numbers that memory can have")
    if len(shape) != len(strides) or len(shape) > _MAX_DIMENSIONS:
        raise Refused(f"a tensor has {len(shape)} dimensions and {len(strides)} strides")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))
