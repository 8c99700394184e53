"""The blocks of the seed notebooks' networks: convolution, ReLU, then normalisation.

The notebooks write `Conv2D(activation="relu")` followed by `BatchNormalization()`: the ReLU comes
before the normalisation, every convolution has a bias, and a block's output may be negative. Their
ResNets have ResNet-50's depths (He et al., "Deep Residual Learning", CVPR 2016, table 1) and, as in
that paper, the stride in the first 1x1 convolution of a stage.

Source: the documents `pspnet_keras_idd` and `deeplabv3_keras_idd`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from segjax.layers import Conv, max_pool, pool_padding, relu, spatial_size
from segjax.layers.checkpoint_names import block_output
from segjax.layers.conv import batch_norm

# Keras's "he_normal" is a truncated normal distribution, as linen's of that name.
he_normal = nn.initializers.he_normal()


def scaled(channels: int, width: float) -> int:
    """A channel count of the source at another width, at least 1."""
    return max(1, round(channels * width))


class ConvActNorm(nn.Module):
    """Convolution with a bias, activation, batch normalisation, in Keras's conventions.

    Padding is "same": at stride 2 it is uneven, with the smaller part before the map. Normalisation
    has Keras's epsilon, 1e-3, and float32 statistics. `function` is `Conv`'s.
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    rate: int = 1
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    momentum: float = 0.99
    dtype: DTypeLike = jnp.float32
    kernel_init: Callable = he_normal
    function: Callable[[jax.Array, jax.Array], jax.Array] | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "n H W i"], *, train: bool) -> Float[Array, "n h w o"]:
        # At stride 1 an odd kernel's "same" padding is the same on both sides, whatever the rate.
        padding = "CENTER"
        if self.strides > 1:
            kernel, strides = (self.kernel_size, self.kernel_size), (self.strides, self.strides)
            padding = pool_padding(spatial_size(x), kernel, strides, "SAME")
        x = Conv(
            self.features,
            self.kernel_size,
            self.strides,
            self.rate,
            use_bias=True,
            padding=padding,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            function=self.function,
            name="conv",
        )(x)
        x = self.activation(x) if self.activation else x
        return batch_norm(x, train=train, momentum=self.momentum, epsilon=1e-3, dtype=self.dtype)


class NotebookBottleneck(nn.Module):
    """1x1 reduce (with the stride), atrous 3x3, 1x1 expand to 4 * `features`, addition, ReLU.

    Attributes:
      shortcut: whether a 1x1 convolution projects the input. The first block of every stage does
        so, even where the shapes agree.
    """

    features: int
    strides: int = 1
    rate: int = 1
    shortcut: bool = False
    momentum: float = 0.99
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n H W i"], *, train: bool) -> Float[Array, "n h w o"]:
        block = partial(ConvActNorm, momentum=self.momentum, dtype=self.dtype)
        outputs = 4 * self.features
        y = block(self.features, 1, self.strides, name="reduce")(x, train=train)
        y = block(self.features, 3, rate=self.rate, name="conv")(y, train=train)
        y = block(outputs, 1, activation=None, name="expand")(y, train=train)
        if self.shortcut:
            x = block(outputs, 1, self.strides, activation=None, name="shortcut")(x, train=train)
        return relu(y + x)


class NotebookResNet(nn.Module):
    """7x7 stem and 3x3 max pooling at stride 2 each, then stages of bottlenecks; the last map.

    Attributes:
      stem: channels of the stem.
      features: of each stage's bottlenecks; a stage ends in four times as many channels.
      strides: of each stage's first block.
      rates: atrous rate of every block, stage by stage.
    """

    stem: int
    features: tuple[int, ...]
    strides: tuple[int, ...]
    rates: tuple[tuple[int, ...], ...]
    momentum: float = 0.99
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n H W i"], *, train: bool) -> Float[Array, "n h w o"]:
        norm: dict[str, Any] = dict(momentum=self.momentum, dtype=self.dtype)
        x = ConvActNorm(self.stem, 7, 2, **norm, name="stem")(x, train=train)
        x = max_pool(x, (3, 3), (2, 2), "SAME")  # uneven as the convolutions' padding
        x = block_output(x)
        stages = zip(self.features, self.strides, self.rates, strict=True)
        for s, (features, strides, rates) in enumerate(stages, 2):
            for b, rate in enumerate(rates, 1):
                block = NotebookBottleneck(
                    features,
                    strides=strides if b == 1 else 1,
                    rate=rate,
                    shortcut=b == 1,
                    **norm,
                    name=f"stage{s}_block{b}",
                )
                x = block_output(block(x, train=train))
        return x
