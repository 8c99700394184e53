"""Checkpoints that are damaged, cut, unreadable or of another shape."""

import collections
import contextlib
import json
import math
import os
import pathlib
import random
import shutil
import types
import warnings

import jax
import numpy as np
import pytest

from segjax.data.prefetch import PrefetchIterator
from segjax.training import checksums
from segjax.training.checkpoint import CheckpointStore
from segjax.training.loop import _Run
from segjax.training.run_state import RunState
from segjax.training.stored_checkpoint import read_host
from tests.faults.fuzzing import fuzz, json_edits, short_and_long
from tests.training.test_checkpoint import assert_equal, names, save, state, variables

# What threads print of a failed read.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")


@contextlib.contextmanager
def one_warning(*parts):
    """Exactly one, of one line, with these parts."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield
    assert len(warned) == 1, [str(w.message) for w in warned]
    text = str(warned[0].message)
    assert "\n" not in text, text
    assert len(text) < 700, text
    assert all(part in text for part in parts), text


def without_checksums(workdir):
    """As earlier versions wrote it."""
    for path in workdir.rglob(checksums.NAME):
        path.unlink()


def names_of(workdir, part):
    return sorted(path.name for path in (workdir / "checkpoints" / part).iterdir())


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.fault(
    "one bit of any file of a checkpoint is flipped",
    "the checksums tell, whichever bit it is",
)
def test_each_flipped_bit_is_found(workdir, record_property):
    """Of the small files all bits, of the others some."""
    folder, bits, tried = workdir / "checkpoints" / "latest" / "6", random.Random(0), 0
    covered = sorted(path for path in folder.rglob("*") if path.is_file())
    covered = [path for path in covered if path.name not in checksums._UNCOVERED]
    assert len(covered) >= 6
    for path in [*covered, folder / checksums.NAME]:
        size = path.stat().st_size * 8
        for bit in range(size) if size < 100 else bits.sample(range(size), 25):
            flip(path, bit)
            with pytest.raises(ValueError, match=r"damaged|missing|instead of|copy of|is no file"):
                checksums.check(folder, 6)
            flip(path, bit)
            tried += 1
    checksums.check(folder, 6)
    record_property("inputs", tried)


def arrays_of(folder):
    return max((folder / "state").rglob("d/*"), key=lambda path: path.stat().st_size)


def replaced_by(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "a bit flipped": lambda path: flip(path, path.stat().st_size * 4 + 3),
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "missing": pathlib.Path.unlink,
    "a folder": replaced_by(pathlib.Path.mkdir),
    "a pipe": replaced_by(os.mkfifo),
    "a dangling link": replaced_by(lambda path: path.symlink_to("/nowhere")),
    "a link to itself": replaced_by(lambda path: path.symlink_to(path)),
}
FILES = {
    "arrays": arrays_of,
    "index": lambda folder: folder / "state" / "manifest.ocdbt",
    "structure": lambda folder: folder / "state" / "_METADATA",
    "host state": lambda folder: folder / "host" / "metadata",
    "checksums": lambda folder: folder / checksums.NAME,
}


def assert_falls_back(workdir):
    """From a damaged latest/6 to 4, and the run goes on."""
    with CheckpointStore(workdir) as store:
        with one_warning("latest/6 cannot be read: ", "renamed to 6.damaged,"):
            step, restored, host = store.restore_latest(state(0))
        assert (step, host) == (4, {"note": 4})
        assert_equal(restored, state(4))
        save(store, 6)
        store.finish()
        assert store.latest_step() == 6
    assert names_of(workdir, "latest") == ["4", "6", "6.damaged"]


@pytest.mark.fault(
    "a file of the newest checkpoint is damaged, cut, missing, or a folder, pipe or link",
    "training goes on from the one before, with a warning of one line",
)
@pytest.mark.parametrize(
    "file, damage",
    [
        *(("arrays", damage) for damage in DAMAGES),
        *(("checksums", damage) for damage in DAMAGES if damage not in ("missing", "longer")),
        *((file, "a bit flipped") for file in ("index", "structure", "host state")),
        *((file, "missing") for file in ("index", "structure", "host state")),
    ],
)
def test_the_one_before_is_used(workdir, file, damage):
    DAMAGES[damage](FILES[file](workdir / "checkpoints" / "latest" / "6"))
    if (file, damage) == ("checksums", "a dangling link"):
        with CheckpointStore(workdir) as store, one_warning("is no file"):
            assert store.restore_latest(state(0))[0] == 4
    else:
        assert_falls_back(workdir)


@pytest.mark.fault(
    "the best checkpoint is damaged",
    "evaluate, predict, export, recalibrate and init_from read the newest other, with a warning",
)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["a bit flipped", "cut", "a pipe"])
def test_the_newest_is_read_instead_of_the_best(workdir, file, damage):
    """And asking for it by its step is an error."""
    DAMAGES[damage](FILES[file](workdir / "checkpoints" / "best" / "2"))
    with CheckpointStore(workdir, read_only=True) as store:
        with one_warning("best/2 cannot be read: ", "; that of step 6 is used"):
            assert_equal(store.restore_variables(), variables(6))
        assert store.best_step() == 6
        with pytest.raises(ValueError, match=r"best/2 cannot be read.*another step: \[4, 6\]"):
            store.restore_variables(2)


@pytest.mark.fault(
    "the best checkpoint is damaged when training resumes",
    "a warning; the next evaluation is the best one, whatever its score",
)
@pytest.mark.parametrize("file", ["arrays", "host state"])
def test_the_best_of_the_next_evaluations(workdir, file):
    DAMAGES["a bit flipped"](FILES[file](workdir / "checkpoints" / "best" / "2"))
    run_state = RunState(best_miou=0.9, best_step=2)
    options = {"plateau_patience": 0}, {"early_stop_patience": 0}
    with one_warning("best/2 cannot be read: ", "the best one of the next evaluations takes its"):
        store = CheckpointStore(workdir)
    with store:
        assert store.restore_latest(state(0))[0] == 6
        for step, miou in ((8, 0.3), (10, 0.2), (12, 0.4)):
            run_state.update(step, miou, options[1], options[0], best_lost=store.best_miou < 0)
            save(store, step, miou)
            assert store.best_step() == run_state.best_step == (8 if step < 12 else 12)
            assert store.best_miou == run_state.best_miou
    assert names(workdir) == (["12"], ["10", "12"])


@pytest.mark.fault(
    "a file of a checkpoint may not be read, or the disk fails in it", "as if it were damaged"
)
@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "I/O")])
def test_a_file_that_cannot_be_read(workdir, monkeypatch, error):
    def read(path):
        if "6" in path.parts:
            raise error
        return crc(path)

    crc = checksums._crc
    monkeypatch.setattr(checksums, "_crc", read)
    with CheckpointStore(workdir) as store, one_warning("latest/6 cannot be read: [Errno"):
        assert store.restore_latest(state(0))[0] == 4


@pytest.mark.fault(
    "a checkpoint is copied under another step's name, or a name is no step that was written",
    "it is renamed, with a warning, or passed over",
)
@pytest.mark.parametrize("name", ["8", "20", "999999999999999999", "008", "²", "9" * 20, "-1"])
def test_names_of_steps(workdir, name):
    latest = workdir / "checkpoints" / "latest"
    shutil.copytree(latest / "4", latest / name)
    real = len(name) < 19 and name.isascii() and name[0] not in "0-"
    with CheckpointStore(workdir) as store:
        with one_warning("it is a copy of the checkpoint of step 4") if real else no_warning():
            step, restored, _ = store.restore_latest(state(0))
        assert step == 6
        assert_equal(restored, state(6))
        save(store, 8, 0.95)
    with CheckpointStore(workdir) as store, no_warning():
        assert store.restore_latest(state(0))[0] == 8


@contextlib.contextmanager
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.fault(
    "a file, an empty folder or a dangling link has the name of a checkpoint",
    "it is renamed, with a warning, and its step is saved",
)
@pytest.mark.parametrize("make", ["file", "empty", "link"])
def test_no_checkpoint_but_its_name(workdir, make):
    path = workdir / "checkpoints" / "latest" / "8"
    {"file": path.touch, "empty": path.mkdir, "link": lambda: path.symlink_to("/nowhere")}[make]()
    with one_warning(str(path), "it is renamed to 8.damaged"), CheckpointStore(workdir) as store:
        assert store.restore_latest(state(0))[0] == 6
        save(store, 8)
    assert names_of(workdir, "latest") == ["6", "8", "8.damaged"]


@pytest.mark.fault("a checkpoint of an earlier version, without checksums", "it is read as before")
def test_without_checksums(workdir):
    without_checksums(workdir)
    with no_warning():
        with CheckpointStore(workdir, read_only=True) as store:
            assert_equal(store.restore_variables(), variables(2))
        with CheckpointStore(workdir) as store:
            assert store.restore_latest(state(0))[0] == 6


@pytest.mark.fault(
    "a file of a checkpoint without checksums is cut, missing or a pipe",
    "training goes on from the one before, with a warning of one line",
)
@pytest.mark.parametrize("file", ["arrays", "index", "structure", "host state"])
@pytest.mark.parametrize("damage", ["cut", "missing", "a pipe"])
def test_damage_without_checksums(workdir, file, damage):
    without_checksums(workdir)
    DAMAGES[damage](FILES[file](workdir / "checkpoints" / "latest" / "6"))
    assert_falls_back(workdir)


HOST = {"run_state": RunState(unreadable=[3]).to_json(), "data": {"next_index": 6}}


def go_to(step, restored, host):
    """What the loop does with a checkpoint."""
    batches = PrefetchIterator(range(10), lambda item: {}, timeout_s=5, reading=str)
    run = types.SimpleNamespace(batches=batches)
    _Run.go_to(run, step, types.SimpleNamespace(step=np.array(step), **restored), host)


def changed(**values):
    return {**HOST, "run_state": {**HOST["run_state"], **values}}


HOSTS = {
    "a list": [1],
    "an empty object": {},
    "null": None,
    "null values": {"run_state": None, "data": None},
    "a text": "x",
    "a rate that is NaN": changed(lr_scale=math.nan),
    "a text for a number": changed(best_miou="0.5"),
    "a truth for a number": changed(evaluated=True),
    "a fraction of a step": changed(best_step=0.5),
    "a list of texts": changed(unreadable=["a"]),
    "a number for a counter": changed(stopping=3),
    "an unknown value": changed(other=3),
    "a position before the start": {**HOST, "data": {"next_index": -4}},
    "a position that is none": {**HOST, "data": {"next_index": "4"}},
    "a list of positions": {**HOST, "data": [4]},
}


@pytest.mark.fault(
    "the host state of a checkpoint is JSON of another shape, or nested 200,000 times",
    "training goes on from the one before, with a warning of one line",
)
@pytest.mark.parametrize("host", [*HOSTS, "deep"])
def test_host_state_of_another_shape(workdir, host):
    """Without checksums, which would tell first."""
    without_checksums(workdir)
    latest = workdir / "checkpoints" / "latest"
    (latest / "4" / "host" / "metadata").write_text(json.dumps(HOST))
    text = "[" * 200_000 if host == "deep" else json.dumps(HOSTS[host])
    (latest / "6" / "host" / "metadata").write_text(text)
    with (
        CheckpointStore(workdir) as store,
        one_warning("latest/6 cannot be read: ", "renamed to 6.damaged, and the one before it"),
    ):
        assert store.restore_latest(state(0), go_to)[0] == 4


@pytest.mark.fault("the host state of a checkpoint is edited at random", "one line, or it is used")
@short_and_long(50, 5_000)
def test_any_host_state(workdir, record_property, examples):
    without_checksums(workdir)
    path = workdir / "checkpoints" / "latest" / "6" / "host" / "metadata"

    def read(path):
        with CheckpointStore(workdir, read_only=True) as store:
            try:
                with store._reading("latest/6") as folder:
                    go_to(6, {}, read_host(folder))
            except ValueError as error:
                raise ValueError(str(error).replace("latest/6", path.name)) from error

    seeds = [json.dumps(HOST).encode()]
    fuzz(read, seeds, path, record=record_property, examples=examples, edits=json_edits)


@pytest.mark.fault(
    "the val mIoU of the best checkpoint is no number", "the next evaluation is the best one"
)
@pytest.mark.parametrize(
    "text",
    ["[1]", "{}", '{"val_miou": "a"}', '{"val_miou": NaN}', '{"val_miou": Infinity}', "[" * 10**5],
)
def test_a_score_that_is_none(workdir, text):
    without_checksums(workdir)
    (workdir / "checkpoints" / "best" / "2" / "host" / "metadata").write_text(text)
    with one_warning("best/2 cannot be read: "), CheckpointStore(workdir) as store:
        assert store.best_miou == -1
        save(store, 8, 0.1)
        store.wait()
        assert store.best_step() == 8


@pytest.mark.slow
@pytest.mark.fault(
    "every file and folder of a checkpoint is damaged, cut, removed or replaced in turn",
    "another checkpoint is used, with a warning, or the damage does no harm",
)
def test_damage_everywhere(stored, tmp_path, record_property):
    """Reads and trains after each."""
    random_bits, results = random.Random(1), collections.Counter()
    targets = [
        path.relative_to(stored)
        for part in ("latest/6", "best/2")
        for path in sorted((stored / "checkpoints" / part).rglob("*"))
    ]
    for target in targets:
        folder = (stored / target).is_dir()
        for damage in ["gone", "empty", "file"] if folder else [*DAMAGES, *["a bit flipped"] * 3]:
            workdir = tmp_path / "run"
            shutil.rmtree(workdir, ignore_errors=True)
            shutil.copytree(stored, workdir)
            path = workdir / target
            if folder:
                shutil.rmtree(path)
                {"gone": int, "empty": path.mkdir, "file": path.touch}[damage]()
            elif damage == "a bit flipped":
                flip(path, random_bits.randrange(path.stat().st_size * 8))
            else:
                DAMAGES[damage](path)
            results[after_damage(workdir, "best" in target.parts)] += 1
    assert set(results) == {(2, 6), (2, 4), (6, 6)}, results
    record_property("inputs", sum(results.values()))


def after_damage(workdir, of_best):
    """The steps that are read to evaluate and to train on."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with CheckpointStore(workdir, read_only=True) as store:
            read = store.restore_variables()
            used = 2 if np.array_equal(read["batch_stats"]["norm"]["mean"], [2, 2, 2]) else 6
            assert_equal(read, variables(used))
        assert len(warned) == (used == 6), [str(w.message) for w in warned]
        with CheckpointStore(workdir) as store:
            step, restored, host = store.restore_latest(state(0))
            assert_equal(restored, state(step))
            assert host == {"note": step}
            save(store, 8, 0.95)
            store.finish()
            assert (store.best_step(), store.latest_step()) == (8, 8)
        assert len(warned) == 2 * (used == 6) + (step == 4), [str(w.message) for w in warned]
        assert not any("\n" in str(w.message) for w in warned)
    assert of_best or used == 2
    return used, step


@pytest.mark.parametrize("sharded", [False, True])
def test_checksums_are_of_all_files(tmp_path, sharded):
    """Whatever Orbax lays out, and nothing but what it writes later."""
    tree = {"a": np.arange(64.0).reshape(8, 8)}
    if sharded:
        mesh = jax.make_mesh((8,), ("x",))
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
        tree = jax.tree.map(lambda x: jax.device_put(x, sharding), tree)
    with CheckpointStore(tmp_path) as store:
        store.save(1, tree, {})
    folder = tmp_path / "checkpoints" / "latest" / "1"
    listed = json.loads((folder / checksums.NAME).read_text())
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert listed["step"] == 1
    top = {"_CHECKPOINT_METADATA", "commit_success.txt", checksums.NAME}
    assert set(listed["files"]) == files - top
