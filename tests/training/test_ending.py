"""How a process ends; what several of them do is in test_many_processes.py."""

import os
import pathlib
import subprocess
import sys

import pytest

from segjax.training import ending
from segjax.training.interruption import Interrupted

ROOT = pathlib.Path(__file__).parents[2]
# C's abort() in another thread than the main one, which waits; as JAX does it.
ABORTED = """
import ctypes, sys, threading, time
from segjax.training import ending
abort = ending.OnAbort("the reason")
if sys.argv[1:]:
    abort.restore()
sys.stdout.write("not flushed yet")
threading.Thread(target=ctypes.CDLL(None).abort).start()
time.sleep(60)
"""


@pytest.mark.parametrize(
    "arguments, code, out, error",
    [
        ((), ending.EXIT_LOST, "not flushed yet", "error: the reason\n"),
        (("restored",), -6, "", ""),  # SIGABRT
    ],
)
def test_abort(arguments, code, out, error):
    done = subprocess.run(
        [sys.executable, "-c", ABORTED, *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, out, error)


@pytest.mark.parametrize("kind", [ValueError, KeyError, Interrupted, KeyboardInterrupt])
def test_errors_pass_where_there_are_no_others(kind):
    with pytest.raises(kind, match="mine"), ending.together(ValueError, OSError):
        raise kind("mine")
