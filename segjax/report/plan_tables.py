"""The costs of a step on one device: numbers for plan.json and a table of them."""

import collections
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.table import Table

from segjax.accelerators import Device, Program, TooLargeError, bound, peak_of, usable_memory
from segjax.training.parts import Row

Step = Mapping[str, Any]


def step_figures(
    program: Program | TooLargeError, device: Device | None, *, images: int, dtype: str
) -> dict[str, Any]:
    """The numbers of one compiled step.

    Args:
      program: compiled for one device, or the compiler's refusal.
      device: of the table of devices; None: unknown, so that its memory and speed are left out.
      images: that one call works on, over all devices.
      dtype: of the config.

    Returns:
      `Program.as_dict()`; with a device also `limit` (bytes), `share_of_memory`, `fits`, `bound`
      (seconds, see `accelerators.Bound`) and `images_per_second` at that bound. Of a program that
      the compiler refused only `peak`, `limit`, `share_of_memory`, `fits`.
    """
    if isinstance(program, TooLargeError):
        memory = {"peak": program.needed, "limit": program.limit}
        return {**memory, "share_of_memory": program.needed / program.limit, "fits": False}
    if device is None:
        return program.as_dict()
    limit, least = usable_memory(device), bound(program, device)
    return {
        **program.as_dict(),
        "limit": limit,
        "share_of_memory": program.peak / (device.memory / device.per_chip),
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


def plan_table(figures: Mapping[str, Step]) -> Table:
    """A column for each step, a row for each figure that a step has.

    Args:
      figures: step -> what `step_figures` gives.
    """
    table = Table(title="on one device", title_justify="left")
    table.add_column("", overflow="fold")
    for step in figures:
        table.add_column(step, overflow="fold")
    for title, (key, text) in _ROWS.items():
        cells = [text(step) if key in step else "" for step in figures.values()]
        if any(cells):
            table.add_row(title, *cells)
    return table


def parts_table(rows: Iterable[Row]) -> Table:
    """How each part of the network is trained: a row for each `parts.Row`."""
    table = Table(title="parts", title_justify="left")
    for name in ("part", "kind"):
        table.add_column(name, overflow="fold")
    for name in ("parameters", "learning rate", "weight decay"):
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        rates = ("frozen", "") if row.frozen else (row.learning_rate, row.weight_decay)
        texts = [f"{x:.4g}" if isinstance(x, float) else x for x in rates]
        table.add_row(row.part, row.kinds, f"{row.parameters:,}", *texts)
    return table


def _gib(key: str) -> tuple[str, Callable[[Step], str]]:
    """A row of `_ROWS` for a number of bytes."""
    return key, lambda step: f"{step[key] / 2**30:,.2f} GiB"


def _mib(count: float) -> str:
    return f"{count / 2**20:,.2f} MiB"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f} ms"


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines) or "none"


def _convolutions(step: Step) -> str:
    counts = collections.defaultdict(collections.Counter)
    for c in step["convolutions"]:
        counts[c["dtype"]][c["layout"]] += c["count"]
    return _lines(f"{of.total()} {dtype}: {_layouts(of)}" for dtype, of in counts.items())


def _layouts(counts: collections.Counter) -> str:
    """The two most frequent layouts; a TPU's compiler uses many."""
    most = counts.most_common(2)
    named = [layout if len(counts) == 1 else f"{count} {layout}" for layout, count in most]
    others = counts.total() - sum(count for _, count in most)
    return ", ".join([*named, *([f"{others} others"] if others else [])])


def _kernels(step: Step) -> str:
    more = f" and {step['transfers']:,} transfers" if step["transfers"] else ""
    loops = step["open_loops"]
    unknown = f"; {loops} loops of unknown length count once" if loops else ""
    return f"{step['kernels']:,}{more}{unknown}"


def _bound(step: Step) -> str:
    least = {name: _ms(step["bound"][name]) for name in ("seconds", "compute", "memory")}
    return f"{least['seconds']} ({least['compute']} to multiply, {least['memory']} to move)"


# Title of the row -> key that a step must have, and the text of the cell.
_ROWS: dict[str, tuple[str, Callable[[Step], str]]] = {
    "arguments": _gib("arguments"),
    "temporaries": _gib("temporaries"),
    "outputs": _gib("outputs"),
    "peak": _gib("peak"),
    "share of memory": (
        "fits",
        lambda s: f"{s['share_of_memory']:.1%}, {'fits' if s['fits'] else 'does not fit'}",
    ),
    "convolutions": ("convolutions", _convolutions),
    "matrix products": (
        "products",
        lambda s: _lines(f"{count} {dtype}" for dtype, count in s["products"].items()),
    ),
    "maps copied or laid out again": (
        "moves",
        lambda s: _lines(
            f"{m['count']} x {m['kind']}, {m['dtype']}, {_mib(m['bytes'])}" for m in s["moves"]
        ),
    ),
    "maps by index": (
        "gathers",
        lambda s: f"{len(s['gathers'])} gathered, {len(s['scatters'])} scattered",
    ),
    "library calls": (
        "custom_calls",
        lambda s: _lines(f"{n} {name}" for name, n in s["custom_calls"].items()),
    ),
    "kernels": ("kernels", _kernels),
    "read and written": _gib("moved"),
    "FLOPs": (
        "flops",
        lambda s: _lines(f"{n / 1e9:,.1f} GFLOP in {dtype}" for dtype, n in s["flops"].items()),
    ),
    "least time": ("bound", _bound),
    "kernel by kernel": ("bound", lambda s: _ms(s["bound"]["in_turn"])),
    "share of peak at that time": ("bound", lambda s: f"{s['bound']['share_of_peak']:.0%}"),
    "images/s at that time, all devices": ("bound", lambda s: f"{s['images_per_second']:,.0f}"),
    "messages": (
        "messages",
        lambda s: _lines(f"{m['count']} {m['kind']}, {_mib(m['bytes'])}" for m in s["messages"]),
    ),
}
