"""DeepLabV3: atrous spatial pyramid pooling over a dilated ResNet with multi-grid.

Reference: Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution for Semantic Image
Segmentation", arXiv 1706.05587.
"""

import flax.linen as nn

from segjax.layers import AtrousSpatialPyramidPooling, Conv, ConvNormAct
from segjax.models.arrays import Images, Outputs
from segjax.models.dilated import ClassifierHead, DilatedNetwork

AUX_MAPS = {"c2": 1, "c3": 2, "c4": 3, "c5": 4}


class DeepLabV3(DilatedNetwork):
    """Encoder with multi-grid (1, 2, 4), ASPP with image pooling, classifier; figure 5.

    With `head_conv`, `contract_dilation`, `multi_grid=(1, 1, 1)` and `output_stride=8` it is
    torchvision's `deeplabv3_resnet50`: 42,004,074 parameters at 21 classes. On
    `mobilenet_v3_large` at output stride 16, with `stage_maps="first"`, `aux_map="c3"`,
    `rates=(12, 24, 36)` and `aspp_features=256` it is `deeplabv3_mobilenet_v3_large`: 11,029,328.

    Attributes:
      num_classes, encoder, output_stride, ...: see `DilatedNetwork`.
      multi_grid: factors on the rates of the last stage's blocks (section 3.2.1).
      rates: ASPP's at output stride 16; doubled at stride 8, halved at 32 (section 3.3).
      aspp_features: channels of ASPP and of `head_conv`; 0: an eighth of c5's, 256 on ResNet-50.
      image_pooling: whether ASPP has a branch for the mean of the map.
      project_kernel: side of the kernel that joins ASPP's branches (3 in mmsegmentation).
      dropout_rate: dropout after ASPP's projection (0.5 in torchvision, none in the paper).
      head_conv: whether a 3x3 convolution stands before the classifier (torchvision's).
      aux_map: the encoder's map that the auxiliary head reads, "c2" to "c5".

    Raises:
      ValueError: naming the option, for values that the encoder or ASPP cannot have.
    """

    output_stride: int = 16
    dropout_rate: float = 0.0
    multi_grid: tuple[int, ...] = (1, 2, 4)
    rates: tuple[int, ...] = (6, 12, 18)
    aspp_features: int = 0
    image_pooling: bool = True
    project_kernel: int = 1
    head_conv: bool = False
    aux_map: str = "c4"

    def __post_init__(self):
        if self.aux_map not in AUX_MAPS:
            raise ValueError(f"model.aux_map={self.aux_map!r}; use one of {', '.join(AUX_MAPS)}")
        super().__post_init__()
        check_aspp(self.rates, self.multi_grid, self.output_stride, self.project_kernel)

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        maps = self.encode(images, train=train, multi_grid=tuple(self.multi_grid))
        c5 = maps[-1]
        features = self.aspp_features or c5.shape[-1] // 8
        x = AtrousSpatialPyramidPooling(
            rates_at(self.rates, self.output_stride),
            features,
            image_pooling=self.image_pooling,
            project_kernel=self.project_kernel,
            dropout_rate=self.dropout_rate,
            **self.norm,
            name="aspp",
        )(c5, train=train)
        if self.head_conv:
            x = ConvNormAct(features, **self.norm, name="head_conv")(x, train=train)
        scores = Conv(self.num_classes, 1, use_bias=True, dtype=self.dtype, name="classifier")(x)
        # The paper has no auxiliary head; this is torchvision's, dropout included.
        aux_head = ClassifierHead(self.num_classes, dropout_rate=0.1, **self.norm, name="aux_head")
        aux_map = maps[AUX_MAPS[self.aux_map]]
        assert aux_map is not None  # only c1 may be missing
        return self.outputs(images, scores, aux_head(aux_map, train=train) if self.aux else None)


def rates_at(rates: tuple[int, ...], output_stride: int) -> tuple[int, ...]:
    """ASPP's rates of output stride 16 at another one."""
    return tuple(rate * 16 // output_stride for rate in rates)


def check_aspp(
    rates: tuple[int, ...], multi_grid: tuple[int, ...], output_stride: int, project_kernel: int
) -> None:
    """Raises ValueError, naming the option, for values that ASPP and its encoder cannot have."""
    for name, values in (("rates", rates), ("multi_grid", multi_grid)):
        if not values or min(values) < 1:
            raise ValueError(f"model.{name}={tuple(values)}; use one or more numbers >= 1")
    there = rates_at(rates, output_stride)
    if min(there) < 1 or len(set(there)) < len(there):
        raise ValueError(
            f"model.rates={tuple(rates)} of output stride 16 are {there} at output stride "
            f"{output_stride}; use rates that are different and >= 1 there"
        )
    if project_kernel not in (1, 3):
        raise ValueError(f"model.project_kernel={project_kernel}; use 1 or 3")
