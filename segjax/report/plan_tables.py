"""What a step costs on one device, as numbers for plan.json and as a table to read."""

import collections
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from segjax.accelerators import (
    Device,
    Program,
    TooLargeError,
    bound,
    peak_of,
    usable_memory,
)

_GIB = 2**30


def step_figures(
    program: Program | TooLargeError, device: Device | None, *, images: int, dtype: str
) -> dict[str, Any]:
    """The numbers of one compiled step.

    Args:
      program: on one device; or what the compiler answered in its place.
      device: of the table; None = not there, and nothing is said of its memory and speed.
      images: that one call works on, over all devices.
      dtype: of the config.

    Returns:
      What `Program.as_dict` has; and with a device `limit` (bytes), `share_of_memory`, `fits`,
      `bound` (seconds, see `accelerators.Bound`), `images_per_second` at that bound. Of a program
      that the compiler refused only `peak`, `limit`, `share_of_memory`, `fits`.
    """
    limit = usable_memory(device) if device else None
    if isinstance(program, TooLargeError):
        share = program.needed / program.limit
        return {
            "peak": program.needed,
            "limit": program.limit,
            "share_of_memory": share,
            "fits": False,
        }
    figures = program.as_dict()
    if device is None:
        return figures
    least = bound(program, device)
    memory = device.memory / device.per_chip
    return {
        **figures,
        "limit": limit,
        "share_of_memory": program.peak / memory,
        "fits": program.peak <= limit,
        "bound": {
            "seconds": least.seconds,
            "compute": least.compute,
            "memory": least.memory,
            "in_turn": least.in_turn,
            "share_of_peak": program.total_flops / least.seconds / peak_of(device, dtype),
        },
        "images_per_second": images / least.seconds,
    }


def plan_table(figures: Mapping[str, Mapping[str, Any]], device: Device | None) -> Table:
    """A column for each step, a row for each figure.

    Args:
      figures: by step, see `step_figures`.
    """
    table = Table(title="on one device", title_justify="left")
    table.add_column("", overflow="fold")
    for step in figures:
        table.add_column(step, overflow="fold")
    for name, words in _ROWS.items():
        cells = [words(step, device) for step in figures.values()]
        if any(cells):
            table.add_row(name, *cells)
    return table


def _gib(name: str):
    return lambda step, device: f"{step[name] / _GIB:,.2f} GiB" if name in step else ""


def _memory(step: Mapping[str, Any], device: Device | None) -> str:
    if "fits" not in step:
        return ""
    verdict = "fits" if step["fits"] else "does not fit"
    return f"{step['share_of_memory']:.1%}, {verdict}"


def _convolutions(step, device) -> str:
    counts = collections.defaultdict(collections.Counter)
    for c in step.get("convolutions", ()):
        counts[c["dtype"]][c["layout"]] += c["count"]
    return _lines(f"{sum(of.values())} {dtype}: {_layouts(of)}" for dtype, of in counts.items())


def _layouts(counts: collections.Counter) -> str:
    """The most frequent; a TPU's compiler uses many."""
    most = counts.most_common(2)
    named = [layout if len(counts) == 1 else f"{count} {layout}" for layout, count in most]
    others = sum(counts.values()) - sum(count for _, count in most)
    return ", ".join([*named, *([f"{others} others"] if others else [])])


def _products(step, device) -> str:
    return _lines(f"{count} {dtype}" for dtype, count in step.get("products", {}).items())


def _moves(step, device) -> str:
    if "moves" not in step:
        return ""
    found = [
        f"{m['count']} x {m['kind']}, {m['dtype']}, {_size(m['bytes'])}" for m in step["moves"]
    ]
    return _lines(found) or "none"


def _gathers(step, device) -> str:
    if "gathers" not in step:
        return ""
    return f"{len(step['gathers'])} gathered, {len(step['scatters'])} scattered"


def _calls(step, device) -> str:
    if "custom_calls" not in step:
        return ""
    return _lines(f"{count} {name}" for name, count in step["custom_calls"].items()) or "none"


def _kernels(step, device) -> str:
    if "kernels" not in step:
        return ""
    more = f" and {step['transfers']:,} transfers" if step["transfers"] else ""
    loops = step["open_loops"]
    unknown = f"; {loops} loops of unknown length count once" if loops else ""
    return f"{step['kernels']:,}{more}{unknown}"


def _flops(step, device) -> str:
    return _lines(
        f"{count / 1e9:,.1f} GFLOP in {dtype}" for dtype, count in step.get("flops", {}).items()
    )


def _bound(step, device) -> str:
    if "bound" not in step:
        return ""
    least = step["bound"]
    return (
        f"{_ms(least['seconds'])} ({_ms(least['compute'])} to multiply, {_ms(least['memory'])} to "
        f"move)"
    )


def _in_turn(step, device) -> str:
    return _ms(step["bound"]["in_turn"]) if "bound" in step else ""


def _peak_share(step, device) -> str:
    return f"{step['bound']['share_of_peak']:.0%}" if "bound" in step else ""


def _rate(step, device) -> str:
    return f"{step['images_per_second']:,.0f}" if "images_per_second" in step else ""


def _messages(step, device) -> str:
    if "messages" not in step:
        return ""
    found = (f"{m['count']} {m['kind']}, {_size(m['bytes'])}" for m in step["messages"])
    return _lines(found) or "none"


def _lines(lines) -> str:
    return "\n".join(lines)


def _size(count: float) -> str:
    return f"{count / 2**20:,.2f} MiB"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f} ms"


_ROWS = {
    "arguments": _gib("arguments"),
    "temporaries": _gib("temporaries"),
    "outputs": _gib("outputs"),
    "peak": _gib("peak"),
    "share of memory": _memory,
    "convolutions": _convolutions,
    "matrix products": _products,
    "maps laid out anew or copied": _moves,
    "maps by index": _gathers,
    "library calls": _calls,
    "kernels": _kernels,
    "read and written": _gib("moved"),
    "FLOPs": _flops,
    "least time": _bound,
    "kernel by kernel": _in_turn,
    "share of peak, then": _peak_share,
    "images/s, then, all devices": _rate,
    "messages": _messages,
}
