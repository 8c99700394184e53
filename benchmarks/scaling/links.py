"""Links between accelerators, and the time of an all-reduce over them by arithmetic.

Counts are powers of two. Times in seconds, sizes in bytes, rates per second.
"""

import dataclasses
import math

from segjax.accelerators import DEVICES, Device


@dataclasses.dataclass(frozen=True)
class Link:
    """One direction of one accelerator's link: `bandwidth`, and `latency` of a hop."""

    bandwidth: float
    latency: float


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One kind of accelerator and how many of them are connected.

    Attributes:
      name: on the page.
      device: its peak, memory and bandwidth.
      inside: within a node of `node` (GPUs), or one axis of a torus (TPUs).
      between: between nodes, per accelerator; None = all within one torus.
      axes: of the torus; 0 = nodes.
      start: of one collective.
      sources: addresses for the links.
    """

    name: str
    device: Device
    inside: Link
    between: Link | None = None
    node: int = 8
    axes: int = 0
    start: float = 4.4e-6
    sources: tuple[str, ...] = ()

    @property
    def flops(self) -> float:
        """Dense peak in bfloat16."""
        return self.device.peak["bfloat16"]


_NCCL_TUNING = "https://github.com/NVIDIA/nccl/blob/master/src/graph/tuning.cc"
_TORUS = ("https://jax-ml.github.io/scaling-book/sharding",)
# Latencies of GPUs are NCCL's own model of its tree in the LL128 protocol: 4.4 us to start, 1.2 us
# a hop over NVLink, 8.5 us over the network. Bandwidths are what NCCL reaches of the line rate.
H100 = Accelerator(
    name="H100 SXM",
    device=DEVICES["h100"],
    inside=Link(370e9, 1.2e-6),  # of 450 GB/s
    between=Link(46e9, 8.5e-6),  # of 400 Gbit/s
    sources=(
        "https://docs.nvidia.com/dgx-basepod/reference-architecture-infrastructure-foundation-"
        "enterprise-ai/latest/core-components.html",
        "https://github.com/NVIDIA/nccl-tests/issues/212",
        "https://github.com/NVIDIA/nccl-tests/issues/290",
        _NCCL_TUNING,
    ),
)
A100 = Accelerator(
    name="A100 SXM 80 GB",
    device=DEVICES["a100"],
    inside=Link(235e9, 1.2e-6),  # of 300 GB/s
    between=Link(23e9, 8.5e-6),  # of 200 Gbit/s
    sources=(
        "https://developer.nvidia.com/blog/defining-ai-innovation-with-dgx-a100",
        _NCCL_TUNING,
    ),
)
TPU_V4 = Accelerator("TPU v4", DEVICES["v4"], Link(45e9, 1e-6), axes=3, sources=_TORUS)
TPU_V5E = Accelerator("TPU v5e", DEVICES["v5e"], Link(50e9, 1e-6), axes=2, sources=_TORUS)
# For the check against published throughput alone; its tensor cores multiply float16.
V100 = Accelerator(
    "V100 SXM 16 GB",
    Device("v100", "Tesla V100-SXM2-16GB", int(16e9), 900e9, {"bfloat16": 125e12}, "float32", ()),
    Link(150e9, 1.2e-6),
)
# ResNet-50 v1.5, mixed precision, images a second on one GPU.
PUBLISHED = ((A100, 2470), (V100, 1200))
PUBLISHED_AT = (
    "https://github.com/NVIDIA/DeepLearningExamples/tree/master/PyTorch/Classification/ConvNets/"
    "resnet50v1.5"
)


def ring(size: float, n: int, link: Link) -> float:
    """All-reduce of `size` bytes around a ring of n: each sends and receives 2 (n - 1) parts."""
    return 2 * (n - 1) / n * size / link.bandwidth + 2 * (n - 1) * link.latency


def tree(size: float, n: int, accelerator: Accelerator) -> float:
    """All-reduce up a chain in each node and a tree over nodes, and down again: few hops."""
    inside, between = accelerator.inside, accelerator.between
    node = min(n, accelerator.node)
    time = 2 * size / inside.bandwidth + 2 * (node - 1) * inside.latency
    if n > node:
        hops = math.ceil(math.log2(n // node))
        time += 2 * size / node / between.bandwidth + 2 * hops * between.latency
    return time


def hierarchical(size: float, n: int, accelerator: Accelerator) -> float:
    """Reduce-scatter within each node, all-reduce of every part between nodes, all-gather."""
    node = min(n, accelerator.node)
    time = ring(size, node, accelerator.inside)
    if n > node:
        time += ring(size / node, n // node, accelerator.between)
    return time


def torus(size: float, n: int, accelerator: Accelerator) -> float:
    """All-reduce along all axes at once. Every axis counts as a line: full rings exist on some
    sizes only, and would double the bandwidth."""
    doublings = round(math.log2(n))
    axes = min(accelerator.axes, doublings)
    sides = [2 ** (doublings // axes + (axis < doublings % axes)) for axis in range(axes)]
    link = accelerator.inside
    sent = 2 * (n - 1) / n * size / (axes * link.bandwidth)
    return sent + 2 * sum(side - 1 for side in sides) * link.latency


def all_reduce(size: float, n: int, accelerator: Accelerator) -> float:
    """Time of one all-reduce of `size` bytes over n accelerators, the faster way; 0 for one."""
    if n == 1:
        return 0.0
    if accelerator.axes:
        return accelerator.start + torus(size, n, accelerator)
    return accelerator.start + min(hierarchical(size, n, accelerator), tree(size, n, accelerator))
