"""What is compared: one entry a row of the table.

Every framework gets the same images and labels, the same loss (cross-entropy over all pixels, plus
0.5 times the auxiliary head's where there is one) and the same optimiser.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
    """A network, and who runs it.

    Attributes:
      title: of the network, for the table.
      images, size, classes: of a batch: images, (H, W), classes.
      model: our network, as `config.model` names it.
      peers: by framework ("torch", "keras"), the network's name in `in_torch.NETWORKS` or
        `in_keras.NETWORKS`.
      optimizer: "sgd" (0.01, momentum 0.9) or "adam" (0.0001, Keras's epsilon).
      aux: whether the network has an auxiliary head, which is trained and not run for inference.
      counts: by framework, why its network has not as many parameters as ours, if it has not.
    """

    title: str
    images: int
    size: tuple[int, int]
    classes: int
    model: Mapping[str, Any]
    peers: Mapping[str, str]
    optimizer: str = "sgd"
    aux: bool = False
    counts: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def shape(self) -> str:
        return f"{self.images}x{self.size[0]}x{self.size[1]}"


AUX_WEIGHT = 0.5  # torchvision's
NOTEBOOK: dict[str, Any] = dict(images=2, size=(240, 480), classes=7, optimizer="adam")
TORCHVISION: dict[str, Any] = dict(images=2, size=(240, 480), classes=21, aux=True)
SMP: dict[str, Any] = dict(images=2, size=(240, 480), classes=21)
DILATED: dict[str, Any] = dict(
    encoder="resnet50", output_stride=8, contract_dilation=True, aux=True
)

ROWS: dict[str, Row] = {
    "segnet": Row(
        "SegNet",
        images=4,
        size=(96, 128),
        classes=11,
        model=dict(name="segnet"),
        peers=dict(torch="segnet", keras="segnet"),
    ),
    "notebook_segnet": Row(
        "SegNet of the notebook",
        **NOTEBOOK,
        model=dict(name="notebook_segnet"),
        peers=dict(keras="notebook_segnet"),
    ),
    "notebook_deeplabv3": Row(
        "DeepLabV3 of the notebook",
        **NOTEBOOK,
        model=dict(name="notebook_deeplabv3"),
        peers=dict(keras="notebook_deeplabv3"),
    ),
    "notebook_pspnet": Row(
        "PSPNet of the notebook",
        **NOTEBOOK,
        model=dict(name="notebook_pspnet"),
        peers=dict(keras="notebook_pspnet"),
    ),
    "deeplabv3": Row(
        "DeepLabV3, ResNet-50, stride 8 (torchvision's)",
        **TORCHVISION,
        model=dict(
            name="deeplabv3", **DILATED, multi_grid=(1, 1, 1), dropout_rate=0.5, head_conv=True
        ),
        peers=dict(torch="deeplabv3_resnet50"),
    ),
    "fcn": Row(
        "FCN, ResNet-50, stride 8 (torchvision's)",
        **TORCHVISION,
        model=dict(name="fcn", **DILATED),
        peers=dict(torch="fcn_resnet50"),
    ),
    "smp_unet": Row(
        "U-Net, ResNet-34 (SMP's)",
        **SMP,
        model=dict(name="unet", encoder="resnet34"),
        peers=dict(torch="smp_unet"),
    ),
    "smp_deeplabv3plus": Row(
        "DeepLabV3+, ResNet-34 (SMP's)",
        **SMP,
        model=dict(
            name="deeplabv3plus",
            encoder="resnet34",
            rates=(12, 24, 36),
            head_conv=True,
            decoder_convs=1,
            norm_between=False,
            align_corners=True,
            dropout_rate=0.5,
        ),
        peers=dict(torch="smp_deeplabv3plus"),
    ),
    "smp_pspnet": Row(
        "PSPNet, ResNet-34 (SMP's)",
        **SMP,
        model=dict(name="smp_pspnet", encoder="resnet34"),
        peers=dict(torch="smp_pspnet"),
        counts=dict(torch="SMP's encoder keeps the two stages that the network does not run"),
    ),
}
