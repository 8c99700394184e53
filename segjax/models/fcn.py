"""The convolutional classification head, and FCN: that head alone on a dilated ResNet.

FCN here is the ablation baseline of the PSPNet and DeepLabV3 papers (the same encoder without a
context module), the network torchvision calls `fcn_resnet50`.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from segjax.layers import Conv, ConvNormAct, resize_bilinear
from segjax.layers.precision import at_least_float32
from segjax.models.resnet import ResNet, check_encoder


class SegmentationHead(nn.Module):
    """3x3 convolution, normalisation, ReLU, dropout, 1x1 classifier; then up to `size`.

    Also the auxiliary head (Zhao et al., CVPR 2017, section 4): a quarter of the input's channels
    unless `features` says otherwise. Logits are float32.
    """

    num_classes: int
    features: int | None = None
    dropout_rate: float = 0.1
    align_corners: bool = False
    momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], size: tuple[int, int], *, train: bool
    ) -> Float[Array, "n H W k"]:
        features = self.features or x.shape[-1] // 4
        x = ConvNormAct(features, momentum=self.momentum, dtype=self.dtype, name="conv")(
            x, train=train
        )
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        x = Conv(self.num_classes, 1, use_bias=True, dtype=self.dtype, name="classifier")(x)
        return resize_bilinear(at_least_float32(x), size, align_corners=self.align_corners)


class FCN(nn.Module):
    """A ResNet at output stride 8 with a convolutional head; 35,322,218 parameters at 21 classes
    with the auxiliary head, as torchvision's `fcn_resnet50`.

    Reference: Long et al., "Fully Convolutional Networks", CVPR 2015, on the dilated encoder of
    Zhao et al., CVPR 2017, section 3.3.

    Attributes:
      num_classes: K, channels of the logits.
      encoder, output_stride, stem, width, ...: see `segjax.models.resnet.ResNet`.
      dropout_rate: before the classifiers.
      aux: whether there is an auxiliary head on c4.
      align_corners: convention of the final resize.
    """

    num_classes: int
    encoder: str = "resnet50"
    output_stride: int = 8
    stem: str = "7x7"
    width: float = 1.0
    contract_dilation: bool = False
    strided_1x1: bool = False
    zero_init_residual: bool = False
    dropout_rate: float = 0.1
    aux: bool = True
    align_corners: bool = False
    momentum: float = 0.9
    dtype: Any = jnp.float32

    def __post_init__(self):
        check_encoder(self.encoder, self.output_stride, self.stem, self.strided_1x1)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, "n H W c"], *, train: bool
    ) -> dict[str, Float[Array, "n H W k"]]:
        size = images.shape[1:3]
        _, _, c4, c5 = ResNet(
            self.encoder,
            self.output_stride,
            stem=self.stem,
            width=self.width,
            contract_dilation=self.contract_dilation,
            strided_1x1=self.strided_1x1,
            zero_init_residual=self.zero_init_residual,
            momentum=self.momentum,
            dtype=self.dtype,
            name="encoder",
        )(images, train=train)
        head = dict(
            dropout_rate=self.dropout_rate,
            align_corners=self.align_corners,
            momentum=self.momentum,
            dtype=self.dtype,
        )
        outputs = {
            "logits": SegmentationHead(self.num_classes, name="head", **head)(c5, size, train=train)
        }
        if self.aux:
            outputs["aux"] = SegmentationHead(self.num_classes, name="aux_head", **head)(
                c4, size, train=train
            )
        return outputs
