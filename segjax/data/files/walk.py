"""The files below a folder."""

import os
import pathlib
from collections.abc import Iterator

from segjax.data.errors import DataError

_MOST = 2_000_000  # entries of a folder that may be a data set


def walk(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
    """The files in a folder and below it, without hidden ones, in the order of their names.

    What lies behind links to folders comes last. No folder is entered twice, so that links in a
    circle end, each file comes once, and where it can be reached without links by that name.

    Raises:
      DataError: after two million files and folders, which no data set has.
    """
    seen, count, starts = set(), 0, [os.fspath(folder)]
    for start in starts:  # grows by the links that are found
        for place, folders, names in os.walk(start):
            status = os.stat(place)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            starts += filter(os.path.islink, (os.path.join(place, name) for name in folders))
            count += len(folders) + len(names)
            if count > _MOST:
                raise DataError(
                    f"{folder} holds more than {_MOST:,} files and folders",
                    "use the folder of the data set itself",
                )
            yield from (pathlib.Path(place, n) for n in sorted(names) if not n.startswith("."))
