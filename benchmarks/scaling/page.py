"""The tables of docs/scaling.md, from what `estimate_scaling` counts."""

import math
from collections.abc import Sequence

from benchmarks.scaling import text
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
from benchmarks.scaling.model import (
    INPUT_PASSES,
    LOGIT_PASSES,
    OUTPUT_PASSES,
    SUM_BYTES,
    SUMS_PER_NORM,
    Network,
    compute_time,
    halo_time,
    split,
    step_time,
    strong_speedup,
    weak_efficiency,
)

ACCELERATORS = (H100, A100, TPU_V4, TPU_V5E)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SHORT_COUNTS = (1, 8, 16, 64, 256)
# Of the roofline, what a training step reaches: around the runs in `PUBLISHED`.
SLOW, FAST = 0.4, 0.8
PAPERS_BATCH = 16
_LOADER_PIXELS = 360 * 480
_SAMPLE_BYTES = 4  # a pixel of a decoded sample: three colours and a label


def write(
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
      checks: counts beside published ones, see `estimate_scaling.Check`.
      resnet: ResNet-50 at 224x224, for the check of speed.
      loader: images of 360x480 a second and core, "decoded" and "encoded".
    """
    parts = [
        text.INTRODUCTION,
        _summary(networks, images, loader),
        "## What is counted",
        _counted(networks, images),
        text.COUNTED,
        _checked(checks),
        "## What is compiled",
        text.COMPILED.format(images=images),
        _compiled(networks, images),
        text.ASSUMPTIONS.format(
            input_passes=INPUT_PASSES,
            output_passes=OUTPUT_PASSES,
            logit_passes=LOGIT_PASSES,
            slow=SLOW,
            fast=FAST,
            best_share=f"{max(_peak_share(m, H100, images, FAST) for m in networks):.2f}",
        ),
        _accelerators(),
        text.LINKS,
        "\n".join(f"- {a.name}: {', '.join(a.sources)}" for a in ACCELERATORS),
        "## One accelerator",
        _one(networks, images),
        _speed_check(resnet, images),
        "## Weak scaling: the batch grows",
        text.WEAK.format(images=images, largest=images * COUNTS[-1]),
        *(_weak(networks, accelerator, images) for accelerator in ACCELERATORS),
        "What a step spends, in ms, at the faster computation and without overlap:",
        _spent(networks, H100, images),
        "## Strong scaling: the batch stays",
        text.STRONG.format(batch=PAPERS_BATCH, halos=_halos(networks)),
        _strong(networks, H100),
        _strong(networks, TPU_V4),
        "## Input",
        text.INPUT.format(**{kind: f"{rate:,.0f}" for kind, rate in loader.items()}),
        _input(networks, images, loader),
        text.CHECK,
    ]
    return "\n\n".join(text.wrapped(part.strip("\n")) for part in parts) + "\n"


def _times(m, accelerator, n, images, space=1) -> str:
    """The shortest and the longest time of a step."""
    fast = step_time(m, accelerator, n, images, FAST, overlap=True, space=space)
    slow = step_time(m, accelerator, n, images, SLOW, overlap=False, space=space)
    return f"{text.milliseconds(fast)}–{text.milliseconds(slow)} ms"


def _efficiencies(m, accelerator, n, images) -> tuple[str, str]:
    low = weak_efficiency(m, accelerator, n, images, FAST, overlap=False)
    high = weak_efficiency(m, accelerator, n, images, SLOW, overlap=True)
    return text.share(low), text.share(high)


def _speedups(m, accelerator, n) -> tuple[float, float]:
    low = strong_speedup(m, accelerator, n, PAPERS_BATCH, FAST, overlap=False)
    return low, strong_speedup(m, accelerator, n, PAPERS_BATCH, SLOW, overlap=True)


def _summary(networks, images, loader) -> str:
    def weak(accelerator, n):
        return text.span(e for m in networks for e in _efficiencies(m, accelerator, n, images))

    def strong(m):
        speedup, n = max((_speedups(m, H100, n)[1], n) for n in COUNTS)
        return f"{speedup:.1f} times ({m.name}, on {n})"

    spent = [_parts(m, H100, 256, images) for m in networks]
    wanted = [_input_of(m, images, loader) for m in networks]
    return text.SUMMARY.format(
        names=", ".join(m.name for m in networks),
        images=images,
        batch=PAPERS_BATCH,
        h100_8=weak(H100, 8),
        h100_64=weak(H100, 64),
        h100_256=weak(H100, 256),
        tpu_256=weak(TPU_V5E, 256),
        gradients=text.span(text.milliseconds(parts[1]) for parts in spent),
        statistics=text.span(text.milliseconds(parts[2]) for parts in spent),
        strong=", ".join(map(strong, networks)),
        decoded=text.span(w["decoded"] for w in wanted),
        encoded=text.span(w["encoded"] for w in wanted),
        gigabytes=text.span(w["gigabytes"] for w in wanted),
    )


def _counted(networks, images) -> str:
    header = (
        "per image",
        "size, classes",
        "GFLOP a step (3 x forward, all taps)",
        "parameters",
        "gradients, MB a step",
        "normalisations, KB of statistics a step",
        "memory traffic by passes, GB",
        f"kept maps by passes, GB at {images} images",
    )
    rows = (
        (
            m.name,
            f"{m.size[0]}x{m.size[1]}, {m.classes}",
            f"{m.flops / 1e9:,.0f} ({3 * m.forward_flops / 1e9:,.0f})",
            f"{m.parameters / 1e6:.1f} M",
            f"{SUM_BYTES * m.parameters / 1e6:.0f}",
            f"{m.norms}, {SUMS_PER_NORM * SUM_BYTES * m.statistics / 1e3:,.0f}",
            f"{m.traffic / 1e9:.1f}",
            f"{images * m.kept / 1e9:.1f}",
        )
        for m in networks
    )
    return text.table(header, rows)


def _compiled(networks, images) -> str:
    def row(m, a):
        found = m.compiled[a.name]
        if found is None:
            return (m.name, a.name, "does not fit", "", "", "")
        return (
            m.name,
            a.name,
            f"{found.moved / 1e9:.1f} ({found.moved / m.traffic:.2f})",
            f"{found.peak / 1e9:.1f}",
            f"{found.peak / a.memory:.2f}",
            f"{found.kernels:,}",
        )

    header = (
        "network",
        "accelerator",
        "GB an image (over that by passes)",
        f"GB of memory at {images} images",
        "share",
        "kernels",
    )
    rows = [row(m, a) for m in networks for a in ACCELERATORS if a.name in m.compiled]
    return text.table(header, rows)


def _checked(checks) -> str:
    rows = (
        (c.name, f"{c.layers:.3f}", f"{c.published:.3f}", f"{c.xla:.1f}, {c.xla / c.layers:.2f}")
        for c in checks
    )
    return text.table(("network", "by layers", "torchvision", "by XLA, ratio"), rows)


def _accelerators() -> str:
    def link(link):
        return f"{link.bandwidth / 1e9:.0f} GB/s, {link.latency * 1e6:.1f} us"

    def row(a: Accelerator):
        unit = f"node of {a.node}" if a.between else f"torus, {a.axes} axes, a link"
        return (
            a.name,
            f"{a.flops / 1e12:.0f}",
            f"{a.memory / 1e9:.0f} GB, {a.memory_bandwidth / 1e12:.2f} TB/s",
            f"{unit}: {link(a.inside)}",
            link(a.between) if a.between else "–",
        )

    header = ("one way, per accelerator", "bf16 TFLOP/s", "memory", "inside", "between nodes")
    return text.table(header, map(row, ACCELERATORS))


def _peak_share(m, accelerator, images, efficiency) -> float:
    time = compute_time(m, accelerator, images, efficiency)
    return images * m.flops / accelerator.flops / time


def _one(networks, images) -> str:
    def cell(m, a):
        rates = "–".join(f"{images / compute_time(m, a, images, e):.0f}" for e in (SLOW, FAST))
        return f"{rates}, " + "–".join(f"{_peak_share(m, a, images, e):.2f}" for e in (SLOW, FAST))

    rows = ((a.name, *(cell(m, a) for m in networks)) for a in ACCELERATORS)
    return text.table(("images/s, share of peak", *(m.name for m in networks)), rows)


def _speed_check(resnet, images) -> str:
    reached = []
    for a, published in PUBLISHED:
        roofline = 256 / compute_time(resnet, a, 256, 1.0)
        reached.append(
            f"{published:,} images/s on one {a.name}, {published / roofline:.2f} of the "
            f"{roofline:,.0f} that the roofline allows"
        )
    return text.SPEED.format(
        slow=SLOW, fast=FAST, reached="; ".join(reached), address=PUBLISHED_AT, images=images
    )


def _weak(networks, accelerator, images) -> str:
    def cell(m, n):
        efficiencies = "–".join(_efficiencies(m, accelerator, n, images))
        return f"{_times(m, accelerator, n, images)}, {efficiencies}"

    counts = COUNTS if accelerator is H100 else SHORT_COUNTS
    rows = ((str(n), *(cell(m, n) for m in networks)) for n in counts)
    return text.table((accelerator.name, *(m.name for m in networks)), rows)


def _parts(m, accelerator, n, images) -> tuple[float, float, float]:
    """Seconds of computation, gradients and statistics."""
    compute = compute_time(m, accelerator, images, FAST)
    gradients = all_reduce(SUM_BYTES * m.parameters, n, accelerator)
    whole = step_time(m, accelerator, n, images, FAST, overlap=False)
    return compute, gradients, whole - compute - gradients


def _spent(networks, accelerator, images) -> str:
    rows = (
        (
            str(n),
            *(
                " + ".join(map(text.milliseconds, _parts(m, accelerator, n, images)))
                for m in networks
            ),
        )
        for n in (8, 64, 256)
    )
    header = (f"{accelerator.name}: computation + gradients + statistics",)
    return text.table((*header, *(m.name for m in networks)), rows)


def _halos(networks) -> str:
    def halo(m):
        size = sum(layer.halo_bytes(2) for layer in m.layers if layer.kernel > 1)
        return f"{m.name} {size / 1e6:.0f} MB, {text.milliseconds(halo_time(m, H100, 2))} ms"

    return "; ".join(map(halo, networks))


def _strong(networks, accelerator) -> str:
    def row(n):
        images, space = split(PAPERS_BATCH, n)
        yield f"{n} = {n // space} x {space}"
        for m in networks:
            low, high = _speedups(m, accelerator, n)
            yield f"{_times(m, accelerator, n, images, space)}, {low:.1f}–{high:.1f}"

    return text.table(
        (f"{accelerator.name}, data x space", *(m.name for m in networks)), map(row, COUNTS)
    )


def _images_per_second(m, n, images) -> float:
    return n * images / step_time(m, H100, n, images, FAST, overlap=True)


def _input_of(m, images, loader) -> dict[str, str]:
    """What 8 H100s want of their host: cores, by how samples are prepared, and GB/s."""
    rate = _images_per_second(m, 8, images)
    pixels = math.prod(m.size)
    cores = {kind: rate * pixels / _LOADER_PIXELS / made for kind, made in loader.items()}
    gigabytes = f"{rate * pixels * _SAMPLE_BYTES / 1e9:.1f}"
    return {kind: str(math.ceil(n)) for kind, n in cores.items()} | {"gigabytes": gigabytes}


def _input(networks, images, loader) -> str:
    counts = (1, 8, 64, 256)
    rows = []
    for m in networks:
        rates = (f"{_images_per_second(m, n, images):,.0f}" for n in counts)
        rows.append((m.name, *rates, *_input_of(m, images, loader).values()))
    header = (
        "images/s on H100s",
        *map(str, counts),
        *(f"cores for 8, {kind}" for kind in loader),
        "GB/s for 8, decoded",
    )
    return text.table(header, rows)
