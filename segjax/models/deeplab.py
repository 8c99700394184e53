"""DeepLabV3: atrous spatial pyramid pooling over a dilated ResNet with multi-grid.

Reference: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation",
arXiv 1706.05587.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from segjax.layers import AtrousSpatialPyramidPooling, Conv, ConvNormAct, resize_bilinear
from segjax.layers.precision import at_least_float32
from segjax.models.fcn import SegmentationHead
from segjax.models.resnet import ResNet, check_encoder


class DeepLabV3(nn.Module):
    """Encoder with multi-grid (1, 2, 4), ASPP with image pooling, classifier; figure 5.

    With `head_conv`, `contract_dilation`, multi_grid (1, 1, 1), output stride 8, `rates`
    (6, 12, 18) (doubled: 12, 24, 36) and the auxiliary head it is torchvision's
    `deeplabv3_resnet50`: 42,004,074 parameters at 21 classes.

    Attributes:
      num_classes: K, channels of the logits.
      encoder, output_stride, multi_grid, stem, width, ...: see `segjax.models.resnet.ResNet`.
      rates: of ASPP at output stride 16; doubled at stride 8, halved at 32 (section 3.3).
      aspp_features: channels of ASPP and what follows; 0 = an eighth of c5's: 256 on ResNet-50.
      dropout_rate: after the ASPP projection (0.5 in torchvision, none in the paper).
      head_conv: one more 3x3 convolution before the classifier (torchvision's).
      aux: whether there is an auxiliary head on c4.
      align_corners: convention of the final resize.
    """

    num_classes: int
    encoder: str = "resnet50"
    output_stride: int = 16
    multi_grid: tuple[int, ...] = (1, 2, 4)
    stem: str = "7x7"
    width: float = 1.0
    contract_dilation: bool = False
    strided_1x1: bool = False
    zero_init_residual: bool = False
    rates: tuple[int, ...] = (6, 12, 18)
    aspp_features: int = 0
    image_pooling: bool = True
    dropout_rate: float = 0.0
    head_conv: bool = False
    aux: bool = True
    align_corners: bool = False
    momentum: float = 0.9
    dtype: Any = jnp.float32

    def __post_init__(self):
        check_encoder(self.encoder, self.output_stride, self.stem, self.strided_1x1)
        for name in ("rates", "multi_grid"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise ValueError(f"model.{name}={tuple(values)}; use one or more numbers >= 1")
        rates = self._rates()
        if min(rates) < 1 or len(set(rates)) < len(rates):
            raise ValueError(
                f"model.rates={tuple(self.rates)} of output stride 16 are {rates} at "
                f"output stride {self.output_stride}; use rates that are different and >= 1 there"
            )
        super().__post_init__()

    def _rates(self) -> tuple[int, ...]:
        """ASPP's rates at this output stride."""
        return tuple(rate * 16 // self.output_stride for rate in self.rates)

    @nn.compact
    def __call__(
        self, images: Float[Array, "n H W c"], *, train: bool
    ) -> dict[str, Float[Array, "n H W k"]]:
        size = images.shape[1:3]
        norm = dict(momentum=self.momentum, dtype=self.dtype)
        _, _, c4, c5 = ResNet(
            self.encoder,
            self.output_stride,
            tuple(self.multi_grid),
            self.stem,
            self.width,
            self.contract_dilation,
            self.strided_1x1,
            self.zero_init_residual,
            **norm,
            name="encoder",
        )(images, train=train)
        features = self.aspp_features or c5.shape[-1] // 8
        x = AtrousSpatialPyramidPooling(
            self._rates(),
            features,
            self.image_pooling,
            self.dropout_rate,
            **norm,
            name="aspp",
        )(c5, train=train)
        if self.head_conv:
            x = ConvNormAct(features, **norm, name="head_conv")(x, train=train)
        x = Conv(self.num_classes, 1, use_bias=True, dtype=self.dtype, name="classifier")(x)
        resize = lambda y: resize_bilinear(  # noqa: E731
            at_least_float32(y), size, align_corners=self.align_corners
        )
        outputs = {"logits": resize(x)}
        if self.aux:
            outputs["aux"] = SegmentationHead(
                self.num_classes, align_corners=self.align_corners, **norm, name="aux_head"
            )(c4, size, train=train)
        return outputs
