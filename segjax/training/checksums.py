"""Checksums of a checkpoint's files: made when it is written, compared before it is read.

Neither TensorStore nor Orbax has any for arrays. A CRC-32 finds each flipped bit and each burst of
up to 32 of them, whatever the file; other damage passes once in four billion times.
"""

import json
import os
import pathlib
import zlib

NAME = "checksums.json"
# What Orbax still changes after the checksums are made; nobody reads it.
_UNCOVERED = ("_CHECKPOINT_METADATA", "commit_success.txt", NAME)
_CHUNK = 1 << 20


def write(folder: pathlib.Path, step: int) -> None:
    """Writes checksums.json: the step, and size and checksum of each file in a checkpoint."""
    files = {name: (path.stat().st_size, _crc(path)) for name, path in _files(folder).items()}
    with (folder / NAME).open("w") as file:
        json.dump({"step": step, "files": files}, file, indent=0)
        file.flush()
        os.fsync(file.fileno())


def check(folder: pathlib.Path, step: int, *, read: bool = True) -> None:
    """Compares a checkpoint with its checksums; it may have none, from an earlier version.

    Args:
      step: that the folder is named after.
      read: whether to read the files, rather than to look at their sizes.

    Raises:
      ValueError: naming the first file that is missing or not as it was written.
      OSError: for a file that cannot be read.
    """
    found = _files(folder)
    if not (folder / NAME).exists():
        return
    try:
        written = json.loads((folder / NAME).read_bytes())
        of, expected = written["step"], {k: (n, crc) for k, (n, crc) in written["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{NAME} is damaged") from error
    if of != step:
        raise ValueError(f"it is a copy of the checkpoint of step {of}")
    for name, (size, crc) in expected.items():
        if name not in found:  # whatever the list names, only these are opened
            raise ValueError(f"{name} is missing")
        if (now := found[name].stat().st_size) != size:
            raise ValueError(f"{name} has {now} bytes instead of {size}")
        if read and _crc(found[name]) != crc:
            raise ValueError(f"{name} is damaged: its checksum is another")


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The files in a checkpoint by their paths in it.

    Raises:
      ValueError: for what is no file; to open a pipe would take for ever.
    """
    files = {}
    for root, _, names in os.walk(folder):
        for path in (pathlib.Path(root, name) for name in names):
            name = path.relative_to(folder).as_posix()
            if not path.is_file():
                raise ValueError(f"{name} is no file")
            if name not in _UNCOVERED:
                files[name] = path
    return dict(sorted(files.items()))


def _crc(path: pathlib.Path) -> int:
    crc = 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc
