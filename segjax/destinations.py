"""Where commands write: looked at before they work, so that hours of work have a place to go."""

import os
import pathlib
import stat
from collections.abc import Iterable

_LONGEST = 255  # bytes of a name, of all usual file systems


def check_folder(
    path: str | os.PathLike,
    flag: str,
    *,
    files: Iterable[str] = (),
    folders: Iterable[str] = (),
) -> None:
    """Checks that a folder can be made, if it is not there, and written into.

    Args:
      path: the folder.
      flag: that names it, such as "--output".
      files, folders: names inside that will be written: what has the name must be such a thing.

    Raises:
      ValueError: naming the flag, what is in the way and what to do.
    """
    path = pathlib.Path(path)
    there = _nearest(path, flag)
    if not there.is_dir():
        kind = "a link that leads nowhere" if there.is_symlink() else "a file"
        raise ValueError(f"{flag}={path}: {there} is {kind}; use a folder, or remove it")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{flag}={path}: {there} cannot be written; use another folder")
    for names, right, words in (
        (files, stat.S_ISREG, "no file"),
        (folders, stat.S_ISDIR, "no folder"),
    ):
        for name in names:
            inside = path / name
            if os.path.lexists(inside) and not (inside.exists() and right(inside.stat().st_mode)):
                raise ValueError(f"{inside} is {words}, and will be written as one; remove it")


def check_file(path: str | os.PathLike, flag: str) -> None:
    """Checks that a file can be written: it is one already, or its folder can be made.

    Raises:
      ValueError: naming the flag, what is in the way and what to do.
    """
    path = pathlib.Path(path)
    if os.path.lexists(path) and not path.is_file():
        kind = "a folder" if path.is_dir() else "neither a file nor a folder"
        raise ValueError(f"{flag}={path} is {kind}; use the name of a file")
    check_folder(path.parent, flag)
    _nearest(path, flag)


def _nearest(path: pathlib.Path, flag: str) -> pathlib.Path:
    """The path, or the first of its parents that is there."""
    long = [part for part in path.parts if len(os.fsencode(part)) > _LONGEST]
    if long:
        raise ValueError(
            f"{flag}={path}: a name of {len(os.fsencode(long[0]))} bytes; use {_LONGEST} or fewer"
        )
    while not os.path.lexists(path):
        path = path.parent
    return path
