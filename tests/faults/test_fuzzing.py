"""The watch of the fuzzing: each thing that a reader must not do is seen."""

import contextlib
import io
import json
import mmap
import os
import pathlib
import socket
import time
import zipfile

import numpy as np
import pytest

from tests.faults.fuzzing import fuzz, json_edits, zip_edits

INTACT = b"12345678"


def damaged(path):
    return path.read_bytes() != INTACT


def raises(error):
    def read(path):
        if damaged(path):
            raise error(path)

    return read


def does(act):
    def read(path):
        if damaged(path):
            act(path)

    return read


BAD = {
    "another error": (raises(lambda path: KeyError(path.name)), KeyError, "f.bin"),
    "unnamed file": (raises(lambda path: ValueError("bad")), AssertionError, "does not name"),
    "two lines": (raises(lambda p: ValueError(f"{p}\nis bad")), AssertionError, "several lines"),
    "escape": (raises(lambda p: ValueError(f"{p}: \x1b[1m")), AssertionError, "be printed"),
    "long": (raises(lambda p: ValueError(f"{p}" * 2000)), AssertionError, "characters"),
    "endless": (does(lambda path: time.sleep(60)), BaseException, "not done after"),
    "memory": (does(lambda path: np.ones(2**26, np.uint8)), AssertionError, "MiB were used"),
    "no memory": (does(lambda path: mmap.mmap(-1, 2**35)), OSError, "allocate"),
    "another file": (
        does(lambda path: pathlib.Path("/etc/hosts").read_text()),
        AssertionError,
        "was opened",
    ),
    "a written file": (
        does(lambda path: path.with_name("other").write_text("x")),
        AssertionError,
        "was opened",
    ),
    "a process": (does(lambda path: os.system("true")), AssertionError, "os.system"),
    "a socket": (
        does(lambda path: socket.socket().connect_ex(("127.0.0.1", 9))),
        AssertionError,
        "socket.connect",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_reader_must_not_do_fails(name, tmp_path):
    read, error, text = BAD[name]
    with pytest.raises(error, match=text):
        fuzz(
            read,
            [INTACT],
            tmp_path / "f.bin",
            record=lambda *_: None,
            examples=5,
            seconds=0.2 if name == "endless" else 5.0,
            mebibytes=32,
        )


def test_an_import_that_data_names_fails(tmp_path, monkeypatch):
    (tmp_path / "payload_of_data.py").write_text("raise ImportError")  # so it stays unknown
    monkeypatch.syspath_prepend(tmp_path)

    def import_it(path):
        with contextlib.suppress(ImportError):
            __import__("payload_of_data")

    with pytest.raises(AssertionError, match="payload_of_data was imported"):
        fuzz(
            does(import_it),
            [INTACT],
            tmp_path / "f.bin",
            record=lambda *_: None,
            examples=3,
        )


def test_a_good_reader_passes_and_inputs_are_counted(tmp_path):
    counted = {}

    def read(path):
        if damaged(path):
            raise ValueError(f"{path} is damaged; copy it again")

    fuzz(read, [INTACT], tmp_path / "f.bin", record=counted.__setitem__, examples=30)
    assert counted["inputs"] >= 30


def test_json_edits_reach_values_and_bytes(tmp_path):
    seed, seen = json.dumps({"a": [1, {"b": "x"}]}).encode(), []

    def read(path):
        seen.append(path.read_bytes())

    fuzz(read, [seed], tmp_path / "f.json", record=lambda *_: None, examples=100, edits=json_edits)
    parsed = []
    for content in seen:
        try:
            parsed.append(json.loads(content))
        except (ValueError, RecursionError):
            parsed.append(...)
    assert ... in parsed
    assert any(p is not ... and p != json.loads(seed) for p in parsed)
    assert any(b"[" * 2000 in content for content in seen)


def test_zip_edits_reach_members(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a", b"first")
        archive.writestr("b", b"second")
    names, contents = set(), set()

    def read(path: pathlib.Path):
        try:
            with zipfile.ZipFile(path) as archive:
                names.update(archive.namelist())
                contents.update(archive.read(entry) for entry in archive.infolist())
        except Exception:
            names.add(None)

    fuzz(
        read,
        [out.getvalue()],
        tmp_path / "f.zip",
        record=lambda *_: None,
        examples=150,
        edits=zip_edits,
    )
    assert {"a", "b", None} < names
    assert len(contents) > 10
