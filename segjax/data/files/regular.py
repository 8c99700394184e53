"""Regular files: a read of anything else that has a path may never end."""

import os
import stat
from typing import TypeVar

from segjax.data.errors import DataError
from segjax.data.files import json_file
from segjax.data.files.json_file import MOST_BYTES
from segjax.data.parallel import TIMEOUT_S, within

Path = TypeVar("Path")

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
      DataError: as `json_file.read_bytes`.
      TimeoutError: if the disk does not answer within `TIMEOUT_S`.
    """
    return within(TIMEOUT_S, path, json_file.read_bytes, path, remedy, most_bytes)
