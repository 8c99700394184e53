"""Fuzzing of the readers of weight files and exported models."""

import hashlib
import io
import itertools
import json
import pathlib
import pickletools
import struct
import types
import zipfile

import numpy as np
import pytest
from hypothesis import strategies as st
from safetensors.numpy import save

from segjax.export import load as exported
from segjax.export.onnx import load as onnx_load
from segjax.weights.files import read
from segjax.weights.folder import MARK, read_folder
from tests.export.test_load import parts
from tests.faults.fuzzing import byte_edits, fuzz, json_edits, short_and_long, zip_edits
from tests.weights import onnx_files
from tests.weights.torch_files import state_dict, write_stream, write_zip

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
KERNEL = np.ones((3, 3, 3, 8), np.float32)


def golden(name: str) -> bytes:
    return (GOLDENS / name).read_bytes()


def pickle_edits(seed: bytes) -> st.SearchStrategy[bytes]:
    """A pickle with instructions left out, doubled, moved or of other kinds; or other bytes."""
    places = [*(place for _, _, place in pickletools.genops(seed)), len(seed)]
    steps = [seed[a:b] for a, b in itertools.pairwise(places)]
    others = st.sampled_from(
        [
            *(b"N", b"}", b"]", b")", b"(", b"0", b"1", b"2", b"R", b"b", b"u", b"t", b"\x81"),
            *(b"\x85", b"\x93", b"Q", b"h\x00", b"q\x00", b"\x82\x01", b"cos\nsystem\n"),
            *(b"Pname\n", b"\x94", b"\x8a\x01\xff", b"\x8b\xff\xff\xff\x7f"),
            *(b"J\xff\xff\xff\xff", b"X\x01\x00\x00\x00a"),
        ]
    )
    index = st.integers(0, len(steps) - 1)
    edit = st.tuples(st.sampled_from(["drop", "double", "swap", "put"]), index, index, others)

    def edited(drawn) -> bytes:
        left = list(steps)
        for kind, at, other, what in drawn:
            at, other = at % len(left), other % len(left)
            if kind == "drop" and len(left) > 1:
                del left[at]
            elif kind == "double":
                left[at] *= 2
            elif kind == "swap":
                left[at], left[other] = left[other], left[at]
            else:
                left[at] = what
        return b"".join(left)

    return st.lists(edit, min_size=1, max_size=4).map(edited) | byte_edits(seed)


def torch_zip_edits(seed: bytes) -> st.SearchStrategy[bytes]:
    pickled = lambda name, c: pickle_edits(c) if name.endswith(".pkl") else byte_edits(c)  # noqa: E731
    return zip_edits(seed, pickled)


def safetensors_edits(seed: bytes) -> st.SearchStrategy[bytes]:
    """Another header, of its own length."""
    (length,) = struct.unpack("<Q", seed[:8])
    headers = json_edits(seed[8 : 8 + length])
    changed = headers.map(lambda text: struct.pack("<Q", len(text)) + text + seed[8 + length :])
    return changed | byte_edits(seed)


def artifact_edits(seed: bytes) -> st.SearchStrategy[bytes]:
    """Other metadata, weights or test with the hashes that fit them; or other bytes.

    The bytes of the program are left alone: MLIR reads them, which crashes on some.
    """
    with zipfile.ZipFile(io.BytesIO(seed)) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}

    def hashed(name: str, content: bytes) -> bytes:
        changed = contents | {name: content}
        hashes = {n: hashlib.sha256(changed[n]).hexdigest() for n in exported.PARTS}
        if name != exported.HASHES:
            changed[exported.HASHES] = json.dumps(hashes).encode()
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for each, data in changed.items():
                archive.writestr(each, data)
        return out.getvalue()

    def forms(name: str) -> st.SearchStrategy[bytes]:
        edits = json_edits if name.endswith(".json") else zip_edits
        return edits(contents[name]).map(lambda content: hashed(name, content))

    names = (exported.METADATA, exported.HASHES, exported.WEIGHTS, exported.TEST)
    return st.sampled_from(names).flatmap(forms) | byte_edits(seed)


def read_artifact(path: pathlib.Path) -> None:
    """All of `load_exported` but the compiling of the program."""
    compiled = exported.from_program
    exported.from_program = lambda metadata, program, weights: exported.ExportedModel(
        metadata, lambda images: np.argmax(images * weights["scale"], -1).astype(np.uint8)
    )
    try:
        exported.load_exported(path)
    finally:
        exported.from_program = compiled


def written(write, tmp_path: pathlib.Path) -> bytes:
    arrays = {"module.a.weight": KERNEL, "module.a.bias": np.ones(8, np.float16)}
    write(tmp_path / "seed", *state_dict(arrays))
    return (tmp_path / "seed").read_bytes()


def own_onnx() -> bytes:
    entries = {"format": onnx_load.FORMAT, **json.loads(parts()[exported.METADATA])}
    entries["format"] = onnx_load.FORMAT
    texts = (
        onnx_files.field(1, k.encode()) + onnx_files.field(2, json.dumps(v).encode())
        for k, v in entries.items()
    )
    return b"".join(onnx_files.field(14, text) for text in texts) + golden("onnx_types.onnx")


def read_own_onnx(path: pathlib.Path) -> None:
    """All of `onnx.load.load` but onnxruntime's part."""
    session = onnx_load.Session
    names = types.SimpleNamespace(inputs={"images"}, outputs={"labels"})
    onnx_load.Session = lambda content: names
    try:
        onnx_load.load(path)
    finally:
        onnx_load.Session = session


def artifact(tmp_path: pathlib.Path) -> bytes:
    exported.write_parts(tmp_path / "seed", parts())
    return (tmp_path / "seed").read_bytes()


OWN = {
    "format": "segjax",
    "segjax_model": json.dumps({"name": "segnet_basic", "num_classes": 2, "width": 0.5}),
    "segjax_mean": "[0.5]",
    "segjax_std": "[0.5]",
    "segjax_classes": '["a", "b"]',
}
# Name of the file, its intact forms, edits, reader.
KINDS = {
    "hdf5": (
        "x.h5",
        lambda _: [golden("keras_tiny_weights.h5"), golden("keras_tiny.weights.h5")],
        byte_edits,
        read,
    ),
    "keras": ("x.keras", lambda _: [golden("keras_tiny.keras")], zip_edits, read),
    "safetensors": (
        "x.safetensors",
        lambda _: [
            save({"a.weight": KERNEL}),
            save({"params/encoder/conv/kernel": KERNEL}, OWN),
        ],
        safetensors_edits,
        read,
    ),
    "torch zip": ("x.pth", lambda p: [written(write_zip, p)], torch_zip_edits, read),
    "torch stream": ("x.pth", lambda p: [written(write_stream, p)], byte_edits, read),
    "onnx": ("x.onnx", lambda _: [golden("onnx_types.onnx")], byte_edits, read),
    "onnx to run": ("x.onnx", lambda _: [own_onnx()], byte_edits, read_own_onnx),
    "model.segjax": ("x.segjax", lambda p: [artifact(p)], artifact_edits, read_artifact),
}


# HDF5 clears as much memory as a text of variable length says, at most 4 GiB, before it looks: it
# takes fewer inputs, and more of both, to find what is worse.
LATE = {"hdf5": 300, "keras": 800}


@pytest.mark.fault("parts of a weight file or an exported model are others", "one line, or read")
@pytest.mark.parametrize("kind", KINDS)
@short_and_long(50, 2_000)
def test_drawn_damage(kind, tmp_path, record_property, examples):
    name, seeds, edits, read_one = KINDS[kind]
    late = examples > 100 and kind in LATE
    fuzz(
        read_one,
        seeds(tmp_path),
        tmp_path / name,
        record=record_property,
        examples=LATE[kind] if late else examples,
        edits=edits,
        seconds=60 if late else 5,
        mebibytes=4500 if late else 256,
    )


@pytest.mark.fault("the config of an exported folder has other values", "one line, or read")
def test_drawn_folders(tmp_path, record_property):
    weights = save({"params/encoder/conv/kernel": KERNEL})
    (tmp_path / "model.safetensors").write_bytes(weights)
    config = {
        **MARK,
        "model": {"name": "segnet_basic", "num_classes": 2, "head": "sigmoid", "threshold": [0.5]},
        "classes": ["a", "b"],
        "preprocessing": {"mean": [0.5], "std": [0.5]},
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    fuzz(
        lambda path: read_folder(path.parent),
        [json.dumps(config).encode()],
        tmp_path / "config.json",
        record=record_property,
        examples=50,
        edits=json_edits,
        beside=[tmp_path / "model.safetensors"],
    )
