"""Real processes for tests, started in the repository's root."""

import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

ROOT = pathlib.Path(__file__).parents[2]
# Of launch.py: SegNet-Basic with 4 channels on 12 street scenes, two batches an epoch.
TINY_RUN = (
    "--config=configs/segnet_basic.py",
    "--config.model.features=4",
    "--config.data.image_size=(32, 48)",
    "--config.data.train_images=12",
    "--config.data.eval_images=5",
    "--config.train.batch_size=6",
)


def start(
    *arguments, before: Sequence[str] = (), environment: Mapping[str, str] | None = None, **options
) -> subprocess.Popen:
    """Starts Python with the arguments; its output is read from pipes unless `options` say else.

    Args:
      before: a command that starts Python in turn.
      environment: variables besides those of this process.
      options: of subprocess.Popen.
    """
    return subprocess.Popen(
        [*before, sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **(environment or {})},
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def call(function: Callable, *arguments, **options) -> subprocess.Popen:
    """Calls a function of a test file, with text arguments, in a process of its own."""
    file = function.__code__.co_filename.removeprefix(f"{ROOT}/").removesuffix(".py")
    name = function.__name__
    code = f"import sys; from {file.replace('/', '.')} import {name}; {name}(*sys.argv[1:])"
    return start("-c", code, *arguments, **options)


def assert_end_well(processes: Sequence[subprocess.Popen], timeout: float = 200) -> list[str]:
    """Waits for processes that exit with 0; returns their outputs."""
    outputs = [process.communicate(timeout=timeout) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return [out for out, _ in outputs]


def free_address() -> str:
    """A free port of this host, as HOST:PORT."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{chosen.getsockname()[1]}"


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Asserts that a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
