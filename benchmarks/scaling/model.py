"""Step time on many accelerators by arithmetic: a roofline for the computation, plus messages.

Accelerators share the images of a batch (`parallel.data`); beyond one image each, they share the
rows of an image (`parallel.space`). Times in seconds, sizes in bytes.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping

from benchmarks.scaling.links import Accelerator, all_reduce

MAP_BYTES = 2  # an element of a map in bfloat16
SUM_BYTES = 4  # gradients, statistics and logits are float32
# Passes over maps per convolution with normalisation and activation in a training step. Input: read
# forward, read for the kernel's gradient, gradient written. Output: written; read for the
# statistics; read and written by normalisation; backward, read with its gradient for the sums,
# read again with it to write the gradient of the convolution (5), which two products read (2).
INPUT_PASSES, OUTPUT_PASSES = 3, 11
# Full-size logits: written, read by the loss and by the predictions, gradient written and read by
# the backward pass of the resizing, and one temporary.
LOGIT_PASSES = 6
KEPT_MAPS = 2  # per convolution for the backward pass: its output, before and after normalisation
# Parameters, gradients and momentum read, parameters and momentum written.
UPDATE_BYTES = 5 * SUM_BYTES
BACKWARD_SHARE = 2 / 3  # of the computation: two products for each of the forward pass
SUMS_PER_NORM = 2  # all-reduces: of (sum, sum of squares) forward, of two sums backward
PERMUTES_PER_CONV = 4  # halos come from above and below, forward and backward


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution on one image: maps [rows, columns, channels], side and rate of its kernel."""

    input: tuple[int, int, int]
    output: tuple[int, int, int]
    kernel: int
    rate: int = 1

    @property
    def products(self) -> int:
        """Multiplications of the forward pass, those with the padding's zeros included."""
        return math.prod(self.output) * self.kernel**2 * self.input[2]

    def halo_bytes(self, space: int) -> float:
        """Bytes that a device receives from above and below where `space` devices share the rows:
        of the input forward, of the output's gradient backward."""
        reach = self.kernel // 2 * self.rate
        sizes = (self.input, self.output)
        return sum(
            min(2 * reach, rows - rows / space) * columns * channels * MAP_BYTES
            for rows, columns, channels in sizes
        )


COMPILED = pathlib.Path(__file__).with_name("compiled.json")


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Costs of a training step that was compiled for an accelerator.

    Attributes:
      moved: bytes that kernels read and write, per image, without the update of the parameters.
      peak: bytes of memory.
      kernels: number of kernels.
    """

    moved: float
    peak: float
    kernels: int


@dataclasses.dataclass(frozen=True)
class Network:
    """Counts of a network's training step.

    Attributes:
      size: rows and columns of a training crop.
      classes: of its logits.
      heads: logits it computes, the auxiliary ones included.
      parameters: how many.
      statistics: running means and variances, of `norms` normalisations.
      flops: of a training step, per image.
      layers: its convolutions.
      compiled: by name of the accelerator; None where the step does not fit.
    """

    name: str
    size: tuple[int, int]
    classes: int
    heads: int
    parameters: int
    statistics: int
    norms: int
    flops: float
    layers: tuple[Layer, ...]
    compiled: Mapping[str, Compiled | None] = dataclasses.field(default_factory=dict)

    @property
    def forward_flops(self) -> int:
        return 2 * sum(layer.products for layer in self.layers)

    @property
    def logits(self) -> int:
        return self.heads * self.classes * math.prod(self.size)

    @property
    def traffic(self) -> float:
        """Bytes between an accelerator and its memory, per image, by the passes above."""
        maps = sum(
            INPUT_PASSES * math.prod(layer.input) + OUTPUT_PASSES * math.prod(layer.output)
            for layer in self.layers
        )
        return MAP_BYTES * maps + SUM_BYTES * LOGIT_PASSES * self.logits

    @property
    def kept(self) -> float:
        """Bytes kept for the backward pass, per image, by the passes above."""
        maps = sum(math.prod(layer.output) for layer in self.layers)
        return KEPT_MAPS * (MAP_BYTES * maps + SUM_BYTES * self.logits)

    def moved(self, accelerator: Accelerator) -> float:
        """Bytes between the accelerator and its memory, per image, without the update of the
        parameters: as compiled for it, else by the passes above."""
        compiled = self.compiled.get(accelerator.name)
        return compiled.moved if compiled else self.traffic

    def uneven(self, space: int) -> float:
        """Work of the device with the most rows, over the mean of all devices."""
        work = sum(layer.products for layer in self.layers)
        most = sum(
            layer.products * math.ceil(layer.output[0] / space) / layer.output[0]
            for layer in self.layers
        )
        return most * space / work


def load_compiled() -> dict[str, dict[str, Compiled | None]]:
    """Reads compiled.json: by network and accelerator; None where a step does not fit."""
    stored = json.loads(COMPILED.read_text())["steps"]
    return {
        network: {name: Compiled(**c) if c else None for name, c in row.items()}
        for network, row in stored.items()
    }


def compute_time(
    network: Network, accelerator: Accelerator, images: float, efficiency: float
) -> float:
    """Time to multiply plus time to move, the update of the parameters included, at `efficiency`
    of both peaks."""
    moved = network.moved(accelerator)
    per_image = network.flops / accelerator.flops + moved / accelerator.device.bandwidth
    update = UPDATE_BYTES * network.parameters / accelerator.device.bandwidth
    return (images * per_image + update) / efficiency


def step_time(
    network: Network,
    accelerator: Accelerator,
    n: int,
    images: float,
    efficiency: float,
    *,
    overlap: bool,
    space: int = 1,
) -> float:
    """Time of a training step on n accelerators.

    Args:
      images: per accelerator; where `space` share an image, 1 / space.
      efficiency: share of the roofline that the computation reaches.
      overlap: whether the sums of gradients run behind the backward pass, as far as it lasts.
        Statistics and halos never do: the next layer needs them.
      space: accelerators that share an image's rows.
    """
    compute = compute_time(network, accelerator, images * network.uneven(space), efficiency)
    gradients = all_reduce(SUM_BYTES * network.parameters, n, accelerator)
    hidden = BACKWARD_SHARE * compute if overlap else 0.0
    one_sum = SUM_BYTES * network.statistics / max(network.norms, 1)
    statistics = SUMS_PER_NORM * network.norms * all_reduce(one_sum, n, accelerator)
    halos = halo_time(network, accelerator, space)
    return compute + max(0.0, gradients - hidden) + statistics + halos


def halo_time(network: Network, accelerator: Accelerator, space: int) -> float:
    if space == 1:
        return 0.0
    within = accelerator.between is None or space <= accelerator.node
    link = accelerator.inside if within else accelerator.between
    layers = [layer for layer in network.layers if layer.kernel > 1]
    size = sum(layer.halo_bytes(space) for layer in layers)
    permutes = PERMUTES_PER_CONV * len(layers)
    return size / link.bandwidth + permutes * (accelerator.start + link.latency)


def weak_efficiency(
    network: Network, accelerator: Accelerator, n: int, images: float, efficiency: float, **options
) -> float:
    """Images per second of n accelerators over n times those of one, `images` on each."""
    one = step_time(network, accelerator, 1, images, efficiency, **options)
    return one / step_time(network, accelerator, n, images, efficiency, **options)


def split(batch: int, n: int) -> tuple[float, int]:
    """Images per accelerator, and accelerators per image, of a batch on n accelerators. A batch
    that n does not divide is padded."""
    if n <= batch:
        return math.ceil(batch / n), 1
    space = n // batch
    return 1 / space, space


def strong_speedup(
    network: Network, accelerator: Accelerator, n: int, batch: int, efficiency: float, **options
) -> float:
    """The time of one accelerator over that of n, for `batch` images in all."""
    one = step_time(network, accelerator, 1, batch, efficiency, **options)
    images, space = split(batch, n)
    return one / step_time(network, accelerator, n, images, efficiency, space=space, **options)
