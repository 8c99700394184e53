"""Files and parts of files that appear complete or not at all."""

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path beside `path` to write to, which is renamed to `path` at the end of the block.

    An error in the block deletes the file and leaves `path` as it was; an OSError without a file's
    name, as of a full disk, gets it. A process that is killed leaves a hidden file that ends in
    `.part`. If `path` is a link, the link is replaced and not the file behind it.
    """
    # The name is of this write alone: processes on several hosts may share a process id.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # the error in the block says more
            partial.unlink()


def append(file: BinaryIO, data: bytes) -> None:
    """Appends to an unbuffered file, or raises OSError and leaves it as it was."""
    end, rest = file.seek(0, os.SEEK_END), memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(end)
        raise
