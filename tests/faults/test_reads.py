"""Reads that would never end: pipes, devices, servers that do not answer, links in circles."""

import contextlib
import os
import re
import socket
import time

import numpy as np
import pytest

from segjax.data import depth
from segjax.data.checks import check_source
from segjax.data.class_lists import read_class_list
from segjax.data.doctor import diagnose
from segjax.data.errors import DataError
from segjax.data.files import pixels, regular, tiff
from segjax.data.files.folder_lock import FolderLock
from segjax.data.files.images import list_images
from segjax.data.files.json_file import read_json
from segjax.data.files.predictions import PredictedFiles, label_of_ids
from segjax.data.files.walk import walk
from segjax.data.found_classes import classes_of_masks
from segjax.data.parallel import in_threads
from segjax.data.prepared.write import write_prepared
from segjax.data.sampling import class_presence
from segjax.data.sets.folder import open_folder
from segjax.inference.inputs import open_inputs
from segjax.inference.label_maps import LabelMaps, score_label_maps
from segjax.report.run import predicted_samples
from tests.data.drawn import THREE, pairs

KINDS = {
    "a named pipe": os.mkfifo,
    "a link to a named pipe": lambda path: (
        os.mkfifo(path.with_suffix(".pipe")),
        path.symlink_to(path.with_suffix(".pipe")),
    ),
    "a socket": lambda path: bind(path),
    "a device without end": lambda path: path.symlink_to("/dev/zero"),
    "a terminal": lambda path: path.symlink_to("/dev/tty"),
}


def bind(path):
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):
        server.bind(path.name)


@pytest.fixture
def folder(tmp_path):
    return pairs(tmp_path / "data", ["a", "b", "c"])


def source_of(folder):
    return open_folder(folder, "train", THREE)


READERS = {
    "train": lambda folder, found: check_source(source_of(folder), "train"),
    "doctor": lambda folder, found: diagnosed(folder),
    "prepare": lambda folder, found: prepare(folder),
    "predict": lambda folder, found: predicted(found),
    "predict a folder": lambda folder, found: predicted(found.parent),
    "class weights": lambda folder, found: class_presence(source_of(folder)),
}


def diagnosed(folder):
    """The doctor reports every bad file and goes on."""
    findings = diagnose({"train": source_of(folder)}).findings
    raise DataError("; ".join(line for finding in findings for line in finding.found), "")


def predicted(path):
    problems = [item.problem for item in open_inputs(path).read() if item.problem]
    raise DataError("; ".join(problems), "")


def prepare(folder, **options):
    sources = {"train": source_of(folder)}
    return write_prepared(sources, folder.parent / "out", name="toy", classes=THREE, **options)


@pytest.mark.fault(
    "an image or mask is a named pipe, a socket or a device, to train, doctor, predict or prepare",
    "it is named before it is opened",
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_regular_file_is_not_opened(folder, kind, reader):
    side = "masks" if reader == "class weights" else "images"
    found = folder / side / "train" / "a.png"
    found.unlink()
    KINDS[kind](found)
    with pytest.raises((DataError, ValueError), match=re.escape(str(found))):
        READERS[reader](folder, found)


@pytest.mark.fault(
    "an image or mask is a named pipe, a socket or a device, to train, doctor, predict or prepare",
    "it is named before it is opened",
)
@pytest.mark.parametrize("suffix", [".png", ".npy", ".tif"])
def test_a_mask_in_any_format(folder, suffix):
    mask = folder / "masks" / "train" / "a.png"
    mask.unlink()
    os.mkfifo(mask.with_suffix(suffix))
    with pytest.raises(DataError, match=rf"a\{suffix} is a named pipe, not a file"):
        check_source(source_of(folder), "train")


@pytest.mark.fault(
    "a class list or list file is a named pipe or a device", "it is named before it is opened"
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["classes.txt", "classes.csv", "classes.json", "classes.yaml"])
def test_a_class_list_that_is_no_regular_file(tmp_path, kind, name):
    KINDS[kind](tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}"):
        read_class_list(tmp_path / name)


@pytest.fixture
def dead(folder, monkeypatch):
    """A file of a server that does not answer: a pipe that nobody refuses. Its path."""
    for module in (pixels, tiff):
        monkeypatch.setattr(module, "regular", lambda path: path)
    monkeypatch.setattr(depth, "read_header", lambda path: depth.Header(mode=hang(path)))
    path = folder / "images" / "train" / "b.png"
    path.unlink()
    os.mkfifo(path)
    yield path
    with contextlib.suppress(OSError):  # ends the threads
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def hang(path):
    with open(path, "rb") as file:
        return str(file.read())


def scored(folder, **options):
    source = source_of(folder)
    maps = PredictedFiles([folder / "images" / "train" / f"{n}.png" for n in "bbb"], "*", [])
    return score_label_maps(source, LabelMaps(maps, THREE, label_of_ids(THREE, "raw")), **options)


WAITS = {
    "train": lambda folder, limit: check_source(source_of(folder), "train", **limit),
    "prepare": lambda folder, limit: prepare(folder, **limit),
    "score": lambda folder, limit: scored(folder, **limit),
    "predict": lambda folder, limit: list(open_inputs(folder / "images", **limit).read()),
    "value range": lambda folder, limit: depth.value_range(source_of(folder), **limit),
    "orientation": lambda folder, limit: depth.exif_evidence(source_of(folder), **limit),
    "pictures": lambda folder, limit: predicted_samples(
        lambda *_: np.zeros((4, 6), np.uint8), source_of(folder), range(3), **limit
    ),
}


@pytest.mark.fault(
    "a file server does not answer, to train, predict, score, prepare or the report",
    "an error names the file after data.timeout_s",
)
@pytest.mark.parametrize("command", WAITS)
def test_a_server_that_does_not_answer(folder, dead, command):
    began = time.monotonic()
    message = rf"no data for 0\.2 s \(data\.timeout_s\) while reading .*{re.escape(str(dead))}"
    with pytest.raises(TimeoutError, match=message):
        WAITS[command](folder, {"timeout_s": 0.2})
    assert time.monotonic() - began < 10


@pytest.mark.fault(
    "a file server does not answer, to train, predict, score, prepare or the report",
    "an error names the file after data.timeout_s",
)
@pytest.mark.parametrize("what", ["masks of init", "a class list", "a JSON file", "the doctor"])
def test_a_server_that_does_not_answer_where_no_option_says(folder, dead, monkeypatch, what):
    """The limit is then the default of data.timeout_s."""
    monkeypatch.setattr(regular, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(regular, "_read_bytes", lambda path, *_: hang(path))
    monkeypatch.setitem(in_threads.__kwdefaults__, "timeout_s", 0.2)
    calls = {
        "masks of init": lambda: classes_of_masks([dead]),
        "a class list": lambda: read_class_list(dead),
        "a JSON file": lambda: read_json(dead, "a config", "use another"),
        "the doctor": lambda: check_source(source_of(folder), "train", timeout_s=0.2),
    }
    with pytest.raises(TimeoutError, match=re.escape(str(dead))):
        calls[what]()


LINKS = {
    "a link to its folder": lambda d: (d / "loop").symlink_to(d),
    "two links to their folder": lambda d: [(d / f"loop{k}").symlink_to(d) for k in range(2)],
    "a link to the folder above": lambda d: (d / "up").symlink_to(d.parent),
    "a link to itself": lambda d: (d / "self").symlink_to(d / "self"),
    "links to each other": lambda d: [(d / a).symlink_to(d / b) for a, b in ("xy", "yx")],
    "a second name for a folder": lambda d: (d / "0first").symlink_to(d / "deep"),
}


@pytest.mark.fault("links to folders form a circle", "each file comes once, by its own name")
@pytest.mark.parametrize("links", LINKS)
def test_links_between_folders(tmp_path, links):
    top = tmp_path / "images"
    for name in ("a.png", "deep/b.png", "deep/deeper/c.png"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"")
    expected = sorted(top.rglob("*.png"))
    LINKS[links](top)
    assert sorted(path for path in walk(top) if path.suffix) == expected
    assert list_images(top) == expected


THINGS = {
    "a dangling link": lambda path, other: path.symlink_to(path.with_name("nothing")),
    "a link to itself": lambda path, other: path.symlink_to(path),
    "a link to a file": lambda path, other: path.symlink_to(other),
    "a link to a folder": lambda path, other: path.symlink_to(other.parent),
    "a link to a pipe": lambda path, other: (
        os.mkfifo(other.with_name("pipe")),
        path.symlink_to(other.with_name("pipe")),
    ),
    "a hard link": lambda path, other: os.link(other, path),
    "a pipe": lambda path, other: os.mkfifo(path),
    "a folder": lambda path, other: path.mkdir(),
    "a device": lambda path, other: path.symlink_to("/dev/zero"),
    "a file of the user's": lambda path, other: path.write_text("my notes"),
    "a file of bytes": lambda path, other: path.write_bytes(b"\xff\0" * 1000),
}


@pytest.mark.fault(
    "WORKDIR/lock is a link, a pipe, a folder or a file of the user's",
    "refused in one line; no file is written",
)
@pytest.mark.parametrize("thing", THINGS)
def test_nothing_but_a_lock_is_taken_for_one(tmp_path, thing):
    other, workdir = tmp_path / "other" / "file", tmp_path / "run"
    other.parent.mkdir()
    workdir.mkdir()
    other.write_text("process 1: mine")
    THINGS[thing](workdir / "lock", other)
    before = sorted(tmp_path.rglob("*"))
    mine = (workdir / "lock").read_bytes() if thing.startswith("a file") else b""
    with pytest.raises(ValueError, match=r"run/lock is .*move it away, or use another --workdir"):
        FolderLock(workdir, "workdir", "use another --workdir").__enter__()
    assert sorted(tmp_path.rglob("*")) == before
    assert other.read_text() == "process 1: mine"
    if mine:
        assert (workdir / "lock").read_bytes() == mine
