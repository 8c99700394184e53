"""FCN on a dilated ResNet: the baseline of the PSPNet and DeepLabV3 papers.

It is their encoder without a context module, and what torchvision calls `fcn_resnet50`. The FCN
authors' own networks, on VGG16, are in `segjax.models.fcn_vgg`.

Reference: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation",
CVPR 2015; the dilated encoder: Zhao et al., CVPR 2017, section 3.3.
"""

import flax.linen as nn

from segjax.models.arrays import Images, Outputs
from segjax.models.dilated import DilatedNetwork


class FCN(DilatedNetwork):
    """A ResNet at output stride 8 and a convolutional classifier.

    35,322,218 parameters at 21 classes with the auxiliary head, as torchvision's `fcn_resnet50`,
    whose dilation is `contract_dilation`.

    Attributes:
      num_classes, encoder, output_stride, ...: see `DilatedNetwork`.
    """

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        *_, c4, c5 = self.encode(images, train=train)
        scores = self.classifier_head("head")(c5, train=train)
        aux_scores = self.classifier_head("aux_head")(c4, train=train) if self.aux else None
        return self.outputs(images, scores, aux_scores)
