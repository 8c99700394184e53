"""Fuzzing of a reader: what it does with files that nobody would write on purpose.

`fuzz` draws edits of intact files (hypothesis), writes each, and reads it under watch: a wrong file
ends in one line that names it, in bounded time and memory, and nothing else is opened, imported,
run or connected to.
"""

import contextlib
import functools
import io
import json
import math
import os
import pathlib
import resource
import signal
import sys
import sysconfig
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

# The longest message that is still one line to read.
_LONGEST_MESSAGE = 1500
# A process maps memory that it never touches: stacks and arenas of threads.
_MAPPED = 2**30
_NEEDLESS = (
    *("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile"),
    *("os.system", "subprocess.Popen", "pty.spawn", "ctypes.dlopen", "webbrowser.open"),
    *("socket.bind", "socket.connect", "socket.getaddrinfo", "urllib.Request"),
    *("os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink"),
)
# Python's own files: an error's traceback reads their lines, a codec is imported when it is needed.
_PYTHON = tuple(
    {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")}
)


def fuzz(
    read: Callable[[pathlib.Path], Any],
    seeds: Sequence[bytes],
    path: pathlib.Path,
    *,
    record: Callable[[str, Any], None],
    examples: int = 100,
    edits: Callable[[bytes], st.SearchStrategy[bytes]] | None = None,
    allowed: tuple[type[Exception], ...] = (ValueError,),
    beside: Sequence[pathlib.Path] = (),
    seconds: float = 5.0,
    mebibytes: float = 256,
) -> None:
    """Reads many damaged forms of files, and fails at the first that a reader does not bear.

    Inputs are the same in each run. One that fails is made as small as it goes, and lies at `path`
    when the test has ended, even if it ended the process.

    Args:
      read: the reader; its value does not count.
      seeds: intact files, which it reads without an error.
      path: where each input is written. An error must name this file.
      record: pytest's `record_property`; it gets the number of inputs.
      examples: inputs to draw.
      edits: draws a damaged form of a seed; `byte_edits` by default.
      allowed: the errors that a user is shown as one line.
      beside: other files that it may open.
      seconds: the longest that one read may take.
      mebibytes: the most memory that one read may add.
    """
    # Once a seed: hypothesis takes longer to make the strategies of a document than to draw.
    edits, tried = functools.cache(edits or byte_edits), 0
    for seed in seeds:  # which also imports what the reader needs
        path.write_bytes(seed)
        read(path)

    @hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(st.sampled_from(list(seeds)).flatmap(edits))
    def read_one(content: bytes) -> None:
        nonlocal tried
        tried += 1
        bear(read, path, content, allowed, beside, seconds, mebibytes)

    try:
        read_one()
    finally:
        record("inputs", tried)


def short_and_long(short: int, long: int) -> pytest.MarkDecorator:
    """Parametrises `examples`: so many inputs by default, and so many with the slow tests."""
    return pytest.mark.parametrize("examples", [short, pytest.param(long, marks=pytest.mark.slow)])


def bear(
    read: Callable[[pathlib.Path], Any],
    path: pathlib.Path,
    content: bytes,
    allowed: tuple[type[Exception], ...] = (ValueError,),
    beside: Sequence[pathlib.Path] = (),
    seconds: float = 5.0,
    mebibytes: float = 256,
) -> None:
    """Writes a file and reads it under watch, as `fuzz` says."""
    path.write_bytes(content)
    with _watched([path, *beside], seconds, mebibytes):
        try:
            read(path)
        except allowed as error:
            _check_message(error, path)


def byte_edits(seed: bytes) -> st.SearchStrategy[bytes]:
    """One to four edits: bits, bytes, numbers of any width, cuts, repeats, insertions."""
    places = st.integers(0, max(len(seed) - 1, 0))
    numbers = st.sampled_from(
        [0, 1, 2**7, 2**15, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]
    )
    packed = st.builds(
        lambda number, width, order: (number % 256**width).to_bytes(width, order),
        numbers,
        st.sampled_from([1, 2, 4, 8]),
        st.sampled_from(["little", "big"]),
    )
    flip = st.builds(lambda at, bit: ("flip", at, bytes([1 << bit])), places, st.integers(0, 7))
    put = st.builds(
        lambda kind, at, what: (kind, at, what),
        st.sampled_from(["overwrite", "insert"]),
        places,
        packed | st.binary(min_size=1, max_size=16),
    )
    span = st.builds(
        lambda kind, at, length: (kind, at, length),
        st.sampled_from(["cut", "delete", "repeat"]),
        places,
        st.integers(1, max(len(seed), 1)),
    )
    return st.lists(flip | put | span, min_size=1, max_size=4).map(
        lambda drawn: _edited(seed, drawn)
    )


def _edited(seed: bytes, drawn: Sequence[tuple[str, int, Any]]) -> bytes:
    content = bytearray(seed)
    for kind, at, what in drawn:
        if kind == "flip" and at < len(content):
            content[at] ^= what[0]
        elif kind == "overwrite":
            content[at : at + len(what)] = what
        elif kind == "insert":
            content[at:at] = what
        elif kind == "cut":
            del content[at:]
        elif kind == "delete":
            del content[at : at + what]
        elif kind == "repeat":
            content[at:at] = content[at : at + what] * min(8, 2**16 // what + 1)
    return bytes(content)


def json_edits(seed: bytes) -> st.SearchStrategy[bytes]:
    """A JSON document one to three of whose values are others, or gone; or an edit of its bytes."""
    document = json.loads(seed)
    places = list(_places(document))
    deep = st.sampled_from([100, 2000, 100_000]).map(lambda n: "[" * n + "]" * n)
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.sampled_from([0, -1, 1, 2**31, 10**20, 1e308, math.nan, math.inf])
        | st.text(max_size=20)
        | st.sampled_from(["../x", "/etc/passwd", "os.system", "\ud800", "\x1b[31m", "a" * 5000])
    )
    values = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=6,
    )
    replaced = st.tuples(st.sampled_from(places), values | st.just(_GONE))
    changed = st.lists(replaced, min_size=1, max_size=3).map(
        lambda drawn: json.dumps(_with(document, drawn)).encode()
    )
    buried = st.tuples(st.sampled_from(places), deep).map(
        lambda drawn: (
            json.dumps(_with(document, [(drawn[0], "<deep>")]))
            .replace('"<deep>"', drawn[1])
            .encode()
        )
    )
    return changed | buried | byte_edits(seed)


_GONE = object()


def _places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    yield path
    items = value.items() if isinstance(value, dict) else ()
    for key, inner in enumerate(value) if isinstance(value, list) else items:
        yield from _places(inner, (*path, key))


def _with(document: Any, drawn: Sequence[tuple[tuple, Any]]) -> Any:
    """A copy of the document with other values at some paths."""
    document = json.loads(json.dumps(document))
    for path, value in drawn:
        if not path:
            return None if value is _GONE else value
        holder = document
        with contextlib.suppress(KeyError, IndexError, TypeError):  # an edit before took it away
            for key in path[:-1]:
                holder = holder[key]
            if value is _GONE:
                del holder[path[-1]]
            else:
                holder[path[-1]] = value
    return document


def zip_edits(
    seed: bytes, inner: Callable[[str, bytes], st.SearchStrategy[bytes]] | None = None
) -> st.SearchStrategy[bytes]:
    """A zip with a member edited by `inner(name, content)` (as `byte_edits` by default), left out,
    doubled or renamed; or an edit of the bytes of the whole."""
    inner = inner or (lambda name, content: byte_edits(content))
    with zipfile.ZipFile(io.BytesIO(seed)) as archive:
        members = [(entry, archive.read(entry)) for entry in archive.infolist()]

    def written(contents: Sequence[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
        out = io.BytesIO()
        with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(out, "w") as archive:
            for entry, content in contents:
                archive.writestr(entry.filename, content, entry.compress_type)
        return out.getvalue()

    def named(name: str, entry: zipfile.ZipInfo) -> zipfile.ZipInfo:
        renamed = zipfile.ZipInfo(name)
        renamed.compress_type = entry.compress_type
        return renamed

    def forms(index: int) -> st.SearchStrategy[bytes]:
        entry, content = members[index]
        before, after = members[:index], members[index + 1 :]
        names = st.sampled_from(["../x", "/etc/x", " ", "a/", "x" * 300, "\x1b[31m"])
        return st.one_of(
            inner(entry.filename, content).map(lambda c: [*before, (entry, c), *after]),
            st.just([*before, *after]),
            st.just([*members, (entry, content)]),
            names.map(lambda name: [*before, (named(name, entry), content), *after]),
        ).map(written)

    return st.integers(0, len(members) - 1).flatmap(forms) | byte_edits(seed)


class _TookTooLong(BaseException):
    """No reader takes it for an error of its own."""


_watching: list[tuple[frozenset[str], list[str]]] = []


def _audit(event: str, arguments: tuple) -> None:
    if not _watching:
        return
    files, seen = _watching[-1]
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        # `realpath` itself raises no events.
        name = os.path.realpath(os.fsdecode(arguments[0]))
        written = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if arguments[2] else 0
        pythons = name.startswith((*_PYTHON, "/proc/", "/dev/null", "/dev/urandom"))
        if name not in files and (written or not pythons):
            seen.append(f"{name} was opened")
    elif event == "import":
        top = arguments[0].partition(".")[0]
        if top not in sys.stdlib_module_names and top not in sys.modules:
            seen.append(f"module {arguments[0]} was imported")
    elif event in _NEEDLESS:
        seen.append(f"{event}{arguments}")


sys.addaudithook(_audit)


@contextlib.contextmanager
def _watched(files: Sequence[pathlib.Path], seconds: float, mebibytes: float) -> Iterator[None]:
    """Bounds time and memory of what runs in it, and lets it open these files alone."""

    def too_long(*_):
        raise _TookTooLong(f"not done after {seconds} s")

    allowed = int(mebibytes * 2**20)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = _memory("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # forgets the highest use
    seen: list[str] = []
    old = signal.signal(signal.SIGALRM, too_long)
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + allowed + _MAPPED, limits[1]))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    _watching.append((frozenset(os.path.realpath(file) for file in files), seen))
    try:
        yield
    finally:
        _watching.pop()
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, old)
    assert not seen, seen
    grown = _memory("VmHWM") - before
    assert grown <= allowed, f"{grown / 2**20:.0f} MiB were used, {mebibytes} are allowed"


def _memory(name: str) -> int:
    """A number of /proc/self/status, in bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def _check_message(error: Exception, path: pathlib.Path) -> None:
    """The error is one line that names the file."""
    text = str(error)
    problem = (
        f"does not name {path.name}"
        if path.name not in text
        else "has several lines"
        if "\n" in text
        else f"has {len(text)} characters"
        if len(text) > _LONGEST_MESSAGE
        else "cannot be printed"
        if not text.isprintable()
        else ""
    )
    if problem:
        raise AssertionError(
            f"the message {problem}: {type(error).__name__}: {text[:500]!r}"
        ) from error
