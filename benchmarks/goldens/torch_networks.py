"""The torch networks that goldens are made of: torchvision's, segmentation_models.pytorch's
("SMP"), and twins of the PSPNet authors' (github.com/hszhao/semseg), which is no package.

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
}
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
    "smp_pspnet_resnet18_depth4": lambda: smp_network("PSPNet", "resnet18", encoder_depth=4),
    # No layouts of ours: their names are those of ResNet-50, and of VGG16's siblings.
    "resnext50_32x4d": resnet.resnext50_32x4d,
    "wide_resnet50_2": resnet.wide_resnet50_2,
    "vgg13": torchvision.models.vgg13,
    "vgg19": torchvision.models.vgg19,
    "smp_deeplabv3plus_resnet50": lambda: smp_network("DeepLabV3Plus", "resnet50"),
    "smp_deeplabv3_separable": lambda: smp_network(
        "DeepLabV3", "resnet50", decoder_aspp_separable=True
    ),
}
