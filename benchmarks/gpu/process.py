"""A case as a process of its own, with all processes that it starts."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Mapping

from benchmarks.gpu.schedule import DONE, FAILED, UNFINISHED, Case, Outcome

ROOT = pathlib.Path(__file__).parents[2]
LOG_LINES = 25
GRACE_SECONDS = 5  # between the request to end and the end


class CaseProcess:
    """`benchmarks.gpu.case`, started; see `schedule.Running`.

    Args:
      folder: of the case; its log and its result go there.
      environment: variables beside this process's.
    """

    def __init__(
        self,
        case: Case,
        seconds: float,
        folder: pathlib.Path,
        environment: Mapping[str, str],
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self._result, self._log = folder / "result.json", folder / "log.txt"
        self._result.unlink(missing_ok=True)
        order = {
            "module": case.module,
            "arguments": dict(case.arguments),
            "folder": str(folder.resolve()),
            "seconds": seconds,
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.gpu.case", json.dumps(order)],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that all that it starts can be ended with it
            )

    def outcome(self) -> Outcome | None:
        code = self._process.poll()
        if code is None:
            return None
        self._signal(signal.SIGKILL)  # what it has left behind
        if code == 0 and self._result.exists():
            result = json.loads(self._result.read_text())
            if result.get("goes_on"):
                return Outcome(UNFINISHED, error=result["text"], log=self._last_lines())
            return Outcome(DONE, result)
        lines = self._last_lines()
        died = f"killed by {signal.Signals(-code).name}" if code < 0 else f"code {code}"
        error = f"{died}: {lines[-1] if lines else 'it said nothing'}"
        return Outcome(FAILED, error=error[:400], log=lines)

    def stop(self, why: str) -> Outcome:
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_SECONDS)
        self._signal(signal.SIGKILL)
        self._process.wait()
        return Outcome(UNFINISHED, error=why, log=self._last_lines())

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _last_lines(self) -> tuple[str, ...]:
        lines = self._log.read_text(errors="replace").splitlines()
        return tuple(line.rstrip()[:300] for line in lines if line.strip())[-LOG_LINES:]
