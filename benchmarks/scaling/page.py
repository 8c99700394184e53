"""Fills page.md.j2, the template of docs/scaling.md."""

import math
import pathlib
from collections.abc import Iterable, Sequence

import jinja2

from benchmarks.scaling import model
from benchmarks.scaling.links import (
    A100,
    H100,
    PUBLISHED,
    PUBLISHED_AT,
    TPU_V4,
    TPU_V5E,
    Accelerator,
    all_reduce,
)
from benchmarks.scaling.model import Network, compute_time, step_time

ACCELERATORS = (H100, A100, TPU_V4, TPU_V5E)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SHORT_COUNTS = (1, 8, 16, 64, 256)
# Share of the roofline that a training step reaches: around the runs in `PUBLISHED`.
SLOW, FAST = 0.4, 0.8
PAPERS_BATCH = 16
_LOADER_PIXELS = 360 * 480
_SAMPLE_BYTES = 4  # a pixel of a decoded sample: three colours and a label


def render(
    networks: Sequence[Network],
    images: int,
    checks: Sequence,
    resnet: Network,
    loader: dict[str, float],
) -> str:
    """The page, in Markdown.

    Args:
      networks: whose steps are estimated.
      images: per accelerator where that is fixed.
      checks: counts beside published ones, see `estimate.Check`.
      resnet: ResNet-50 at 224x224, for the check of speed.
      loader: images of 360x480 a second and core, "decoded" and "encoded".
    """
    file = pathlib.Path(__file__).with_name("page.md.j2")
    template = jinja2.Template(
        file.read_text(),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    names = [m.name for m in networks]
    input_rows = [_input(m, images, loader) for m in networks]
    spent = [_parts(m, H100, 256, images) for m in networks]

    def weak(accelerator, n):
        return _span(e for m in networks for e in _efficiencies(m, accelerator, n, images))

    return template.render(
        names=names,
        images=images,
        batch=PAPERS_BATCH,
        slow=SLOW,
        fast=FAST,
        model=model,
        resnet_at=PUBLISHED_AT,
        largest=f"{images * COUNTS[-1]:,}",
        loader={kind: f"{rate:,.0f}" for kind, rate in loader.items()},
        weak={n: weak(H100, n) for n in (8, 64, 256)},
        weak_tpu=weak(TPU_V5E, 256),
        gradients=_span(_milliseconds(parts[1]) for parts in spent),
        statistics=_span(_milliseconds(parts[2]) for parts in spent),
        speedups=[_best_speedup(m) for m in networks],
        cores={kind: _span(row[kind] for row in input_rows) for kind in loader},
        gigabytes=_span(row["gigabytes"] for row in input_rows),
        best_share=f"{max(_peak_share(m, H100, images, FAST) for m in networks):.2f}",
        halos=[_halo(m) for m in networks],
        counted=_rows(_counted(m, images) for m in networks),
        checked=_rows(
            (c.name, f"{c.layers:.3f}", f"{c.published:.3f}", f"{c.xla:.1f}", _two(c.xla, c.layers))
            for c in checks
        ),
        compiled=_rows(
            _compiled(m, a) for m in networks for a in ACCELERATORS if a.name in m.compiled
        ),
        accelerators=_rows(map(_accelerator, ACCELERATORS)),
        sources=[(a.name, (*a.device.sources, *a.sources)) for a in ACCELERATORS],
        one=_rows((a.name, *(_speed(m, a, images) for m in networks)) for a in ACCELERATORS),
        reached=[_reached(resnet, a, speed) for a, speed in PUBLISHED],
        weak_tables=[(a.name, _weak(networks, a, images)) for a in ACCELERATORS],
        spent=_rows((str(n), *(_spent(m, n, images) for m in networks)) for n in (8, 64, 256)),
        strong_tables=[(a.name, _strong(networks, a)) for a in (H100, TPU_V4)],
        input=_rows(row.values() for row in input_rows),
    )


def _rows(rows: Iterable[Iterable[str]]) -> str:
    """The body of a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _milliseconds(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:.0f}" if ms >= 10 else f"{ms:.1f}"


def _two(part: float, whole: float) -> str:
    return f"{part / whole:.2f}"


def _span(values: Iterable[str]) -> str:
    """The smallest "to" the largest of numbers in text."""
    smallest, *_, largest = sorted(values, key=float)
    return f"{smallest} to {largest}"


def _counted(m: Network, images: int) -> Iterable[str]:
    return (
        m.name,
        f"{m.size[0]}x{m.size[1]}, {m.classes}",
        f"{m.flops / 1e9:,.0f} ({3 * m.forward_flops / 1e9:,.0f})",
        f"{m.parameters / 1e6:.1f} M",
        f"{model.SUM_BYTES * m.parameters / 1e6:.0f}",
        f"{m.norms}, {model.SUMS_PER_NORM * model.SUM_BYTES * m.statistics / 1e3:,.0f}",
        f"{m.traffic / 1e9:.1f}",
        f"{images * m.kept / 1e9:.1f}",
    )


def _compiled(m: Network, a: Accelerator) -> Iterable[str]:
    step = m.compiled[a.name]
    if step is None:
        return m.name, a.name, "does not fit", "", "", ""
    return (
        m.name,
        a.name,
        f"{step.moved / 1e9:.1f} ({_two(step.moved, m.traffic)})",
        f"{step.peak / 1e9:.1f}",
        _two(step.peak, a.device.memory),
        f"{step.kernels:,}",
    )


def _accelerator(a: Accelerator) -> Iterable[str]:
    def link(link):
        return f"{link.bandwidth / 1e9:.0f} GB/s, {link.latency * 1e6:.1f} us"

    unit = f"node of {a.node}" if a.between else f"torus, {a.axes} axes, a link"
    return (
        a.name,
        f"{a.flops / 1e12:.0f}",
        f"{a.device.memory / 2**30:.0f} GiB, {a.device.bandwidth / 1e12:.2f} TB/s",
        f"{unit}: {link(a.inside)}",
        link(a.between) if a.between else "–",
    )


def _peak_share(m: Network, a: Accelerator, images: int, efficiency: float) -> float:
    return images * m.flops / a.flops / compute_time(m, a, images, efficiency)


def _speed(m: Network, a: Accelerator, images: int) -> str:
    rates = "–".join(f"{images / compute_time(m, a, images, e):.0f}" for e in (SLOW, FAST))
    return f"{rates}, " + "–".join(f"{_peak_share(m, a, images, e):.2f}" for e in (SLOW, FAST))


def _reached(resnet: Network, a: Accelerator, published: int) -> str:
    roofline = 256 / compute_time(resnet, a, 256, 1.0)
    return (
        f"{published:,} images/s on one {a.name}, {_two(published, roofline)} of the "
        f"{roofline:,.0f} that the roofline allows"
    )


def _times(m: Network, a: Accelerator, n: int, images: float, space: int = 1) -> str:
    """The shortest and the longest time of a step."""
    fast = step_time(m, a, n, images, FAST, overlap=True, space=space)
    slow = step_time(m, a, n, images, SLOW, overlap=False, space=space)
    return f"{_milliseconds(fast)}–{_milliseconds(slow)} ms"


def _efficiencies(m: Network, a: Accelerator, n: int, images: int) -> tuple[str, str]:
    """The lowest and the highest weak efficiency, rounded down: nothing below 1 is printed as 1."""
    low = model.weak_efficiency(m, a, n, images, FAST, overlap=False)
    high = model.weak_efficiency(m, a, n, images, SLOW, overlap=True)
    floor = (math.floor(100 * efficiency + 1e-9) / 100 for efficiency in (low, high))
    return tuple(f"{efficiency:.2f}" for efficiency in floor)


def _weak(networks: Sequence[Network], a: Accelerator, images: int) -> str:
    def cell(m, n):
        return f"{_times(m, a, n, images)}, {'–'.join(_efficiencies(m, a, n, images))}"

    counts = COUNTS if a is H100 else SHORT_COUNTS
    return _rows((str(n), *(cell(m, n) for m in networks)) for n in counts)


def _parts(m: Network, a: Accelerator, n: int, images: int) -> tuple[float, float, float]:
    """Seconds of computation, gradients and statistics."""
    compute = compute_time(m, a, images, FAST)
    gradients = all_reduce(model.SUM_BYTES * m.parameters, n, a)
    step = step_time(m, a, n, images, FAST, overlap=False)
    return compute, gradients, step - compute - gradients


def _spent(m: Network, n: int, images: int) -> str:
    return " + ".join(map(_milliseconds, _parts(m, H100, n, images)))


def _speedups(m: Network, a: Accelerator, n: int) -> tuple[float, float]:
    low = model.strong_speedup(m, a, n, PAPERS_BATCH, FAST, overlap=False)
    return low, model.strong_speedup(m, a, n, PAPERS_BATCH, SLOW, overlap=True)


def _best_speedup(m: Network) -> str:
    speedup, n = max((_speedups(m, H100, n)[1], n) for n in COUNTS)
    return f"{speedup:.1f} times ({m.name}, on {n})"


def _strong(networks: Sequence[Network], a: Accelerator) -> str:
    def row(n):
        images, space = model.split(PAPERS_BATCH, n)
        yield f"{n} = {n // space} x {space}"
        for m in networks:
            low, high = _speedups(m, a, n)
            yield f"{_times(m, a, n, images, space)}, {low:.1f}–{high:.1f}"

    return _rows(map(row, COUNTS))


def _halo(m: Network) -> str:
    size = sum(layer.halo_bytes(2) for layer in m.layers if layer.kernel > 1)
    return f"{m.name} {size / 1e6:.0f} MB, {_milliseconds(model.halo_time(m, H100, 2))} ms"


def _input(m: Network, images: int, loader: dict[str, float]) -> dict[str, str]:
    """Images a second on 1 to 256 H100s; the cores and GB/s that 8 of them need."""
    rates = {
        n: n * images / step_time(m, H100, n, images, FAST, overlap=True) for n in (1, 8, 64, 256)
    }
    pixels = math.prod(m.size)
    return {
        "name": m.name,
        **{str(n): f"{rate:,.0f}" for n, rate in rates.items()},
        **{
            kind: str(math.ceil(rates[8] * pixels / _LOADER_PIXELS / each))
            for kind, each in loader.items()
        },
        "gigabytes": f"{rates[8] * pixels * _SAMPLE_BYTES / 1e9:.1f}",
    }
