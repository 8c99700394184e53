"""Prints the memory that one device needs when image rows are shared between 1, 2, 4 and 8.

    python -m benchmarks.space [--size 1024 2048] [--remat none] [segnet] [pspnet] ...

Whole training steps (batch normalisation, augmentation, momentum) and evaluation steps of one image
are compiled for that many devices of the CPU, and nothing is run: the numbers are the compiler's
plan. What every device holds whole is parameters, momentum and gradients, and the input.
"""

import argparse
import os

import jax

from segjax.accelerators.collectives import collectives
from segjax.models import build
from tests.training.space import compiled_steps

# The papers' networks.
MODELS = {
    "segnet": dict(name="segnet"),
    "pspnet": dict(name="pspnet", encoder="resnet50"),
    "deeplabv3": dict(name="deeplabv3", encoder="resnet50"),
}
SPACE = (1, 2, 4, 8)
MIB = 2**20


def memory(compiled) -> float:
    """MiB on one device: arguments, results and the most that is between them at a time."""
    plan = compiled.memory_analysis()
    kept = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return (kept + plan.temp_size_in_bytes) / MIB


def sent(compiled) -> str:
    """MiB that one device exchanges, by kind."""
    totals = {}
    for c in collectives(compiled.as_text()):
        totals[c.kind] = totals.get(c.kind, 0) + c.bytes / MIB
    return ", ".join(f"{kind} {total:.0f}" for kind, total in sorted(totals.items())) or "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="model")
    parser.add_argument("--size", nargs=2, type=int, default=(1024, 2048))
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--remat", default="none")
    args = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", max(SPACE))
    size, rows = tuple(args.size), []
    for name in args.models:
        model = build(MODELS[name], args.classes)
        lines = {"training": [], "evaluation": []}  # what is whole on every device goes first
        for space in SPACE:
            programs = compiled_steps(model, size, space, remat=args.remat)
            for step, program in zip(lines, programs, strict=True):
                if space == SPACE[-1]:
                    whole = program.memory_analysis().argument_size_in_bytes / MIB
                    lines[step].insert(0, whole)
                lines[step].append(memory(program))
                print(f"{name}, {step}, {space} devices: {sent(program)}", flush=True)
        rows += [(name, step, *values) for step, values in lines.items()]
    heads = "".join(f" {space} |" for space in SPACE)
    print(f"\nMiB per device, one image of {size[0]}x{size[1]}, float32, remat={args.remat}\n")
    print(f"| network | step | state |{heads} 1 : {SPACE[-1]} |")
    print(f"|---|---|{'---:|' * (len(SPACE) + 2)}")
    for name, step, whole, *values in rows:
        cells = "".join(f" {value:,.0f} |" for value in (whole, *values))
        print(f"| {name} | {step} |{cells} {values[0] / values[-1]:.1f} |")


if __name__ == "__main__":
    # Fused loops take XLA's CPU backend long to compile at this size, and change no buffer.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    main()
