"""How time and work grow with the batch, the image, the classes and the devices, as charts.

    python -m benchmarks.peers.scale [ROW ...] [--axis=batch,size,classes,devices] [--turns=3]
        [--json=FILE] [--busy-ok]
    python -m benchmarks.peers.scale --draw FILE.json [FILE.json ...] --png=docs/speed.png

The charts give microseconds a pixel of the batch, so a flat line grows as the work does. Rows are
those of `python -m benchmarks.peers`, measured by the same workers in turns; each axis changes one
number of the row (`CHANGES`). Virtual devices of a CPU share its cores, so for devices the programs
are compiled and not run: FLOPs and bytes of one device, when each has the row's batch (what is not
flat is done more than once, or for the others).
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.peers import machine, turns
from benchmarks.peers.rows import ROWS, Row
from benchmarks.peers.work import Request

# Factors on the row's images, and on its height and width (multiples of 32 remain so).
BATCHES = (0.25, 0.5, 1, 2)
SIDES = (1 / 3, 2 / 3, 1, 5 / 3)
CLASSES = (2, 21, 60, 150)
DEVICES = (1, 2, 4, 8)
AXES = ("batch", "size", "classes", "devices")
LABELS = {
    "batch": "images a step",
    "size": "pixels an image, thousands",
    "classes": "classes",
    "devices": "devices",
}
DEFAULT_ROWS = ("segnet", "smp_unet")
SERIES = ("ours", "torch", "Keras")


def changes(row: Row, axis: str) -> Iterator[tuple[float, Row]]:
    """The row with one number changed, and the place of each on the axis."""
    if axis == "batch":
        for factor in BATCHES:
            if (images := round(factor * row.images)) >= 1:
                yield images, dataclasses.replace(row, images=images)
    elif axis == "size":
        for factor in SIDES:
            height, width = (max(32, 32 * round(factor * side / 32)) for side in row.size)
            yield height * width / 1000, dataclasses.replace(row, size=(height, width))
    else:
        for classes in CLASSES:
            yield classes, dataclasses.replace(row, classes=classes)


def measure(name: str, axis: str, options: argparse.Namespace) -> list[dict]:
    """The points of one chart."""
    if axis == "devices":
        return [_compiled(name, count) for count in DEVICES]
    points = []
    for x, row in changes(ROWS[name], axis):
        if not options.busy_ok:
            machine.check_free()
        print(f"{row.title} {row.shape}, {row.classes} classes", file=sys.stderr, flush=True)
        request = Request(row, options.work, cores=len(os.sched_getaffinity(0)))
        sides = [side for side in ("ours", *row.peers) if side in options.sides.split(",")]
        found = turns.measure(
            request, [turns.Contender(turns.PLAIN[side], side) for side in sides], options.turns
        )
        pixels = row.images * row.size[0] * row.size[1]
        points.append({"row": name, "axis": axis, "x": x, "pixels": pixels, **found})
    return points


def _compiled(name: str, count: int) -> dict:
    """FLOPs and bytes of a training step on one of `count` devices, by a process that has them."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
    }
    command = [sys.executable, "-m", "benchmarks.peers.scale", "--compile", name]
    done = subprocess.run(
        command, cwd=turns.HERE, env=environment, capture_output=True, text=True, check=True
    )
    return {"row": name, "axis": "devices", "x": count, **json.loads(done.stdout.splitlines()[-1])}


def compile_here(name: str) -> dict[str, float]:
    """The work of one device, in a process of several: each has the row's batch."""
    import jax

    from benchmarks.peers import ours
    from segjax.training import planning
    from segjax.training.setup import setup_programs

    row, count = ROWS[name], jax.device_count()
    row = dataclasses.replace(row, images=count * row.images)
    config = ours.config_of(Request(row, "train"))
    config.parallel.data = count
    program = planning.compiled(setup_programs(config), "train")
    return {
        "flops": program.total_flops,
        "bytes": program.moved,
        "sent": sum(message.bytes for message in program.messages),
    }


def draw(points: Sequence[Mapping[str, Any]], png: pathlib.Path) -> None:
    """A row of charts for each network, one for each axis."""
    from segjax.report.figures import FAINT, GRID, INK, Panel, save_png
    from segjax.report.figures import SERIES as COLORS

    def panel(name: str, axis: str) -> Panel:
        here = [p for p in points if p["row"] == name and p["axis"] == axis]

        def paint(axes) -> None:
            for color, (label, line) in zip(COLORS, lines(here, axis).items(), strict=False):
                x, y = np.array(line, float).T
                axes.plot(x, y, "o-", color=color, label=label, markersize=3, linewidth=1.5)
            axes.set_xscale("log")
            axes.set_xticks(ticks := sorted({p["x"] for p in here}), [f"{x:.3g}" for x in ticks])
            axes.minorticks_off()
            axes.set_ylim(bottom=0)
            axes.grid(color=GRID, linewidth=0.7)
            axes.set_xlabel(LABELS[axis], fontsize=9, color=FAINT)
            axes.legend(fontsize=8, frameon=False, labelcolor=INK)

        unit = "work of one device, of 1" if axis == "devices" else "µs a pixel"
        return Panel(f"{ROWS[name].title.split(',')[0]}: {unit}", paint, (3.2, 2.4))

    names = [name for name in ROWS if any(p["row"] == name for p in points)]
    axes = [axis for axis in AXES if any(p["axis"] == axis for p in points)]
    save_png([panel(name, axis) for name in names for axis in axes], png, columns=len(axes))


def lines(points: Sequence[Mapping[str, Any]], axis: str) -> dict[str, list[tuple[float, float]]]:
    """By name, the points (x, y) of a chart's lines."""
    if axis == "devices":
        return {
            name: [(p["x"], p[name.lower()] / points[0][name.lower()]) for p in points]
            for name in ("FLOPs", "bytes")
        }
    found = {name: [] for name in SERIES}
    for p in points:
        for entry in p["entries"]:
            if entry.get("seconds"):
                y = 1e6 * float(np.median(entry["seconds"])) / p["pixels"]
                found[entry["name"]].append((p["x"], y))
    return {name: line for name, line in found.items() if line}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--axis", default=",".join(AXES))
    parser.add_argument("--work", choices=("train", "infer"), default="train")
    parser.add_argument("--sides", default="ours,torch,keras", help="frameworks to run")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--busy-ok", action="store_true", help="for trials")
    parser.add_argument("--draw", nargs="+", type=pathlib.Path, help="files of --json")
    parser.add_argument("--png", type=pathlib.Path, default=pathlib.Path("docs/speed.png"))
    parser.add_argument("--compile", help=argparse.SUPPRESS)  # of a process that _compiled starts
    options = parser.parse_args()
    if options.compile:
        print(json.dumps(compile_here(options.compile)))
        return
    if options.draw:
        files = [json.loads(path.read_text()) for path in options.draw]
        draw([point for file in files for point in file["points"]], options.png)
        return
    result = {"machine": machine.describe(), "work": options.work, "points": []}
    for name in options.rows or DEFAULT_ROWS:
        for axis in options.axis.split(","):
            try:
                result["points"] += measure(name, axis, options)
            except machine.BusyError as error:
                raise SystemExit(f"benchmarks.peers.scale: {error}") from error
            if options.json:
                options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(_table(result["points"]))


def _table(points: Sequence[Mapping[str, Any]]) -> str:
    """What the charts show, in numbers."""
    out = []
    for name in dict.fromkeys(p["row"] for p in points):
        for axis in dict.fromkeys(p["axis"] for p in points):
            here = [p for p in points if p["row"] == name and p["axis"] == axis]
            for label, line in lines(here, axis).items() if here else ():
                numbers = ", ".join(f"{x:.3g}: {y:.3g}" for x, y in line)
                out.append(f"{name}, {LABELS[axis]}, {label}: {numbers}")
    return "\n".join(out)


if __name__ == "__main__":
    main()
