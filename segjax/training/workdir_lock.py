"""One run at a time in a workdir."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
import sys
import tempfile
import threading
import time
import uuid
import weakref
from typing import Any

_NAME = "lock"
# What flock says where the file system has no locks, or its lock server does not answer.
_NO_FLOCK = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
# Without flock two runs may take over one dead run's file at once: the later one has it, and the
# other sees that after this time.
_SETTLE_S = 0.5


class WorkdirLock:
    """Keeps a second run out of a workdir, as a context.

    The lock is `flock` on WORKDIR/lock, which the kernel gives back when its process ends, however
    that happens. The file says who has it, and goes when the run ends; one that a dead run has left
    is taken over. Processes that this one starts do not keep the lock.

    Where the file system has no flock, and where it may know only this machine's (the file was
    written on another one), the facts in the file decide: on the same machine whether the process
    still is there; else whether the file's time moves, which a running owner sees to. That takes
    `silence_s`, unless the time is old.

    Args:
      workdir: made if it does not exist, and removed again if nothing has been put into it.
      beat_s: seconds between two touches of the file.
      silence_s: seconds without one after which an owner on another machine is taken for dead;
        more than network file systems keep a file's time (60 s).

    Attributes:
      taken_over: a sentence about the dead run whose lock was taken over; "" if there was none.

    Raises (on entering):
      ValueError: if another run has the workdir; names its host, process and start.
      OSError: if the workdir cannot be written.
    """

    def __init__(
        self, workdir: str | pathlib.Path, *, beat_s: float = 10.0, silence_s: float = 75.0
    ):
        self._workdir = pathlib.Path(workdir)
        self._path = self._workdir / _NAME
        self._beat_s, self._silence_s = beat_s, silence_s
        self._made_workdir = False
        self._file: int | None = None
        self.taken_over = ""

    def __enter__(self):
        try:
            self._made_workdir = not self._workdir.is_dir()
            self._workdir.mkdir(parents=True, exist_ok=True)
            while not self._acquire():
                pass
        except OSError as error:
            raise OSError(
                f"workdir {self._workdir} cannot be written: {error}; use another --workdir"
            ) from error
        os.register_at_fork(after_in_child=_forgetting(self))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_touching, name="lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.release()

    def release(self) -> None:
        """Gives the workdir free; once more does nothing."""
        if self._file is None:
            return
        self._ended.set()
        self._thread.join()
        file, self._file = self._file, None
        with contextlib.suppress(OSError):
            if _is_at(file, self._path):
                self._path.unlink()
            os.close(file)
            if self._made_workdir:
                self._workdir.rmdir()  # fails if there is something in it

    def touch(self) -> None:
        """Shows other machines that the owner lives; a thread does it every `beat_s`."""
        if (file := self._file) is not None:
            with contextlib.suppress(OSError):
                os.utime(file)

    def _keep_touching(self) -> None:
        while not self._ended.wait(self._beat_s):
            self.touch()

    def _acquire(self) -> bool:
        """One try; false if the file was another one in the end.

        Raises:
          ValueError: if another run has it.
        """
        file, is_new = self._open()
        if file is None:
            return False
        try:
            locked = self._flock(file)
            owner = {} if is_new else _read(file)
            if not is_new and self._lives(owner, file, locked):
                raise self._refusal(owner)
            if not _is_at(file, self._path):
                os.close(file)
                return False
            facts = json.dumps({**_here(), "started": _now()}).encode()
            if not is_new and not locked:
                file = self._replace(file, facts)
            else:
                os.ftruncate(file, 0)
                os.pwrite(file, facts, 0)
        except BaseException:
            os.close(file)
            raise
        if owner:
            self.taken_over = f"{_words(owner)} has left its lock on {self._workdir}: taken over"
        self._file = file
        return True

    def _open(self) -> tuple[int | None, bool]:
        """The file, and whether it was made here; None if it was there and is gone."""
        flags = os.O_RDWR | os.O_CLOEXEC
        with contextlib.suppress(FileExistsError):
            return os.open(self._path, flags | os.O_CREAT | os.O_EXCL, 0o644), True
        with contextlib.suppress(FileNotFoundError):
            return os.open(self._path, flags), False
        return None, False

    def _flock(self, file: int) -> bool:
        """Whether the kernel has given the lock; false if it knows of no locks here.

        Raises:
          ValueError: if another process has it.
        """
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refusal(_read(file)) from None
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            return False
        return True

    def _lives(self, owner: dict[str, Any], file: int, locked: bool) -> bool:
        """Whether the process that wrote the file still runs."""
        here = _here()
        same_machine = owner.get("machine") == here["machine"]
        if locked and (same_machine or not owner):
            return False  # this kernel would not have given the lock
        if same_machine and owner["pids"] == here["pids"]:
            return _started_at(owner["pid"]) == owner["process_started"]
        return self._beats(file)

    def _beats(self, file: int) -> bool:
        """Whether the file's time moves."""
        with tempfile.TemporaryFile(dir=self._workdir) as probe:  # by the file system's own clock
            age = os.fstat(probe.fileno()).st_mtime - os.fstat(file).st_mtime
        if age > 4 * self._silence_s:
            return False
        line = (
            f"workdir {self._workdir} has the lock of another machine; if its owner does not "
            f"show itself within {self._silence_s:g} s, it is taken over"
        )
        with contextlib.suppress(OSError, ValueError):  # stderr may be closed
            print(line, file=sys.stderr, flush=True)
        last, deadline = os.fstat(file).st_mtime_ns, time.monotonic() + self._silence_s
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self._silence_s / 10))
            try:  # opening a file has network file systems ask for its time
                again = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
            moved = os.fstat(again).st_mtime_ns != last
            os.close(again)
            if moved:
                return True
        return False

    def _replace(self, stale: int, facts: bytes) -> int:
        """A new file in the place of a dead run's.

        Raises:
          ValueError: if another run has done it too.
        """
        fresh = self._path.with_name(f"{_NAME}.{uuid.uuid4().hex}")
        fresh.write_bytes(facts)
        file = os.open(fresh, os.O_RDWR | os.O_CLOEXEC)
        os.replace(fresh, self._path)
        time.sleep(_SETTLE_S)
        if not _is_at(file, self._path):
            os.close(file)
            now = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            owner = _read(now)
            os.close(now)
            raise self._refusal(owner)
        os.close(stale)
        return file

    def _refusal(self, owner: dict[str, Any]) -> ValueError:
        return ValueError(
            f"workdir {self._workdir} is in use: {_words(owner)} runs in it; wait for its end, "
            "stop it, or use another --workdir"
        )


def _here() -> dict[str, Any]:
    """What names this process: its machine (as booted), what its number counts in, and when it was
    started, as numbers are given again."""
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "machine": _text("/proc/sys/kernel/random/boot_id") or socket.gethostname(),
        "pids": _link("/proc/self/ns/pid"),  # each container counts its own
        "process_started": _started_at(pid),
    }


def _started_at(pid: int) -> str:
    """When a process of this machine was started, in the kernel's words; "" if it has ended."""
    if not pathlib.Path("/proc/self/stat").exists():  # not Linux
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return "unknown"
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()  # the name may hold anything
    ended = not fields or fields[0] in "ZX"  # a zombie waits for its parent only
    return "" if ended else fields[19]


def _text(path: str) -> str:
    with contextlib.suppress(OSError):
        return pathlib.Path(path).read_text().strip()
    return ""


def _link(path: str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(" ", "seconds")


def _words(owner: dict[str, Any]) -> str:
    if not owner:
        return "a process that has not said its name"
    return "process {pid} on {host}, started {started},".format_map(owner)


def _read(file: int) -> dict[str, Any]:
    """What the file says; {} if it was not written to its end."""
    with contextlib.suppress(ValueError):
        facts = json.loads(os.pread(file, 4096, 0))
        if isinstance(facts, dict) and facts.keys() >= {*_here(), "started"}:
            return facts
    return {}


def _is_at(file: int, path: pathlib.Path) -> bool:
    """Whether a path still leads to an open file."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), os.stat(path))
    return False


def _forgetting(lock: WorkdirLock):
    """For forked children: closes their copy of the file, which would keep the lock."""
    reference = weakref.ref(lock)

    def forget() -> None:
        lock = reference()
        if lock is not None and lock._file is not None:
            os.close(lock._file)
            lock._file = None

    return forget
