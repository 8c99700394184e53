"""Profiles networks: which share of a step's time each kind of work has, and what costs most.

    python -m benchmarks.profiles [NETWORK ...] [--work=train,infer] [--target=cpu|h200|tpu:v5e:1x1]
        [--steps=3] [--costliest=10] [--markdown=FILE] [--json=FILE] [--against=FILE]

`cpu` runs the networks in float32 and traces them; another target compiles them in bfloat16 for an
absent accelerator, and gives each kernel the least time that its bytes and FLOPs take. `--json`
adds the profiles to a file, and the tables then show all of the target that it holds; `--against`
such a file shows before and after. To profile another checkout, run the command there. `--markdown`
writes the tables to a file, or between the markers that it holds for the target. `--work=` profiles
nothing and only writes. docs/profiles.md says how to read the tables.

Compiling takes most of the time on a CPU. With JAX_COMPILATION_CACHE_DIR=DIR and
JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 in the environment a second run need not compile.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Iterator, Sequence

from benchmarks.profiles import networks, page, profile, programs
from benchmarks.profiles.profile import Profile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", help="default: all that the target has")
    parser.add_argument("--work", default="train,infer")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--steps", type=int, default=3, help="on a CPU, timed and then traced")
    parser.add_argument("--costliest", type=int, default=10, help="operations of each program")
    parser.add_argument("--markdown", type=pathlib.Path, help="file for the tables")
    parser.add_argument("--json", type=pathlib.Path, help="file that profiles are added to")
    parser.add_argument("--against", type=pathlib.Path, help="a file of --json, from before")
    options = parser.parse_args()
    known = networks.ON_CPU if options.target == "cpu" else networks.ON_ACCELERATORS
    works = [work for work in options.work.split(",") if work]
    if wrong := sorted({*options.networks} - {*known} | {*works} - {*programs.WORKS}):
        parser.error(
            f"{', '.join(wrong)} unknown; networks: {', '.join(known)}; "
            f"work: {', '.join(programs.WORKS)}"
        )
    if options.against and not options.against.exists():
        parser.error(f"--against={options.against}: there is no such file")
    stored = {each.key: each for each in _load(options.json)}
    for found in _profiled(options.networks or [*known], works, options.target, options.steps):
        print(f"{found.network}, {found.work}: {found.ms:.2f} ms", file=sys.stderr)
        stored[found.key] = found
    if options.json:
        plain = [each.as_dict() for each in stored.values()]
        options.json.write_text(json.dumps(plain, indent=1) + "\n")
    shown = [each for each in stored.values() if each.target == options.target]
    text = page.page(shown, _load(options.against), options.costliest)
    print(text)
    if options.markdown:
        _write(options.markdown, text, options.target)


def _profiled(
    names: Sequence[str], works: Sequence[str], target: str, steps: int
) -> Iterator[Profile]:
    for name in names:
        for work in works:
            if target == "cpu":
                yield profile.on_cpu(name, networks.ON_CPU[name], work, steps)
            else:
                network = networks.ON_ACCELERATORS[name]
                yield profile.on_accelerator(name, network, work, target)


def _load(path: pathlib.Path | None) -> list[Profile]:
    if path is None or not path.exists():
        return []
    return [profile.from_dict(each) for each in json.loads(path.read_text())]


def _write(path: pathlib.Path, text: str, target: str) -> None:
    begin, end = f"<!-- {target}: begin -->\n", f"<!-- {target}: end -->"
    before = path.read_text() if path.exists() else ""
    if begin in before:
        head, rest = before.split(begin, 1)
        text = f"{head}{begin}{text}{end}{rest.split(end, 1)[1]}"
    path.write_text(text)


if __name__ == "__main__":
    main()
