"""A row of `benchmarks.peers`: our step beside torch's, eager and compiled, in turns."""

import json
import pathlib
import statistics
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.gpu.launch import call

STARTS = 0.7  # of the time, until the slowest compiler is not waited for


def run(
    folder: pathlib.Path,
    seconds: float,
    row: str,
    work: str,
    device: str,
    dtype: str,
    turns: int,
    images: int,
    size: str,
    compiled: bool,
) -> dict[str, Any]:
    file = folder / "peers.json"
    flags = [
        *(row, f"--work={work}", f"--images={images}", f"--size={size}", "--sides=ours,torch"),
        *(f"--device={device}", f"--dtype={dtype}", f"--turns={turns}", "--busy-ok"),
        *(f"--patience={seconds * STARTS:.0f}", f"--json={file}", *["--compile"] * compiled),
    ]
    call([sys.executable, "-m", "benchmarks.peers", *flags])
    (measured,) = json.loads(file.read_text())["rows"]
    (again,) = measured["again"]
    return summary(measured, again)


def summary(measured: Mapping[str, Any], again: Mapping[str, Any]) -> dict[str, Any]:
    """Milliseconds of each contender, its ratio to ours, and its peak memory."""
    times = {
        entry["name"]: statistics.median(entry["seconds"])
        for entry in again["entries"]
        if entry.get("seconds")
    }
    ours, words = times.get("ours"), []
    for entry in again["entries"]:
        name = entry["name"]
        if name not in times:
            words.append(f"{name}: {entry.get('error', 'no times')}")
            continue
        text = f"{name} {1e3 * times[name]:.1f} ms"
        if ours and name != "ours":
            text += f" ({times[name] / ours:.2f} of ours)"
        if peak := entry["memory"]["device"]:
            text += f", {peak / 2**30:.2f} GiB"
        words.append(f"{text}, first step after {entry['first_step_seconds']:.0f} s")
    shape = f"{measured['images']}x{measured['size'][0]}x{measured['size'][1]}"
    return {"good": None, "text": f"{shape}: {'; '.join(words)}", "measured": measured}
