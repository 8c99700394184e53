"""Depthwise separable convolution: a depthwise one, then a pointwise one."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from segjax.layers.conv import Conv, ConvNormAct


class SeparableConvNormAct(nn.Module):
    """A depthwise convolution, a 1x1 convolution, batch normalisation, ReLU.

    A 3x3 convolution of c channels to o in c * (9 + o) multiplications a cell instead of 9 * c * o.

    Attributes:
      features: output channels.
      kernel_size, rate: of the depthwise convolution.
      norm_between: whether batch normalisation and ReLU follow the depthwise convolution, too.
      momentum: share of the old statistics that batch normalisation keeps at each step.

    Reference: Chen et al., "Encoder-Decoder with Atrous Separable Convolution", ECCV 2018
    (arXiv 1802.02611), section 3.1 and figure 3; normalisation between: section 3.2.
    """

    features: int
    kernel_size: int = 3
    rate: int = 1
    norm_between: bool = True
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w i"], *, train: bool) -> Float[Array, "n h w o"]:
        block = partial(ConvNormAct, momentum=self.momentum, dtype=self.dtype)
        channels = x.shape[-1]
        options: dict[str, Any] = dict(rate=self.rate, groups=channels, name="depthwise")
        if self.norm_between:
            x = block(channels, self.kernel_size, **options)(x, train=train)
        else:
            x = Conv(channels, self.kernel_size, dtype=self.dtype, **options)(x)
        return block(self.features, 1, name="pointwise")(x, train=train)
