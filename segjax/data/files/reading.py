"""One place for what libraries raise at damaged files: an error of ours, in one line."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from segjax.data.errors import DataError

_LONGEST = 200  # characters of a library's own words


@contextlib.contextmanager
def reading(file: Any, remedy: str, found: str = "cannot be read") -> Iterator[None]:
    """Raises a DataError for any error in the block: what a library does at a file that was damaged
    or made to break it cannot be listed.

    Args:
      file: its path, or its name in messages.
      remedy: what to do.
      found: what is wrong, which the library's words follow.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{file} {found}: {in_a_line(error)}", remedy) from error


def in_a_line(error: Exception) -> str:
    """What an error says, in one short line that can be printed; its type where it says little."""
    text = str(error)
    if isinstance(error, MemoryError):
        text = f"it needs more memory than there is {text}"
    elif isinstance(error, OSError) and error.errno:
        text = os.strerror(error.errno)
    elif not isinstance(error, OSError | ValueError) or not text:
        text = f"{type(error).__name__} {text}"
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * _LONGEST])
    line = " ".join(line.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
