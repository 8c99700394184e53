"""Workdirs of any name, and checkpoints that go or cannot be read while a run writes them."""

import contextlib
import os
import shutil
import warnings

import pytest
from orbax.checkpoint._src.serialization import ocdbt_utils

from segjax.terminal import one_line
from segjax.training import checksums, plain_path
from segjax.training.checkpoint import CheckpointStore, has_checkpoint
from tests.faults.test_checkpoints import (
    arrays_of,
    cut,
    names_of,
    no_warning,
    one_warning,
)
from tests.training.test_checkpoint import assert_equal, names, save, state, variables

NAMES = {
    "brackets": "exp[1]",
    "a range": "lr=[1e-4],[!a]",
    "a star": "a*b",
    "a question mark": "a?b",
    "a backslash": "a\\b",
    "two lines": "a\nb\r",
    "no UTF-8": os.fsdecode(b"\xff\xfe"),
    "other letters": "größe 日本\u2028",
    "a dash and spaces": "-a  b ",
    "a scheme": "gs:",
    "markup": "[/b]{x}$(y)`z`\x1b[1m%20#&;'\"",
    "3800 bytes": "/".join(["d" * 199] * 18) + "/" + "e" * 200,
}


@pytest.mark.fault(
    "the workdir's name has brackets, wildcards, backslashes, line breaks or bytes that are no "
    "UTF-8, or is 3800 bytes long",
    "checkpoints are written and read as anywhere",
)
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_any_name(tmp_path, name):
    """Also beside a folder that the name is a pattern of, which is written at the same time."""
    workdir, other = tmp_path / name, tmp_path / name.translate({ord(c): "x" for c in "*?"})
    opened = len(os.listdir("/proc/self/fd"))
    with CheckpointStore(other) if other != workdir else contextlib.nullcontext() as beside:
        if beside:
            save(beside, 6)
        with CheckpointStore(workdir) as store:
            save(store, 4, miou=0.5)
            save(store, 6)
    assert len(os.listdir("/proc/self/fd")) == opened
    assert has_checkpoint(workdir)
    with CheckpointStore(workdir, read_only=True) as store:
        assert store.steps() == [4, 6]
        assert_equal(store.restore_variables(), variables(4))
    with CheckpointStore(workdir) as store:
        step, restored, host = store.restore_latest(state(0))
        assert (step, host) == (6, {"note": 6})
        assert_equal(restored, state(6))
    (workdir / "checkpoints" / "latest" / "6" / checksums.NAME).write_text("[")
    with CheckpointStore(workdir) as store, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert store.restore_latest(state(0))[0] == 4
    assert f"{one_line(workdir)}/checkpoints/latest/6 cannot" in str(warned[0].message)


@pytest.mark.fault("the workdir is relative, a symbolic link, or has ..", "it makes no difference")
@pytest.mark.parametrize("path", ["run[1]", "../here/run[1]", "link", "link/../run[1]/."])
def test_any_path(tmp_path, monkeypatch, path):
    here = tmp_path / "here"
    (here / "run[1]").mkdir(parents=True)
    (here / "link").symlink_to("run[1]")
    monkeypatch.chdir(here)
    with CheckpointStore(path) as store:
        save(store, 2)
        monkeypatch.chdir("/")
    assert names_of(here / "run[1]", "latest") == ["2"]


@pytest.mark.fault(
    "a workdir's name that Orbax misreads, on a system without /proc",
    "refused at the start, with the name and the characters",
)
def test_a_name_that_cannot_be_worked_around(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_path, "_OPEN", tmp_path / "none")
    (tmp_path / "a b").mkdir()
    with CheckpointStore(tmp_path / "a b") as store:
        save(store, 2)
    with pytest.raises(ValueError, match=r"cannot be kept in '.*exp\[1\]/checkpoints': Orbax mis"):
        CheckpointStore(tmp_path / "exp[1]")


class TestRemovedUnderARun:
    """By a clean-up, say."""

    @pytest.mark.fault(
        "checkpoints/, or a part of it, is deleted under a run",
        "a warning at the next save, and that is written",
    )
    @pytest.mark.parametrize("gone", ["", "latest", "best", "latest/6", "latest/4", "best/2"])
    def test_it_is_said_and_saved_again(self, workdir, gone):
        with CheckpointStore(workdir) as store:
            store.restore_latest(state(0))
            shutil.rmtree(workdir / "checkpoints" / gone)
            with one_warning(f"{workdir}/checkpoints has lost ", gone, "something else removed"):
                save(store, 8, 0.3)
            with no_warning():
                save(store, 10, 0.25)
                store.finish()
            best = gone in ("", "best", "best/2")
            assert store.best_step() == (8 if best else 2)
        assert names_of(workdir, "latest") == ["10", "8"]

    @pytest.mark.fault(
        "the last checkpoint is deleted or cut before the run has ended",
        "a warning or, at the end, an error; nothing is unsaved in silence",
    )
    @pytest.mark.parametrize("damage", ["deleted", "cut", "all deleted"])
    def test_the_last_one(self, workdir, damage):
        def remove(step):
            folder = workdir / "checkpoints" / "latest" / str(step)
            if damage == "cut":
                cut(arrays_of(folder))
            else:
                shutil.rmtree(folder if damage == "deleted" else workdir / "checkpoints")

        with CheckpointStore(workdir) as store:
            save(store, 8)
            store.wait()
            remove(8)
            with one_warning("step 8 was not written", "or is gone", "the next save tries again"):
                assert store.latest_step() == (None if damage == "all deleted" else 6)
            save(store, 8)
            store.finish()
            remove(8)
            with pytest.raises(OSError, match=r"step 8 was not written to .*, or is gone"):
                store.finish()

    @pytest.mark.fault(
        "the workdir is moved away under a run",
        "a warning at each save, and an error at the end; once it is back, it is saved",
    )
    @pytest.mark.parametrize("name", ["run", "run[1]"])
    def test_the_workdir(self, stored, tmp_path, name):
        workdir = shutil.copytree(stored, tmp_path / name)
        with CheckpointStore(workdir) as store:
            save(store, 8)
            store.wait()
            workdir.rename(tmp_path / "elsewhere")
            with pytest.warns(UserWarning, match=r"step 8 .*is gone"):
                store.wait()
            for step in (10, 12):
                with one_warning(f"step {step} was not written", "No such file or directory"):
                    save(store, step)
                    store.wait()
            assert store.latest_step() is None
            save(store, 14)
            with pytest.raises(OSError, match=r"step 14 was not written .*No such file"):
                store.finish()
            assert not workdir.exists()
            (tmp_path / "elsewhere").rename(workdir)
            with no_warning():
                save(store, 16, 0.3)
                store.finish()
        assert names(workdir) == (["2"], ["16", "8"])


@pytest.fixture
def unmerged(monkeypatch):
    """Has Orbax finish a write without the index of the arrays, as it did for `exp[1]`."""

    async def nothing(*_, **__): ...

    @contextlib.contextmanager
    def context():
        with monkeypatch.context() as patch:
            patch.setattr(ocdbt_utils, "merge_ocdbt_per_process_files", nothing)
            yield

    return context


@pytest.mark.fault(
    "a checkpoint was written and cannot be read",
    "it is no checkpoint: a warning as of a full disk, and the older ones stay",
)
def test_what_cannot_be_read_is_not_saved(workdir, unmerged, caplog):
    with CheckpointStore(workdir) as store:
        with unmerged(), one_warning("step 8 was not written", "cannot be read", "tries again"):
            store.save_best(8, variables(8), 0.95)
        assert names(workdir) == (["2"], ["4", "6"])
        with unmerged(), one_warning("step 8 was not written", "cannot be read", "tries again"):
            save(store, 8)
            store.wait()
        assert names(workdir) == (["2"], ["4", "6"])
        save(store, 10, 0.95)
        store.wait()
        with unmerged():
            save(store, 12)
            with pytest.raises(OSError, match="step 12 was not written"):
                store.finish()
    assert names(workdir) == (["10"], ["10", "6"])
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.fault("the workdir may only be read", "evaluating it writes nothing there")
@pytest.mark.parametrize("name", ["run", "run[1]"])
def test_reading_changes_nothing(stored, tmp_path, name):
    def look():
        return {path: path.stat().st_mtime_ns for path in [workdir, *workdir.rglob("*")]}

    workdir = shutil.copytree(stored, tmp_path / name)
    cut(arrays_of(workdir / "checkpoints" / "best" / "2"))
    before = look()
    with CheckpointStore(workdir, read_only=True) as store, one_warning("step 6 is used"):
        store.restore_variables()
    assert look() == before
