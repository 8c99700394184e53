"""One place for what libraries raise at damaged files: an error of ours, in one line."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from segjax.data.errors import DataError, in_a_line

_NAME = 4096  # characters of a path
_LONGEST = 300  # characters of a library's own words
_TERSE = (LookupError, TypeError, AttributeError, ArithmeticError, AssertionError)


@contextlib.contextmanager
def reading(file: Any, remedy: str, found: str = "cannot be read") -> Iterator[None]:
    """Raises a DataError that names the file for any error in the block but a TimeoutError: what a
    library does at a file that was damaged or made to break it cannot be listed.

    Args:
      file: its path, or its name in messages.
      remedy: what to do.
      found: what is wrong, which the library's words follow.
    """
    try:
        yield
    except TimeoutError:
        raise
    except DataError as error:
        if str(file) in error.found or in_a_line(str(file), _NAME) in error.found:
            raise
        raise DataError(f"{file} {found}: {error.found}", error.remedy) from error
    except Exception as error:
        raise DataError(f"{file} {found}: {words_of(error)}", remedy) from error


def words_of(error: Exception) -> str:
    """What an error says, in one short line; its type where it says little."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        text = f"it needs more memory than there is {text}"
    elif isinstance(error, OSError) and error.errno:
        text = os.strerror(error.errno)
    elif isinstance(error, RecursionError):
        text = "it is nested too deeply"
    elif isinstance(error, _TERSE) or not text:
        text = f"{type(error).__name__} {text}"
    return in_a_line(text.strip(), _LONGEST)
