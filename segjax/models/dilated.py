"""The common trunk of FCN, PSPNet and DeepLabV3: a dilated encoder, its options, and the heads.

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
from segjax.models.encoders import (
    Maps,
    changed_options,
    check_encoder,
    encoder_options,
    make_encoder,
)


class DilatedNetwork(nn.Module):
    """The abstract base of networks on an encoder that keeps its resolution by atrous convolution.

    A subclass's `__call__` takes the maps that it needs from `encode`, makes scores of them, and
    returns them by `outputs`. A subclass may change the defaults of these options and add its own.

    Attributes:
      num_classes: K, channels of the logits.
      encoder: a name in `segjax.models.encoders.ENCODERS`.
      output_stride, width: as `segjax.models.encoders.make_encoder` has them.
      stem, contract_dilation, strided_1x1, zero_init_residual: as `segjax.models.resnet.ResNet` has
        them; other encoders have none of them.
      stage_maps, tensorflow: as `segjax.models.mobilenet.MobileNet` has them.
      drop_path_rate: as `segjax.models.convnext.ConvNeXt` has it.
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
    stage_maps: str = "last"
    tensorflow: bool = False
    drop_path_rate: float = 0.0
    dropout_rate: float = 0.1
    aux: bool = True
    align_corners: bool = False
    momentum: float = 0.9
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        check_encoder(self.encoder, self.output_stride, changed_options(self))
        super().__post_init__()

    @property
    def norm(self) -> dict[str, Any]:
        """The fields that every block with batch normalisation shares."""
        return dict(momentum=self.momentum, dtype=self.dtype)

    def encode(
        self, images: Images, *, train: bool, multi_grid: tuple[int, ...] = (1, 1, 1)
    ) -> Maps:
        """The encoder's maps c1 to c5; c5 has 1/output_stride of the image's size, rounded up."""
        encoder = make_encoder(
            self.encoder,
            output_stride=self.output_stride,
            multi_grid=multi_grid,
            width=self.width,
            **encoder_options(self),
            **self.norm,
        )
        return encoder(images, train=train)

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
