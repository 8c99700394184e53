"""FCN on a dilated ResNet: the baseline of the PSPNet and DeepLabV3 papers.

It is their encoder without a context module, and what torchvision calls `fcn_resnet50`. The FCN
authors' own networks, on VGG16, are in `segjax.models.fcn_vgg`.

Reference: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation",
CVPR 2015; the dilated encoder: Zhao et al., CVPR 2017, section 3.3.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from segjax.layers import spatial_size
from segjax.models.dilated import ClassifierHead, DilatedNetwork


class FCN(DilatedNetwork):
    """A ResNet at output stride 8 and a convolutional classifier.

    35,322,218 parameters at 21 classes with the auxiliary head, as torchvision's `fcn_resnet50`,
    whose dilation is `contract_dilation`.

    Attributes:
      num_classes, encoder, output_stride, ...: see `DilatedNetwork`.
    """

    @nn.compact
    def __call__(
        self, images: Float[Array, "n H W i"], *, train: bool
    ) -> dict[str, Float[Array, "n H W k"]]:
        c4, c5 = self.encode(images, train=train)
        head = ClassifierHead(
            self.num_classes, dropout_rate=self.dropout_rate, **self.norm, name="head"
        )
        return self.outputs(
            head(c5, train=train),
            c4,
            spatial_size(images),
            train=train,
            aux_dropout_rate=self.dropout_rate,
        )
