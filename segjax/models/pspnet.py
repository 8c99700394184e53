"""PSPNet: pyramid pooling over a dilated ResNet.

Reference: Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017 (arXiv 1612.01105).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from segjax.layers import PyramidPooling
from segjax.models.fcn import SegmentationHead
from segjax.models.resnet import ResNet, check_encoder


class PSPNet(nn.Module):
    """Encoder at output stride 8, pyramid pooling module, 3x3 convolution, classifier; figure 3.

    The auxiliary head classifies c4 (res4b22 at depth 101, section 3.3); its loss counts 0.4
    (table 2). Sizes of 8n + 1, as the authors' crops of 473 and 713, make `align_corners` exact.

    Attributes:
      num_classes: K, channels of the logits.
      encoder, output_stride, stem, width, ...: see `segjax.models.resnet.ResNet`.
      bins: pyramid levels, bins a side (table 1: B1236).
      dropout_rate: before the classifiers.
      aux: whether there is an auxiliary head on c4.
      align_corners: convention of the resizes (the authors': True).
    """

    num_classes: int
    encoder: str = "resnet50"
    output_stride: int = 8
    stem: str = "3x3"
    width: float = 1.0
    contract_dilation: bool = False
    strided_1x1: bool = False
    zero_init_residual: bool = False
    bins: tuple[int, ...] = (1, 2, 3, 6)
    dropout_rate: float = 0.1
    aux: bool = True
    align_corners: bool = True
    momentum: float = 0.9
    dtype: Any = jnp.float32

    def __post_init__(self):
        check_encoder(self.encoder, self.output_stride, self.stem, self.strided_1x1)
        if not self.bins or min(self.bins) < 1 or len(set(self.bins)) < len(self.bins):
            raise ValueError(
                f"model.bins={tuple(self.bins)}; use one or more different numbers >= 1"
            )
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
        context = PyramidPooling(
            tuple(self.bins),
            align_corners=self.align_corners,
            momentum=self.momentum,
            dtype=self.dtype,
            name="pyramid",
        )(c5, train=train)
        head = dict(
            dropout_rate=self.dropout_rate,
            align_corners=self.align_corners,
            momentum=self.momentum,
            dtype=self.dtype,
        )
        # 512 channels at full width: a quarter of c5, an eighth of the concatenation.
        outputs = {
            "logits": SegmentationHead(
                self.num_classes, features=c5.shape[-1] // 4, name="head", **head
            )(context, size, train=train)
        }
        if self.aux:
            outputs["aux"] = SegmentationHead(self.num_classes, name="aux_head", **head)(
                c4, size, train=train
            )
        return outputs
