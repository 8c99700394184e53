"""One writer at a time in a folder."""

import contextlib
import datetime
import fcntl
import os
import pathlib
import socket
import stat
from typing import TextIO

LOCK = "lock"  # its name in the folder
_OURS = "process "  # how the text of a lock begins
_TRIES = 10  # for a lock that owner after owner removes


class FolderInUse(ValueError):
    """Another process has the folder."""


class FolderLock:
    """Refuses a second writer in a folder, as a context.

    The lock is `flock` on FOLDER/lock. The kernel releases it when the process ends, however that
    happens, so the lock of a dead process never blocks. The file names the process that holds it.

    Args:
      folder: made if it does not exist, and removed again if it stays empty.
      name: of the folder in messages: "workdir".
      remedy: what to do instead: "use another --workdir".

    Attributes:
      notice: a line for the user if the lock of a dead process was taken over, or if the file
        system has no locks and so nobody can be refused; "" otherwise.

    Raises (on entering):
      FolderInUse: if another process has the folder; names its process, host and start.
      ValueError: if FOLDER/lock is something else, such as a link or a file of the user's.
      OSError: if the folder cannot be written.
    """

    def __init__(self, folder: str | pathlib.Path, name: str, remedy: str):
        self._folder, self._name, self._remedy = pathlib.Path(folder), name, remedy
        self._path = self._folder / LOCK
        self.notice = ""

    def __enter__(self) -> "FolderLock":
        try:
            self._made_folder = not self._folder.exists()
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = self._lock()
            started = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
            self._file.seek(0)
            self._file.truncate()
            self._file.write(f"{_OURS}{os.getpid()} on {socket.gethostname()}, started {started}")
            self._file.flush()
        except OSError as error:
            raise OSError(
                f"{self._name} {self._folder} cannot be written: {error}; {self._remedy}"
            ) from error
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(OSError), self._file:
            self._path.unlink()
            if self._made_folder:
                self._folder.rmdir()  # fails unless it is empty

    def _lock(self) -> TextIO:
        for _ in range(_TRIES):
            file, owner = self._open()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise FolderInUse(
                    f"{self._name} {self._folder} is in use by "
                    f"{owner or 'a process that just started'}; wait for its end, stop it, or "
                    f"{self._remedy}"
                ) from None
            except OSError as error:  # a file system without locks
                last = f"; {owner} was the last one" if owner else ""
                reason = f"{self._path}: {error.strerror}"
                self.notice = f"{reason}. A second writer is not refused{last}"
                return file
            if self._is_still(file):
                left = f"{self._path} of {owner} was left behind and is taken over"
                self.notice = left if owner else ""
                return file
            file.close()
        raise OSError(f"{self._path} is removed again and again")

    def _is_still(self, file: TextIO) -> bool:
        """Whether its owner has not removed the file after we opened it."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(file.fileno()), os.lstat(self._path))
        return False

    def _open(self) -> tuple[TextIO, str]:
        """The file of the lock, and what it says. Nothing but a lock of ours is opened: links may
        lead to any file, and a read of a pipe never ends."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        found = ""
        try:
            kind = os.lstat(self._path)
            if not stat.S_ISREG(kind.st_mode) or kind.st_nlink > 1:
                found = "no file of its own (a link, a folder, a pipe)"
        except FileNotFoundError:
            pass
        if not found:
            descriptor = os.open(self._path, flags, 0o666)
            file = os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace")
            owner = file.read(300)
            if not owner or owner.startswith(_OURS):
                return file, owner
            file.close()
            found = "a file of something else"
        raise ValueError(
            f"{self._path} is {found}, and not the lock of a process; move it away, or "
            f"{self._remedy}"
        )
