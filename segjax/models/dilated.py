"""The common trunk of FCN, PSPNet and DeepLabV3: a dilated ResNet, its options, and the heads.

The three networks differ in what stands between the encoder's last map and the classifier: a
convolution (FCN), averages over grids of bins (PSPNet), or atrous convolutions (DeepLabV3).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from segjax.layers import Conv, ConvNormAct, resize_bilinear, spatial_size
from segjax.layers.precision import at_least_float32
from segjax.models.arrays import Images, Outputs
from segjax.models.resnet import ResNet, check_encoder


class DilatedNetwork(nn.Module):
    """The abstract base of networks on a ResNet that keeps its resolution by atrous convolution.

    A subclass's `__call__` takes c4 and c5 from `encode`, makes scores of both, and returns them by
    `outputs`. A subclass may change the defaults of these options and add its own.

    Attributes:
      num_classes: K, channels of the logits.
      encoder: "resnet18", "resnet34", "resnet50", "resnet101" or "resnet152".
      output_stride, stem, width, contract_dilation, strided_1x1, zero_init_residual: as
        `segjax.models.resnet.ResNet` has them.
      dropout_rate: dropout before the classifiers.
      aux: whether there is an auxiliary head on c4 (Zhao et al., CVPR 2017, section 3.3).
      align_corners: convention of bilinear resizing, see `segjax.layers.resize`.
      momentum: share of the old statistics that batch normalisation keeps at each step.
      dtype: compute dtype; parameters, statistics and logits are float32.

    Raises:
      ValueError: naming the option, for a value that no encoder has.
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
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        check_encoder(self.encoder, self.output_stride, self.stem, self.strided_1x1)
        super().__post_init__()

    @property
    def norm(self) -> dict[str, Any]:
        """The fields that every block with batch normalisation shares."""
        return dict(momentum=self.momentum, dtype=self.dtype)

    def encode(
        self, images: Images, *, train: bool, multi_grid: tuple[int, ...] = (1, 1, 1)
    ) -> tuple[Float[Array, "n h4 w4 c4"], Float[Array, "n h5 w5 c5"]]:
        """The encoder's last two maps; c5 has 1/output_stride of the image's size, rounded up."""
        _, _, c4, c5 = ResNet(
            self.encoder,
            output_stride=self.output_stride,
            multi_grid=multi_grid,
            stem=self.stem,
            width=self.width,
            contract_dilation=self.contract_dilation,
            strided_1x1=self.strided_1x1,
            zero_init_residual=self.zero_init_residual,
            **self.norm,
            name="encoder",
        )(images, train=train)
        return c4, c5

    def classifier_head(self, name: str, features: int | None = None) -> "ClassifierHead":
        """A submodule of that name with the network's dropout rate."""
        return ClassifierHead(self.num_classes, features, self.dropout_rate, **self.norm, name=name)

    def outputs(
        self,
        images: Images,
        scores: Float[Array, "n h w k"],
        aux_scores: Float[Array, "n h4 w4 k"] | None,
    ) -> Outputs:
        """The scores, and the auxiliary head's if there is one, resized to the images' size."""
        size = spatial_size(images)
        return {
            name: resize_bilinear(at_least_float32(x), size, align_corners=self.align_corners)
            for name, x in (("logits", scores), ("aux", aux_scores))
            if x is not None
        }


class ClassifierHead(nn.Module):
    """3x3 convolution, batch normalisation, ReLU, dropout, 1x1 classifier.

    Attributes:
      num_classes: K, channels of the scores.
      features: channels of the 3x3 convolution; None: a quarter of the input's.
    """

    num_classes: int
    features: int | None = None
    dropout_rate: float = 0.1
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n h w k"]:
        features = self.features or x.shape[-1] // 4
        x = ConvNormAct(features, momentum=self.momentum, dtype=self.dtype, name="conv")(
            x, train=train
        )
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return Conv(self.num_classes, 1, use_bias=True, dtype=self.dtype, name="classifier")(x)
