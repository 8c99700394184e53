"""U-Net: an encoder's maps, joined one by one from the coarsest to the finest.

Reference: Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", MICCAI 2015 (arXiv 1505.04597).
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from segjax.layers import Conv, ConvNormAct, spatial_size
from segjax.layers.checkpoint_names import block_output
from segjax.layers.precision import at_least_float32
from segjax.models.arrays import Images, Outputs
from segjax.models.encoders import (
    changed_options,
    check_encoder,
    encoder_options,
    make_encoder,
)


class UNet(nn.Module):
    """An encoder of the table, and a decoder of five blocks, each at twice the resolution.

    It is segmentation_models.pytorch's `Unet` (version 0.6): 24,436,369 parameters on ResNet-34 at
    one class. A block enlarges the map to its nearest neighbours, joins the encoder's map of that
    size, and has two 3x3 convolutions with batch normalisation; the last block, at the image's
    size, has no map to join, nor has one whose map the encoder lacks. The paper's network differs:
    an encoder of its own without normalisation, unpadded convolutions, and enlargement by
    transposed convolutions.

    Images may have any size: each map has the size of the one before halved and rounded up, and the
    decoder goes back through the same sizes, cutting off the last row or column of an enlarged map
    where it is too many. The sizes of SMP's network, and its logits, are the same.

    Attributes:
      num_classes: K, channels of the logits.
      encoder: a name in `segjax.models.encoders.ENCODERS`.
      stem, strided_1x1, zero_init_residual: as `segjax.models.resnet.ResNet` has them; other
        encoders have none of them.
      stage_maps, tensorflow: as `segjax.models.mobilenet.MobileNet` has them.
      drop_path_rate: as `segjax.models.convnext.ConvNeXt` has it.
      width: factor on every channel count.
      decoder_channels: of the five blocks, the coarsest first, at width 1.
      momentum: share of the old statistics that batch normalisation keeps at each step.
      dtype: compute dtype; parameters, statistics and logits are float32.

    Raises:
      ValueError: naming the option, for a value that the encoder or the decoder cannot have.
    """

    num_classes: int
    encoder: str = "resnet34"
    stem: str = "7x7"
    width: float = 1.0
    strided_1x1: bool = False
    zero_init_residual: bool = False
    stage_maps: str = "last"
    tensorflow: bool = False
    drop_path_rate: float = 0.0
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        check_encoder(self.encoder, 32, changed_options(self))
        channels = tuple(self.decoder_channels)
        if len(channels) != 5 or min(channels) < 1:
            raise ValueError(f"model.decoder_channels={channels}; use five numbers >= 1")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        norm: dict[str, Any] = dict(momentum=self.momentum, dtype=self.dtype)
        encoder = make_encoder(self.encoder, width=self.width, **encoder_options(self), **norm)
        *skips, x = encoder(images, train=train)
        sizes = [spatial_size(images)]
        for _ in range(4):
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
        # From c4 at stride 16 to the image, beside which there is nothing to join.
        places = zip(reversed(sizes), [*reversed(skips), None], self.decoder_channels, strict=True)
        for i, (size, skip, channels) in enumerate(places, 1):
            x = enlarged(x, size)
            if skip is not None:
                x = jnp.concatenate([x, skip.astype(x.dtype)], axis=-1)
            conv = partial(ConvNormAct, max(1, round(channels * self.width)), **norm)
            x = conv(name=f"decoder{i}_1")(x, train=train)
            x = block_output(conv(name=f"decoder{i}_2")(x, train=train))
        scores = Conv(self.num_classes, 3, use_bias=True, dtype=self.dtype, name="classifier")(x)
        return {"logits": at_least_float32(scores)}


def enlarged(x: Float[Array, "n h w c"], size: tuple[int, int]) -> Float[Array, "n H W c"]:
    """Each cell twice in rows and columns, cut to `size` (H, W): 2h or 2h - 1, 2w or 2w - 1.

    Equal to torch's `interpolate(mode="nearest")` to that size.
    """
    x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
    return x[:, : size[0], : size[1]]
