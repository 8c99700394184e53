"""Processes that share a run agree on it before it begins: options, code, data and workdir."""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import segjax
from segjax import config as configs
from segjax.training.distributed import EXIT_LOST, gather, is_first
from segjax.training.interruption import say

# What may differ: where a process finds its copy of the data, and how it reads them.
_OWN = ("data.root", "data.workers", "data.cache_mb", "data.timeout_s")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
_JAX_OPTIONS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl")
# Seconds that the processes wait for each other at the start, and after they have opened the data.
_START_S, _DATA_S = 120, 900
# Seconds in which a network file system shows a new file.
_SEEN_S = 30
_SHOWN = 5


def agree_on_run(config: Mapping[str, Any], workdir: str | pathlib.Path, **more: Any) -> None:
    """Compares options, versions and workdir of all processes. All must call it; one alone returns.

    Args:
      config: of this process.
      workdir: which process 0 has made.
      more: further facts that must be equal.

    Raises:
      ValueError: in all processes, naming what differs, and between which of them.
    """
    if jax.process_count() == 1:
        return
    ours = configs.flatten(configs.plain(config))
    facts = {name: value for name, value in ours.items() if name not in _OWN}
    facts |= versions() | more
    facts |= {name: str(jax.config.values.get(name)) for name in _JAX_OPTIONS}
    workdir = pathlib.Path(workdir)
    token = workdir / f".processes.{uuid.uuid4().hex}"
    try:
        if is_first():
            with contextlib.suppress(OSError):  # of a finished run that is read alone
                token.touch()
        with within(_START_S, "that all have the same options"):
            gathered = gather((facts, token.name if token.exists() else "", str(workdir)))
        _compare([each for each, *_ in gathered])
        _, name, folder = gathered[0]
        with within(_START_S + _SEEN_S, "that all see the workdir"):
            seen = gather(not name or _appears(workdir / name))
        if not all(seen):
            number = seen.index(False)
            raise ValueError(
                f"process {number} does not see in its --workdir={gathered[number][2]} what "
                f"process 0 writes into {folder}; use a folder that all processes share"
            )
    finally:
        if is_first():
            token.unlink(missing_ok=True)


def agree_on_data(facts: Mapping[str, Any]) -> None:
    """Compares what the processes have found in their data and weights, as `agree_on_run`."""
    if jax.process_count() > 1:
        with within(_DATA_S, "that all have opened the data"):
            gathered = gather(dict(facts))
        _compare(gathered)


@contextlib.contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Ends this process if the block, which waits for the others, is not done in time."""
    number = jax.process_index()

    def end() -> None:
        say(
            f"error: process {number} waited {seconds:g} s for the others, {what}; see their "
            "output, then start all again"
        )
        os._exit(EXIT_LOST)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def differences(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What differs from process 0's facts, in words."""
    first, found = facts[0], []
    for number, other in enumerate(facts[1:], 1):
        for name in sorted({*first, *other}):
            if first.get(name) != other.get(name):
                theirs, ours = other.get(name), first.get(name)
                found.append(
                    f"process {number} has {name}={theirs!r}, process 0 has {name}={ours!r}"
                )
    return found


def _compare(facts: Sequence[Mapping[str, Any]]) -> None:
    if found := differences(facts):
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ValueError(
            f"the processes of the run do not agree: {'; '.join(found[:_SHOWN])}{more}. Start all "
            f"with the same options, versions and data; only {', '.join(_OWN)} may differ"
        )


def _appears(path: pathlib.Path) -> bool:
    """Whether a file is there, or comes within `_SEEN_S` seconds."""
    end = time.monotonic() + _SEEN_S
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


@functools.cache
def versions() -> dict[str, str]:
    """Versions of the packages that compute, and a hash of segjax's sources."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(pathlib.Path(segjax.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    found = {"segjax": f"{segjax.__version__}, sources {digest.hexdigest()}"}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return {**found, "python": ".".join(platform.python_version_tuple()[:2])}


def arrays_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """A hash of names and values."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()
