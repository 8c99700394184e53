"""What libraries say of a checkpoint that they could not write or read, in one line."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator

from segjax.data.errors import in_a_line


def reason(error: BaseException) -> str:
    """An error's first line, without what libraries add for their authors."""
    lines = str(error).splitlines() or [type(error).__name__]
    return in_a_line(lines[0].split(" [source ")[0], 300)


def disk_problem(error: BaseException | None) -> str | None:
    """The file system's message (no space left on device, quota exceeded, ...) in an error or its
    causes; None if there is none."""
    timeout = None
    while error is not None:
        if isinstance(error, TimeoutError) or "Barrier timed out" in str(error):
            timeout = "a process did not write its part in time"
        elif isinstance(error, OSError):
            return error.strerror or str(error) or type(error).__name__
        # TensorStore raises ValueErrors whose text ends so.
        elif code := re.search(r"os_error_code='(\d+)'", str(error)):
            return os.strerror(int(code[1]))
        error = error.__cause__ or error.__context__
    return timeout


def is_no_traceback(record: logging.LogRecord) -> bool:
    """Keeps the tracebacks of Orbax's threads, pages for each failed write, out of the log;
    `CheckpointStore.finish` raises what they say."""
    return not (record.exc_info and "orbax" in record.pathname)


@contextlib.contextmanager
def without_late_calls() -> Iterator[None]:
    """A context that reads arrays. If that fails, TensorStore still calls back for each other array
    after Orbax has closed its event loop, and Python would print pages of it: from then on it does
    not."""
    before = sys.unraisablehook

    def hook(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook
    yield
    sys.unraisablehook = before
