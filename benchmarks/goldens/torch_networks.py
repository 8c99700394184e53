"""The torch networks that goldens are made of: torchvision's, segmentation_models.pytorch's
("SMP"), and twins of the PSPNet authors' (github.com/hszhao/semseg), which is no package, and of
mmsegmentation's, whose package wants compiled operators.

The twins were written from what the projects publish of their networks, not taken from them.

torchvision without its compiled operators will do.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

# torchvision registers shapes for two of its compiled operators, whether or not they are there.
if not hasattr(torch.ops.torchvision, "nms"):
    LIBRARY = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import segmentation_models_pytorch as smp
import torchvision
from torchvision.models import resnet

CLASSES = 5


def torchvision_network(name: str, aux: bool = True) -> nn.Module:
    builder = getattr(torchvision.models.segmentation, name)
    return builder(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=aux)


def smp_network(kind: str, encoder: str, **options) -> nn.Module:
    network = getattr(smp, kind)
    return network(encoder, encoder_weights=None, classes=CLASSES, **options)


class DeepStemResNet(nn.Module):
    """A ResNet of bottlenecks after three 3x3 convolutions, as the PSPNet authors name it."""

    def __init__(self, depths: tuple[int, ...], classes: int = 10):
        super().__init__()
        conv = partial(nn.Conv2d, kernel_size=3, padding=1, bias=False)
        self.conv1, self.bn1 = conv(3, 64, stride=2), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = conv(64, 64), nn.BatchNorm2d(64)
        self.conv3, self.bn3 = conv(64, 128), nn.BatchNorm2d(128)
        channels = 128
        for layer, depth in enumerate(depths, 1):
            planes = 32 * 2**layer
            blocks = []
            for block in range(depth):
                stride = 2 if block == 0 and layer > 1 else 1
                shortcut = None
                if block == 0:
                    shortcut = nn.Sequential(
                        nn.Conv2d(channels, 4 * planes, 1, stride, bias=False),
                        nn.BatchNorm2d(4 * planes),
                    )
                blocks.append(resnet.Bottleneck(channels, planes, stride, shortcut))
                channels = 4 * planes
            setattr(self, f"layer{layer}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)


class AuthorsPSPNet(nn.Module):
    """The PSPNet authors' network: their names, their dilation of whole stages."""

    BINS = (1, 2, 3, 6)

    def __init__(self, depths: tuple[int, ...]):
        super().__init__()
        body = DeepStemResNet(depths)
        stem = []
        for i in (1, 2, 3):
            stem += [getattr(body, f"conv{i}"), getattr(body, f"bn{i}"), nn.ReLU()]
        self.layer0 = nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1))
        for layer, rate in ((1, 1), (2, 1), (3, 2), (4, 4)):
            stage = getattr(body, f"layer{layer}")
            setattr(self, f"layer{layer}", stage)
            if rate > 1:
                for block in stage:
                    block.conv2.stride, block.conv2.dilation = (1, 1), (rate, rate)
                    block.conv2.padding = (rate, rate)
                stage[0].downsample[0].stride = (1, 1)
        self.ppm = nn.Module()
        self.ppm.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(bins),
                nn.Conv2d(2048, 512, 1, bias=False),
                nn.BatchNorm2d(512),
                nn.ReLU(),
            )
            for bins in self.BINS
        )
        self.cls = self.head(4096, 512)
        self.aux = self.head(1024, 256)

    @staticmethod
    def head(inputs: int, features: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, features, 3, padding=1, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(),
            nn.Dropout2d(0.1),
            nn.Conv2d(features, CLASSES, 1),
        )

    def forward(self, x):
        resize = partial(F.interpolate, mode="bilinear", align_corners=True)
        c4 = self.layer3(self.layer2(self.layer1(self.layer0(x))))
        c5 = self.layer4(c4)
        levels = [resize(level(c5), c5.shape[2:]) for level in self.ppm.features]
        logits = self.cls(torch.cat([c5, *levels], 1))
        return {"out": resize(logits, x.shape[2:]), "aux": resize(self.aux(c4), x.shape[2:])}


class ConvModule(nn.Sequential):
    """mmcv's: convolution "conv", normalisation "bn", ReLU."""

    def __init__(self, inputs: int, outputs: int, k: int, dilation: int = 1, groups: int = 1):
        padding = dilation * (k // 2)
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, k, 1, padding, dilation, groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.activate = nn.ReLU()


class SeparableConvModule(nn.Sequential):
    """mmcv's DepthwiseSeparableConvModule: normalisation and ReLU after both convolutions."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1):
        super().__init__()
        self.depthwise_conv = ConvModule(inputs, inputs, 3, dilation, groups=inputs)
        self.pointwise_conv = ConvModule(inputs, outputs, 1)


class ResNetV1c(nn.Module):
    """mmsegmentation's ResNet of bottlenecks at stride 8, with contracted dilation; maps 1 to 4.

    `deep` is its ResNetV1c: 32, 32 and 64 channels in the stem.
    """

    def __init__(self, depths: tuple[int, ...], deep: bool = True):
        super().__init__()
        self.deep = deep
        if deep:
            stem, channels = [], 3
            for features, stride in ((32, 2), (32, 1), (64, 1)):
                conv = nn.Conv2d(channels, features, 3, stride, 1, bias=False)
                stem += [conv, nn.BatchNorm2d(features), nn.ReLU()]
                channels = features
            self.stem = nn.Sequential(*stem)
        else:
            self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        strides, dilations = (1, 2, 1, 1), (1, 1, 2, 4)
        for layer, depth in enumerate(depths, 1):
            planes, stride, dilation = 32 * 2**layer, strides[layer - 1], dilations[layer - 1]
            blocks = []
            for block in range(depth):
                shortcut = None
                if block == 0:
                    shortcut = nn.Sequential(
                        nn.Conv2d(channels, 4 * planes, 1, stride, bias=False),
                        nn.BatchNorm2d(4 * planes),
                    )
                first = block == 0 and dilation > 1
                blocks.append(
                    resnet.Bottleneck(
                        channels,
                        planes,
                        stride if block == 0 else 1,
                        shortcut,
                        dilation=dilation // 2 if first else dilation,
                    )
                )
                channels = 4 * planes
            setattr(self, f"layer{layer}", nn.Sequential(*blocks))

    def forward(self, x):
        x = self.stem(x) if self.deep else torch.relu(self.bn1(self.conv1(x)))
        maps = [F.max_pool2d(x, 3, 2, 1)]
        for layer in (1, 2, 3, 4):
            maps.append(getattr(self, f"layer{layer}")(maps[-1]))
        return maps[1:]


class MMSegHead(nn.Module):
    """mmsegmentation's decode heads on a map of 2048 channels, 512 inside, by the config's name."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind, c = kind, 512
        if kind == "fcn":
            self.convs = nn.Sequential(ConvModule(2048, c, 3), ConvModule(c, c, 3))
            self.conv_cat = ConvModule(2048 + c, c, 3)
        elif kind == "pspnet":
            self.psp_modules = nn.ModuleList(
                nn.Sequential(nn.AdaptiveAvgPool2d(bins), ConvModule(2048, c, 1))
                for bins in (1, 2, 3, 6)
            )
            self.bottleneck = ConvModule(2048 + 4 * c, c, 3)
        else:
            self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvModule(2048, c, 1))
            plus = kind == "deeplabv3plus"
            atrous = SeparableConvModule if plus else partial(ConvModule, k=3)
            self.aspp_modules = nn.ModuleList(
                [ConvModule(2048, c, 1), *(atrous(2048, c, dilation=d) for d in (12, 24, 36))]
            )
            self.bottleneck = ConvModule(5 * c, c, 3)
            if plus:
                self.c1_bottleneck = ConvModule(256, 48, 1)
                self.sep_bottleneck = nn.Sequential(
                    SeparableConvModule(c + 48, c), SeparableConvModule(c, c)
                )
        self.conv_seg = nn.Conv2d(c, CLASSES, 1)

    def forward(self, maps):
        resize = partial(F.interpolate, mode="bilinear", align_corners=False)
        c2, c5 = maps[0], maps[-1]
        size = c5.shape[2:]
        if self.kind == "fcn":
            x = self.conv_cat(torch.cat([c5, self.convs(c5)], 1))
        elif self.kind == "pspnet":
            levels = [resize(level(c5), size) for level in self.psp_modules]
            x = self.bottleneck(torch.cat([c5, *levels], 1))
        else:
            branches = [resize(self.image_pool(c5), size), *(m(c5) for m in self.aspp_modules)]
            x = self.bottleneck(torch.cat(branches, 1))
        if self.kind == "deeplabv3plus":
            c2 = self.c1_bottleneck(c2)
            x = self.sep_bottleneck(torch.cat([resize(x, c2.shape[2:]), c2], 1))
        return self.conv_seg(x)


class MMSegNetwork(nn.Module):
    """A twin of mmsegmentation's EncoderDecoder, NETWORK_r50-d8 with its auxiliary head on c4."""

    def __init__(self, kind: str, depths: tuple[int, ...], deep: bool = True):
        super().__init__()
        self.backbone = ResNetV1c(depths, deep)
        self.decode_head = MMSegHead(kind)
        self.auxiliary_head = nn.Module()
        self.auxiliary_head.convs = nn.Sequential(ConvModule(1024, 256, 3))
        self.auxiliary_head.conv_seg = nn.Conv2d(256, CLASSES, 1)

    def forward(self, x):
        maps, size = self.backbone(x), x.shape[2:]
        resize = partial(F.interpolate, size=size, mode="bilinear", align_corners=False)
        aux = self.auxiliary_head.conv_seg(self.auxiliary_head.convs(maps[2]))
        return {"out": resize(self.decode_head(maps)), "aux": resize(aux)}


DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
# Network, images. Sizes of 8n + 1 where resizing aligns corners; SMP wants multiples of 8. ASPP's
# kernels have taps outside their centre on maps of more than 12 cells only.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "vgg16": (torchvision.models.vgg16, (1, 64, 96)),
    "vgg16_bn": (torchvision.models.vgg16_bn, (1, 64, 96)),
    "resnet18": (torchvision.models.resnet18, (2, 49, 65)),
    "resnet50": (torchvision.models.resnet50, (2, 49, 65)),
    "fcn_resnet50": (lambda: torchvision_network("fcn_resnet50"), (2, 49, 65)),
    "deeplabv3_resnet101": (lambda: torchvision_network("deeplabv3_resnet101"), (1, 97, 130)),
    "semseg_pspnet50": (lambda: AuthorsPSPNet(DEPTHS[50]), (2, 49, 65)),
    "smp_pspnet_resnet34": (lambda: smp_network("PSPNet", "resnet34"), (2, 48, 64)),
    "smp_pspnet_resnet50_depth5": (
        lambda: smp_network("PSPNet", "resnet50", encoder_depth=5, upsampling=32),
        (2, 64, 96),
    ),
    "smp_deeplabv3_resnet18": (lambda: smp_network("DeepLabV3", "resnet18"), (1, 104, 136)),
    "smp_deeplabv3plus_resnet18": (lambda: smp_network("DeepLabV3Plus", "resnet18"), (1, 208, 240)),
    "smp_deeplabv3plus_mobilenet_v2": (
        lambda: smp_network("DeepLabV3Plus", "mobilenet_v2"),
        (1, 208, 240),
    ),
    "smp_unet_resnet18": (lambda: smp_network("Unet", "resnet18"), (1, 61, 83)),
    "smp_unet_mobilenet_v2": (lambda: smp_network("Unet", "mobilenet_v2"), (1, 61, 83)),
    "mmseg_fcn_resnet50": (lambda: MMSegNetwork("fcn", DEPTHS[50]), (1, 49, 66)),
    "mmseg_pspnet_resnet50": (lambda: MMSegNetwork("pspnet", DEPTHS[50]), (1, 49, 66)),
    "mmseg_deeplabv3_resnet50": (lambda: MMSegNetwork("deeplabv3", DEPTHS[50]), (1, 105, 114)),
    "mmseg_deeplabv3plus_resnet50": (
        lambda: MMSegNetwork("deeplabv3plus", DEPTHS[50]),
        (1, 105, 114),
    ),
}
# Of the outputs of these, every fourth row and column is kept in place of every second.
LARGE = (
    "smp_deeplabv3plus_mobilenet_v2",
    "smp_deeplabv3plus_resnet18",
    "mmseg_deeplabv3_resnet50",
    "mmseg_deeplabv3plus_resnet50",
)
NAMES_ONLY: dict[str, Callable[[], nn.Module]] = {
    **{f"resnet{n}": getattr(resnet, f"resnet{n}") for n in (34, 101, 152)},
    "fcn_resnet101": lambda: torchvision_network("fcn_resnet101"),
    "deeplabv3_resnet50": lambda: torchvision_network("deeplabv3_resnet50"),
    "deeplabv3_resnet50_no_aux": lambda: torchvision_network("deeplabv3_resnet50", aux=False),
    **{f"semseg_pspnet{n}": lambda n=n: AuthorsPSPNet(DEPTHS[n]) for n in (101, 152)},
    **{f"semseg_resnet{n}": lambda n=n: DeepStemResNet(DEPTHS[n]) for n in (50, 101, 152)},
    **{
        f"smp_deeplabv3_{encoder}": lambda encoder=encoder: smp_network("DeepLabV3", encoder)
        for encoder in ("resnet34", "resnet50", "resnet101", "resnet152")
    },
    **{
        f"smp_pspnet_{encoder}": lambda encoder=encoder: smp_network("PSPNet", encoder)
        for encoder in ("resnet18", "resnet50", "resnet101", "resnet152")
    },
    **{
        f"smp_deeplabv3plus_{encoder}": lambda encoder=encoder: smp_network(
            "DeepLabV3Plus", encoder
        )
        for encoder in ("resnet34", "resnet50", "resnet101")
    },
    "smp_deeplabv3plus_resnet18_dense": lambda: smp_network(
        "DeepLabV3Plus", "resnet18", decoder_aspp_separable=False, decoder_channels=64
    ),
    **{
        f"smp_unet_{encoder}": lambda encoder=encoder: smp_network("Unet", encoder)
        for encoder in ("resnet34", "resnet50")
    },
    "mmseg_deeplabv3plus_resnet101": lambda: MMSegNetwork("deeplabv3plus", DEPTHS[101]),
    "mmseg_pspnet_resnet50_7x7": lambda: MMSegNetwork("pspnet", DEPTHS[50], deep=False),
    "smp_pspnet_resnet18_depth4": lambda: smp_network("PSPNet", "resnet18", encoder_depth=4),
    # No layouts of ours: their names are those of ResNet-50, and of VGG16's siblings.
    "resnext50_32x4d": resnet.resnext50_32x4d,
    "wide_resnet50_2": resnet.wide_resnet50_2,
    "vgg13": torchvision.models.vgg13,
    "vgg19": torchvision.models.vgg19,
    "smp_unet_vgg16": lambda: smp_network("Unet", "vgg16_bn"),
    "smp_unet_attention": lambda: smp_network("Unet", "resnet18", decoder_attention_type="scse"),
    "smp_unetplusplus": lambda: smp_network("UnetPlusPlus", "resnet18"),
    "smp_deeplabv3_separable": lambda: smp_network(
        "DeepLabV3", "resnet50", decoder_aspp_separable=True
    ),
}
