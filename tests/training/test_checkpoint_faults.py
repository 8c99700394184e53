"""Checkpoints on disks that are full, and in processes that are killed."""

import contextlib
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import time
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath

from segjax.training.checkpoint import CheckpointStore, has_checkpoint
from tests.training.processes import assert_end_well, call
from tests.training.test_checkpoint import names

# TensorStore calls back after Orbax has given up a write.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def content(step, size=100_000):
    """Noise, which no compression makes smaller: 4 bytes a value, in 4 arrays."""
    generator = np.random.default_rng(step)
    return {name: generator.random(size // 4, np.float32) for name in "abcd"}


def assert_holds(store, step, size=100_000):
    state, host = store.restore(step, jax.tree.map(np.zeros_like, content(step, size)))
    jax.tree.map(np.testing.assert_array_equal, state, content(step, size))
    assert host == {"note": step}


def save(store, step, size=100_000, miou=None):
    state = jax.tree.map(jax.numpy.asarray, content(step, size))
    if miou is not None:
        store.save_best(step, state, miou)
    store.save(step, state, {"note": step})


@contextlib.contextmanager
def files_of_at_most(size):
    """Has the system refuse larger files to this process: for a while, a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestRefusedWrite:
    @pytest.mark.parametrize("part", ["arrays", "host state"])
    def test_the_run_goes_on(self, tmp_path, part):
        """Steps 2 and 4 are written, 6 is refused, 8 is written; nothing is lost but 6."""
        size, host = (100_000, {"note": 6}) if part == "arrays" else (4, {"note": "x" * 60_000})
        with CheckpointStore(tmp_path) as store:
            save(store, 2)
            save(store, 4)
            assert store.steps() == [2, 4]
            with files_of_at_most(50_000):
                store.save(6, content(6, size), host)
                with pytest.warns(UserWarning, match="of step 6 was not written") as warned:
                    store.wait()
            (message,) = [str(warning.message) for warning in warned]
            assert f"{tmp_path}/checkpoints: File too large; the run goes on" in message
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                store.finish()  # it is said once
                assert (store.steps(), store.latest_step()) == ([2, 4], 4)
            save(store, 8)
            store.finish()
            assert store.steps() == [4, 8]
        assert names(tmp_path) == ([], ["4", "8"])
        with CheckpointStore(tmp_path, read_only=True) as store:
            for step in (4, 8):
                assert_holds(store, step)

    def test_the_last_one_is_an_error_instead(self, tmp_path, caplog):
        """One message, and no tracebacks of Orbax's threads in the log."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with CheckpointStore(tmp_path) as store:
                save(store, 2)
                store.wait()
                with files_of_at_most(50_000):
                    store.save(4, content(4), {})
                    with pytest.raises(OSError, match="of step 4 was not written"):
                        store.finish()
        assert not [record for record in caplog.records if record.exc_info]
        with CheckpointStore(tmp_path) as store:
            assert store.steps() == [2]

    def test_the_older_best_one_stays(self, tmp_path):
        """The next better one is written, as good as the one that was refused or not."""
        with CheckpointStore(tmp_path) as store:
            save(store, 2, miou=0.5)
            store.wait()
            with files_of_at_most(50_000), pytest.warns(UserWarning, match="step 4 was not"):
                store.save_best(4, content(4), 0.8)
            assert names(tmp_path) == (["2"], ["2"])
            store.save_best(6, content(6), 0.4)
            store.save_best(8, content(8), 0.7)
        assert names(tmp_path) == (["8"], ["2"])


def full_disk(folder):
    """On a disk of 8 MB, or one without room for another file."""
    workdir, ballast = pathlib.Path(folder), pathlib.Path(folder, "ballast")
    size = 400_000
    with warnings.catch_warnings(record=True) as warned, CheckpointStore(workdir) as store:
        warnings.simplefilter("always")
        save(store, 2, size)
        save(store, 4, size)
        store.wait()
        free = os.statvfs(folder)
        if free.f_ffree < 1000:
            ballast.mkdir()
            for number in range(free.f_ffree - 1):
                (ballast / str(number)).touch()
        else:
            with contextlib.suppress(OSError), ballast.open("wb") as file:
                file.write(bytes(free.f_bavail * free.f_bsize - 500_000))  # a third fits
        for step in (6, 8):
            save(store, step, size)
            store.wait()
            with contextlib.suppress(OSError), pathlib.Path(workdir, "more").open("wb") as file:
                file.write(bytes(10**8))  # then there is none at all
        messages = [str(warning.message) for warning in warned]
        assert len(messages) == 2, messages
        for step, message in zip((6, 8), messages, strict=True):
            assert f"step {step} was not" in message, message
            assert "No space left on device" in message, message
        # TensorStore may still add files of a failed write; the next save removes them.
        assert store.steps() == [2, 4]
        shutil.rmtree(ballast, ignore_errors=True)
        for file in workdir.glob("*"):
            if file.is_file():
                file.unlink()
        save(store, 10, size)
        store.finish()
    assert names(workdir) == ([], ["10", "4"])
    with CheckpointStore(workdir) as store:
        for step in store.steps():
            assert_holds(store, step, size)


def save_for_ever(folder):
    """Prints each step that is safely on the disk; every third checkpoint is the best so far."""
    with CheckpointStore(folder) as store:
        for step in range((store.latest_step() or 0) + 1, 10**6):
            save(store, step, 600_000, miou=step if step % 3 == 0 else 0)
            store.wait()
            print(step, flush=True)


@pytest.mark.slow
@pytest.mark.parametrize("disk", ["size=8m", "size=64m,nr_inodes=200"])
def test_full_disk(tmp_path, disk):
    """A disk of its own, in memory, whose blocks or whose files run out."""
    mount = f"mount -t tmpfs -o {disk} tmpfs {tmp_path}"
    alone = ("unshare", "--map-root-user", "--mount", "sh", "-c")
    if not shutil.which("unshare") or subprocess.run([*alone, mount]).returncode:
        pytest.skip("this system does not let one mount a disk")
    assert_end_well([call(full_disk, tmp_path, before=[*alone, f'{mount} && exec "$@"', "sh"])])


@pytest.mark.slow
def test_killed_while_saving(tmp_path):
    """kill -9 at 20 random moments: the newest one is whole, and what was finished is there."""
    moments, left = random.Random(0), 0
    for _ in range(20):
        with call(save_for_ever, tmp_path) as process:
            finished = int(process.stdout.readline())
            time.sleep(moments.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split()
        finished = int(rest[-1]) if rest else finished
        best, latest = names(tmp_path)
        left += len(best) > 1 or len(latest) > 2
        assert has_checkpoint(tmp_path)
        with CheckpointStore(tmp_path, read_only=True) as store:
            newest = store.latest_step()
            assert newest >= finished
            assert_holds(store, newest, 600_000)
            assert newest - 3 <= store.best_step() <= newest + 1
        folder = epath.Path(tmp_path / "checkpoints" / "best" / str(store.best_step()))
        saved = ocp.StandardCheckpointHandler().restore(folder / "state")
        jax.tree.map(np.testing.assert_array_equal, saved, content(store.best_step(), 600_000))
    assert left > 5, "too few of the moments were in the middle of something"
