"""The bytes that a step needs by kind of work, if each map is stored once.

A convolution, the sums of batch normalisation and the normalisation with its activation are three
passes over memory, since the sums must be complete before the normalisation starts. Each of them
reads its maps once and writes its result once; the next layer's convolution reads the result that
the normalisation wrote. `benchmarks.scaling.model` counts the same passes, added up.

Not counted: weights as the convolutions read them, sums of branches, pooling, augmentation; and
resizing and the loss, since logits of full size can be computed again from the small map.
"""

import math
from collections.abc import Sequence

from benchmarks.profiles.categories import (
    ELEMENTWISE,
    FORWARD,
    INPUT,
    KERNEL,
    OPTIMISER,
    STATISTICS,
)  # fmt: skip
from benchmarks.scaling.model import MAP_BYTES, UPDATE_BYTES, Layer

# Forward the sums read a convolution's output; backward that and its gradient.
SUM_PASSES = 1 + 2
# Forward read and written; backward read with its gradient, and the convolution's gradient written.
NORM_PASSES = 2 + 3


def training(layers: Sequence[Layer], parameters: int, images: int) -> dict[str, float]:
    """Bytes of a training step, of the convolutions of one image."""
    inputs = [math.prod(layer.input) for layer in layers]
    output = sum(math.prod(layer.output) for layer in layers)
    # The images need no gradient.
    first = inputs[0] + math.prod(layers[0].output)
    both = sum(inputs) + output
    maps = {
        FORWARD: both,
        INPUT: both - first,
        KERNEL: both,
        STATISTICS: SUM_PASSES * output,
        ELEMENTWISE: NORM_PASSES * output,
    }
    return {
        **{name: float(images * MAP_BYTES * passes) for name, passes in maps.items()},
        OPTIMISER: float(UPDATE_BYTES * parameters),
    }


def inference(layers: Sequence[Layer], images: int) -> dict[str, float]:
    """Bytes of predictions, if each convolution normalises and activates its own output."""
    maps = sum(math.prod(layer.input) + math.prod(layer.output) for layer in layers)
    return {FORWARD: float(images * MAP_BYTES * maps)}
