"""Mobile encoders, of inverted residual blocks: MobileNetV2, MobileNetV3-large, EfficientNet-Lite0.

A block widens the map by a 1x1 convolution, convolves each channel by itself, and narrows it by a
1x1 convolution without an activation.

References: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018
(arXiv 1801.04381), table 2; Howard et al., "Searching for MobileNetV3", ICCV 2019
(arXiv 1905.02244), table 1; Tan and Le, "EfficientNet", ICML 2019 (arXiv 1905.11946), table 1, of
which the "Lite" networks of TensorFlow have neither squeeze-and-excitation nor swish. Layers, their
order and their constants are torchvision's, and timm's for EfficientNet-Lite0.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from segjax.layers import Conv, ConvNormAct, adaptive_avg_pool
from segjax.layers.checkpoint_names import block_output

Activation = Callable[[jax.Array], jax.Array]


class Block(NamedTuple):
    """A row of the papers' tables.

    Attributes:
      features: output channels at width 1.
      expansion: channels of the depthwise convolution over those of the input.
      kernel_size: of the depthwise convolution.
      squeeze: whether squeeze-and-excitation follows it.
      activation: after all convolutions but the last.
    """

    features: int
    expansion: float = 6
    kernel_size: int = 3
    squeeze: bool = False
    activation: Activation = nn.relu6


class Variant(NamedTuple):
    """A network of the papers.

    Attributes:
      stem: channels of the first convolution at width 1.
      stages: the blocks at the strides 2, 4, 8, 16 and 32. The first of a stage halves the map, but
        in stage 1, where the stem has halved it.
      last: channels of the 1x1 convolution after the blocks at width 1; 0: none.
      activation: of the stem and the last convolution.
      epsilon: of batch normalisation.
      statistics: a step moves the running statistics by this share of what `momentum` says.
      scaled_inside: whether a width scales the channels inside of a block and the last ones as it
        does the others; otherwise the former are multiples of the block's input, and the latter are
        never fewer.
    """

    stem: int
    stages: tuple[tuple[Block, ...], ...]
    last: int
    activation: Activation = nn.relu6
    epsilon: float = 1e-5
    statistics: float = 1.0
    scaled_inside: bool = False


def _repeated(n: int, features: int, **options: Any) -> tuple[Block, ...]:
    return (Block(features, **options),) * n


def _v3(features: int, expansion: float, kernel_size: int = 3, squeeze: bool = False, hard=True):
    return Block(features, expansion, kernel_size, squeeze, nn.hard_swish if hard else nn.relu)


VARIANTS = {
    "mobilenet_v2": Variant(
        32,
        (
            (Block(16, expansion=1),),
            _repeated(2, 24),
            _repeated(3, 32),
            _repeated(4, 64) + _repeated(3, 96),
            _repeated(3, 160) + _repeated(1, 320),
        ),
        last=1280,
    ),
    # torchvision's epsilon and momentum are those of the TensorFlow network, 1e-3 and 0.01.
    "mobilenet_v3_large": Variant(
        16,
        (
            (_v3(16, 1, hard=False),),
            (_v3(24, 4, hard=False), _v3(24, 3, hard=False)),
            (_v3(40, 3, 5, True, hard=False),) * 3,
            (
                *(_v3(80, expansion) for expansion in (6, 2.5, 2.3, 2.3)),
                *(_v3(112, 6, squeeze=True),) * 2,
            ),
            (_v3(160, 6, 5, True),) * 3,
        ),
        last=960,
        activation=nn.hard_swish,
        epsilon=1e-3,
        statistics=0.1,
        scaled_inside=True,
    ),
    "efficientnet_lite0": Variant(
        32,
        (
            (Block(16, expansion=1),),
            _repeated(2, 24),
            _repeated(2, 40, kernel_size=5),
            _repeated(3, 80) + _repeated(3, 112, kernel_size=5),
            _repeated(4, 192, kernel_size=5) + _repeated(1, 320),
        ),
        last=0,
    ),
}


def make_divisible(channels: float) -> int:
    """The nearest multiple of 8, but no less than 90 % of the number and no less than 8."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


class SqueezeExcitation(nn.Module):
    """Scales each channel by a number in [0, 1] made of the means of all channels.

    Attributes:
      features: channels between the two 1x1 convolutions.

    Reference: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018 (arXiv 1709.01507); with the
    hard sigmoid, Howard et al., section 5.3.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        conv = partial(Conv, kernel_size=1, use_bias=True, dtype=self.dtype)
        scale = nn.relu(conv(self.features, name="reduce")(adaptive_avg_pool(x, (1, 1))))
        return x * nn.hard_sigmoid(conv(x.shape[-1], name="expand")(scale))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, squeeze-and-excitation, 1x1 projection; added to the
    input where the shape is the same.

    Attributes:
      features: output channels.
      hidden: channels of the depthwise convolution; where the input has as many, there is no
        expansion.
      kernel_size, strides, rate, padding: of the depthwise convolution.
      squeeze: whether there is squeeze-and-excitation.
      norm: fields of `ConvNormAct`.
    """

    features: int
    hidden: int
    kernel_size: int
    strides: int
    rate: int
    padding: str
    squeeze: bool
    activation: Activation
    norm: dict[str, Any]

    @nn.compact
    def __call__(self, x: Float[Array, "n H W i"], *, train: bool) -> Float[Array, "n h w o"]:
        block = partial(ConvNormAct, activation=self.activation, **self.norm)
        y = x
        if self.hidden != x.shape[-1]:
            y = block(self.hidden, 1, name="expand")(y, train=train)
        y = block(
            self.hidden,
            self.kernel_size,
            self.strides,
            self.rate,
            padding=self.padding,
            groups=self.hidden,
            name="depthwise",
        )(y, train=train)
        if self.squeeze:
            reduced = make_divisible(self.hidden // 4)
            y = SqueezeExcitation(reduced, self.norm["dtype"], name="squeeze")(y)
        project = ConvNormAct(self.features, 1, activation=None, **self.norm, name="project")
        y = project(y, train=train)
        return x + y if x.shape == y.shape else y


class MobileNet(nn.Module):
    """A network of `VARIANTS` without its classifier; returns c1 to c5, the outputs of its stages.

    c5 comes after the last 1x1 convolution (1280 channels in MobileNetV2, 960 in V3), as in
    segmentation_models.pytorch and torchvision; EfficientNet-Lite0's, which neither timm nor
    segmentation_models.pytorch has in its features, is left out: 320 channels. Parameters at
    width 1: 2,223,872 (torchvision's mobilenet_v2 without its classifier), 2,971,952
    (mobilenet_v3_large's `features`), 2,958,848 (timm's efficientnet_lite0 up to
    its last block).

    Attributes:
      variant: a name in `VARIANTS`.
      output_stride: the image's size over c5's: 32, 16 or 8. A stage that would pass it keeps its
        resolution and doubles the rate of all of its depthwise convolutions instead, as torchvision
        and segmentation_models.pytorch do.
      multi_grid: factors on the last stage's rate, one per block, repeated if there are more.
      stage_maps: "last": c2 to c4 are the last maps of their stages; "first": those of the first
        blocks, which torchvision's segmentation networks read.
      tensorflow: as weights that were trained in TensorFlow need it: zeros at stride 2 stand rather
        after the map than before ("SAME"), and batch normalisation's epsilon is 1e-3.
      width: factor on channel counts, each rounded to a multiple of 8.
      momentum: share of the old statistics that a step keeps; V3 moves its own by a tenth of that
        (0.9: by 0.01), as torchvision's does.
    """

    variant: str = "mobilenet_v2"
    output_stride: int = 32
    multi_grid: tuple[int, ...] = (1, 1, 1)
    stage_maps: str = "last"
    tensorflow: bool = False
    width: float = 1.0
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n H W i"], *, train: bool
    ) -> tuple[Float[Array, "n _h _w _c"], ...]:
        network = VARIANTS[self.variant]
        norm: dict[str, Any] = dict(
            momentum=1 - network.statistics * (1 - self.momentum),
            epsilon=1e-3 if self.tensorflow else network.epsilon,
            dtype=self.dtype,
        )
        padding = "SAME" if self.tensorflow else "CENTER"
        conv = partial(ConvNormAct, activation=network.activation, **norm)
        inputs, stride, rate, maps = network.stem, 2, 1, []
        stem = conv(make_divisible(inputs * self.width), 3, 2, padding=padding, name="stem")
        x = block_output(stem(x, train=train))
        for s, blocks in enumerate(network.stages, 1):
            strides = 1
            if s > 1 and stride < self.output_stride:
                stride, strides = 2 * stride, 2
            elif s > 1:
                rate *= 2
            stage_maps = []
            for b, block in enumerate(blocks):
                base = inputs * self.width if network.scaled_inside else x.shape[-1]
                grid = self.multi_grid[b % len(self.multi_grid)] if s == len(network.stages) else 1
                residual = InvertedResidual(
                    make_divisible(block.features * self.width),
                    make_divisible(block.expansion * base),
                    block.kernel_size,
                    strides if b == 0 else 1,
                    grid * rate,
                    padding,
                    block.squeeze,
                    block.activation,
                    norm,
                    name=f"stage{s}_block{b + 1}",
                )
                x = block_output(residual(x, train=train))
                stage_maps.append(x)
                inputs = block.features
            maps.append(stage_maps[0 if self.stage_maps == "first" and 1 < s < 5 else -1])
        if network.last:
            width = self.width if network.scaled_inside else max(1.0, self.width)
            features = make_divisible(network.last * width)
            x = block_output(conv(features, 1, name="stage5_last")(x, train=train))
        return *maps[:-1], x


def check_mobilenet(variant: str, *, stage_maps: str = "last", **_: Any) -> None:
    """Raises ValueError, naming the option, for a value that no mobile network has."""
    if stage_maps not in ("last", "first"):
        raise ValueError(f'model.stage_maps={stage_maps!r} of {variant}; use "last" or "first"')
