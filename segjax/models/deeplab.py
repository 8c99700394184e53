"""DeepLabV3: atrous convolution over a dilated ResNet with multi-grid, by a pyramid (ASPP) or by a
cascade of more blocks.

Reference: Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution for Semantic Image
Segmentation", arXiv 1706.05587.
"""

import dataclasses

import flax.linen as nn

from segjax.layers import AtrousSpatialPyramidPooling, Conv, ConvNormAct
from segjax.models.arrays import Images, Outputs
from segjax.models.dilated import ClassifierHead, DilatedNetwork
from segjax.models.encoders import Map

AUX_MAPS = {"c2": 1, "c3": 2, "c4": 3, "c5": 4}
# Options of ASPP and of what follows it.
ASPP_OPTIONS = (
    "rates",
    "aspp_features",
    "image_pooling",
    "project_kernel",
    "dropout_rate",
    "head_conv",
)


class DeepLabV3(DilatedNetwork):
    """Encoder with multi-grid (1, 2, 4), ASPP with image pooling, classifier; figure 5.

    "Going deeper" (section 3.2, figure 3, tables 1 to 4) is a `cascade` without ASPP: the ResNet's
    last block, block4, is followed by up to three copies of it, block5 to block7, and a 1x1
    convolution classifies the last map. Each copy halves the map, down to 1/256 after three. A
    smaller output stride takes the strides of the last blocks away, and each that is gone doubles
    the rate: at output stride 16, block4 to block7 have rates 2, 4, 8 and 16, times the
    multi-grid's. The parameters are the same at every output stride.

    With `contract_dilation` the responses are the same too, at the cells that two output strides
    share. The stride is in a block's first unit here; there it is in the last unit of the block
    before, so that a block that lost its stride has one rate in all its units.

    With `head_conv`, `contract_dilation`, `multi_grid=(1, 1, 1)` and `output_stride=8` it is
    torchvision's `deeplabv3_resnet50`: 42,004,074 parameters at 21 classes. On
    `mobilenet_v3_large` at output stride 16, with `stage_maps="first"`, `aux_map="c3"`,
    `rates=(12, 24, 36)` and `aspp_features=256` it is `deeplabv3_mobilenet_v3_large`: 11,029,328.

    Attributes:
      num_classes, encoder, ...: see `DilatedNetwork`.
      output_stride: 8, 16 or 32, with a cascade of one, two or three blocks up to 64, 128 or 256.
      multi_grid: factors on the rates of the units of the last stage and its copies (section
        3.2.1).
      cascade: copies of a ResNet's last stage, 0 to 3 (section 3.2). c5 is the map of the last.
      with_aspp: whether ASPP stands before the classifier; its options below need it.
      rates: ASPP's at output stride 16; doubled at stride 8, halved at 32 (section 3.3).
      aspp_features: channels of ASPP and of `head_conv`; 0: an eighth of c5's, 256 on ResNet-50.
      image_pooling: whether ASPP has a branch for the mean of the map.
      project_kernel: side of the kernel that joins ASPP's branches (3 in mmsegmentation).
      dropout_rate: dropout after ASPP's projection (0.5 in torchvision, none in the paper).
      head_conv: whether a 3x3 convolution stands before the classifier (torchvision's).
      aux_map: the encoder's map that the auxiliary head reads, "c2" to "c5".

    Raises:
      ValueError: naming the option, for values that the encoder or ASPP cannot have, and for
        options of ASPP without it.
    """

    output_stride: int = 16
    dropout_rate: float = 0.0
    multi_grid: tuple[int, ...] = (1, 2, 4)
    cascade: int = 0
    with_aspp: bool = True
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
        check_multi_grid(self.multi_grid)
        if self.with_aspp:
            check_aspp(self.rates, self.output_stride, self.project_kernel)
        else:
            self._check_without_aspp()

    def _check_without_aspp(self) -> None:
        """Raises ValueError for an option of ASPP that is not at its default."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ASPP_OPTIONS and value != field.default:
                raise ValueError(
                    f"model.{field.name}={value!r}, but model.with_aspp=False: there is no ASPP; "
                    f"leave it at its default, {field.default!r}"
                )

    def _aspp(self, c5: Map, *, train: bool) -> Map:
        """ASPP, and the 3x3 convolution after it if there is one."""
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
        return x

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Outputs:
        maps = self.encode(images, train=train, multi_grid=tuple(self.multi_grid))
        x = self._aspp(maps[-1], train=train) if self.with_aspp else maps[-1]
        scores = Conv(self.num_classes, 1, use_bias=True, dtype=self.dtype, name="classifier")(x)
        # The paper has no auxiliary head; this is torchvision's, dropout included.
        aux_head = ClassifierHead(self.num_classes, dropout_rate=0.1, **self.norm, name="aux_head")
        aux_map = maps[AUX_MAPS[self.aux_map]]
        assert aux_map is not None  # only c1 may be missing
        return self.outputs(images, scores, aux_head(aux_map, train=train) if self.aux else None)


def rates_at(rates: tuple[int, ...], output_stride: int) -> tuple[int, ...]:
    """ASPP's rates of output stride 16 at another one."""
    return tuple(rate * 16 // output_stride for rate in rates)


def check_multi_grid(multi_grid: tuple[int, ...]) -> None:
    """Raises ValueError for factors that are missing or below 1."""
    if not multi_grid or min(multi_grid) < 1:
        raise ValueError(f"model.multi_grid={tuple(multi_grid)}; use one or more numbers >= 1")


def check_aspp(rates: tuple[int, ...], output_stride: int, project_kernel: int) -> None:
    """Raises ValueError, naming the option, for values that ASPP cannot have."""
    if not rates or min(rates) < 1:
        raise ValueError(f"model.rates={tuple(rates)}; use one or more numbers >= 1")
    there = rates_at(rates, output_stride)
    if min(there) < 1 or len(set(there)) < len(there):
        raise ValueError(
            f"model.rates={tuple(rates)} of output stride 16 are {there} at output stride "
            f"{output_stride}; use rates that are different and >= 1 there"
        )
    if project_kernel not in (1, 3):
        raise ValueError(f"model.project_kernel={project_kernel}; use 1 or 3")
