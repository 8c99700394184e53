"""VGG16's 13 convolutions: SegNet's encoder, and the plain network that FCN and DeepLab start from.

References: Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015, table 1, D;
Badrinarayanan et al., "SegNet", PAMI 2017, section 3 (batch normalisation after each convolution,
no fully connected layers).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from segjax.layers import Conv, ConvNormAct, max_pool_2x2, spatial_size
from segjax.layers.checkpoint_names import block_output

Stages = tuple[tuple[int, ...], ...]

VGG16_STAGES: Stages = (
    (64, 64),
    (128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (512, 512, 512),
)


def scaled_stages(width: float) -> Stages:
    """The channels of VGG16's convolutions, stage by stage, times `width`; at least 1 each."""
    return tuple(tuple(max(1, round(c * width)) for c in stage) for stage in VGG16_STAGES)


def mirrored(stages: Stages, s: int) -> tuple[int, ...]:
    """Output channels of decoder stage s (from 1), the mirror image of the encoder's stage s.

    The last convolution has the channels of the encoder's stage before, so that the indices of the
    next unpooling fit; in stage 1, where there is none before, the channels of its first.
    """
    last = stages[s - 2][-1] if s > 1 else stages[0][0]
    return (*stages[s - 1][1:][::-1], last)


class Pooled(NamedTuple):
    """The record that undoes one pooling: the positions of `max_pool_2x2` and its input's size."""

    positions: UInt8[Array, "n h w c"]
    size: tuple[int, int]


class VGGEncoder(nn.Module):
    """Stages of 3x3 convolutions, each followed by 2x2 max pooling (ceil mode).

    Returns the last pooled map, 1/32 of the input's size rounded up, and one `Pooled` per stage.

    Attributes:
      stages: output channels of the convolutions.
      dropout_rate: dropout after the pooling of stages 3, 4 and 5 (Bayesian SegNet's).
    """

    stages: Stages = VGG16_STAGES
    use_bias: bool = True
    dropout_rate: float = 0.0
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n H W i"], *, train: bool
    ) -> tuple[Float[Array, "n h w c"], list[Pooled]]:
        block = partial(
            ConvNormAct, use_bias=self.use_bias, momentum=self.momentum, dtype=self.dtype
        )
        pools = []
        for s, channels in enumerate(self.stages, 1):
            for i, features in enumerate(channels, 1):
                x = block(features, name=f"conv{s}_{i}")(x, train=train)
            size = spatial_size(x)
            x, positions = max_pool_2x2(x)
            x = block_output(x)
            pools.append(Pooled(positions, size))
            if s >= 3:
                x = nn.Dropout(self.dropout_rate, deterministic=not train, name=f"encdrop{s}")(x)
        return x, pools


class PlainVGG(nn.Module):
    """VGG16's convolutions as they were published: bias and ReLU, no normalisation.

    Returns the map after each stage's pooling, first stage first.

    Attributes:
      stages: output channels of the convolutions.
      pools: one function per stage, from a map to the pooled map.
      rates: atrous rate of each stage's convolutions.
      first_padding: zeros around the image; 1 keeps its size.
    """

    stages: Stages
    pools: tuple[Callable, ...]
    rates: tuple[int, ...] = (1, 1, 1, 1, 1)
    first_padding: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n H W i"]) -> list[Float[Array, "n _h _w _c"]]:
        conv = partial(Conv, use_bias=True, dtype=self.dtype)
        maps = []
        for s, channels in enumerate(self.stages, 1):
            rate = self.rates[s - 1]
            for i, features in enumerate(channels, 1):
                padding = self.first_padding if s == i == 1 else rate
                sides = (padding, padding)
                pads = "CENTER" if padding == rate else (sides, sides)
                x = nn.relu(conv(features, rate=rate, padding=pads, name=f"conv{s}_{i}")(x))
            x = block_output(self.pools[s - 1](x))
            maps.append(x)
        return maps


def max_pool(x: Float[Array, "n H W c"]) -> Float[Array, "n h w c"]:
    """VGG's pooling in Caffe: 2x2, stride 2, a last partial window for an odd row or column."""
    return max_pool_2x2(x)[0]
