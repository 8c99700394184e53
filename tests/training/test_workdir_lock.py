"""The lock of a workdir, against real second processes, with and without flock."""

import errno
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from segjax.training import workdir_lock as module
from segjax.training.workdir_lock import WorkdirLock

ROOT = pathlib.Path(__file__).parents[2]
# Holds the lock until its input ends; with children that live on, where asked for.
HOLDER = """
import errno, fcntl, multiprocessing, os, sys, time
from segjax.training.workdir_lock import WorkdirLock

def no_flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")

def sleep():
    time.sleep(60)

if __name__ == "__main__":
    workdir, way, children = sys.argv[1:]
    if way == "facts":
        fcntl.flock = no_flock
    with WorkdirLock(workdir):
        pids = []
        if children == "children":
            spawned = multiprocessing.get_context("spawn").Process(target=sleep, daemon=True)
            spawned.start()
            forked = os.fork()
            if not forked:
                sleep()
            pids = [spawned.pid, forked]
        print("ready", *pids, flush=True)
        sys.stdin.read()
"""
WAYS = ("flock", "facts")


def no_flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """What the lock rests on: the kernel's, or the file's facts."""
    if request.param == "facts":
        monkeypatch.setattr(fcntl, "flock", no_flock)
        monkeypatch.setattr(module, "_SETTLE_S", 0.05)
    return request.param


@pytest.fixture
def hold(tmp_path):
    """Starts a process that holds the lock of a workdir; gives it and its children's numbers."""
    script = tmp_path / "holder.py"
    script.write_text(HOLDER)
    holders = []

    def start(workdir, way="flock", children=""):
        holder = subprocess.Popen(
            [sys.executable, script, workdir, way, children],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        holders.append(holder)
        ready, *pids = holder.stdout.readline().split()
        assert ready == "ready"
        return holder, [int(pid) for pid in pids]

    yield start
    for holder in holders:
        holder.kill()
        holder.communicate()


def test_a_second_run_is_refused_while_the_first_lives(tmp_path, hold, way):
    workdir = tmp_path / "run"
    holder, _ = hold(workdir, way)
    said = json.loads((workdir / "lock").read_text())
    expected = (
        rf"workdir .*run is in use: process {holder.pid} on {os.uname().nodename}, "
        rf"started {said['started'][:10]}.*--workdir"
    )
    with pytest.raises(ValueError, match=expected), WorkdirLock(workdir):
        pass
    assert json.loads((workdir / "lock").read_text()) == said
    holder.communicate()  # ends it in good order
    assert not (workdir / "lock").exists()
    with WorkdirLock(workdir) as lock:
        assert lock.taken_over == ""


def test_the_lock_of_a_killed_run_is_taken_over(tmp_path, hold, way):
    """Also before its parent has taken note of its end (a zombie still has its number)."""
    workdir = tmp_path / "run"
    holder, _ = hold(workdir, way)
    holder.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    with WorkdirLock(workdir) as lock:
        assert f"process {holder.pid} on {os.uname().nodename}" in lock.taken_over
        assert json.loads((workdir / "lock").read_text())["pid"] == os.getpid()
        with pytest.raises(ValueError, match=f"process {os.getpid()} "), WorkdirLock(workdir):
            pass
    assert os.listdir(workdir) == []


def test_children_do_not_keep_the_lock(tmp_path, hold):
    workdir = tmp_path / "run"
    holder, children = hold(workdir, children="children")
    try:
        holder.kill()
        holder.wait()
        for child in children:
            os.kill(child, 0)  # alive
        deadline = time.monotonic() + 20
        while True:
            try:
                with WorkdirLock(workdir) as lock:
                    assert str(holder.pid) in lock.taken_over
                break
            except ValueError:  # a child that has not come to its own program yet
                assert time.monotonic() < deadline
                time.sleep(0.1)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)


def test_another_process_of_the_same_number_is_no_owner(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_flock)
    monkeypatch.setattr(module, "_SETTLE_S", 0.05)
    leave(tmp_path, process_started="1")
    with WorkdirLock(tmp_path) as lock:
        assert str(os.getpid()) in lock.taken_over


def leave(workdir, age_s=0.0, **facts):
    """The file of another owner."""
    path = workdir / "lock"
    path.write_text(json.dumps({**module._here(), "started": "2020-01-01 00:00:00", **facts}))
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


@pytest.mark.parametrize("facts", [{"machine": "other", "host": "node7"}, {"pids": "container"}])
def test_an_owner_elsewhere_lives_if_the_time_of_its_file_moves(tmp_path, way, facts):
    if way == "flock" and "pids" in facts:
        pytest.skip("containers of one machine share its kernel's locks")
    path = leave(tmp_path, **facts)
    ended = threading.Event()

    def beat():
        while not ended.wait(0.05):
            os.utime(path)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with pytest.raises(ValueError, match="is in use"), WorkdirLock(tmp_path, silence_s=5):
            pass
    finally:
        ended.set()
        beating.join()
    with WorkdirLock(tmp_path, silence_s=0.2) as lock:
        assert lock.taken_over


def test_an_owner_elsewhere_that_is_long_silent_is_dead_at_once(tmp_path, way, capsys):
    leave(tmp_path, age_s=400, machine="other", host="node7")
    with WorkdirLock(tmp_path) as lock:
        assert "on node7" in lock.taken_over
    assert capsys.readouterr().err == ""


def test_the_file_of_a_running_owner_stays_fresh(tmp_path):
    with WorkdirLock(tmp_path, beat_s=0.02):
        path = tmp_path / "lock"
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < time.time() - 60:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 3}'])
def test_a_file_that_says_nothing_is_nobodys(tmp_path, text):
    (tmp_path / "lock").write_text(text)
    with WorkdirLock(tmp_path):
        pass


def test_of_two_that_take_over_at_once_one_has_it(tmp_path, monkeypatch):
    """Without flock both replace the file; the first sees that it is no longer there."""
    monkeypatch.setattr(fcntl, "flock", no_flock)
    monkeypatch.setattr(module, "_SETTLE_S", 0.3)
    both, replace = threading.Barrier(2), os.replace

    def replace_together(*paths):
        both.wait()
        replace(*paths)

    monkeypatch.setattr(os, "replace", replace_together)
    leave(tmp_path, pid=2**22 + 1, process_started="1")
    outcomes = []

    def run():
        try:
            with WorkdirLock(tmp_path):
                both.wait()
                outcomes.append("ran")
        except ValueError as error:
            both.wait()
            outcomes.append(str(error))

    runs = [threading.Thread(target=run) for _ in range(2)]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    assert "ran" in outcomes
    (refused,) = [text for text in outcomes if text != "ran"]
    assert "is in use" in refused


def test_a_workdir_that_was_made_for_nothing_goes(tmp_path):
    with pytest.raises(RuntimeError), WorkdirLock(tmp_path / "new" / "run"):
        raise RuntimeError
    assert not (tmp_path / "new" / "run").exists()
    with WorkdirLock(tmp_path / "run"):
        (tmp_path / "run" / "config.json").touch()
    assert (tmp_path / "run").exists()


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file cannot be written: .*--workdir"):
        WorkdirLock(tmp_path / "file").__enter__()
    user = os.geteuid()
    tmp_path.chmod(0o555)
    if user == 0:
        os.seteuid(65534)  # nobody: the administrator may write anywhere
    try:
        with pytest.raises(OSError, match=r"cannot be written: .*denied.*--workdir"):
            WorkdirLock(tmp_path).__enter__()
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o755)
