"""ConvNeXt encoders: 7x7 depthwise convolutions, layer normalisation, GELU.

Reference: Liu et al., "A ConvNet for the 2020s", CVPR 2022 (arXiv 2201.03545), table 9; layers and
constants are torchvision's.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from segjax.layers import Conv
from segjax.layers.checkpoint_names import block_output
from segjax.layers.dilated import Pads

# Blocks in the stages 2 to 5.
VARIANTS = {"convnext_tiny": (3, 3, 9, 3), "convnext_small": (3, 3, 27, 3)}
EPSILON = 1e-6
_normal = nn.initializers.normal(0.02)


class ConvNorm(nn.Module):
    """A convolution with a bias, and layer normalisation over the channels after it or before it.

    Attributes:
      features, kernel_size, strides, rate, padding, groups: see `segjax.layers.Conv`.
      norm_first: the normalisation comes first.
    """

    features: int
    kernel_size: int
    strides: int = 1
    rate: int = 1
    padding: str | Pads = "CENTER"
    groups: int = 1
    norm_first: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n H W i"]) -> Float[Array, "n h w o"]:
        norm = nn.LayerNorm(EPSILON, self.dtype, use_fast_variance=False, name="norm")
        conv = Conv(
            self.features,
            self.kernel_size,
            self.strides,
            self.rate,
            use_bias=True,
            padding=self.padding,
            groups=self.groups,
            dtype=self.dtype,
            kernel_init=_normal,
            name="conv",
        )
        return conv(norm(x)) if self.norm_first else norm(conv(x))


class LayerScale(nn.Module):
    """Each channel times its own number, at first 1e-6, so that a block starts as the identity."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        init = nn.initializers.constant(1e-6)
        scale = self.param("scale", init, (x.shape[-1],), jnp.float32)
        return x * scale.astype(self.dtype)


class Block(nn.Module):
    """7x7 depthwise convolution, layer normalisation, 1x1 to four times the channels, GELU, 1x1
    back, layer scale; added to the input.

    Attributes:
      rate: atrous rate of the depthwise convolution.
      drop_rate: share of examples that keep their input, in training; stochastic depth (Huang et
        al., ECCV 2016), keyed by the random stream "dropout".
    """

    rate: int = 1
    drop_rate: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n h w c"]:
        channels = x.shape[-1]
        conv = partial(Conv, kernel_size=1, use_bias=True, dtype=self.dtype, kernel_init=_normal)
        depthwise = ConvNorm(
            channels, 7, rate=self.rate, groups=channels, dtype=self.dtype, name="depthwise"
        )
        y = nn.gelu(conv(4 * channels, name="expand")(depthwise(x)), approximate=False)
        y = LayerScale(self.dtype, name="layer_scale")(conv(channels, name="project")(y))
        drop = nn.Dropout(self.drop_rate, broadcast_dims=(1, 2, 3), deterministic=not train)
        return x + drop(y)


class ConvNeXt(nn.Module):
    """A ConvNeXt without its classifier; returns (None, c2, c3, c4, c5), the outputs of its stages.

    There is no map at stride 2, as the stem divides the size by 4. Parameters at width 1, as in
    torchvision's `features`: 27,818,592 (tiny) and 49,453,152 (small).

    At output strides 16 and 8 the 2x2 convolution between two stages steps by 1, and reads cells as
    far apart as the stage before does; the depthwise convolutions after it have twice that rate.
    With the same weights every second cell, or every fourth, has the value that the network has at
    stride 32, as long as the map's size is a multiple of that. timm's network is the same at output
    stride 16; at 8 it reads one cell further up and left between the last two stages.

    Attributes:
      variant: a name in `VARIANTS`.
      output_stride: the image's size over c5's: 32, 16 or 8.
      multi_grid: factors on the last stage's rate, one per block, repeated if there are more.
      drop_path_rate: of stochastic depth in the last block; those before it have a share of that in
        proportion to their place (0.1 in the paper for tiny, 0.4 for small).
      width: factor on every channel count.
      momentum: unused, as there is no batch normalisation.
    """

    variant: str = "convnext_tiny"
    output_stride: int = 32
    multi_grid: tuple[int, ...] = (1, 1, 1)
    drop_path_rate: float = 0.0
    width: float = 1.0
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n H W i"], *, train: bool
    ) -> tuple[Float[Array, "n _h _w _c"] | None, ...]:
        depths = VARIANTS[self.variant]
        features = [max(1, round(96 * 2**s * self.width)) for s in range(len(depths))]
        # Zeros at the end make sizes divide.
        rest: Pads = ((0, -x.shape[1] % 4), (0, -x.shape[2] % 4))
        x = ConvNorm(features[0], 4, 4, padding=rest, dtype=self.dtype, name="stem")(x)
        stride, rate, place, maps = 4, 1, 0, []
        for s, (channels, depth) in enumerate(zip(features, depths, strict=True), 2):
            if s > 2:
                strided = stride < self.output_stride
                rest = ((0, -x.shape[1] % 2), (0, -x.shape[2] % 2))
                x = ConvNorm(
                    channels,
                    2,
                    strides=2 if strided else 1,
                    rate=1 if strided else rate,
                    padding=rest if strided else ((0, rate), (0, rate)),
                    norm_first=True,
                    dtype=self.dtype,
                    name=f"stage{s}_down",
                )(x)
                stride, rate = (2 * stride, rate) if strided else (stride, 2 * rate)
            for b in range(depth):
                grid = self.multi_grid[b % len(self.multi_grid)] if s == 5 else 1
                drop_rate = self.drop_path_rate * place / (sum(depths) - 1)
                block = Block(grid * rate, drop_rate, self.dtype, name=f"stage{s}_block{b + 1}")
                x = block_output(block(x, train=train))
                place += 1
            maps.append(x)
        return None, *maps


def check_convnext(variant: str, *, drop_path_rate: float = 0.0) -> None:
    """Raises ValueError, naming the option, for a value that no ConvNeXt has."""
    if not 0 <= drop_path_rate < 1:
        raise ValueError(
            f"model.drop_path_rate={drop_path_rate} of {variant}; use a number from 0 to below 1"
        )
