"""DeepLabV3+: a decoder that refines DeepLabV3's features at stride 4, of separable convolutions.

Reference: Chen, Zhu, Papandreou, Schroff and Adam, "Encoder-Decoder with Atrous Separable
Convolution for Semantic Image Segmentation", ECCV 2018 (arXiv 1802.02611).
"""

import flax.linen as nn
import jax.numpy as jnp

from segjax.layers import (
    AtrousSpatialPyramidPooling,
    Conv,
    ConvNormAct,
    SeparableConvNormAct,
    resize_bilinear,
    spatial_size,
)
from segjax.layers.checkpoint_names import block_output
from segjax.models.arrays import Images, Outputs
from segjax.models.deeplab import check_aspp, check_multi_grid, rates_at
from segjax.models.dilated import DilatedNetwork


class DeepLabV3Plus(DilatedNetwork):
    """Encoder, ASPP, and a decoder that joins its output with c2 at stride 4; figure 2.

    The paper's network has 256 channels in ASPP and decoder, 48 of c2 (table 1), two 3x3
    convolutions (table 2), all of them separable (section 4.3), and Xception or ResNet-101 below.

    With `rates=(12, 24, 36)`, `head_conv`, `decoder_convs=1`, `norm_between=False`,
    `align_corners`, `dropout_rate=0.5` and a plain encoder it is segmentation_models.pytorch's
    `DeepLabV3Plus` at output stride 16: 26,677,585 parameters on ResNet-50 at one class.
    With `aspp_features=512`, `project_kernel=3`, `output_stride=8`, `stem="v1c"`,
    `contract_dilation` and `aux` it is mmsegmentation's `deeplabv3plus_r50-d8`: 43,589,878 at 19.

    Attributes:
      num_classes, encoder, output_stride, ...: see `DilatedNetwork`; the dropout is ASPP's.
      multi_grid, rates, image_pooling: as `segjax.models.DeepLabV3` has them.
      aspp_features: channels of ASPP and of the decoder at width 1.
      project_kernel: side of the kernel that joins ASPP's branches (3 in mmsegmentation).
      aspp_separable, decoder_separable: whether the 3x3 convolutions of ASPP's branches and of the
        decoder (and of `head_conv`) are depthwise separable.
      norm_between: whether normalisation and ReLU stand inside of those, too (the paper's, section
        3.2, and mmsegmentation's; not in segmentation_models.pytorch).
      head_conv: whether a 3x3 convolution stands between ASPP and the enlargement.
      low_level_features: channels that c2 is projected to at width 1.
      decoder_convs: number of 3x3 convolutions after the concatenation.

    Raises:
      ValueError: naming the option, for values that the encoder, ASPP or the decoder cannot have.
    """

    output_stride: int = 16
    dropout_rate: float = 0.1
    aux: bool = False
    multi_grid: tuple[int, ...] = (1, 1, 1)
    rates: tuple[int, ...] = (6, 12, 18)
    aspp_features: int = 256
    image_pooling: bool = True
    project_kernel: int = 1
    aspp_separable: bool = True
    decoder_separable: bool = True
    norm_between: bool = True
    head_conv: bool = False
    low_level_features: int = 48
    decoder_convs: int = 2

    def __post_init__(self):
        super().__post_init__()
        check_multi_grid(self.multi_grid)
        check_aspp(self.rates, self.output_stride, self.project_kernel)
        for option in ("aspp_features", "low_level_features", "decoder_convs"):
            if getattr(self, option) < 1:
                raise ValueError(f"model.{option}={getattr(self, option)}; use 1 or more")

    def _conv3x3(self, features: int, name: str):
        """A 3x3 convolution of the decoder."""
        if self.decoder_separable:
            between = self.norm_between
            return SeparableConvNormAct(features, norm_between=between, **self.norm, name=name)
        return ConvNormAct(features, **self.norm, name=name)

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        _, c2, _, c4, c5 = self.encode(images, train=train, multi_grid=tuple(self.multi_grid))
        features = max(1, round(self.aspp_features * self.width))
        x = AtrousSpatialPyramidPooling(
            rates_at(self.rates, self.output_stride),
            features,
            image_pooling=self.image_pooling,
            project_kernel=self.project_kernel,
            separable=self.aspp_separable,
            norm_between=self.norm_between,
            dropout_rate=self.dropout_rate,
            **self.norm,
            name="aspp",
        )(c5, train=train)
        if self.head_conv:
            x = self._conv3x3(features, "head_conv")(x, train=train)
        low = max(1, round(self.low_level_features * self.width))
        c2 = ConvNormAct(low, 1, **self.norm, name="low_level")(c2, train=train)
        x = resize_bilinear(block_output(x), spatial_size(c2), align_corners=self.align_corners)
        x = jnp.concatenate([x, c2], axis=-1)
        for i in range(1, self.decoder_convs + 1):
            x = block_output(self._conv3x3(features, f"decoder{i}")(x, train=train))
        scores = Conv(self.num_classes, 1, use_bias=True, dtype=self.dtype, name="classifier")(x)
        aux_scores = self.classifier_head("aux_head")(c4, train=train) if self.aux else None
        return self.outputs(images, scores, aux_scores)
