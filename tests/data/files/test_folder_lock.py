"""The lock of a folder, against real second processes."""

import errno
import fcntl
import os
import signal
import socket
import subprocess

import pytest

from segjax.data.files import folder_lock
from segjax.data.files.folder_lock import LOCK, FolderLock, owner_of
from tests.training.processes import start

# Holds the lock until its input ends. The child it spawns lives on, as a data worker would.
HOLDER = """
import subprocess, sys
from segjax.data.files.folder_lock import FolderLock

with FolderLock(sys.argv[1], "workdir", "use another --workdir"):
    child = subprocess.Popen(["sleep", "60"])
    print(child.pid, flush=True)
    sys.stdin.read()
"""


def locked(folder):
    return FolderLock(folder, "workdir", "use another --workdir")


@pytest.fixture
def hold(tmp_path):
    """Starts a process that holds the lock of a workdir."""
    holders = []

    def hold(workdir):
        holder = start("-c", HOLDER, workdir, stdin=subprocess.PIPE)
        holders.append((holder, int(holder.stdout.readline())))
        return holder

    yield hold
    for holder, child in holders:
        os.kill(child, signal.SIGKILL)
        with holder:
            holder.kill()


def test_a_second_training_is_refused_while_the_first_lives(tmp_path, hold):
    workdir = tmp_path / "run"
    holder = hold(workdir)
    owner = (workdir / "lock").read_text()
    assert owner.startswith(f"process {holder.pid} on {os.uname().nodename}, started 20")
    message = rf"workdir .*run is in use by {owner[:-7]}.*; wait for its end, .*--workdir"
    with pytest.raises(ValueError, match=message), locked(workdir):
        pass
    assert (workdir / "lock").read_text() == owner
    holder.stdin.close()  # ends it
    holder.wait()
    assert not (workdir / "lock").exists()
    with locked(workdir) as lock:
        assert lock.notice == ""


def test_the_lock_of_a_killed_training_is_taken_over(tmp_path, hold):
    """Even before the parent reaps it, and while its child processes live."""
    workdir = tmp_path / "run"
    holder = hold(workdir)
    holder.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    with locked(workdir) as lock:
        assert f"process {holder.pid} on {os.uname().nodename}" in lock.notice
        assert "taken over" in lock.notice
        with pytest.raises(ValueError, match=f"process {os.getpid()} "), locked(workdir):
            pass
    assert os.listdir(workdir) == []


def test_a_file_system_without_locks_gives_a_notice(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with locked(tmp_path) as first, locked(tmp_path) as second:
        assert first.notice.endswith("No locks available. A second writer is not refused")
        assert f"not refused; process {os.getpid()} on" in second.notice


def test_a_lock_that_its_owner_removes_meanwhile_is_made_anew(tmp_path, monkeypatch):
    flock, removed = fcntl.flock, []

    def after_the_owner(*arguments):
        if not removed:
            removed.append((tmp_path / "lock").unlink())
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", after_the_owner)
    (tmp_path / "lock").write_text("process 1 on node7")
    with locked(tmp_path) as lock:
        assert lock.notice == ""
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} ")


def test_a_workdir_that_stays_empty_is_removed(tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path / "new" / "run"):
        raise RuntimeError
    assert not (tmp_path / "new" / "run").exists()
    with locked(tmp_path / "run"):
        (tmp_path / "run" / "config.json").touch()
    assert (tmp_path / "run").exists()


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file cannot be written: .*--workdir"):
        locked(tmp_path / "file").__enter__()
    user = os.geteuid()
    tmp_path.chmod(0o555)
    if user == 0:
        os.seteuid(65534)  # nobody: root may write anywhere
    try:
        with pytest.raises(OSError, match=r"cannot be written: .*denied.*--workdir"):
            locked(tmp_path).__enter__()
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o755)


def test_a_lock_that_may_not_be_read(tmp_path):
    (tmp_path / "lock").write_text("process 1 on node7")
    (tmp_path / "lock").chmod(0)
    tmp_path.chmod(0o777)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(OSError, match=r"cannot be written: .*denied.*lock.*--workdir"):
            locked(tmp_path).__enter__()
    finally:
        os.seteuid(user)


def test_who_holds_a_lock_is_told_without_trying_it(tmp_path):
    assert owner_of(tmp_path) == ""
    with locked(tmp_path):
        text = (tmp_path / LOCK).read_text()
        assert owner_of(tmp_path) == text
    assert owner_of(tmp_path) == ""
    (tmp_path / LOCK).write_text(text)  # left behind: this process has no lock any more
    assert owner_of(tmp_path) == ""
    other = text.replace(f" on {socket.gethostname()}", " on another")
    (tmp_path / LOCK).write_text(other)
    assert owner_of(tmp_path) == other
    (tmp_path / LOCK).write_text("a file of the user's")
    assert owner_of(tmp_path) == ""


@pytest.mark.parametrize(
    "process, held",
    [(os.getpid(), True), (2**22 + 1, False), (1, True)],
    ids=("our own", "none", "another's"),
)
def test_without_a_list_of_locks_a_living_process_holds_its_lock(
    tmp_path, monkeypatch, process, held
):
    """As on a Mac."""

    def refuse(*_):
        raise FileNotFoundError

    text = f"process {process} on {socket.gethostname()}, started today"
    (tmp_path / LOCK).write_text(text)
    monkeypatch.setattr(folder_lock, "_locks", refuse)
    assert owner_of(tmp_path) == text * held
