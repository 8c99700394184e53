"""Profiles networks: which share of a step's time each kind of work has, and what costs most.

    python -m benchmarks.profiles [NETWORK ...] [--work=train,infer] [--target=cpu|h200|tpu:v5e:1x1]
        [--steps=3] [--markdown=FILE] [--json=FILE] [--against=FILE]

`cpu` runs the networks in float32 and traces them; another target compiles them in bfloat16 for an
absent accelerator, and gives each kernel the least time that its bytes and FLOPs take. `--json`
keeps the profiles, and `--against` such a file shows before and after: to profile another checkout,
run the command there. docs/profiles.md says how to read the tables.

Compiling takes most of the time on a CPU. With JAX_COMPILATION_CACHE_DIR=DIR and
JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 in the environment a second run need not compile.
"""

import argparse
import json
import pathlib
import sys

import jax

from benchmarks.profiles import networks, page, profile, programs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", help="default: all that the target has")
    parser.add_argument("--work", default="train,infer")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--steps", type=int, default=3, help="on a CPU, timed and then traced")
    parser.add_argument("--markdown", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--against", type=pathlib.Path)
    options = parser.parse_args()
    known = networks.ON_CPU if options.target == "cpu" else networks.ON_ACCELERATORS
    works = options.work.split(",")
    if wrong := sorted({*options.networks} - {*known} | {*works} - {*programs.WORKS}):
        parser.error(f"{', '.join(wrong)} unknown; networks: {', '.join(known)}; "
                     f"work: {', '.join(programs.WORKS)}")  # fmt: skip
    profiles = []
    for name in options.networks or known:
        for work in works:
            if options.target == "cpu":
                found = profile.on_cpu(name, known[name], work, options.steps)
            else:
                found = profile.on_accelerator(name, known[name], work, options.target)
            print(f"{name}, {work}, {options.target}: {found.wall:.2f} ms", file=sys.stderr)
            profiles.append(found)
    if options.json:
        kept = {"jax": jax.__version__, "profiles": [each.as_dict() for each in profiles]}
        options.json.write_text(json.dumps(kept, indent=1) + "\n")
    before = []
    if options.against:
        plain = json.loads(options.against.read_text())["profiles"]
        before = [profile.from_dict(each) for each in plain]
    text = page.page(profiles, before)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
