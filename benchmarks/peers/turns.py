"""Runs the workers of one row in turns."""

import dataclasses
import json
import math
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from benchmarks.peers import machine
from benchmarks.peers.rows import Row
from benchmarks.peers.work import Request

HERE = pathlib.Path(__file__).parents[2]
TURN_SECONDS = 0.3  # at least; of shorter steps a turn has several
PAUSE_SECONDS = 0.05  # after a turn, in which spinning threads come to rest
WARM_UP = 1  # turns that do not count, after the first step, which does not either
# Names of the columns, as the framework comes and compiled further.
PLAIN = {"ours": "ours", "torch": "torch", "keras": "Keras"}
COMPILED = {"torch": "torch.compile", "keras": "Keras, XLA"}
START_SECONDS, ANSWER_SECONDS = 900, 300


class WorkerError(RuntimeError):
    """A worker that failed, and why."""


@dataclasses.dataclass(frozen=True)
class Contender:
    """Who takes turns.

    Attributes:
      name: of the column.
      side: "ours", "torch" or "keras".
      compiled: see `work.Request`.
      segjax: the folder that ours is taken from; None = this one.
    """

    name: str
    side: str
    compiled: bool = False
    segjax: str | None = None


class Worker:
    """A process of `benchmarks.peers.worker`, as a context.

    Attributes:
      name: of its contender.
      pid: of the process.
    """

    def __init__(self, contender: Contender, request: Request):
        self.name = contender.name
        request = dataclasses.replace(request, compiled=contender.compiled)
        order = {
            "side": contender.side,
            "request": dataclasses.asdict(request),
            "segjax": contender.segjax,
        }
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.worker", json.dumps(order)],
            cwd=HERE,
            env={**os.environ, **_environment(request.device)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self.pid = self._process.pid

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def answer(self, seconds: float) -> dict:
        """The next line of the process.

        Raises:
          WorkerError: if it is an error, the process ended, or `seconds` have passed.
        """
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], seconds)[0]:
            raise WorkerError(f"no answer after {seconds:.0f} s")
        line = stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            last = self._log.read().strip().splitlines()[-1:]
            raise WorkerError(f"the process ended with code {code}: {''.join(last)}")
        message = json.loads(line)
        if "error" in message:
            raise WorkerError(message["error"])
        return message

    def ask(self, **message) -> dict:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(message).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            pass  # the answer says why
        return self.answer(ANSWER_SECONDS)


def _environment(device: str) -> dict[str, str]:
    """Variables of a worker's process."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow"}
    if device == "gpu":  # several processes share the memory
        return {**quiet, "JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return {**quiet, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}


def measure(
    request: Request,
    contenders: Sequence[Contender],
    turns: int,
    patience: float = START_SECONDS,
) -> dict:
    """Times of a row. A contender that is not ready after `patience` seconds is left out.

    Returns:
      "entries", one for each contender: "name", "side", and either "error", or what its worker said
      when it was "ready" (see `worker`), "seconds" of a step in each turn, "steps" of a turn,
      "value" of the last one, and "memory"; "others", the cores that other processes used
      meanwhile; and "notes", sentences about networks that differ.
    """
    entries = [{"name": each.name, "side": each.side} for each in contenders]
    running: list[tuple[Worker, dict]] = []
    try:
        # One after the other, so that each has the machine for its start; beside a GPU, whose time
        # is dear, all at once.
        for contender, entry in zip(contenders, entries, strict=True):
            running.append((Worker(contender, request), entry))
            if request.device == "cpu":
                _guarded(entry, _start, *running[-1], patience)
        if request.device != "cpu":
            until = time.monotonic() + patience
            for worker, entry in running:
                _guarded(entry, _start, worker, entry, max(0.0, until - time.monotonic()))
        notes = check_same(request.row, entries)
        with machine.OthersDuring([worker.pid for worker, _ in running]) as during:
            for turn in range(WARM_UP + turns):
                first = turn % len(running)  # nobody always follows the same one
                for worker, entry in running[first:] + running[:first]:
                    _guarded(entry, _turn, worker, entry, turn >= WARM_UP)
        for worker, entry in running:
            _guarded(entry, _finish, worker, entry)
    finally:
        for worker, _ in running:
            worker.__exit__()
    return {"entries": entries, "others": during.cores, "notes": notes}


def check_same(row: Row, entries: Sequence[dict]) -> list[str]:
    """Compares the networks, before they are timed.

    A peer whose logits have another shape than ours, or that has other parameters without a reason
    in the row, becomes an error.

    Returns:
      Sentences about the differences that have a reason.
    """
    running = [entry for entry in entries if "error" not in entry]
    ours = next((entry for entry in running if entry["name"] == "ours"), None)
    notes = []
    if ours is None:
        return notes
    for entry in running:
        counts = f"{entry['parameters']:,} parameters, ours {ours['parameters']:,}"
        if entry["logits"] != ours["logits"]:
            _fail(entry, f"another network: logits {entry['logits']}, ours {ours['logits']}")
        elif entry["parameters"] != ours["parameters"]:
            if entry["side"] in row.counts:
                notes.append(f"{entry['name']}: {counts}; {row.counts[entry['side']]}")
            else:
                _fail(entry, f"another network: {counts}")
    return notes


def _fail(entry: dict, why: str) -> None:
    """Leaves nothing of an entry but who it is, and why it has no times."""
    kept = {"name": entry["name"], "side": entry["side"]}
    entry.clear()
    entry.update(kept, error=why)


def _guarded(entry: dict, act: Callable, *arguments) -> None:
    """Acts unless the worker has failed; if it fails now, its entry says so."""
    if "error" in entry:
        return
    try:
        act(*arguments)
    except WorkerError as error:
        _fail(entry, str(error))


def _start(worker: Worker, entry: dict, patience: float) -> None:
    try:
        entry.update(worker.answer(patience)["ready"], seconds=[])
    except WorkerError:
        worker.__exit__()  # lest it goes on compiling beside the others' turns
        raise


def _turn(worker: Worker, entry: dict, counts: bool) -> None:
    steps = entry.get("steps", 1)
    answer = worker.ask(steps=steps)
    time.sleep(PAUSE_SECONDS)
    seconds = answer["seconds"] / steps
    if counts:
        entry["seconds"].append(seconds)
        entry["value"] = answer["value"]
    else:
        entry["steps"] = max(1, math.ceil(TURN_SECONDS / seconds))


def _finish(worker: Worker, entry: dict) -> None:
    entry["memory"] = worker.ask(finish=True)["memory"]
