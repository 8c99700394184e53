"""The networks of the four seed documents, layer by layer as they are written there.

They differ from the papers' networks of the same names, which `segjax.models.segnet`, `pspnet` and
`deeplab` follow: normalisation after the ReLU, biases everywhere, Keras's padding, fixed frames of
zeros, a ReLU on the class scores (a score below 0 gets no gradient). At the documents' image sizes
each network here is the document's own: the same function of the same parameters. Each docstring
says what happens at other sizes, which the documents' networks refuse.

Parameter counts are Keras's: with the running mean and variance of every normalisation.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from segjax.layers import (
    Conv,
    adaptive_avg_pool,
    conv_of_enlarged,
    max_pool_2x2,
    max_unpool_2x2,
    resize_bilinear,
    spatial_size,
)
from segjax.layers.checkpoint_names import block_output
from segjax.layers.precision import at_least_float32
from segjax.models.arrays import Images, Outputs
from segjax.models.notebook_resnet import ConvActNorm, NotebookResNet, he_normal, scaled
from segjax.models.vgg import PlainVGG, max_pool, mirrored, scaled_stages

# Keras's default, where a document names no initialiser.
glorot_uniform = nn.initializers.glorot_uniform()


class NotebookSegNet(nn.Module):
    """SegNet with normalisation after the ReLU; 29,500,103 parameters at 7 classes.

    VGG16's 13 convolutions and a decoder of 13 that unpools with the encoder's indices, then the
    3x3 classifier and its ReLU. Wherever a map has an odd number of rows or columns, a row or
    column of zeros before it makes the number even for the pooling; it takes part in the maximum,
    and is cropped after unpooling. At the document's 240x480 that is so for the 15 rows of stage 5.

    Source: the document `segnet_keras_idd`.

    Attributes:
      num_classes: K, channels of the logits.
      width: factor on every channel count; 1 is the document's.
      momentum: share of the old statistics that batch normalisation keeps; Keras's by default.
      dtype: compute dtype; parameters, statistics and logits are float32.
    """

    num_classes: int
    width: float = 1.0
    momentum: float = 0.99
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        block = partial(ConvActNorm, momentum=self.momentum, dtype=self.dtype)
        stages = scaled_stages(self.width)
        x, pools = images, []
        for s, stage in enumerate(stages, 1):
            for i, features in enumerate(stage, 1):
                x = block(features, name=f"encoder{s}_{i}")(x, train=train)
            size = spatial_size(x)
            x, positions = max_pool_even(x)
            x = block_output(x)
            pools.append((positions, size))
        for s in range(len(stages), 0, -1):
            x = max_unpool_even(x, *pools[s - 1])
            for i, features in enumerate(mirrored(stages, s), 1):
                x = block(features, name=f"decoder{s}_{i}")(x, train=train)
            if s > 1:
                x = block_output(x)
        return {"logits": relu_scores(x, self.num_classes, self.dtype)}


class NotebookPSPNet(nn.Module):
    """PSPNet on a ResNet-50 a quarter as wide, output stride 32; 3,419,495 parameters, 7 classes.

    Stages 4 and 5 have a stride of 2 and, beside it, the rates 2 and 4 that would have made up for
    the stride. The 8x15 map of a 240x480 image is enlarged 4 times, framed by 2 rows of zeros (36
    is a multiple of the pools' 2, 3 and 6), pooled, enlarged 6 times down and 8 times across, and
    framed by zeros to 240x480. So the image's 240 rows end up in the middle 192. The document's 5x5
    convolution sees 1,024 channels at full size (472 MB an image in float32); here it goes before
    the enlargement, see `segjax.layers.conv_of_enlarged`: the same values.

    At other sizes the zeros make rows and columns a multiple of 6, and the end is framed or cropped
    to the image's size, evenly; the larger part of an odd number is after the map.

    Source: the document `pspnet_keras_idd`.

    Attributes:
      num_classes, width, momentum, dtype: see `NotebookSegNet`.
    """

    num_classes: int
    width: float = 1.0
    momentum: float = 0.99
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        norm: dict[str, Any] = dict(momentum=self.momentum, dtype=self.dtype)
        x = NotebookResNet(
            scaled(64, self.width),
            features=tuple(scaled(c, self.width) for c in (16, 32, 64, 128)),
            strides=(1, 2, 2, 2),
            rates=((1,) * 3, (1,) * 4, (2,) * 6, (4,) * 3),
            **norm,
            name="encoder",
        )(images, train=train)
        x = resize_bilinear(x, (4 * x.shape[1], 4 * x.shape[2]))
        height, width = (-(-n // 6) * 6 for n in spatial_size(x))
        x = pad_or_crop(x, (height, width))
        # The document's numbers are the pools' sizes in cells, not the bins a side of the paper.
        grids = {
            "pyramid6": (height // 6, width // 6),
            "pyramid3": (height // 3, width // 3),
            "pyramid2": (height // 2, width // 2),
            "pyramid_global": (1, 1),
        }
        level = partial(
            ConvActNorm, scaled(128, self.width), 1, activation=None, kernel_init=glorot_uniform
        )
        levels = [x]
        for name, grid in grids.items():
            pooled = level(**norm, name=name)(adaptive_avg_pool(x, grid), train=train)
            levels.append(resize_bilinear(pooled, (height, width)))
        x = jnp.concatenate(levels, axis=-1)
        function = partial(
            conv_of_enlarged, enlarged=(6 * height, 8 * width), size=spatial_size(images)
        )
        head = ConvActNorm(scaled(64, self.width), 5, function=function, **norm, name="head")
        return {"logits": relu_scores(head(x, train=train), self.num_classes, self.dtype)}


class NotebookDeepLabV3(nn.Module):
    """DeepLabV3 on a ResNet-50 at output stride 16; 39,144,327 parameters at 7 classes.

    Multi-grid (2, 4, 8) in stage 5, ASPP with rates 6, 12 and 18 and the image's mean, a projection
    to 256 channels, bilinear enlargement 16 times, and two 1x1 convolutions. At sizes that are no
    multiple of 16 the enlarged map is cropped at its end.

    Source: the document `deeplabv3_keras_idd`.

    Attributes:
      num_classes, width, momentum, dtype: see `NotebookSegNet`.
    """

    num_classes: int
    width: float = 1.0
    momentum: float = 0.99
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        norm: dict[str, Any] = dict(momentum=self.momentum, dtype=self.dtype)
        x = NotebookResNet(
            scaled(64, self.width),
            features=tuple(scaled(c, self.width) for c in (64, 128, 256, 512)),
            strides=(1, 2, 2, 1),
            rates=((1,) * 3, (1,) * 4, (1,) * 6, (2, 4, 8)),
            **norm,
            name="encoder",
        )(images, train=train)
        block = partial(ConvActNorm, scaled(256, self.width), **norm, kernel_init=glorot_uniform)
        mean = block(1, name="image_pooling")(adaptive_avg_pool(x, (1, 1)), train=train)
        branches = [jnp.broadcast_to(mean, (*x.shape[:3], mean.shape[-1]))]
        branches.append(block(1, name="conv1x1")(x, train=train))
        for place, rate in enumerate((6, 12, 18), 1):
            branches.append(block(3, rate=rate, name=f"atrous{place}")(x, train=train))
        x = block(1, name="project")(jnp.concatenate(branches, axis=-1), train=train)
        # The document enlarges first. A 1x1 convolution and an interpolation, whose weights sum to
        # 1, may change places: the same values from 256 times fewer products, and 64 channels at
        # full size instead of 256.
        conv = partial(Conv, use_bias=True, dtype=self.dtype, kernel_init=glorot_uniform)
        x = conv(scaled(64, self.width), 1, name="head")(x)
        x = resize_bilinear(x, (16 * x.shape[1], 16 * x.shape[2]))
        x = nn.relu(x[:, : images.shape[1], : images.shape[2]])
        x = conv(self.num_classes, 1, name="classifier")(x)
        return {"logits": at_least_float32(nn.relu(x))}


class NCSUSegNet(nn.Module):
    """VGG16's first ten convolutions and a decoder of five; 11,605,925 parameters at 101 classes.

    There is no unpooling: the encoder's 1/16 map is enlarged three times by repeating cells. The
    decoder normalises without activation, and its scores have half the image's size; here they are
    enlarged to it (bilinear, cropped at the end). Pooling is in ceil mode, so any size works.

    The document's network normalised channels-first maps over their last axis, the columns:
    11,604,365 parameters, and bound to images 608 columns wide. This one normalises channels.
    VGG16's Caffe weights want images from 0 to 255 less the mean of each channel.

    Source: the document `segnet_ncsu_camvid_report`, section IV.4.

    Attributes:
      num_classes, width, momentum, dtype: see `NotebookSegNet`.
    """

    num_classes: int
    width: float = 1.0
    momentum: float = 0.99
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        options: dict[str, Any] = dict(dtype=self.dtype, kernel_init=glorot_uniform)
        block = partial(ConvActNorm, activation=None, momentum=self.momentum, **options)
        stages = scaled_stages(self.width)[:4]
        *_, x = PlainVGG(stages, (max_pool,) * 4, dtype=self.dtype, name="encoder")(images)
        for s in range(4, 0, -1):
            x = block(stages[s - 1][0], name=f"decoder{s}")(x, train=train)
            if s > 1:
                x = block_output(x)
                x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        x = Conv(self.num_classes, use_bias=True, **options, name="classifier")(x)
        x = resize_bilinear(at_least_float32(x), (2 * x.shape[1], 2 * x.shape[2]))
        return {"logits": x[:, : images.shape[1], : images.shape[2]]}


def relu_scores(
    x: Float[Array, "n h w i"], num_classes: int, dtype: DTypeLike
) -> Float[Array, "n h w k"]:
    """The notebooks' 3x3 classifier and the ReLU after it; a submodule of the module that calls."""
    conv = Conv(num_classes, use_bias=True, dtype=dtype, kernel_init=he_normal, name="classifier")
    return at_least_float32(nn.relu(conv(x)))


def max_pool_even(
    x: Float[Array, "n H W c"],
) -> tuple[Float[Array, "n h w c"], UInt8[Array, "n h w c"]]:
    """`max_pool_2x2` of a map made even by zeros: a row before an odd number of rows, a column
    before an odd number of columns."""
    return max_pool_2x2(jnp.pad(x, ((0, 0), (x.shape[1] % 2, 0), (x.shape[2] % 2, 0), (0, 0))))


def max_unpool_even(
    values: Float[Array, "n h w c"], positions: UInt8[Array, "n h w c"], size: tuple[int, int]
) -> Float[Array, "n H W c"]:
    """Undoes `max_pool_even` of a map of `size` (H, W); what falls on the added zeros is lost."""
    top, left = size[0] % 2, size[1] % 2
    return max_unpool_2x2(values, positions, (size[0] + top, size[1] + left))[:, top:, left:]


def pad_or_crop(x: Float[Array, "n H W c"], size: tuple[int, int]) -> Float[Array, "n h w c"]:
    """Frames a map with zeros, or cuts its edges, to `size` (h, w); the map's middle stays there.

    The larger part of an odd difference is after the map.
    """
    for axis, target in zip((1, 2), size, strict=True):
        difference = target - x.shape[axis]
        before = abs(difference) // 2
        if difference < 0:
            x = lax.slice_in_dim(x, before, before + target, axis=axis)
        elif difference > 0:
            pads = [(0, 0)] * x.ndim
            pads[axis] = (before, difference - before)
            x = jnp.pad(x, pads)
    return x
