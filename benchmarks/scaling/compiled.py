"""What the networks' training steps move and hold, read from programs compiled for accelerators.

    python -m benchmarks.scaling.compiled ["H100 SXM" "TPU v5e" ...]

Writes compiled.json beside this file; with names, only what is compiled for those accelerators. A
network takes one to two minutes on two cores for a GPU, several for a TPU, and no accelerator. The
compilers must be installed: pip install "jax-cuda12-plugin[with-cuda]" "jax[tpu]", in the version
of jax.
"""

import argparse
import dataclasses
import json
import subprocess
import sys

import jax

from benchmarks.scaling.estimate import IMAGES, configs
from benchmarks.scaling.model import COMPILED, UPDATE_BYTES, Compiled
from segjax.accelerators import TooLargeError, parse
from segjax.training import planning
from segjax.training.setup import setup_programs

# What to compile for, by the name of the accelerator in `links`. The pass count stands in for the
# others.
TARGETS = {"H100 SXM": "h100", "A100 SXM 80 GB": "a100", "TPU v5e": "tpu:v5e:1x1"}


def compiled(target: str, network: str) -> Compiled | None:
    """One network's step; None if it does not fit."""
    setup = setup_programs(configs()[network], parse(target).devices())
    try:
        program = planning.compiled(setup, "train")
    except TooLargeError:
        return None
    parameters = sum(p.size for p in jax.tree.leaves(setup.abstract_state().params))
    moved = program.moved - UPDATE_BYTES * parameters
    return Compiled(moved / IMAGES, program.peak, program.kernels)


def in_own_process(target: str, network: str) -> dict[str, float] | None:
    """As `compiled`, in a process of its own: JAX chooses its platforms once a process."""
    call = [sys.executable, "-m", __spec__.name, "--one", target, network]
    printed = subprocess.run(call, check=True, capture_output=True, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("accelerators", nargs="*", choices=[*TARGETS, []], help="default: all")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # target, network: see above
    options = parser.parse_args()
    if options.one:
        step = compiled(*options.one)
        print(json.dumps(step and dataclasses.asdict(step)))
        return
    steps = json.loads(COMPILED.read_text())["steps"] if COMPILED.exists() else {}
    for network in configs():
        for name in options.accelerators or TARGETS:
            steps.setdefault(network, {})[name] = in_own_process(TARGETS[name], network)
            text = json.dumps({"jax": jax.__version__, "steps": steps}, indent=1)
            COMPILED.write_text(text + "\n")


if __name__ == "__main__":
    main()
