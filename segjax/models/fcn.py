"""FCN on a dilated ResNet: the baseline of the PSPNet and DeepLabV3 papers.

It is their encoder without a context module, and what torchvision calls `fcn_resnet50`. The FCN
authors' own networks, on VGG16, are in `segjax.models.fcn_vgg`.

Reference: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation",
CVPR 2015; the dilated encoder: Zhao et al., CVPR 2017, section 3.3.
"""

import flax.linen as nn
import jax.numpy as jnp

from segjax.layers import ConvNormAct
from segjax.models.arrays import Images, Outputs
from segjax.models.dilated import DilatedNetwork


class FCN(DilatedNetwork):
    """A ResNet at output stride 8 and a convolutional classifier.

    35,322,218 parameters at 21 classes with the auxiliary head, as torchvision's `fcn_resnet50`,
    whose dilation is `contract_dilation`.

    Attributes:
      num_classes, encoder, output_stride, ...: see `DilatedNetwork`.
      head_convs: 3x3 convolutions of the head, and whether one more reads c5 beside the last of
        them (`concat_input`): 2 and True in mmsegmentation's `fcn_r50-d8`.
    """

    head_convs: int = 1
    concat_input: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.head_convs < 1:
            raise ValueError(f"model.head_convs={self.head_convs}; use 1 or more")

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        *_, c4, c5 = self.encode(images, train=train)
        x, features = c5, c5.shape[-1] // 4
        for i in range(1, self.head_convs + self.concat_input):
            x = ConvNormAct(features, **self.norm, name=f"head_conv{i}")(x, train=train)
        if self.concat_input:
            x = jnp.concatenate([c5, x], axis=-1)
        scores = self.classifier_head("head", features)(x, train=train)
        aux_scores = self.classifier_head("aux_head")(c4, train=train) if self.aux else None
        return self.outputs(images, scores, aux_scores)
