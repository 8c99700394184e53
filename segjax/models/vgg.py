"""The VGG16 encoder of SegNet: its 13 convolutions, each stage pooled with indices.

Reference: Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015, table 1, D;
Badrinarayanan et al., "SegNet", PAMI 2017, section 3 (batch normalisation after each convolution,
no fully connected layers).
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from segjax.layers import ConvNormAct, max_pool_2x2

VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class Pooled(NamedTuple):
    """What a decoder needs to undo one pooling."""

    positions: UInt8[Array, "n h w c"]
    size: tuple[int, int]


class VGGEncoder(nn.Module):
    """Stages of 3x3 convolutions, each followed by 2x2 max pooling (ceil mode).

    Returns the last pooled map, 1/32 of the input's size rounded up, and one `Pooled` per stage.
    """

    stages: tuple[tuple[int, ...], ...] = VGG16_STAGES
    use_bias: bool = True
    momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n H W c"], *, train: bool):
        pools = []
        for s, channels in enumerate(self.stages, 1):
            for i, features in enumerate(channels, 1):
                x = ConvNormAct(
                    features,
                    use_bias=self.use_bias,
                    momentum=self.momentum,
                    dtype=self.dtype,
                    name=f"conv{s}_{i}",
                )(x, train=train)
            size = x.shape[1:3]
            x, positions = max_pool_2x2(x)
            pools.append(Pooled(positions, size))
        return x, pools
