"""What the networks' training steps move and hold, read from programs compiled for accelerators.

    python -m benchmarks.scaling.compiled ["H100 SXM" "TPU v5e" ...]

writes compiled.json beside this file, which `estimate_scaling` reads; with names, only what
is compiled for those accelerators. One to two minutes a network on two cores for a GPU, several for
a TPU, and no accelerator. It wants what compiles for them:
pip install "jax-cuda12-plugin[with-cuda]" "jax[tpu]", in the version of jax.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping

import jax

from benchmarks.scaling import estimate as estimate_scaling
from benchmarks.scaling.model import COMPILED, UPDATE_BYTES, Compiled
from segjax.accelerators import TooLargeError, parse
from segjax.training import planning
from segjax.training.setup import setup_programs

# By the name of an accelerator in `scaling_links`: what to compile for. The others are taken to
# move what the pass count says.
TARGETS = {"H100 SXM": "h100", "A100 SXM 80 GB": "a100", "TPU v5e": "tpu:v5e:1x1"}


def compiled(target: str, network: str) -> Compiled | None:
    """One network's step of `estimate_scaling.IMAGES` images; None if it does not fit."""
    config = estimate_scaling.configs()[network]
    config.dtype = estimate_scaling.DTYPE
    config.train.batch_size = estimate_scaling.IMAGES
    setup = setup_programs(config, parse(target).devices())
    try:
        program = planning.compiled(setup, "train")
    except TooLargeError:
        return None
    parameters = sum(p.size for p in jax.tree.leaves(setup.abstract_state().params))
    moved = program.moved - UPDATE_BYTES * parameters
    return Compiled(moved / estimate_scaling.IMAGES, program.peak, program.kernels)


def _in_a_process(target: str, network: str) -> Mapping[str, float] | None:
    """JAX takes one choice of platforms a process."""
    call = [sys.executable, "-m", __spec__.name, "--one", target, network]
    printed = subprocess.run(call, check=True, capture_output=True, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("accelerators", nargs="*", choices=[*TARGETS, []], help="default: all")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # target, network: see above
    options = parser.parse_args()
    if options.one:
        found = compiled(*options.one)
        print(json.dumps(dataclasses.asdict(found) if found else None))
        return
    steps = json.loads(COMPILED.read_text())["steps"] if COMPILED.exists() else {}
    for network in estimate_scaling.configs():
        for name in options.accelerators or TARGETS:
            steps.setdefault(network, {})[name] = _in_a_process(TARGETS[name], network)
            text = json.dumps({"jax": jax.__version__, "steps": steps}, indent=1)
            COMPILED.write_text(text + "\n")


if __name__ == "__main__":
    main()
