"""The standard streams of a command: output that fails is dropped, and text gives no orders."""

import contextlib
import io
import os
import re
import select
import sys
import warnings
from typing import Any

# A reader that takes nothing for so long (a stopped pager, Ctrl-S) has lost what follows.
_PATIENCE_S = 20.0
_PIECE = 4096  # bytes: a pipe that is ready takes as many without a wait
# What moves the cursor, hides or reorders text, or is no character: controls but tab and newline,
# the line separators, the directional embeddings and isolates, lone surrogates.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BREAKS = re.compile("[\t\n]")


def printable(text: object) -> str:
    """The text with escapes as Python writes them in place of what a terminal would obey.

    A byte of a file name that is no UTF-8 (a lone surrogate to Python) is written as `\\xf6`.
    """
    text = str(text)
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub(_escape, text)


def one_line(text: object) -> str:
    """`printable`, and no line break or tab."""
    return _BREAKS.sub(_escape, printable(text))


def _escape(match: re.Match) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode()


class _Drain(io.FileIO):
    """A file that takes all that is written to it, and loses what cannot be written.

    Attributes:
      failed: the first error.
    """

    failed: OSError | None = None
    _stalled = False

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest and self._ready():
                rest = rest[super().write(rest[:_PIECE]) or 0 :]
        except OSError as error:
            self.failed = self.failed or error
        return size

    def _ready(self) -> bool:
        """Whether a write would not wait. Only the first of many is waited for."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLOUT)
        self._stalled = not poll.poll(0 if self._stalled else 1000 * _PATIENCE_S)
        return not self._stalled


class Output(io.TextIOWrapper):
    """A standard stream that never raises, in whatever encoding, and prints text `printable`.

    Attributes:
      styled: the same stream for text that is meant to have escape sequences.
    """

    def __init__(self, descriptor: int, encoding: str):
        self._drain = _Drain(descriptor, "w", closefd=False)
        buffer = io.BufferedWriter(self._drain)
        options: dict[str, Any] = {"encoding": encoding, "errors": "backslashreplace"}
        options |= {"line_buffering": True, "write_through": True}
        super().__init__(buffer, **options)
        self.styled = io.TextIOWrapper(buffer, **options)

    def write(self, text: str) -> int:
        super().write(printable(text))
        return len(text)

    @property
    def failed(self) -> OSError | None:
        """The first error of writing."""
        return self._drain.failed


def take_over() -> None:
    """Makes `sys.stdout` and `sys.stderr` of this process `Output`s, and warnings plain lines.

    Streams that other code has put in their place stay.
    """
    for descriptor in (0, 1, 2):  # or the next file that is opened gets what is printed
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, Output(descriptor, getattr(stream, "encoding", None) or "utf-8"))
    for name in ("COLUMNS", "LINES"):  # rich reads other digits than ours, and fails
        if not re.fullmatch("[1-9][0-9]{0,4}", os.environ.get(name, "1")):
            del os.environ[name]
    warnings.formatwarning = _plain_warning


_long_warning = warnings.formatwarning


def _plain_warning(message, category, filename, lineno, line=None) -> str:
    """Our own warnings are for users, who need no line of the code."""
    if category is UserWarning:
        return f"warning: {printable(message)}\n"
    return printable(_long_warning(message, category, filename, lineno, line))


def say(line: object) -> None:
    """Prints a line to stderr, or nothing if that cannot be."""
    with contextlib.suppress(OSError, ValueError):  # the stream may be other code's
        print(printable(line), file=sys.stderr, flush=True)
