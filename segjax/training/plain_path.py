"""Paths for libraries that take some characters of a path for more than a name."""

import glob
import os
import pathlib
import re

# The system's names of the files that a process has open.
_OPEN = pathlib.Path("/proc/self/fd")
_USUAL = re.compile(r"[\w./+=,@-]*", re.ASCII)
# Of a path to which Orbax can add its own names; systems take 4096 bytes.
_LONGEST = 3500


class PlainPath:
    """An existing folder under a path that Orbax and TensorStore can bear.

    Orbax lists folders by patterns: in a path it takes `*`, `?`, `[` for parts of one, and merges
    what lies in other folders or nothing at all; it takes `gs:/` for a cloud's. TensorStore takes a
    backslash for a slash, and only UTF-8. A folder with other characters than the usual ones, or
    with a very long path, is opened, and its path is the number that it is open under. That leaves
    nothing behind, and each process has its own.

    Attributes:
      path: valid until `close`.

    Raises:
      ValueError: for such a folder, on a system without /proc.
      OSError: if the folder cannot be opened.
    """

    def __init__(self, folder: pathlib.Path):
        self.path, self._opened = folder, None
        name = str(folder)
        if _USUAL.fullmatch(name) and len(name) <= _LONGEST:
            return
        if not _OPEN.is_dir():
            if name == glob.escape(name) and "\\" not in name:
                return  # most of the others do no harm
            raise ValueError(
                f"checkpoints cannot be kept in {name!r}: Orbax misreads *, ?, [ and backslashes; "
                "use another name (--workdir)"
            )
        self._opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.path = _OPEN / str(self._opened)

    def close(self) -> None:
        if self._opened is not None:
            os.close(self._opened)
            self._opened = None
