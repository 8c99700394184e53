"""The names that torch projects give to our networks' arrays.

The projects are torchvision (classifiers, for an encoder, and segmentation networks), the PSPNet
authors' own (github.com/hszhao/semseg) and segmentation_models.pytorch ("SMP"). Options that a file
cannot tell (output stride, rates, conventions of resizing, dropout) have the values that the
project's own constructor gives them; the classifier tells the number of classes.
"""

import re
from typing import Any

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


def _has(arrays: Arrays, *names: str) -> bool:
    return all(name in arrays for name in names)


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
        blocks |= _sequential_head("aux_head", "aux_classifier")
    return blocks


def _sequential_head(ours: str, theirs: str) -> Blocks:
    """A torch Sequential: convolution 0, normalisation 1, activation, dropout, classifier 4."""
    return {
        f"{ours}/conv": Names(f"{theirs}.0", f"{theirs}.1"),
        f"{ours}/classifier": Names(f"{theirs}.4"),
    }


def _aspp_blocks(theirs: str) -> Blocks:
    """`AtrousSpatialPyramidPooling`; the image branch begins with the pooling."""
    blocks = {"aspp/conv1x1": Names(f"{theirs}.convs.0.0", f"{theirs}.convs.0.1")}
    for i in (1, 2, 3):
        blocks[f"aspp/atrous{i}"] = Names(f"{theirs}.convs.{i}.0", f"{theirs}.convs.{i}.1")
    blocks["aspp/image_pooling"] = Names(f"{theirs}.convs.4.1", f"{theirs}.convs.4.2")
    blocks["aspp/project"] = Names(f"{theirs}.project.0", f"{theirs}.project.1")
    return blocks


def _is_torchvision(arrays: Arrays, *head: str) -> bool:
    names = ("backbone.conv1.weight", "classifier.4.weight", *head)
    return _has(arrays, *names) and resnet_variant(arrays, "backbone.") is not None


def _describe_fcn(arrays: Arrays) -> dict[str, Any]:
    return _torchvision_config("fcn", arrays, dropout_rate=0.1)


def _describe_deeplabv3(arrays: Arrays) -> dict[str, Any]:
    options = dict(multi_grid=(1, 1, 1), rates=(6, 12, 18), dropout_rate=0.5, head_conv=True)
    return _torchvision_config("deeplabv3", arrays, **options)


def _fcn_blocks(config: Config, _: Arrays) -> Blocks:
    return _torchvision_blocks(config, _sequential_head("head", "classifier"))


def _deeplabv3_blocks(config: Config, _: Arrays) -> Blocks:
    head = _aspp_blocks("classifier.0")
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
    return levels == len(_BINS) and _has(arrays, *names) and resnet_variant(arrays) is not None


def _describe_semseg_pspnet(arrays: Arrays) -> dict[str, Any]:
    return {
        "name": "pspnet",
        "encoder": resnet_variant(arrays),
        "output_stride": 8,
        "stem": "3x3",
        "contract_dilation": False,
        "bins": _BINS,
        "dropout_rate": 0.1,
        "aux": "aux.4.weight" in arrays,
        "align_corners": True,
        "num_classes": arrays["cls.4.weight"].shape[0],
    }


def _semseg_pspnet_blocks(config: Config, _: Arrays) -> Blocks:
    blocks = resnet_blocks(config["encoder"], STEM_LAYER0)
    for i, bins in enumerate(_BINS):
        blocks[f"pyramid/bin{bins}"] = Names(f"ppm.features.{i}.1", f"ppm.features.{i}.2")
    blocks |= _sequential_head("head", "cls")
    if config["aux"]:
        blocks |= _sequential_head("aux_head", "aux")
    return blocks


# segmentation_models.pytorch ---------------------------------------------------------------------


def _smp_deeplab_parts(arrays: Arrays) -> tuple[str, str, str]:
    """Names of the decoder's ASPP, convolution and normalisation; numbers up to version 0.3."""
    if "decoder.aspp.convs.0.0.weight" in arrays:
        return "decoder.aspp", "decoder.conv", "decoder.bn"
    return "decoder.0", "decoder.1", "decoder.2"


def _is_smp_deeplabv3(arrays: Arrays) -> bool:
    """Whether ASPP has dense kernels (not separable ones, convs.1.0.0) and reads c5."""
    aspp, conv, _ = _smp_deeplab_parts(arrays)
    names = (f"{aspp}.convs.0.0.weight", f"{aspp}.convs.1.0.weight", f"{conv}.weight")
    if not _has(arrays, *names) or not _is_smp(arrays):
        return False
    return arrays[f"{aspp}.convs.1.0.weight"].shape[1] == _encoder_channels(arrays)[-1]


def _is_smp(arrays: Arrays) -> bool:
    names = ("encoder.conv1.weight", "segmentation_head.0.weight")
    return _has(arrays, *names) and resnet_variant(arrays, "encoder.") is not None


def _encoder_channels(arrays: Arrays) -> tuple[int, ...]:
    """Channels of c2, c3, c4 and c5."""
    last = arrays["encoder.layer1.0.conv2.weight"]
    last = arrays.get("encoder.layer1.0.conv3.weight", last)  # bottlenecks have a third convolution
    return tuple(last.shape[0] * 2**s for s in range(4))


def _describe_smp_deeplabv3(arrays: Arrays) -> dict[str, Any]:
    aspp, _, _ = _smp_deeplab_parts(arrays)
    features = arrays[f"{aspp}.convs.0.0.weight"].shape[0]
    config = {
        "name": "deeplabv3",
        "encoder": resnet_variant(arrays, "encoder."),
        "output_stride": 8,
        "stem": "7x7",
        "contract_dilation": False,
        "multi_grid": (1, 1, 1),
        "rates": (6, 12, 18),
        "dropout_rate": 0.5,
        "head_conv": True,
        "aux": False,
        "align_corners": True,
        "num_classes": arrays["segmentation_head.0.weight"].shape[0],
    }
    if features != _encoder_channels(arrays)[-1] // 8:
        config["aspp_features"] = features
    return config


def _smp_deeplabv3_blocks(config: Config, arrays: Arrays) -> Blocks:
    aspp, conv, norm = _smp_deeplab_parts(arrays)
    blocks = resnet_blocks(config["encoder"], STEM_7X7, "encoder.") | _aspp_blocks(aspp)
    blocks["head_conv"] = Names(conv, norm)
    blocks["classifier"] = Names("segmentation_head.0")
    return blocks


_SMP_LEVEL = "decoder.psp.blocks.{}.pool.1"


def _is_smp_pspnet(arrays: Arrays) -> bool:
    first = arrays.get(_SMP_LEVEL.format(0) + ".0.weight")
    if first is None or not _has(arrays, "decoder.conv.0.weight") or not _is_smp(arrays):
        return False
    return first.shape[1] in _encoder_channels(arrays)[1:]


def _describe_smp_pspnet(arrays: Arrays) -> dict[str, Any]:
    """The file's network; its depth is that of the stage whose channels the pyramid reads."""
    inputs = arrays[_SMP_LEVEL.format(0) + ".0.weight"].shape[1]
    return {
        "name": "smp_pspnet",
        "encoder": resnet_variant(arrays, "encoder."),
        "encoder_depth": 2 + _encoder_channels(arrays).index(inputs),
        "bins": _BINS,
        "decoder_features": arrays["decoder.conv.0.weight"].shape[0],
        "dropout_rate": 0.2,
        "align_corners": True,
        "num_classes": arrays["segmentation_head.0.weight"].shape[0],
    }


def _smp_pspnet_blocks(config: Config, _: Arrays) -> Blocks:
    stages = config["encoder_depth"] - 1
    blocks = resnet_blocks(config["encoder"], STEM_7X7, "encoder.", stages)
    for i, bins in enumerate(_BINS):
        level = _SMP_LEVEL.format(i)
        blocks[f"pyramid{bins}"] = Names(f"{level}.0", f"{level}.1" if bins > 1 else "")
    blocks["project"] = Names("decoder.conv.0", "decoder.conv.1")
    blocks["classifier"] = Names("segmentation_head.0")
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
_SMP_DEEPLABV3 = Layout(
    "segmentation_models.pytorch DeepLabV3 with resnet18/34/50/101/152",
    "torch",
    _is_smp_deeplabv3,
    _describe_smp_deeplabv3,
    _smp_deeplabv3_blocks,
)
_SMP_PSPNET = Layout(
    "segmentation_models.pytorch PSPNet with resnet18/34/50/101/152",
    "torch",
    _is_smp_pspnet,
    _describe_smp_pspnet,
    _smp_pspnet_blocks,
)
# Convolutions of torchvision's other VGGs.
_VGG_CONVS = {8: "vgg11", 10: "vgg13", 16: "vgg19"}


def relative(arrays: Arrays) -> str:
    """What the arrays of no layout look like, for messages; "" if there is no idea."""
    kernels = [name for name, array in arrays.items() if array.ndim == 4]
    if kernels and all(re.fullmatch(r"features\.\d+\.weight", name) for name in kernels):
        return _VGG_CONVS.get(len(kernels), "")
    if _has(arrays, "layer1.0.conv1.weight", "layer4.0.conv1.weight"):
        return "a ResNet of other blocks or depths (ResNeXt, Wide ResNet), which is no encoder here"
    return ""


# Networks come before classifiers: a ResNet with a head has a classifier's names, too.
LAYOUTS = (
    _DEEPLABV3,
    _FCN,
    _SEMSEG_PSPNET,
    _SMP_DEEPLABV3,
    _SMP_PSPNET,
    *CLASSIFIERS,
)
# The layouts by which our models are written for torch.
TWINS = {
    "deeplabv3": _DEEPLABV3,
    "fcn": _FCN,
    "pspnet": _SEMSEG_PSPNET,
}
