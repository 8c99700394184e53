"""Weight files that are damaged, lie about their sizes or hold more than numbers."""

import functools
import hashlib
import io
import json
import os
import pickle
import pickletools
import struct
import zipfile

import h5py
import numpy as np
import pytest
from safetensors.numpy import save, save_file

from segjax.export.onnx import load as onnx_load
from segjax.weights import from_file, hub
from segjax.weights.files import read
from tests.weights import onnx_files
from tests.weights.torch_files import (
    Call,
    Global,
    Persistent,
    Storage,
    tensor,
    write_stream,
    write_zip,
)

KERNEL = np.ones((3, 3, 3, 8), np.float32)
PLACE = "layers/conv2d/vars/0"


def refused(read_one, path, text: str = ".") -> str:
    """The message of a refusal: one line that names the file."""
    with pytest.raises(ValueError, match=text) as caught:
        read_one(path)
    message = str(caught.value)
    assert path.name in message
    assert message.isprintable()
    assert len(message) < 1500
    return message


# Zip archives ------------------------------------------------------------------------------------


def weights_h5() -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file[PLACE] = KERNEL
    return content.getvalue()


def zipped(*members, method=zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()

    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def with_headers(content: bytes, offset: int, value: int, width: int = 2) -> bytes:
    """A zip of one member with another number in its two headers, `offset` as in the local one."""
    content = bytearray(content)
    for mark, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        place = content.index(mark) + offset + shift
        content[place : place + width] = value.to_bytes(width, "little")
    return bytes(content)


@functools.cache
def archives() -> dict[str, bytes]:
    inside = ("model.weights.h5", weights_h5())
    deflated = zipped(inside, method=zipfile.ZIP_DEFLATED)
    damaged = bytearray(deflated)
    damaged[80:100] = bytes(range(100, 120))
    bomb = zipped((inside[0], bytes(2**26)), method=zipfile.ZIP_DEFLATED)
    return {
        "inflates to 64 MB": bomb,
        "inflates to more than it declares": with_headers(bomb, 22, 1000, 4),
        "less than it declares": with_headers(zipped(inside), 22, 2**24, 4),
        "encrypted": with_headers(deflated, 6, 1),
        "method 99": with_headers(deflated, 8, 99),
        "bzip2": zipped(inside, method=zipfile.ZIP_BZIP2),
        "lzma": zipped(inside, method=zipfile.ZIP_LZMA),
        "damaged": bytes(damaged),
        "cut": deflated[:-40],
        "a folder of that name": zipped(("model.weights.h5/", b"")),
        "two": zipped(inside, ("other.h5", b"")),
        "none": zipped(("config.json", b"{}")),
        "a zip in it": zipped(("model.weights.h5", deflated)),
        "a name with orders to the terminal": zipped(("\x1b[2J.h5", b"x")),
        "no zip": b"x" * 100,
        "empty": b"",
    }


@pytest.mark.fault("a .keras or .whl inflates, is encrypted, damaged or of others", "one line")
@pytest.mark.parametrize("name", archives())
def test_zip_archives(tmp_path, name):
    (tmp_path / "x.keras").write_bytes(archives()[name])
    refused(read, tmp_path / "x.keras")


@pytest.mark.fault("a .keras names code, or its member a path outside", "only numbers are read")
def test_what_a_keras_file_names_is_not_used(tmp_path):
    code = {"class_name": "Lambda", "module": "os", "config": {"function": "system"}}
    members = [("config.json", json.dumps(code)), ("../../outside.h5", weights_h5())]
    (tmp_path / "x.keras").write_bytes(zipped(*members))
    assert list(read(tmp_path / "x.keras").arrays) == ["conv2d/kernel"]
    assert not (tmp_path.parents[1] / "outside.h5").exists()


# Torch -------------------------------------------------------------------------------------------


def opcodes(*names_and_bytes) -> bytes:
    known = {op.name: op.code.encode("latin-1") for op in pickletools.opcodes}
    return b"\x80\x04" + b"".join(known.get(x, x) if type(x) is str else x for x in names_and_bytes)


class Evil:
    def __reduce__(self):
        return (os.system, ("touch RAN",))


STORAGE = Storage("0", KERNEL)
DENSE = tensor(STORAGE)


def rebuilt(name, *arguments):
    return Call(Global("torch._utils", f"_rebuild_{name}"), (DENSE, *arguments))


def identity(kind="FloatStorage", size=KERNEL.size):
    return Persistent(("storage", Global("torch", kind), "0", "cpu", size))


PICKLES = {
    "code": pickle.dumps(Evil()),
    "code in the dict": pickle.dumps({"a": Evil()}, 2),
    "code by STACK_GLOBAL": opcodes(
        "SHORT_BINUNICODE", b"\x05posix", "SHORT_BINUNICODE", b"\x06system", "STACK_GLOBAL",
        "SHORT_BINUNICODE", b"\x01x", "TUPLE1", "REDUCE", "STOP",
    ),
    "code by INST": opcodes("MARK", "INST", b"posix\nsystem\n", "STOP"),
    "an extension": opcodes("EXT1", b"\x01", "STOP"),
    "a persistent name": opcodes("PERSID", b"x\n", "STOP"),
    "sparse": {"a": rebuilt("sparse_tensor", 1)},
    "quantized": {"a": rebuilt("qtensor", 1)},
    "on no device": {"a": rebuilt("meta_tensor_no_storage", 1)},
    "of another device": {"a": rebuilt("device_tensor_from_numpy", 1)},
    "float8": {"a": rebuilt("tensor_v3", 1)},
    "complex": {"a": Call(Global("torch._utils", "_rebuild_tensor_v2"),
                          (identity("ComplexFloatStorage"), 0, (3,), (1,), False, {}))},
    "numbers as names": {1: DENSE},
    "tuples as names": {("a",): DENSE},
    "names with orders to the terminal": {"\x1b[2J": DENSE},
    "a tensor alone": DENSE,
    "a list": [DENSE],
    "nothing": {},
    "no end": opcodes("EMPTY_DICT"),
    "a number of 2 GB": opcodes("LONG4", struct.pack("<i", 2**31 - 1), b"\x01", "STOP"),
    "a negative length": opcodes("LONG4", struct.pack("<i", -1), "STOP"),
    "a memo that is not there": opcodes("BINGET", b"\x07", "STOP"),
    "no mark": opcodes("TUPLE", "STOP"),
    "an empty stack": opcodes("POP", "STOP"),
    "expanded a million times": {"a": tensor(STORAGE, shape=(10**6, 10**6), strides=(0, 0))},
    "a shape beyond memory": {"a": tensor(STORAGE, shape=(2**80,), strides=(0,))},
    "a number of 5,000 digits": {"a": tensor(STORAGE, offset=10**5000, shape=(1,), strides=(1,))},
}  # fmt: skip


@pytest.mark.fault(
    "a .pth holds code, objects, odd tensors or a broken pickle", "one line, not run"
)
@pytest.mark.parametrize("write", [write_zip, write_stream])
@pytest.mark.parametrize("name", PICKLES)
def test_pickles(tmp_path, monkeypatch, name, write):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "x.pth", PICKLES[name], [STORAGE])
    refused(read, tmp_path / "x.pth")
    assert not (tmp_path / "RAN").exists()


@pytest.mark.fault("a pickle nests 100,000 deep, or marks a stack a million times", "it is read")
@pytest.mark.parametrize("inside", [b"\x85" * 100_000, b"(1" * 300_000], ids=["tuples", "marks"])
def test_pickles_that_would_take_a_stack_or_an_hour(tmp_path, inside):
    content = opcodes("EMPTY_DICT", b"N" * 100_000, inside, "STOP")
    write_zip(tmp_path / "x.pth", content, [])
    refused(read, tmp_path / "x.pth", "a tuple|a NoneType")


def test_parameters_and_nested_dicts_of_trainers(tmp_path):
    parameter = Call(Global("torch._utils", "_rebuild_parameter"), (DENSE, True, {}))
    stored = {"model": {"state_dict": {"module.a.weight": parameter}}, "optimizer": {0: DENSE}}
    write_zip(tmp_path / "x.pth", stored, [STORAGE])
    np.testing.assert_array_equal(read(tmp_path / "x.pth").arrays["a.weight"], KERNEL)


# Safetensors and folders -------------------------------------------------------------------------


def safetensors_of(header, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


GOOD = save({"a.weight": KERNEL})
HEADERS = {
    "a header of 2^62 bytes": struct.pack("<Q", 2**62) + GOOD[8:],
    "a header of 4 GB": struct.pack("<Q", 2**32) + GOOD[8:],
    "a header cut short": struct.pack("<Q", 20) + GOOD[8:],
    "no header": struct.pack("<Q", 0),
    "no file": b"",
    "cut": GOOD[:-3],
    "bytes behind": GOOD + b"x",
    "overlapping": safetensors_of({"a": entry(), "b": entry()}, bytes(4)),
    "out of range": safetensors_of({"a": entry(offsets=(0, 400), shape=(100,))}, bytes(4)),
    "backwards": safetensors_of({"a": entry(offsets=(4, 0))}, bytes(4)),
    "a shape that overflows": safetensors_of({"a": entry(shape=(2**40, 2**30))}, bytes(4)),
    "float8": safetensors_of({"a": entry("F8_E4M3", (4,))}, bytes(4)),
    "an unknown type": safetensors_of({"a": entry("F4", (4,))}, bytes(4)),
    "nested metadata": safetensors_of({"__metadata__": {"a": {"b": 1}}}),
    "deep": safetensors_of(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a name with orders to the terminal": save({"\x1b[2J": KERNEL}),
    "a name of 100,000 characters": save({"a" * 100_000: KERNEL}),
}


@pytest.mark.fault("a safetensors header lies or is damaged", "one line")
@pytest.mark.parametrize("name", HEADERS)
def test_safetensors_headers(tmp_path, name):
    (tmp_path / "x.safetensors").write_bytes(HEADERS[name])
    refused(read, tmp_path / "x.safetensors")


LEAF = "params/encoder/conv/kernel"
MODEL = {"name": "segnet_basic", "num_classes": 2}
DESCRIPTIONS = [
    {"segjax_model": "[1, 2]"},
    {"segjax_model": "{nope"},
    {"segjax_model": "[" * 100_000},
    {"segjax_model": json.dumps({"name": "segnet_basic"})},
    {"segjax_model": json.dumps({**MODEL, "name": "../../etc"})},
    {"segjax_model": json.dumps({**MODEL, "name": ["a"]})},
    {"segjax_model": json.dumps({**MODEL, "num_classes": 10**12})},
    {"segjax_model": json.dumps({**MODEL, "num_classes": True})},
    {"segjax_model": json.dumps({**MODEL, "width": "x"})},
    {"segjax_model": json.dumps({**MODEL, "width": 1e9})},
    {"segjax_model": json.dumps({**MODEL, "no_option": 1})},
    {"segjax_model": json.dumps({**MODEL, "head": "os.system"})},
    {"segjax_mean": '"abc"'},
    {"segjax_mean": "3"},
    {"segjax_mean": "[NaN, NaN, NaN]"},
    {"segjax_mean": "[1e999]"},
    {"segjax_std": "[0, 0, 0]"},
    {"segjax_std": "[]"},
    {"segjax_mean": "[1, 2]", "segjax_std": "[1]"},
    {"segjax_classes": "[1, 2]"},
    {"segjax_classes": '["a", "\\u001b[2J"]'},
    {"segjax_classes": '["a"]', "segjax_model": json.dumps(MODEL)},
]


@pytest.mark.fault(
    "our metadata of a weight file have other types or values", "one line says which"
)
@pytest.mark.parametrize("metadata", DESCRIPTIONS, ids=lambda m: str(m)[:60])
def test_descriptions(tmp_path, metadata):
    path = tmp_path / "x.safetensors"
    metadata = {"segjax_model": json.dumps(MODEL), **metadata}
    save_file({LEAF: KERNEL}, path, {"format": "segjax", **metadata})
    refused(from_file, path)


@pytest.mark.fault("the config of an exported folder is damaged", "one line names it")
@pytest.mark.parametrize(
    "change",
    [
        b"",
        b"\xff",
        b"[]",
        {"format_version": {}},
        {"weights_sha256": 5},
        {"model": None},
        {"model": {"name": 5}},
        {"preprocessing": []},
        {"preprocessing": {"mean": "abc", "std": [1]}},
        {"classes": 3},
    ],
    ids=str,
)
def test_folders(tmp_path, change):
    save_file({LEAF: KERNEL}, tmp_path / "model.safetensors")
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    config = {
        "format": "segjax model",
        "format_version": 1,
        "model": MODEL,
        "classes": ["a", "b"],
        "preprocessing": {"mean": [0.5], "std": [1]},
        "weights_sha256": digest,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert hub.open_weights(tmp_path).classes == ("a", "b")
    path.write_bytes(change if type(change) is bytes else json.dumps(config | change).encode())
    refused(lambda _: hub.open_weights(tmp_path), path)


# ONNX --------------------------------------------------------------------------------------------

FIELD = onnx_files.field
HEAD = FIELD(2, 1) + FIELD(8, b"a")
PROTOBUFS = {
    "another file": onnx_files.model(HEAD + FIELD(13, FIELD(1, b"location")) + FIELD(14, 1)),
    "dimensions that lie": onnx_files.model(FIELD(1, 2**40) + HEAD + FIELD(9, bytes(4))),
    "negative dimensions": onnx_files.model(FIELD(1, -1) + HEAD + FIELD(9, bytes(4))),
    "40 dimensions": onnx_files.model(FIELD(1, 1) * 40 + HEAD + FIELD(9, bytes(4))),
    "texts": onnx_files.model(FIELD(1, 1) + FIELD(2, 8) + FIELD(6, b"a")),
    "no type": onnx_files.model(FIELD(1, 1) + FIELD(9, bytes(4))),
    "no values": onnx_files.model(FIELD(1, 4) + HEAD),
    "twice": onnx_files.model(*[onnx_files.tensor("a", KERNEL)] * 2),
    "a name with orders to the terminal": onnx_files.model(onnx_files.tensor("\x1b[2J", KERNEL)),
    "a number without an end": b"\x3a" + b"\xff" * 20,
    "a length beyond the file": b"\x3a\xff\xff\xff\xff\x07",
    "groups": b"\x3b\x3c",
    "graphs in graphs": b"\x3a\x02\x3a\x00" * 100,
    "no graph": FIELD(1, 7),
    "nothing": b"",
}


@pytest.mark.fault(
    "an ONNX file lies, is damaged or refers to another file", "one line, not opened"
)
@pytest.mark.parametrize("name", PROTOBUFS)
def test_onnx(tmp_path, name):
    (tmp_path / "x.onnx").write_bytes(PROTOBUFS[name])
    refused(read, tmp_path / "x.onnx")
    refused(onnx_load.load, tmp_path / "x.onnx")


def inside(*numbers: int) -> bytes:
    """A tensor in another file, within messages in messages."""
    content = HEAD + FIELD(13, FIELD(1, b"location") + FIELD(2, b"/etc/passwd")) + FIELD(14, 1)
    for number in reversed(numbers):
        content = FIELD(number, content)
    return content


@pytest.mark.fault(
    "an ONNX model hides references to other files", "it is refused before it is run"
)
@pytest.mark.parametrize(
    "numbers",
    [
        (7, 5),
        (7, 15, 1),
        (7, 1, 5, 5),
        (7, 1, 5, 6, 5),
        (25, 7, 5, 10),
        (20, 1, 5),
        (7, 1, 5, 22, 2),
    ],
)
def test_onnx_for_a_runtime_opens_no_other_file(tmp_path, numbers):
    ours = FIELD(14, FIELD(1, b"format") + FIELD(2, b'"segjax onnx"'))
    (tmp_path / "x.onnx").write_bytes(ours + inside(*numbers))
    refused(onnx_load.load, tmp_path / "x.onnx", "another file")
