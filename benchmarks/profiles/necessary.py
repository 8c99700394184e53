"""The bytes that a step needs by kind of work, if each map is stored once.

A convolution, the sums of batch normalisation and the normalisation with its activation are three
passes over memory, since the sums must be complete before the normalisation starts. Each of them
reads its maps once and writes its result once; the next layer's convolution reads the result that
the normalisation wrote. `benchmarks.scaling.model` counts the same passes, added up.

Not counted: weights as the convolutions read them, sums of branches, pooling, augmentation.
"""

import math
from collections.abc import Sequence

from benchmarks.profiles.categories import (
    ELEMENTWISE,
    FORWARD,
    INPUT,
    KERNEL,
    LOSS,
    OPTIMISER,
    STATISTICS,
)  # fmt: skip
from benchmarks.scaling.model import LOGIT_PASSES, MAP_BYTES, SUM_BYTES, UPDATE_BYTES, Layer

# Forward the sums read a convolution's output; backward that and its gradient.
SUM_PASSES = 1 + 2
# Forward read and written; backward read with its gradient, and the convolution's gradient written.
NORM_PASSES = 2 + 3


def training(
    layers: Sequence[Layer], logits: int, parameters: int, images: int
) -> dict[str, float]:
    """Bytes of a training step.

    Args:
      layers: convolutions, of one image.
      logits: numbers, of one image, auxiliary head included.
    """
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
        LOSS: float(images * SUM_BYTES * LOGIT_PASSES * logits),
        OPTIMISER: float(UPDATE_BYTES * parameters),
    }


def inference(layers: Sequence[Layer], images: int) -> dict[str, float]:
    """Bytes of predictions, if each convolution normalises and activates its own output."""
    maps = sum(math.prod(layer.input) + math.prod(layer.output) for layer in layers)
    return {FORWARD: float(images * MAP_BYTES * maps)}
