"""LR-ASPP: the light head of MobileNetV3, a gate by the map's mean and two 1x1 classifiers.

Reference: Howard et al., "Searching for MobileNetV3", ICCV 2019 (arXiv 1905.02244), section 6.4 and
figure 10.
"""

from functools import partial
from typing import ClassVar

import flax.linen as nn

from segjax.layers import Conv, ConvNormAct, adaptive_avg_pool, resize_bilinear, spatial_size
from segjax.layers.precision import at_least_float32
from segjax.models.arrays import Images, Outputs
from segjax.models.dilated import DilatedNetwork


class LRASPP(DilatedNetwork):
    """Scores of c5, gated by the mean of c5 and enlarged, plus scores of c3.

    With the defaults it is torchvision's `lraspp_mobilenet_v3_large`: 3,221,538 parameters at 21
    classes. As there, the gate is made of the mean of the complete map; the paper averages windows
    of 49x49 cells. c3 is the first map of stride 8 (`stage_maps`).

    Attributes:
      num_classes, encoder, output_stride, ...: see `DilatedNetwork`; the dropout comes before the
        classifier of c5, none in torchvision and the paper.
      features: channels of the gated map.
      aux: whether there is an auxiliary head on c4; there is none in the paper.
    """

    classifiers: ClassVar[tuple[str, ...]] = ("low_classifier", "high_classifier")

    encoder: str = "mobilenet_v3_large"
    output_stride: int = 16
    stage_maps: str = "first"
    dropout_rate: float = 0.0
    features: int = 128
    aux: bool = False

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        _, _, c3, c4, c5 = self.encode(images, train=train)
        x = ConvNormAct(self.features, 1, **self.norm, name="project")(c5, train=train)
        gate = Conv(self.features, 1, dtype=self.dtype, name="gate")(adaptive_avg_pool(c5, (1, 1)))
        x = resize_bilinear(
            x * nn.sigmoid(gate), spatial_size(c3), align_corners=self.align_corners
        )
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        classifier = partial(Conv, self.num_classes, 1, use_bias=True, dtype=self.dtype)
        scores = at_least_float32(classifier(name="high_classifier")(x))
        scores += at_least_float32(classifier(name="low_classifier")(c3))
        aux_scores = self.classifier_head("aux_head")(c4, train=train) if self.aux else None
        return self.outputs(images, scores, aux_scores)
