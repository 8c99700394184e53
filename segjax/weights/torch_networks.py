"""The names that torch projects give to our networks' arrays.

The projects are torchvision (classifiers, for an encoder, and segmentation networks), the PSPNet
authors' own (github.com/hszhao/semseg), segmentation_models.pytorch (see `torch_smp`) and
mmsegmentation (see `torch_mmseg`). Options that a file cannot tell (output stride, rates,
conventions of resizing, dropout) have the values that the project's own constructor gives them; the
classifier tells the number of classes.
"""

import re
from typing import Any

from segjax.weights import torch_convnext, torch_mmseg, torch_mobile, torch_smp
from segjax.weights.layout import Arrays, Layout, Names
from segjax.weights.torch_encoders import (
    CLASSIFIERS,
    STEM_7X7,
    STEM_LAYER0,
    Blocks,
    Config,
    resnet_blocks,
    resnet_variant,
)
from segjax.weights.torch_heads import aspp_blocks, has, sequential_head

# torchvision's segmentation networks -------------------------------------------------------------


def _torchvision_config(name: str, arrays: Arrays, **options: Any) -> dict[str, Any]:
    return {
        "name": name,
        "encoder": resnet_variant(arrays, "backbone."),
        "output_stride": 8,
        "stem": "7x7",
        "contract_dilation": True,
        **options,
        "aux": "aux_classifier.4.weight" in arrays,
        "align_corners": False,
        "num_classes": arrays["classifier.4.weight"].shape[0],
    }


def _torchvision_blocks(config: Config, head: Blocks) -> Blocks:
    blocks = resnet_blocks(config["encoder"], STEM_7X7, "backbone.") | head
    if config["aux"]:
        blocks |= sequential_head("aux_head", "aux_classifier")
    return blocks


def _is_torchvision(arrays: Arrays, *head: str) -> bool:
    names = ("backbone.conv1.weight", "classifier.4.weight", *head)
    return has(arrays, *names) and resnet_variant(arrays, "backbone.") is not None


def _describe_fcn(arrays: Arrays) -> dict[str, Any]:
    return _torchvision_config("fcn", arrays, dropout_rate=0.1)


def _describe_deeplabv3(arrays: Arrays) -> dict[str, Any]:
    options = dict(multi_grid=(1, 1, 1), rates=(6, 12, 18), dropout_rate=0.5, head_conv=True)
    return _torchvision_config("deeplabv3", arrays, **options)


def _fcn_blocks(config: Config, _: Arrays) -> Blocks:
    return _torchvision_blocks(config, sequential_head("head", "classifier"))


def _deeplabv3_blocks(config: Config, _: Arrays) -> Blocks:
    head = aspp_blocks("classifier.0")
    head["head_conv"] = Names("classifier.1", "classifier.2")
    head["classifier"] = Names("classifier.4")
    return _torchvision_blocks(config, head)


# The PSPNet authors' network ---------------------------------------------------------------------

_BINS = (1, 2, 3, 6)


def _is_semseg_pspnet(arrays: Arrays) -> bool:
    levels = sum(
        re.fullmatch(r"ppm\.features\.\d+\.1\.weight", name) is not None for name in arrays
    )
    names = ("layer0.0.weight", "cls.4.weight")
    return levels == len(_BINS) and has(arrays, *names) and resnet_variant(arrays) is not None


def _describe_semseg_pspnet(arrays: Arrays) -> dict[str, Any]:
    return {
        "name": "pspnet",
        "encoder": resnet_variant(arrays),
        "output_stride": 8,
        "stem": "3x3",
        "contract_dilation": False,
        "bins": _BINS,
        "pooling": "mean",
        "dropout_rate": 0.1,
        "aux": "aux.4.weight" in arrays,
        "align_corners": True,
        "num_classes": arrays["cls.4.weight"].shape[0],
    }


def _semseg_pspnet_blocks(config: Config, _: Arrays) -> Blocks:
    blocks = resnet_blocks(config["encoder"], STEM_LAYER0)
    for i, bins in enumerate(_BINS):
        blocks[f"pyramid/bin{bins}"] = Names(f"ppm.features.{i}.1", f"ppm.features.{i}.2")
    blocks |= sequential_head("head", "cls")
    if config["aux"]:
        blocks |= sequential_head("aux_head", "aux")
    return blocks


_DEEPLABV3 = Layout(
    "torchvision deeplabv3_resnet50/101",
    "torch",
    lambda arrays: _is_torchvision(arrays, "classifier.0.convs.0.0.weight"),
    _describe_deeplabv3,
    _deeplabv3_blocks,
)
_FCN = Layout(
    "torchvision fcn_resnet50/101",
    "torch",
    lambda arrays: _is_torchvision(arrays, "classifier.0.weight"),
    _describe_fcn,
    _fcn_blocks,
)
_SEMSEG_PSPNET = Layout(
    "semseg PSPNet50/101/152",
    "torch",
    _is_semseg_pspnet,
    _describe_semseg_pspnet,
    _semseg_pspnet_blocks,
)
# Convolutions of torchvision's other VGGs.
_VGG_CONVS = {8: "vgg11", 10: "vgg13", 16: "vgg19"}


def relative(arrays: Arrays) -> str:
    """What the arrays of no layout look like, for messages; "" if there is no idea."""
    kernels = [name for name, array in arrays.items() if array.ndim == 4]
    if kernels and all(re.fullmatch(r"features\.\d+\.weight", name) for name in kernels):
        return _VGG_CONVS.get(len(kernels), "")
    if has(arrays, "layer1.0.conv1.weight", "layer4.0.conv1.weight"):
        return "a ResNet of other blocks or depths, which is no encoder here"
    return ""


# Networks come before classifiers: a ResNet with a head has a classifier's names, too.
LAYOUTS = (
    _DEEPLABV3,
    _FCN,
    _SEMSEG_PSPNET,
    *torch_smp.LAYOUTS,
    *torch_mmseg.LAYOUTS,
    *torch_mobile.NETWORKS,
    *torch_mobile.CLASSIFIERS,
    *torch_convnext.CLASSIFIERS,
    *CLASSIFIERS,
)
# The layouts by which our models are written for torch; on encoders other than ResNets with their
# names.
TWINS = {
    "deeplabv3": _DEEPLABV3,
    "fcn": _FCN,
    "pspnet": _SEMSEG_PSPNET,
    "deeplabv3plus": torch_smp.DEEPLABV3PLUS,
    "unet": torch_smp.UNET,
    **torch_mobile.TWINS,
}
