"""ResNet encoders whose last stages keep their resolution by atrous convolution.

Reference: He et al., "Deep Residual Learning", CVPR 2016, table 1; Xie et al., "Aggregated Residual
Transformations", CVPR 2017 (ResNeXt); Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016;
with the stride in the 3x3 convolution (as in torchvision's and the PSPNet authors' networks); depth
269: Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, section 5.2; atrous stages, the
cascade of more blocks, and multi-grid: Chen et al., arXiv 1706.05587, sections 3.1, 3.2 and 3.2.1.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from segjax.layers import ConvNormAct, max_pool, relu
from segjax.layers.checkpoint_names import block_output

# A bottleneck ends in this many times its `features`.
EXPANSION = 4


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to the input.

    Where the channels differ the input is projected; else a strided block takes every other cell.

    Attributes:
      features: output channels.
      strides: step of the first convolution.
      rate: atrous rate of both convolutions.
      first_rate: the first convolution's rate, where it differs from `rate`.
      zero_init: the second normalisation's scale starts at 0: the block starts as the identity.
    """

    features: int
    strides: int = 1
    rate: int = 1
    first_rate: int | None = None
    zero_init: bool = False
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n H W i"], *, train: bool) -> Float[Array, "n h w o"]:
        block = partial(ConvNormAct, self.features, momentum=self.momentum, dtype=self.dtype)
        last = partial(block, activation=None, scale_init=_scale_init(self.zero_init))
        first_rate = self.first_rate or self.rate
        y = block(3, strides=self.strides, rate=first_rate, name="conv1")(x, train=train)
        y = last(3, rate=self.rate, name="conv2")(y, train=train)
        if x.shape[-1] != self.features:
            x = block(1, strides=self.strides, activation=None, name="shortcut")(x, train=train)
        elif self.strides != 1:
            x = x[:, :: self.strides, :: self.strides]
        return relu(x + y)


class Bottleneck(nn.Module):
    """1x1 reduce, 3x3, 1x1 expand, added to the input.

    Where the channels differ the input is projected; else a strided block takes every other cell.

    Attributes:
      features: the output has `EXPANSION` times as many channels.
      inner: channels of the first two convolutions; None: as many as `features`.
      groups: of the 3x3 convolution.
      strides: step of the 3x3 convolution.
      rate: atrous rate of the 3x3 convolution.
      first_rate: takes the place of `rate` where it is given.
      strided_1x1: the step is in the first convolution, not in the 3x3 one.
      zero_init: the last normalisation's scale starts at 0: the block starts as the identity.
    """

    features: int
    inner: int | None = None
    groups: int = 1
    strides: int = 1
    rate: int = 1
    first_rate: int | None = None
    strided_1x1: bool = False
    zero_init: bool = False
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n H W i"], *, train: bool) -> Float[Array, "n h w o"]:
        block = partial(ConvNormAct, momentum=self.momentum, dtype=self.dtype)
        last = partial(block, activation=None, scale_init=_scale_init(self.zero_init))
        outputs = EXPANSION * self.features
        first, second = (self.strides, 1) if self.strided_1x1 else (1, self.strides)
        rate = self.first_rate or self.rate
        inner = self.inner or self.features
        y = block(inner, 1, strides=first, name="reduce")(x, train=train)
        conv = block(inner, 3, strides=second, rate=rate, groups=self.groups, name="conv")
        y = conv(y, train=train)
        y = last(outputs, 1, name="expand")(y, train=train)
        if x.shape[-1] != outputs:
            shortcut = block(outputs, 1, strides=self.strides, activation=None, name="shortcut")
            x = shortcut(x, train=train)
        elif self.strides != 1:
            x = x[:, :: self.strides, :: self.strides]
        return relu(x + y)


def _scale_init(zero: bool) -> nn.initializers.Initializer:
    return nn.initializers.zeros if zero else nn.initializers.ones


# Table 1 of the paper: the block, and how many of it each of the stages 2 to 5 has.
VARIANTS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
    "resnet269": (Bottleneck, (3, 30, 48, 8)),  # as the PSPNet authors' Caffe network
    "wide_resnet50_2": (Bottleneck, (3, 4, 6, 3)),
    "wide_resnet101_2": (Bottleneck, (3, 4, 23, 3)),
    "resnext50_32x4d": (Bottleneck, (3, 4, 6, 3)),
    "resnext101_32x8d": (Bottleneck, (3, 4, 23, 3)),
}
# Where stage 2's 3x3 convolutions are not of one group of 64 channels: channels of a group, and
# groups. Groups widen from stage to stage.
INNER = {
    "wide_resnet50_2": (128, 1),
    "wide_resnet101_2": (128, 1),
    "resnext50_32x4d": (4, 32),
    "resnext101_32x8d": (8, 32),
}


class ResNet(nn.Module):
    """A ResNet without its classifier; returns c1, the stem's map at stride 2 before it is pooled,
    and the outputs of its stages, c2 to c5.

    Attributes:
      variant: a name in `VARIANTS`.
      output_stride: the image's size over c5's: 32, 16 or 8, and up to 256 with a cascade. A stage
        that would pass it keeps its resolution and doubles its rate instead.
      multi_grid: factors on the rate of the last stage and its copies, one per block, repeated if
        there are more.
      cascade: copies of the last stage that follow it, of which c5 is the last one's map. Each
        halves the map or doubles the rate, as a stage does.
      stem: "7x7", or three 3x3 convolutions: "3x3" of 64, 64 and 128 channels (the PSPNet
        authors'), or "v1c" of 32, 32 and 64 (He et al., "Bag of Tricks", CVPR 2019, figure 2b,
        where it is ResNet-C; mmsegmentation's ResNetV1c).
      width: factor on every channel count; 1 is the paper's.
      contract_dilation: the first 3x3 convolution of an atrous stage keeps the rate of the stage
        before (torchvision's networks); otherwise the stage has one rate (the papers').
      strided_1x1: bottlenecks halve the map in their first 1x1 convolution (the paper's own
        networks, Caffe's and Keras's) instead of in the 3x3 one (torchvision's).
      zero_init_residual: each block starts as the identity.
      stages: how many of the four stages there are.
    """

    variant: str = "resnet50"
    output_stride: int = 32
    multi_grid: tuple[int, ...] = (1, 1, 1)
    cascade: int = 0
    stem: str = "7x7"
    width: float = 1.0
    contract_dilation: bool = False
    strided_1x1: bool = False
    zero_init_residual: bool = False
    stages: int = 4
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n H W i"], *, train: bool
    ) -> tuple[Float[Array, "n _h _w _c"], ...]:
        norm: dict[str, Any] = dict(momentum=self.momentum, dtype=self.dtype)
        conv = partial(ConvNormAct, **norm)
        base = round(64 * self.width)
        if self.stem == "7x7":
            x = conv(base, 7, strides=2, name="stem")(x, train=train)
        else:
            narrow = base if self.stem == "3x3" else base // 2
            x = conv(narrow, 3, strides=2, name="stem1")(x, train=train)
            x = conv(narrow, 3, name="stem2")(x, train=train)
            x = conv(2 * narrow, 3, name="stem3")(x, train=train)
        maps = [x]
        x = block_output(max_pool_3x3(x))

        kind, depths = VARIANTS[self.variant]
        if self.strided_1x1:  # `check_resnet` refuses it for basic blocks
            kind = partial(kind, strided_1x1=True)
        depths = depths[: self.stages] + self.cascade * depths[-1:]
        stride, rate = 4, 1
        for s, blocks in enumerate(depths, 2):
            like, strides, rate_before = min(s, 5), 1, rate
            if s > 2 and stride < self.output_stride:
                stride, strides = 2 * stride, 2
            elif s > 2:
                rate *= 2
            first_rate = rate_before if self.contract_dilation else rate
            for b in range(blocks):
                grid = self.multi_grid[b % len(self.multi_grid)] if like == 5 else 1
                block_class, features = kind, round(base * 2 ** (like - 2))
                if self.variant in INNER:
                    of_group, groups = INNER[self.variant]
                    inner = max(1, round(features * of_group / 64)) * groups
                    block_class = partial(kind, inner=inner, groups=groups)
                block = block_class(
                    features,
                    strides=strides if b == 0 else 1,
                    rate=grid * rate,
                    first_rate=grid * first_rate if b == 0 else None,
                    zero_init=self.zero_init_residual,
                    **norm,
                    name=f"stage{s}_block{b + 1}",
                )
                x = block_output(block(x, train=train))
            maps[like - 1 :] = [x]  # a copy's map takes the place of the one before it
        return tuple(maps)


def max_pool_3x3(x: Float[Array, "n H W c"]) -> Float[Array, "n h w c"]:
    """3x3 max pooling, stride 2, one row of padding before: h = ceil(H / 2), as torchvision's."""
    return max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def check_resnet(
    variant: str, *, cascade: int = 0, stem: str = "7x7", strided_1x1: bool = False, **_: Any
) -> None:
    """Raises ValueError, naming the option, for a value that this ResNet cannot have."""
    if not 0 <= cascade <= 3:
        raise ValueError(f"model.cascade={cascade}; use 0, 1, 2 or 3 (to block5, block6 or block7)")
    if stem not in ("7x7", "3x3", "v1c"):
        raise ValueError(f'model.stem={stem!r}; use "7x7", "3x3" or "v1c"')
    if strided_1x1 and VARIANTS[variant][0] is BasicBlock:
        raise ValueError(f"model.strided_1x1=True; {variant} has no 1x1 convolutions, use False")
