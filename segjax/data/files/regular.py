"""Regular files: a read of anything else that has a path may never end."""

import errno
import os
import stat
from typing import TypeVar

from segjax.data.errors import DataError
from segjax.data.parallel import TIMEOUT_S, within

Path = TypeVar("Path")

MOST_BYTES = 64 << 20  # of a file of this project, whose largest is a log of a million rows

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def regular(path: Path) -> Path:
    """The path itself, for whoever opens it next; so is what has no path, and a path to nothing.

    Raises:
      DataError: for a named pipe, a socket or a device, also behind a link.
    """
    if isinstance(path, str | os.PathLike):
        try:
            kind = _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
        except (OSError, ValueError):  # whoever opens it says so
            kind = None
        if kind:
            raise DataError(f"{path} is {kind}, not a file", "use a regular file")
    return path


def read_bytes(
    path: str | os.PathLike, remedy: str = "use a readable file", most_bytes: int = MOST_BYTES
) -> bytes:
    """The content of a file.

    Raises:
      DataError: naming the file, if it is missing, a folder, a pipe or a device, has more than
        `most_bytes`, or cannot be read.
      TimeoutError: if the disk does not answer within `TIMEOUT_S`.
    """
    return within(TIMEOUT_S, path, _read_bytes, path, remedy, most_bytes)


def _read_bytes(path: str | os.PathLike, remedy: str, most_bytes: int) -> bytes:
    try:
        # A pipe is opened without a writer, and then found to be none of ours.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{path} is a pipe or a device, not a file", remedy)
            content = file.read(most_bytes + 1) if status.st_size <= most_bytes else b""
    except OSError as error:
        found = {errno.ENOENT: "is missing", errno.EISDIR: "is a folder, not a file"}
        reason = found.get(error.errno or 0, f"cannot be read ({error.strerror})")
        raise DataError(f"{path} {reason}", remedy) from error
    if max(status.st_size, len(content)) > most_bytes:
        raise DataError(
            f"{path} has {max(status.st_size, len(content)):,} bytes; {most_bytes:,} are the most",
            remedy,
        )
    return content
