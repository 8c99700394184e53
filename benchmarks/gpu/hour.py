"""The command line of the GPU hour."""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

from benchmarks.gpu import schedule
from benchmarks.gpu.parts import FULL, MINIATURE, parts
from benchmarks.gpu.process import ROOT, CaseProcess
from benchmarks.gpu.results import MARKDOWN, Results, line
from benchmarks.gpu.schedule import Case, Outcome, Part

CPUS_A_CASE = 2  # of the cases beside each other; most of their time is a compiler's
FACTS_SECONDS = 120


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "benchmarks.gpu_hour", description="The first minutes on a GPU; see docs/gpu_hour.md."
    )
    parser.add_argument("--budget", type=float, default=480, help="seconds that all may take")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/gpu_hour"))
    parser.add_argument(
        "--work", type=pathlib.Path, help="for all that is large; default: OUT/work"
    )
    parser.add_argument("--data_dir", default="", help="of CamVid, for the table")
    parser.add_argument("--parts", default="", help="names with commas; default: all")
    parser.add_argument("--at_once", type=int, default=0, help="cases beside each other")
    parser.add_argument("--miniature", action="store_true", help="all of it small, on a CPU")
    return parser


def environment(work: pathlib.Path, miniature: bool) -> dict[str, str]:
    """Variables of every case."""
    return {
        "JAX_PLATFORMS": "cpu" if miniature else "cuda,cpu",
        "JAX_COMPILATION_CACHE_DIR": str(work / "xla"),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # cases share the GPU's memory
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }


def look(variables: Mapping[str, str]) -> dict[str, str]:
    """The facts of the machine, by a process that ends before the cases begin.

    Raises:
      SystemExit: if JAX does not work here.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.facts"],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=FACTS_SECONDS,
    )
    if done.returncode:
        raise SystemExit(f"JAX does not work here:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def chosen(all_parts: list[Part], names: str) -> list[Part]:
    """The parts of these names; SystemExit for an unknown one."""
    known = {part.name: part for part in all_parts}
    wanted = names.split(",") if names else list(known)
    if unknown := [name for name in wanted if name not in known]:
        raise SystemExit(f"--parts={','.join(unknown)} unknown; parts are {', '.join(known)}")
    return [part for part in all_parts if part.name in wanted]


def main() -> None:
    began = time.monotonic()
    options = parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which ends the cases
    out = options.out.resolve()
    work = (options.work or out / "work").resolve()
    size = MINIATURE if options.miniature else FULL
    all_parts = parts(size, options.data_dir, str(out))
    wanted = chosen(all_parts, options.parts)
    results = Results(out, all_parts)
    variables = environment(work, options.miniature)
    found = look(variables)
    for name, value in found.items():
        print(f"{name}: {value}", flush=True)
    results.begin(options.budget, found)

    def start(case: Case, seconds: float) -> CaseProcess:
        print(f"{time.monotonic() - began:5.0f} s  {case.name} ...", flush=True)
        return CaseProcess(case, seconds, work / case.name, variables)

    def record(case: Case, outcome: Outcome, seconds: float) -> None:
        results.record(case, outcome, seconds)
        results.used(time.monotonic() - began)
        state, text = line(results.values["cases"][case.name])
        print(f"{time.monotonic() - began:5.0f} s  {case.name}: {state}. {text}", flush=True)

    with contextlib.suppress(KeyboardInterrupt):
        without_time = schedule.run(
            wanted,
            results.states,
            budget=options.budget - (time.monotonic() - began),
            at_once=options.at_once or max(1, len(os.sched_getaffinity(0)) // CPUS_A_CASE),
            start=start,
            record=record,
        )
        if without_time:
            print(f"no time for {', '.join(without_time)}; the same command goes on", flush=True)
    results.used(time.monotonic() - began)
    print(f"{time.monotonic() - began:5.0f} s  {out / MARKDOWN}", flush=True)
