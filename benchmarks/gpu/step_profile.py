"""A trace of one training step by `--profile`, and the kernels that take the most of it."""

import collections
import gzip
import pathlib
from typing import Any

from benchmarks.gpu.launch import launch
from benchmarks.gpu.repeat import flags

TRACED = 12  # the step
MOST_BYTES = 8 * 2**20  # of the file that is kept
KERNELS = 15


def run(
    folder: pathlib.Path,
    seconds: float,
    config: str,
    options: list[str],
    out: str,
) -> dict[str, Any]:
    workdir = folder / "run"
    launch(*flags(config, workdir, TRACED + 2), *options, f"--profile={TRACED}:1")
    file = next((workdir / "profile").rglob("*.xplane.pb"))
    packed = gzip.compress(file.read_bytes())
    kept = f"{len(packed) / 2**20:.1f} MiB packed"
    if len(packed) <= MOST_BYTES:
        name = f"profile_{pathlib.Path(config.partition(':')[0]).stem}.xplane.pb.gz"
        (pathlib.Path(out) / name).write_bytes(packed)
        kept += f" as {name}"
    else:
        kept += ", which is too much to keep"
    kernels = kernels_of(file)
    return {**kernels, "good": None, "text": f"{kernels['text']}; {kept}"}


def kernels_of(file: pathlib.Path) -> dict[str, Any]:
    """Time of the kernels by name, over the streams of the first GPU; nothing without one."""
    import jax

    profile = jax.profiler.ProfileData.from_file(str(file))
    plane = next((p for p in profile.planes if p.name.startswith("/device:GPU")), None)
    if plane is None:
        return {"text": "no GPU in the trace", "kernels": {}}
    times, calls, spans = collections.Counter(), collections.Counter(), []
    for line in plane.lines:
        if not line.name.startswith("Stream"):
            continue
        for event in line.events:
            times[event.name] += event.duration_ns
            calls[event.name] += 1
            spans.append((event.start_ns, event.start_ns + event.duration_ns))
    if not spans:
        return {"text": "no kernel in the trace", "kernels": {}}
    wall = max(end for _, end in spans) - min(start for start, _ in spans)
    most = {
        name: {"ms": time / 1e6, "calls": calls[name]} for name, time in times.most_common(KERNELS)
    }
    text = (
        f"{sum(calls.values())} kernels, {sum(times.values()) / 1e6:.2f} ms of them in "
        f"{wall / 1e6:.2f} ms; most: "
        + ", ".join(f"{name[:60]} {each['ms']:.2f}" for name, each in list(most.items())[:5])
    )
    return {"text": text, "kernels": most}
