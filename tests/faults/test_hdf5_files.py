"""HDF5 weight files that refer elsewhere, lie about their sizes or hold more than numbers."""

import os
import zlib

import h5py
import numpy as np
import pytest

from segjax.weights import reading
from segjax.weights.files import read
from tests.faults.test_weight_files import KERNEL, PLACE, refused


def hdf5(path, fill, **options):
    with h5py.File(path, "w", **options) as file:
        fill(file)
    return path


def virtual(file):
    layout = h5py.VirtualLayout((3,), "f4")
    layout[...] = h5py.VirtualSource("secret.h5", "x", (3,))
    file.create_group("layers/conv2d/vars").create_virtual_dataset("0", layout)


def external(file):
    file.create_dataset(PLACE, (3,), "f4", external=[("secret.h5", 0, 12)])


def linked(link):
    def fill(file):
        file[PLACE] = link

    return fill


OUTSIDE = {
    "external link": linked(h5py.ExternalLink("secret.h5", "/x")),
    "soft link": linked(h5py.SoftLink("/elsewhere")),
    "soft link to itself": linked(h5py.SoftLink(f"/{PLACE}")),
    "external storage": external,
    "virtual data set": virtual,
}


@pytest.mark.fault("an HDF5 file refers to another file", "it is refused, the other is not opened")
@pytest.mark.parametrize("name", OUTSIDE)
def test_hdf5_reads_no_other_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = hdf5(tmp_path / "x.weights.h5", OUTSIDE[name], libver="latest")
    os.mkfifo(tmp_path / "secret.h5")  # who opens it waits for ever
    refused(read, path, "another file|not followed")


def twice(file):
    file[PLACE] = KERNEL
    file["layers/conv2d/back"] = file["layers"]


def many_paths(file):
    group = file.create_group("layers/g0")
    for i in range(40):  # 2^40 paths without a loop
        inner = file.create_group(f"x{i}")
        group["a"] = group["b"] = inner
        group = inner
    group["vars/0"] = KERNEL


def deep(file):
    file["/".join(["layers", *"a" * 3000, "vars", "0"])] = KERNEL


@pytest.mark.fault("HDF5 groups form a loop, 2^40 paths, or 3,000 levels", "it is refused at once")
@pytest.mark.parametrize("fill", [twice, many_paths, deep])
def test_hdf5_groups_that_never_end(tmp_path, fill):
    refused(read, hdf5(tmp_path / "x.weights.h5", fill), "linked from two places|nested")


def declared(shape, **options):
    return lambda file: file.create_dataset(PLACE, shape, "f4", **options)


def wide_chunk(file):
    """A chunk of 4 GB for 3 values."""
    file.create_dataset(PLACE, (3, 3), "f4", chunks=(2**15, 2**14), maxshape=(None, None))


def swollen(file):
    """A chunk that says 400 bytes and inflates to 64 MB."""
    array = file.create_dataset(PLACE, (10, 10), "f4", chunks=(10, 10), compression="gzip")
    array.id.write_direct_chunk((0, 0), zlib.compress(bytes(2**26)))


@pytest.mark.fault("HDF5 arrays are declared larger than the file", "they are refused unread")
@pytest.mark.parametrize(
    "fill",
    [
        declared((200_000, 200_000), chunks=(1000, 1000)),
        declared((2**20, 2**40), chunks=(1000, 1000)),
        declared((3, 3, 512, 512_000), chunks=(3, 3, 512, 2000), compression="gzip", fillvalue=1),
        declared((1000,), fillvalue=1),
        declared((2000, 2000), chunks=(1, 1)),
        wide_chunk,
        swollen,
    ],
)
def test_hdf5_sizes_are_not_believed(tmp_path, fill):
    refused(read, hdf5(tmp_path / "x.weights.h5", fill), "would take|in the file|deflated")


def old(layers, weights=()):
    def fill(file):
        file.attrs["layer_names"] = layers
        file.create_group("a").attrs["weight_names"] = list(weights)
        file["a/a/kernel:0"] = KERNEL

    return fill


STRANGE = {
    "texts": lambda file: file.create_dataset(PLACE, data=np.array(["a"], object)),
    "compound": lambda file: file.create_dataset(PLACE, data=np.zeros(3, [("a", "f4")])),
    "complex": lambda file: file.create_dataset(PLACE, data=np.zeros(3, "c8")),
    "references": lambda file: file.create_dataset(PLACE, data=file.ref, dtype=h5py.ref_dtype),
    "lists": lambda file: file.create_dataset(PLACE, (3,), h5py.vlen_dtype("f4")),
    "no values": lambda file: file.create_dataset(PLACE, data=h5py.Empty("f4")),
    "a filter of a plugin": lambda file: file.create_dataset(
        PLACE, data=KERNEL, compression="lzf", chunks=KERNEL.shape
    ),
    "a type": linked(np.dtype("f4")),
    "an array for a group": lambda file: file.create_dataset("layers/conv2d/vars", data=KERNEL),
    "a group for an array": lambda file: file.create_group(PLACE),
    "an array of models": lambda file: file.create_dataset("model_weights", data=KERNEL),
    "a layer that is missing": old([b"a", b"b"]),
    "names that are numbers": old(np.arange(3)),
    "a name that is a number": old(5),
    "names that are no UTF-8": old(np.array([b"\xff\xfe"])),
    "names that lead away": old([b"a"], [b"../../b:0"]),
    "a layer twice": old([b"a", b"a", b"./a"], [b"a/kernel:0"]),
    "a name with orders to the terminal": linked(KERNEL) and old([b"a\x1b[2J"]),
}


@pytest.mark.fault("an HDF5 file holds what weights are not", "one line says what")
@pytest.mark.parametrize("name", STRANGE)
def test_hdf5_of_other_things(tmp_path, name):
    refused(read, hdf5(tmp_path / "x.weights.h5", STRANGE[name]))


@pytest.mark.fault("an HDF5 attribute lists one long text many times", "it is refused unread")
def test_hdf5_names_of_one_long_text(tmp_path, monkeypatch):
    def fill(file):
        names = np.array([f"n{i}" for i in range(500)], object)
        file.attrs.create("layer_names", names, dtype=h5py.string_dtype())

    monkeypatch.setattr(reading, "SLACK", 0)
    monkeypatch.setattr(reading, "MAX_RATIO", 10)
    refused(read, hdf5(tmp_path / "x.h5", fill), "no text as Keras has it")


def test_hdf5_with_chunks_and_gzip(tmp_path):
    def fill(file):
        values = np.arange(35.0, dtype="f4").reshape(5, 7)
        options = {"chunks": (2, 3), "compression": "gzip"}
        file.create_dataset(PLACE, data=values, shuffle=True, **options)

    array = read(hdf5(tmp_path / "x.weights.h5", fill)).arrays["conv2d/kernel"]
    np.testing.assert_array_equal(array.ravel(), np.arange(35))
