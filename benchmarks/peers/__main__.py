"""Times our networks against the same ones in torch and in Keras, in turns on one machine.

    python -m benchmarks.peers [ROW ...] [--work=train,infer] [--device=cpu] [--dtype=float32]
        [--turns=7] [--again=3] [--compile] [--images=N] [--size=HxW] [--patience=900]
        [--against=FOLDER] [--json=FILE] [--markdown=FILE]

It needs what it compares with: torch, torchvision, segmentation_models_pytorch, keras and
tensorflow; one that is not installed is named, and the others go on. docs/speed.md says how to read
the table. `--against` is a second checkout of segjax, made by `git worktree add FOLDER COMMIT`: the
column "before". Nobody else may use the machine: it looks before each row, and stops.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import sys

from benchmarks.peers import machine, report, turns
from benchmarks.peers.rows import ROWS, Row
from benchmarks.peers.turns import COMPILED, PLAIN, Contender
from benchmarks.peers.work import Request

WORKS = ("train", "infer")


def contenders(row: Row, options: argparse.Namespace) -> list[Contender]:
    """Who runs a row."""
    found = []
    for side in options.sides.split(","):
        if side != "ours" and side not in row.peers:
            continue
        found.append(Contender(PLAIN[side], side))
        if side == "ours" and options.against:
            found.append(Contender("before", side, segjax=str(options.against.resolve())))
        if side in COMPILED and options.compile:
            found.append(Contender(COMPILED[side], side, compiled=True))
    return found


def resized(row: Row, options: argparse.Namespace) -> Row:
    """The row with the images that the options ask for, as a GPU wants more than a CPU."""
    size = tuple(int(side) for side in options.size.split("x")) if options.size else row.size
    return dataclasses.replace(row, images=options.images or row.images, size=size)


def run(rows: list[Row], options: argparse.Namespace) -> dict:
    """Measures rows, works and repetitions, and says how far it is on stderr.

    Raises:
      BusyError: if others use the machine, unless `options.busy_ok`.
    """
    result = {
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "command": sys.argv[1:],
        "options": {
            name: getattr(options, name)
            for name in ("device", "dtype", "turns", "again", "compile", "busy_ok")
        },
        "rows": [],
    }
    for row in rows:
        for work in options.work.split(","):
            request = Request(
                row, work, options.device, options.dtype, len(os.sched_getaffinity(0))
            )
            again = []
            for number in range(options.again):
                if not options.busy_ok:
                    machine.check_free()
                print(f"{row.title} {row.shape}, {work}, {number + 1}", file=sys.stderr, flush=True)
                again.append(_measure(request, row, options))
            entry = {
                "title": row.title,
                "images": row.images,
                "size": row.size,
                "classes": row.classes,
                "work": work,
                "again": again,
            }
            result["rows"].append(entry)
            if options.json:  # a run that is stopped leaves the rows that it has
                options.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


def _measure(request: Request, row: Row, options: argparse.Namespace) -> dict:
    return turns.measure(request, contenders(row, options), options.turns, options.patience)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "benchmarks.peers", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--work", default=",".join(WORKS))
    parser.add_argument("--sides", default=",".join(PLAIN), help="frameworks to run")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--images", type=int, help="of a batch, in place of the row's")
    parser.add_argument("--size", metavar="HxW", help="of the images, in place of the row's")
    parser.add_argument("--turns", type=int, default=7, help="that count, after one that does not")
    parser.add_argument(
        "--patience",
        type=float,
        default=turns.START_SECONDS,
        help="seconds until one that has not made its first step is left out",
    )
    parser.add_argument("--again", type=int, default=1, help="how often all of it is done anew")
    parser.add_argument(
        "--compile", action="store_true", help="also torch.compile, and Keras by XLA"
    )
    parser.add_argument("--against", type=pathlib.Path, help="another checkout of segjax")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--markdown", type=pathlib.Path, help="a page with markers, or a new file")
    parser.add_argument("--busy-ok", action="store_true", help="for trials; the table says so")
    return parser


def main() -> None:
    options = parser().parse_args()
    unknown = [
        *(name for name in options.rows if name not in ROWS),
        *(name for name in options.work.split(",") if name not in WORKS),
        *(name for name in options.sides.split(",") if name not in PLAIN),
    ]
    if unknown:
        known = ", ".join((*ROWS, *WORKS, *PLAIN))
        raise SystemExit(f"{', '.join(unknown)}: unknown; rows, works and sides are {known}")
    try:
        rows = [resized(ROWS[name], options) for name in options.rows or ROWS]
        result = run(rows, options)
    except machine.BusyError as error:
        raise SystemExit(f"benchmarks.peers: {error}") from error
    text = report.markdown([result])
    print(text)
    if options.markdown:
        report.write(text, options.markdown)


if __name__ == "__main__":
    main()
