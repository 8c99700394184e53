"""A process that runs one network in one framework, and does as it is told in lines of JSON.

    python -m benchmarks.peers.worker '{"side": "ours", "request": {...}, "segjax": null}'

Its first line is {"ready": ...} once a first step is done, compiled where that is so. Then each
line {"steps": n} is answered by {"seconds": s, "value": v}: the time of n steps and what the last
one gave; and {"finish": true} by {"memory": ...}, the last line. Instead of an answer there may be
{"error": "..."}, after which the process ends. Lines of the frameworks go to stderr.
"""

import importlib
import json
import os
import pathlib
import sys
import time
import traceback

from benchmarks.peers.rows import Row
from benchmarks.peers.work import Request

SIDES = {"ours": "ours", "torch": "in_torch", "keras": "in_keras"}
STATUS, CLEAR = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


def resident(field: str) -> int:
    """Bytes of the process's memory: now ("VmRSS") or at most ("VmHWM")."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def forget_peak() -> bool:
    """Lets VmHWM begin anew at what is used now; False where the system does not let us."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def serve(order: dict, lines, answer) -> None:
    """Does the order of the command line, then what the lines say."""
    began = time.perf_counter()
    side = importlib.import_module(f"benchmarks.peers.{SIDES[order['side']]}")
    if order.get("segjax"):  # after this folder's benchmarks.peers, before anyone's segjax
        sys.path.insert(0, order["segjax"])
    if order["side"] == "ours":
        importlib.import_module("segjax.training.setup")
    request = Request(**{**order["request"], "row": Row(**order["request"]["row"])})
    base = resident("VmRSS")
    imported = time.perf_counter() - began
    work = side.make(request)
    value = work.run(1)
    first_step = time.perf_counter() - began - imported
    start_peak = resident("VmHWM")
    separate = forget_peak()
    answer(
        ready={
            "parameters": work.parameters,
            "logits": work.logits,
            "value": value,
            "import_seconds": imported,
            "first_step_seconds": first_step,
            **work.about,
        }
    )
    for line in lines:
        command = json.loads(line)
        if "finish" in command:
            break
        start = time.perf_counter()
        value = work.run(command["steps"])
        answer(seconds=time.perf_counter() - start, value=value)
    memory = {"base": base, "start": start_peak, "steps": resident("VmHWM"), "separate": separate}
    answer(memory=memory | {"device": work.peak() if work.peak else None})


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**message) -> None:
        print(json.dumps(message), file=out, flush=True)

    try:
        serve(json.loads(sys.argv[1]), sys.stdin, answer)
    except Exception as error:  # whatever a framework raises is this peer's result
        traceback.print_exc()
        answer(error=f"{type(error).__name__}: {error}".strip().splitlines()[0][:400])


if __name__ == "__main__":
    main()
