"""Depthwise separable convolution: a depthwise one, then a pointwise one."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from segjax.layers.checkpoint_names import conv_output
from segjax.layers.conv import ConvNormAct, batch_norm, he_normal
from segjax.layers.depthwise import depthwise_conv


class _DepthwiseConv(nn.Module):
    """`depthwise_conv` with its own kernel [k, k, 1, c]."""

    kernel_size: int = 3
    rate: int = 1
    dtype: DTypeLike = jnp.float32
    kernel_init: Callable = he_normal

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        shape = (self.kernel_size, self.kernel_size, 1, x.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x = depthwise_conv(x.astype(self.dtype), kernel.astype(self.dtype), rate=self.rate)
        return conv_output(x)


class _Depthwise(nn.Module):
    """Depthwise convolution and, with `norm`, batch normalisation and ReLU."""

    kernel_size: int = 3
    rate: int = 1
    norm: bool = True
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n h w c"]:
        x = _DepthwiseConv(self.kernel_size, self.rate, self.dtype, name="conv")(x)
        if self.norm:
            x = batch_norm(x, nn.relu, train=train, momentum=self.momentum, dtype=self.dtype)
        return x


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
        x = _Depthwise(
            self.kernel_size,
            self.rate,
            self.norm_between,
            self.momentum,
            self.dtype,
            name="depthwise",
        )(x, train=train)
        pointwise = ConvNormAct(
            self.features, 1, momentum=self.momentum, dtype=self.dtype, name="pointwise"
        )
        return pointwise(x, train=train)
