"""Files that appear complete or not at all."""

import contextlib
import pathlib
import uuid
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path beside `path` to write to, which is renamed to `path` at the end of the block.

    An error in the block deletes the file and leaves `path` as it was. A process that is killed
    leaves a hidden file that ends in `.part`.
    """
    # The name is of this write alone: processes on several hosts may share a process id.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
