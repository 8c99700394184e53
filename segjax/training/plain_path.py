"""Paths for libraries that take some characters of a path for more than a name."""

import glob
import os
import pathlib

# The system's names of the files that a process has open.
_OPEN = pathlib.Path("/proc/self/fd")
# Bytes of a path to which Orbax can add its own names; systems take 4096.
_LONGEST = 3500


class PlainPath:
    """An existing folder under a path that Orbax and TensorStore can bear.

    Orbax lists folders by patterns: in a path it takes `*`, `?`, `[` for parts of one, and merges
    what lies in other folders or nothing at all. TensorStore takes a backslash for a slash, and
    only UTF-8. Such a folder, and one with a very long path, is opened; its path is the number that
    it is open under. It leaves nothing behind, and each process has its own.

    Attributes:
      path: valid until `close`.

    Raises:
      ValueError: for such a folder, on a system without /proc.
      OSError: if the folder cannot be opened.
    """

    def __init__(self, folder: pathlib.Path):
        self.path, self._opened = folder, None
        name = str(folder)
        if (
            name == glob.escape(name)
            and name.isprintable()  # neither line breaks nor what is no UTF-8
            and "\\" not in name
            and len(os.fsencode(name)) <= _LONGEST
        ):
            return
        if not _OPEN.is_dir():
            raise ValueError(
                f"checkpoints cannot be kept in {name!r}: Orbax misreads *, ?, [, ], backslashes, "
                "line breaks and what is no UTF-8; use another name (--workdir)"
            )
        self._opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.path = _OPEN / str(self._opened)

    def close(self) -> None:
        if self._opened is not None:
            os.close(self._opened)
            self._opened = None
