"""The network that segmentation_models.pytorch (version 0.6) calls PSPNet.

It has the pyramid of Zhao et al. on a plain encoder that stops early instead of a dilated one, and
another head, so it is neither `segjax.models.pspnet.PSPNet` nor the paper's network. It serves the
weights that people have trained with it.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from segjax.layers import Conv, ConvNormAct, adaptive_avg_pool, resize_bilinear, spatial_size
from segjax.layers.precision import at_least_float32
from segjax.models.arrays import Images, Outputs
from segjax.models.pspnet import check_bins
from segjax.models.resnet import VARIANTS, ResNet


class SMPPSPNet(nn.Module):
    """The first stages of a ResNet, pyramid pooling, a 1x1 convolution, a 3x3 classifier.

    It differs from the paper's network (Zhao et al., CVPR 2017, figure 3): no stage is dilated,
    there are `encoder_depth` halvings instead; the pyramid comes before the map in the
    concatenation; the level of one bin has a bias in place of batch normalisation; whole channels
    drop out; there is no auxiliary head. 1,528,871 parameters at 7 classes (SMP counts 21,465,639:
    its encoder keeps the stages that it does not run).

    Attributes:
      num_classes: K, channels of the logits.
      encoder: "resnet18", "resnet34", "resnet50", "resnet101" or "resnet152", with the 7x7 stem.
      encoder_depth: how often the encoder halves the map: 3, 4 or 5.
      width: factor on every channel count; 1 is SMP's.
      bins: pyramid levels, in bins a side.
      decoder_features: channels that the pyramid and the map are projected to.
      dropout_rate: dropout of whole channels, before the classifier.
      align_corners: convention of bilinear resizing.
      momentum: share of the old statistics that batch normalisation keeps at each step.
      dtype: compute dtype; parameters, statistics and logits are float32.

    Raises:
      ValueError: naming the option, for an unknown encoder, depth or pyramid.
    """

    num_classes: int
    encoder: str = "resnet34"
    encoder_depth: int = 3
    width: float = 1.0
    bins: tuple[int, ...] = (1, 2, 3, 6)
    decoder_features: int = 512
    dropout_rate: float = 0.2
    align_corners: bool = True
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        if self.encoder not in VARIANTS:
            known = ", ".join(VARIANTS)
            raise ValueError(f"model.encoder={self.encoder!r} is unknown; known: {known}")
        check_bins(self.bins)
        if self.encoder_depth not in (3, 4, 5):
            raise ValueError(f"model.encoder_depth={self.encoder_depth}; use 3, 4 or 5")
        if self.decoder_features < 1:
            raise ValueError(f"model.decoder_features={self.decoder_features}; use 1 or more")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        norm: dict[str, Any] = dict(momentum=self.momentum, dtype=self.dtype)
        x = ResNet(
            self.encoder,
            width=self.width,
            stages=self.encoder_depth - 1,  # the stem halves twice, and stage 2 not at all
            **norm,
            name="encoder",
        )(images, train=train)[-1]
        features = x.shape[-1] // len(self.bins)
        levels = []
        for bins in self.bins:
            level = adaptive_avg_pool(x, (bins, bins))
            name = f"pyramid{bins}"
            if bins == 1:  # one value per channel and image is too few for batch statistics
                level = Conv(features, 1, use_bias=True, dtype=self.dtype, name=name)(level)
                level = nn.relu(level)
            else:
                level = ConvNormAct(features, 1, **norm, name=name)(level, train=train)
            levels.append(resize_bilinear(level, spatial_size(x), align_corners=self.align_corners))
        x = jnp.concatenate([*levels, x.astype(self.dtype)], axis=-1)
        features = round(self.decoder_features * self.width)
        x = ConvNormAct(features, 1, **norm, name="project")(x, train=train)
        x = nn.Dropout(self.dropout_rate, broadcast_dims=(1, 2), deterministic=not train)(x)
        x = Conv(self.num_classes, 3, use_bias=True, dtype=self.dtype, name="classifier")(x)
        logits = resize_bilinear(
            at_least_float32(x), spatial_size(images), align_corners=self.align_corners
        )
        return {"logits": logits}
