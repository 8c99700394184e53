"""One training at a time in a workdir."""

import contextlib
import datetime
import fcntl
import os
import pathlib
import socket
from typing import TextIO


class WorkdirLock:
    """Refuses a second training in a workdir, as a context.

    The lock is `flock` on WORKDIR/lock. The kernel releases it when the process ends, however that
    happens, so the lock of a dead process never blocks. The file names the process that holds it.

    Args:
      workdir: made if it does not exist, and removed again if it stays empty.

    Attributes:
      notice: a line for the user if the lock of a dead process was taken over, or if the file
        system has no locks and so nobody can be refused; "" otherwise.

    Raises (on entering):
      ValueError: if another training has the workdir; names its process, host and start.
      OSError: if the workdir cannot be written.
    """

    def __init__(self, workdir: str | pathlib.Path):
        self._workdir = pathlib.Path(workdir)
        self._path = self._workdir / "lock"
        self.notice = ""

    def __enter__(self) -> "WorkdirLock":
        try:
            self._made_workdir = not self._workdir.exists()
            self._workdir.mkdir(parents=True, exist_ok=True)
            self._file = self._lock()
            started = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}, started {started}")
            self._file.flush()
        except OSError as error:
            raise OSError(
                f"workdir {self._workdir} cannot be written: {error}; use another --workdir"
            ) from error
        return self

    def __exit__(self, *_) -> None:
        with self._file, contextlib.suppress(OSError):
            self._path.unlink()
            if self._made_workdir:
                self._workdir.rmdir()  # fails unless it is empty

    def _lock(self) -> TextIO:
        file = self._path.open("a+")
        file.seek(0)
        owner = file.read()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ValueError(
                f"workdir {self._workdir} is in use by {owner or 'a process that just started'}; "
                "wait for its end, stop it, or use another --workdir"
            ) from None
        except OSError as error:  # a file system without locks
            last = f"; {owner} was the last one" if owner else ""
            self.notice = f"{self._path}: {error.strerror}. A second training is not refused{last}"
            return file
        if not os.fstat(file.fileno()).st_nlink:  # its owner removed it after we opened it
            file.close()
            return self._lock()
        self.notice = f"{self._path} of {owner} was left behind and is taken over" if owner else ""
        return file
