"""`launch.py` in a process of its own, whose lines go to the log."""

import os
import subprocess
import sys
from collections.abc import Mapping

from benchmarks.gpu.process import ROOT


class LaunchError(RuntimeError):
    """A command that failed: its name, its code, its last line."""


def launch(*flags: str, environment: Mapping[str, str] | None = None, codes=(0,)) -> int:
    """Runs `python launch.py FLAGS`, and returns its exit code.

    Raises:
      LaunchError: for a code that is not among `codes`.
    """
    return call([sys.executable, "launch.py", *flags], environment, codes)


def call(command: list[str], environment: Mapping[str, str] | None = None, codes=(0,)) -> int:
    """The same for any command."""
    print("$", *command[1:], flush=True)
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line.strip() or last
    code = process.wait()
    if code not in codes:
        raise LaunchError(f"{' '.join(command[1:4])} ended with code {code}: {last}")
    return code
