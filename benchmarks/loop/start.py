"""Seconds from the start of a process to the end of its first training step."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
# The names of JAX's events, and of their rows.
_EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "in XLA",
}


def measure(folder: pathlib.Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for a process without a cache of programs, and one for the next process."""
    given = ["--config.data.train_images=8", "--config.train.batch_size=2"] if options.tiny else []
    rows = []
    for name in ("cold", "warm"):
        workdir = folder / f"run_{name}"
        command = [sys.executable, "-m", "benchmarks.loop.start", str(time.time())]
        command += [f"--config={options.config}", f"--workdir={workdir}", *given]
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "programs")}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        rows.append({"cache": name, **json.loads(done.stdout.splitlines()[-1])})
    return rows


def run(began: float, flags: list[str]) -> None:
    """Runs segjax with these flags up to its first step; prints the seconds of the parts as JSON.

    Args:
      began: when the process was started, of `time.time`.
    """
    from jax import monitoring

    import segjax.commands.train as command
    from segjax import cli
    from segjax.training import loop

    sums = dict.fromkeys(_EVENTS.values(), 0.0)
    ends = {"imports": time.time() - began}

    def heard(event: str, seconds: float, **_: Any) -> None:
        if event in _EVENTS:
            sums[_EVENTS[event]] += seconds

    def noted(owner: Any, name: str, part: str, *, at_begin: bool = False) -> None:
        function = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if at_begin:
                ends[part] = time.time() - began
            result = function(*args, **kwargs)
            if not at_begin:
                ends.setdefault(part, time.time() - began)
            return result

        setattr(owner, name, call)

    def first_step(self: Any, step: int, metrics: Any) -> None:
        metrics["loss"].block_until_ready()
        ends["first step"] = time.time() - began
        times = list(ends.items())
        parts = {
            name: end - before
            for (name, end), before in zip(times, [0, *(e for _, e in times)], strict=False)
        }
        cpu = sum(os.times()[:2])
        print(json.dumps({**parts, "all": ends["first step"], "CPU seconds": cpu, **sums}))
        sys.stdout.flush()
        os._exit(0)

    monitoring.register_event_duration_secs_listener(heard)
    noted(command.loop, "train", "config, data and checks", at_begin=True)
    noted(loop._Run, "start", "first state")
    noted(loop._Run, "evaluate", "evaluation of a batch")
    loop._Run.meanwhile = lambda self: None
    loop.MetricsLogger.add = first_step
    sys.argv = ["launch.py", *flags]
    cli.main()


if __name__ == "__main__":
    run(float(sys.argv[1]), sys.argv[2:])
