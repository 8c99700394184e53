"""PSPNet: pyramid pooling over a dilated ResNet.

Reference: Zhao, Shi, Qi, Wang and Jia, "Pyramid Scene Parsing Network", CVPR 2017
(arXiv 1612.01105).
"""

import flax.linen as nn

from segjax.layers import PyramidPooling
from segjax.models.arrays import Images, Outputs
from segjax.models.dilated import DilatedNetwork


class PSPNet(DilatedNetwork):
    """Encoder at output stride 8, pyramid pooling module, classifier; figure 3.

    The auxiliary head classifies c4 (res4b22 at depth 101, section 3.3); table 2 weights its loss
    by 0.4. On image sizes of 8n + 1, such as the authors' crops of 473 and 713, `align_corners` is
    exact.

    Attributes:
      num_classes, encoder, output_stride, ...: see `DilatedNetwork`.
      bins: pyramid levels, in bins a side (table 1: B1236; B1 is the map's mean alone).
      pooling: "mean" or "max" (AVE and MAX in table 1).
      reduce: whether the levels' channels are reduced to c5's together (DR in table 1); otherwise
        each level has c5's.

    Raises:
      ValueError: naming the option, for values that the encoder or the pyramid cannot have.
    """

    stem: str = "3x3"
    align_corners: bool = True
    bins: tuple[int, ...] = (1, 2, 3, 6)
    pooling: str = "mean"
    reduce: bool = True

    def __post_init__(self):
        check_bins(self.bins)
        if self.pooling not in ("mean", "max"):
            raise ValueError(f'model.pooling={self.pooling!r}; use "mean" or "max"')
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        *_, c4, c5 = self.encode(images, train=train)
        pyramid = PyramidPooling(
            tuple(self.bins),
            pooling=self.pooling,
            reduce=self.reduce,
            align_corners=self.align_corners,
            **self.norm,
            name="pyramid",
        )
        features = c5.shape[-1] // 4  # 512 at full width: an eighth of the concatenation's
        scores = self.classifier_head("head", features)(pyramid(c5, train=train), train=train)
        aux_scores = self.classifier_head("aux_head")(c4, train=train) if self.aux else None
        return self.outputs(images, scores, aux_scores)


def check_bins(bins: tuple[int, ...]) -> None:
    """Raises ValueError for pyramid levels that are missing, repeated or below 1."""
    if not bins or min(bins) < 1 or len(set(bins)) < len(bins):
        raise ValueError(f"model.bins={tuple(bins)}; use one or more different numbers >= 1")
