"""Checkpoints on disks that are full, and in processes that are killed.

What needs a process of its own is a function here, called by name: `python -m
tests.training.test_checkpoint_faults full_disk FOLDER`.
"""

import contextlib
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings

import jax
import numpy as np
import pytest

from segjax.training.checkpoint import CheckpointStore
from segjax.training.pretrained import has_checkpoint

ROOT = pathlib.Path(__file__).parents[2]
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


def save(store, step, size=100_000, **options):
    store.save(
        step, jax.tree.map(jax.numpy.asarray, content(step, size)), {"note": step}, **options
    )


def save_and_wait(store, step):
    save(store, step, val_miou=None)
    store.wait()


def names(workdir):
    return sorted(path.name for path in (workdir / "checkpoints").iterdir())


@contextlib.contextmanager
def files_of_at_most(size):
    """Has the system refuse larger files to this process: for a while, a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def save_on_full_disk(store, *arguments):
    with files_of_at_most(50_000):
        store.save(*arguments)
        store.wait()


class TestRefusedWrite:
    @pytest.mark.parametrize("part", ["arrays", "host state"])
    def test_the_run_goes_on(self, tmp_path, part):
        """Steps 2 and 4 are written, 6 is refused, 8 is written; nothing is lost but 6."""
        size, host = (100_000, {"note": 6}) if part == "arrays" else (4, {"note": "x" * 60_000})
        with CheckpointStore(tmp_path) as store:
            save(store, 2, val_miou=0.9)
            save(store, 4, val_miou=0.1)
            assert store.steps() == [2, 4]
            with pytest.warns(UserWarning, match="of step 6 was not written") as said:
                save_on_full_disk(store, 6, content(6, size), host, 0.95)
            (message,) = [str(warning.message) for warning in said]
            assert message.endswith("File too large; the run goes on, the next save tries again")
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                store.wait()  # it is said once
                assert (store.steps(), store.best_step(), store.failures) == ([2, 4], 2, 1)
            assert store.finish().endswith(
                f"step 6 was not written to {tmp_path}/checkpoints: File too large"
            )
            save(store, 8, val_miou=0.2)
            assert store.finish() == ""
            assert store.steps() == [2, 4, 8]
        assert names(tmp_path) == ["2", "4", "8"]
        with CheckpointStore(tmp_path) as store:
            for step in (2, 4, 8):
                assert_holds(store, step)

    def test_the_last_one_is_told_at_the_end_instead(self, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with CheckpointStore(tmp_path) as store:
                save(store, 2, val_miou=None)
                store.wait()
                with files_of_at_most(50_000):
                    store.save(4, content(4), {}, None)
                    assert "step 4 was not written" in store.finish()
                assert store.failures == 1
        assert names(tmp_path) == ["2"]

    def test_a_replacement_leaves_the_older_one(self, tmp_path):
        with CheckpointStore(tmp_path) as store:
            save(store, 2, val_miou=0.5)
            store.wait()
            with files_of_at_most(50_000):
                store.save(2, content(3), {}, 0.6, replace=True)
                assert "File too large" in store.finish()
            assert_holds(store, 2)
            assert store.steps() == [2]
        # Closed: until then a thread of the broken-off write may still add files to its folder.
        assert names(tmp_path) == ["2"]

    def test_a_folder_that_is_gone(self, tmp_path):
        """A network disk that went away, and came back."""
        with CheckpointStore(tmp_path) as store:
            save(store, 2, val_miou=None)
            store.wait()
            (tmp_path / "checkpoints").rename(tmp_path / "away")
            with pytest.warns(UserWarning, match=r"step 4 was not written .*No such file"):
                save_and_wait(store, 4)
            (tmp_path / "away").rename(tmp_path / "checkpoints")
            save(store, 6, val_miou=None)
            assert (store.finish(), store.steps()) == ("", [2, 6])
            assert_holds(store, 6)
            shutil.rmtree(tmp_path / "checkpoints")
            store.save(8, content(8), {}, None)
            assert "No such file" in store.finish()

    def test_the_log_is_not_filled(self, tmp_path, caplog):
        with CheckpointStore(tmp_path) as store, files_of_at_most(50_000):
            store.save(2, content(2), {}, None)
            assert store.finish()
        assert not [record for record in caplog.records if record.exc_info]

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "checkpoints").write_text("in the way")
        with pytest.raises(OSError, match=r"checkpoints cannot be written to: .*File exists"):
            CheckpointStore(tmp_path)


def full_disk(folder):
    """On a disk of 8 MB, or one without room for another file."""
    workdir, ballast = pathlib.Path(folder), pathlib.Path(folder, "ballast")
    size = 400_000
    with warnings.catch_warnings(record=True) as said, CheckpointStore(workdir) as store:
        warnings.simplefilter("always")
        save(store, 2, size, val_miou=0.9)
        save(store, 4, size, val_miou=None)
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
            save(store, step, size, val_miou=0.95)
            store.wait()
            with contextlib.suppress(OSError), pathlib.Path(workdir, "more").open("wb") as file:
                file.write(bytes(10**8))  # then there is none at all
        messages = [str(warning.message) for warning in said]
        assert len(messages) == store.failures == 2, messages
        for step, message in zip((6, 8), messages, strict=True):
            assert f"step {step} was not" in message, message
            assert "No space left on device" in message, message
        assert store.steps() == [2, 4]
        assert names(workdir) == ["2", "4"]
        shutil.rmtree(ballast, ignore_errors=True)
        for file in workdir.glob("*"):
            if file.is_file():
                file.unlink()
        save(store, 10, size, val_miou=0.1)
        assert store.finish() == ""
    with CheckpointStore(workdir) as store:
        assert store.steps() == [2, 4, 10]
        for step in store.steps():
            assert_holds(store, step, size)


def save_for_ever(folder):
    """Prints each step that is safely on the disk; every third checkpoint is a replacement."""
    with CheckpointStore(folder) as store:
        for step in range((store.latest_step() or 0) + 1, 10**6):
            save(store, step, 600_000, val_miou=step % 5)
            if step % 3 == 0:
                save(store, step, 600_000, val_miou=step % 5, replace=True)
            store.wait()
            print(step, flush=True)


def run(function, *arguments, before=(), **options):
    """Calls a function of a test file in a process of its own."""
    name = function.__code__.co_filename.removeprefix(f"{ROOT}/").removesuffix(".py")
    module = [sys.executable, "-m", name.replace("/", ".")]
    command = [*before, *module, function.__name__, *map(str, arguments)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **options)


@pytest.mark.slow
@pytest.mark.parametrize("disk", ["size=8m", "size=64m,nr_inodes=200"])
def test_full_disk(tmp_path, disk):
    """A disk of its own, in memory, whose blocks or whose files run out."""
    mount = f"mount -t tmpfs -o {disk} tmpfs {tmp_path}"
    alone = ("unshare", "--map-root-user", "--mount", "sh", "-c")
    if not shutil.which("unshare") or subprocess.run([*alone, mount]).returncode:
        pytest.skip("this system does not let one mount a disk")
    with run(full_disk, tmp_path, before=[*alone, f'{mount} && exec "$@"', "sh"]) as process:
        assert process.wait(200) == 0


@pytest.mark.slow
def test_killed_while_saving(tmp_path):
    """kill -9 at 20 random moments: what is listed is whole, and what was finished is there."""
    moments, left = random.Random(0), 0
    for _ in range(20):
        with run(save_for_ever, tmp_path, stdout=subprocess.PIPE) as process:
            finished = int(process.stdout.readline())
            time.sleep(moments.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split()
        finished = int(rest[-1]) if rest else finished
        left += any(not name.isdigit() for name in names(tmp_path))
        assert has_checkpoint(tmp_path)
        for read_only in (True, False):
            with CheckpointStore(tmp_path, read_only=read_only) as store:
                assert store.latest_step() >= finished
                for step in store.steps():
                    assert_holds(store, step, 600_000)
        assert names(tmp_path) == sorted(map(str, store.steps()))
    assert left > 5, "too few of the moments were in the middle of something"


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
