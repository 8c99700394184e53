"""What surrounds the steps: waits for data, the start of a run, evaluation, prediction.

    python -m benchmarks.loop [waits] [start] [evaluation] [prediction] [--full] [--json=FILE]
        [--busy-ok]

waits: the share of the time in which the device has no step to work on, of training steps on PNG
and JPEG files and on prepared data, by `data.workers` (0: threads). A step is idle from the end of
the one before until it is handed to the device; a thread notes when each ends.

start: seconds from the start of the process to the end of the first training step, of
`--config` with its first-run cache of programs ("cold") and with a full one ("warm"), by what
happens. Programs are compiled in threads, so that the parts of "in XLA" overlap with the others.

evaluation: seconds an image of the passes of --mode=evaluate over a split in memory, with and
without each of `report.measures`, beside those of the network and an argmax alone.

prediction: seconds an image of --mode=predict on a folder, beside its parts by themselves: decoding
the files, the network, and making and writing the three pictures of each image.

It times nothing while others use the machine. See docs/speed_loop.md for figures.
"""

import argparse
import contextlib
import json
import pathlib
import sys
import tempfile
from typing import Any

from benchmarks.loop import evaluation, prediction, start, waits
from benchmarks.peers import machine

PARTS = {
    "waits": waits.measure,
    "start": start.measure,
    "evaluation": evaluation.measure,
    "prediction": prediction.measure,
}


def table(rows: list[dict]) -> str:
    """Rows of the same keys as a table in Markdown."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_text(row.get(name, "")) for name in names] for row in rows]
    lines = [names, ["---"] * len(names), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Times what surrounds the steps.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--config", default="configs/pspnet.py", help="of `start`")
    parser.add_argument("--steps", type=int, default=12, help="timed steps a row of `waits`")
    parser.add_argument("--images", type=int, default=48, help="files a set")
    parser.add_argument("--workers", default="0,1,2,4", help="of `waits`")
    parser.add_argument("--full", action="store_true", help="`evaluation` of the paper's SegNet")
    parser.add_argument("--tiny", action="store_true", help="a toy network, for tests")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--busy-ok", action="store_true", help="for a trial on a busy machine")
    options = parser.parse_args(arguments)
    if not options.busy_ok:
        try:
            machine.check_free()
        except machine.BusyError as error:
            sys.exit(str(error))
    measured: dict[str, Any] = {"machine": machine.describe()}
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in options.parts or PARTS:
            measured[name] = PARTS[name](folder, options)
            print(f"\n## {name}\n\n{table(measured[name])}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
