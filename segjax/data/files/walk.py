"""The files below a folder."""

import os
import pathlib
from collections.abc import Iterator

from segjax.data.errors import DataError

_MOST = 2_000_000  # entries of a folder that may be a data set


def walk(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
    """The files in a folder and below it, in the order of their names, without hidden ones.

    Links to folders are followed, but no folder is entered twice, so that links in a circle end.

    Raises:
      DataError: after two million files and folders, which no data set has.
    """
    seen, count = set(), 0
    for place, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        count += len(folders) + len(names)
        if count > _MOST:
            raise DataError(
                f"{folder} holds more than {_MOST:,} files and folders",
                "use the folder of the data set itself",
            )
        yield from (pathlib.Path(place, n) for n in sorted(names) if not n.startswith("."))
