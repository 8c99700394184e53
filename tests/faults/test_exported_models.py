"""Exported models, model.segjax, whose parts are not those of an export."""

import hashlib
import json
import pickle
import struct
import zipfile

import jax
import numpy as np
import pytest

import segjax
from segjax.export import load as exported
from tests.export.test_load import parts
from tests.faults.test_weight_files import Evil, refused, with_headers, zipped


def artifact(path, changes, method=zipfile.ZIP_STORED, **metadata):
    """An artifact with other contents, and the hashes of these."""
    contents = parts(**metadata) | changes
    hashes = {n: hashlib.sha256(contents[n]).hexdigest() for n in exported.PARTS}
    contents = {exported.HASHES: json.dumps(hashes).encode()} | contents
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def npz(**arrays) -> bytes:
    return exported.arrays_to_npz(arrays)


def npy_of(header: str) -> bytes:
    return zipped(
        ("scale.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
    )


def calling(target: str) -> bytes:
    """A program that calls what jaxlib has registered under a name."""

    def run(weights, images):
        shape = jax.ShapeDtypeStruct(images.shape[:3], np.uint8)
        return jax.ffi.ffi_call(target, shape)(images)

    images = jax.ShapeDtypeStruct((1, 4, 6, 3), np.uint8)
    weights = {"scale": jax.ShapeDtypeStruct((3,), np.float32)}
    known = [jax.export.DisabledSafetyCheck.custom_call(target)]
    return bytes(
        jax.export.export(jax.jit(run), disabled_checks=known)(weights, images).serialize()
    )


IMAGE = np.zeros((1, 4, 6, 3), np.uint8)
TAMPERED = {
    "weights of objects": {exported.WEIGHTS: npz(scale=np.array(["a"]))},
    "weights that are a pickle": {exported.WEIGHTS: pickle.dumps(Evil())},
    "weights of objects with code": {
        exported.WEIGHTS: npy_of("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n")
    },
    "weights of 37 GB": {
        exported.WEIGHTS: npy_of("{'descr': '<f4', 'fortran_order': False, 'shape': (10**10,)}\n")
    },
    "weights of 37,000 GB": {
        exported.WEIGHTS: npy_of(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000,)}\n"
        )
    },
    "weights that inflate": {
        exported.WEIGHTS: zipped(("scale.npy", bytes(2**26)), method=zipfile.ZIP_DEFLATED)
    },
    "other weights": {exported.WEIGHTS: npz(scale=np.zeros((1, 1), np.float32))},
    "no weights": {exported.WEIGHTS: npz()},
    "garbage for weights": {exported.WEIGHTS: b"garbage"},
    "no labels": {exported.TEST: npz(images=IMAGE)},
    "no images": {exported.TEST: npz(images=IMAGE[:0], labels=IMAGE[:0, ..., 0])},
    "labels of another shape": {exported.TEST: npz(images=IMAGE, labels=IMAGE[:, :3, :, 0])},
    "garbage for a program": {exported.PROGRAM: bytes(range(256)) * 20},
    "no program": {exported.PROGRAM: b""},
    "half a program": {exported.PROGRAM: parts()[exported.PROGRAM][:3000]},
    "a list for metadata": {exported.METADATA: b"[]"},
    "no JSON": {exported.METADATA: b'{"format": '},
    "deep JSON": {exported.METADATA: b"[" * 200_000},
    "few metadata": {exported.METADATA: b'{"format": "segjax export", "format_version": 1}'},
    "a list of hashes": {exported.HASHES: b"[]"},
    "hashes of bytes": {exported.HASHES: b"\xff"},
}


@pytest.mark.fault("a part of model.segjax is another, its hash too", "one line, nothing is run")
@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_parts(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    refused(segjax.load_exported, artifact(tmp_path / "m.segjax", TAMPERED[name]))
    assert not (tmp_path / "RAN").exists()


@pytest.mark.fault("a program in model.segjax calls Python", "it is refused before it is run")
@pytest.mark.parametrize("target", ["xla_ffi_python_cpu_callback", "mhlo.x custom_call @Sharding("])
def test_a_program_that_calls_out(tmp_path, target):
    path = artifact(tmp_path / "m.segjax", {exported.PROGRAM: calling(target)}, multiple=None)
    refused(segjax.load_exported, path, "calls functions outside")


METADATA = [
    {"test_tolerance": {"cpu": 5.0}},
    {"test_tolerance": {"cpu": "x"}},
    {"test_tolerance": {}},
    {"palette": "zzz"},
    {"palette": [[1, 2, 999]]},
    {"size": ["a", None]},
    {"size": [4]},
    {"multiple": "x"},
    {"multiple": 0},
    {"channels": None},
    {"platforms": ["tpu"]},
    {"platforms": 5},
    {"classes": "abc"},
    {"classes": ["\x1b[2J", "b", "c"]},
    {"ids": [1]},
    {"ids": ["a", "b", "c"]},
    {"versions": []},
    {"format_version": [1]},
]


@pytest.mark.fault("an entry of model.segjax's metadata has another type or value", "one line")
@pytest.mark.parametrize("metadata", METADATA, ids=str)
def test_tampered_metadata(tmp_path, metadata):
    refused(segjax.load_exported, artifact(tmp_path / "m.segjax", {}, **metadata))


@pytest.mark.fault("model.segjax is encrypted, inflates, is cut or no file", "one line")
def test_containers_of_models(tmp_path):
    path = artifact(tmp_path / "m.segjax", {}, zipfile.ZIP_DEFLATED)
    segjax.load_exported(path)
    good = path.read_bytes()
    for content in (with_headers(good, 6, 1), with_headers(good, 8, 99), good[:1000], b""):
        path.write_bytes(content)
        refused(segjax.load_exported, path)
    zeros = artifact(path, {exported.WEIGHTS: bytes(2**26)}, zipfile.ZIP_DEFLATED)
    refused(segjax.load_exported, zeros, "would take")
    path.unlink()
    path.mkdir()
    refused(segjax.load_exported, path, "is no file")
