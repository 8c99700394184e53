"""The names that segmentation_models.pytorch ("SMP") gives to our networks' arrays.

Options that a file cannot tell (output stride, rates, conventions of resizing, dropout) have the
values that the project's own constructor gives them.
"""

from typing import Any

from segjax.models.encoders import ENCODERS
from segjax.weights.layout import Arrays, Layout, Names
from segjax.weights.torch_encoders import (
    STEM_7X7,
    Blocks,
    Config,
    resnet_blocks,
    resnet_variant,
)
from segjax.weights.torch_heads import aspp_blocks, has, separable_blocks
from segjax.weights.torch_mobile import is_variant, mobilenet_v2_blocks


def _smp_deeplab_parts(arrays: Arrays) -> tuple[str, str, str]:
    """Names of the decoder's ASPP, convolution and normalisation; numbers up to version 0.3."""
    if "decoder.aspp.convs.0.0.weight" in arrays:
        return "decoder.aspp", "decoder.conv", "decoder.bn"
    return "decoder.0", "decoder.1", "decoder.2"


def _is_smp_deeplabv3(arrays: Arrays) -> bool:
    """Whether ASPP has dense kernels (not separable ones, convs.1.0.0) and reads c5."""
    aspp, conv, _ = _smp_deeplab_parts(arrays)
    names = (f"{aspp}.convs.0.0.weight", f"{aspp}.convs.1.0.weight", f"{conv}.weight")
    if not has(arrays, *names) or not _is_smp(arrays):
        return False
    return arrays[f"{aspp}.convs.1.0.weight"].shape[1] == _encoder_channels(arrays)[-1]


def _is_smp(arrays: Arrays) -> bool:
    return "segmentation_head.0.weight" in arrays and _encoder(arrays) is not None


_MOBILENET_V2 = mobilenet_v2_blocks("encoder.features.")


def _encoder(arrays: Arrays) -> str | None:
    """The name of the encoder; None for one that we do not have."""
    if "encoder.conv1.weight" in arrays:
        return resnet_variant(arrays, "encoder.")
    return "mobilenet_v2" if is_variant(arrays, "mobilenet_v2", _MOBILENET_V2) else None


def _encoder_blocks(encoder: str, stages: int = 4) -> Blocks:
    if encoder == "mobilenet_v2":
        return _MOBILENET_V2
    return resnet_blocks(encoder, STEM_7X7, "encoder.", stages)


def _encoder_channels(arrays: Arrays) -> tuple[int, ...]:
    """Channels of c2, c3, c4 and c5."""
    if "encoder.conv1.weight" not in arrays:
        return ENCODERS["mobilenet_v2"].channels[1:]
    last = arrays["encoder.layer1.0.conv2.weight"]
    last = arrays.get("encoder.layer1.0.conv3.weight", last)  # bottlenecks have a third convolution
    return tuple(last.shape[0] * 2**s for s in range(4))


def _describe_smp_deeplabv3(arrays: Arrays) -> dict[str, Any]:
    aspp, _, _ = _smp_deeplab_parts(arrays)
    features = arrays[f"{aspp}.convs.0.0.weight"].shape[0]
    config = {
        "name": "deeplabv3",
        "encoder": _encoder(arrays),
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
    blocks = _encoder_blocks(config["encoder"]) | aspp_blocks(aspp)
    blocks["head_conv"] = Names(conv, norm)
    blocks["classifier"] = Names("segmentation_head.0")
    return blocks


_BINS = (1, 2, 3, 6)
_SMP_LEVEL = "decoder.psp.blocks.{}.pool.1"


def _is_smp_pspnet(arrays: Arrays) -> bool:
    first = arrays.get(_SMP_LEVEL.format(0) + ".0.weight")
    names = ("decoder.conv.0.weight", "encoder.conv1.weight")
    if first is None or not has(arrays, *names) or not _is_smp(arrays):
        return False
    return first.shape[1] in _encoder_channels(arrays)[1:]


def _describe_smp_pspnet(arrays: Arrays) -> dict[str, Any]:
    """The file's network; its depth is that of the stage whose channels the pyramid reads."""
    inputs = arrays[_SMP_LEVEL.format(0) + ".0.weight"].shape[1]
    return {
        "name": "smp_pspnet",
        "encoder": _encoder(arrays),
        "encoder_depth": 2 + _encoder_channels(arrays).index(inputs),
        "bins": _BINS,
        "decoder_features": arrays["decoder.conv.0.weight"].shape[0],
        "dropout_rate": 0.2,
        "align_corners": True,
        "num_classes": arrays["segmentation_head.0.weight"].shape[0],
    }


def _smp_pspnet_blocks(config: Config, _: Arrays) -> Blocks:
    stages = config["encoder_depth"] - 1
    blocks = _encoder_blocks(config["encoder"], stages)
    for i, bins in enumerate(_BINS):
        level = _SMP_LEVEL.format(i)
        blocks[f"pyramid{bins}"] = Names(f"{level}.0", f"{level}.1" if bins > 1 else "")
    blocks["project"] = Names("decoder.conv.0", "decoder.conv.1")
    blocks["classifier"] = Names("segmentation_head.0")
    return blocks


def _is_smp_deeplabv3plus(arrays: Arrays) -> bool:
    """Whether ASPP reads c5 of an encoder of ours, and the decoder c2."""
    names = (
        "decoder.aspp.0.convs.0.0.weight",
        "decoder.aspp.1.1.weight",
        "decoder.block1.0.weight",
        "decoder.block2.0.1.weight",
    )
    if not has(arrays, *names) or not _is_smp(arrays):
        return False
    c2, *_, c5 = _encoder_channels(arrays)
    inputs = (arrays[names[0]].shape[1], arrays["decoder.block1.0.weight"].shape[1])
    return inputs == (c5, c2)


def _describe_smp_deeplabv3plus(arrays: Arrays) -> dict[str, Any]:
    return {
        "name": "deeplabv3plus",
        "encoder": _encoder(arrays),
        "output_stride": 16,
        "stem": "7x7",
        "contract_dilation": False,
        "multi_grid": (1, 1, 1),
        "rates": (12, 24, 36),
        "aspp_features": arrays["decoder.aspp.0.convs.0.0.weight"].shape[0],
        "project_kernel": 1,
        "aspp_separable": "decoder.aspp.0.convs.1.0.0.weight" in arrays,
        "decoder_separable": True,
        "norm_between": False,
        "head_conv": True,
        "low_level_features": arrays["decoder.block1.0.weight"].shape[0],
        "decoder_convs": 1,
        "dropout_rate": 0.5,
        "aux": False,
        "align_corners": True,
        "num_classes": arrays["segmentation_head.0.weight"].shape[0],
    }


def _smp_deeplabv3plus_blocks(config: Config, _: Arrays) -> Blocks:
    return {
        **_encoder_blocks(config["encoder"]),
        **aspp_blocks("decoder.aspp.0", config["aspp_separable"]),
        **separable_blocks("head_conv", "decoder.aspp.1", "decoder.aspp.2"),
        "low_level": Names("decoder.block1.0", "decoder.block1.1"),
        **separable_blocks("decoder1", "decoder.block2.0", "decoder.block2.1"),
        "classifier": Names("segmentation_head.0"),
    }


_UNET_BLOCKS = 5


def _is_smp_unet(arrays: Arrays) -> bool:
    """Whether the decoder has five blocks of two normalised convolutions and nothing else (no
    attention, no centre), the first of which reads c5 and c4 of an encoder of ours."""
    parts = {name.split(".")[1] for name in arrays if name.startswith("decoder.")}
    blocks = {tuple(name.split(".")[2:5]) for name in arrays if name.startswith("decoder.blocks.")}
    wanted = {(str(b), f"conv{i}", k) for b in range(_UNET_BLOCKS) for i in (1, 2) for k in "01"}
    if parts != {"blocks"} or blocks != wanted or not _is_smp(arrays):
        return False
    *_, c4, c5 = _encoder_channels(arrays)
    return arrays["decoder.blocks.0.conv1.0.weight"].shape[1] == c4 + c5


def _describe_smp_unet(arrays: Arrays) -> dict[str, Any]:
    kernels = [arrays[f"decoder.blocks.{b}.conv1.0.weight"] for b in range(_UNET_BLOCKS)]
    return {
        "name": "unet",
        "encoder": _encoder(arrays),
        "stem": "7x7",
        "decoder_channels": tuple(kernel.shape[0] for kernel in kernels),
        "num_classes": arrays["segmentation_head.0.weight"].shape[0],
    }


def _smp_unet_blocks(config: Config, _: Arrays) -> Blocks:
    blocks = _encoder_blocks(config["encoder"])
    for b in range(_UNET_BLOCKS):
        for i in (1, 2):
            theirs = f"decoder.blocks.{b}.conv{i}"
            blocks[f"decoder{b + 1}_{i}"] = Names(f"{theirs}.0", f"{theirs}.1")
    blocks["classifier"] = Names("segmentation_head.0")
    return blocks


DEEPLABV3PLUS = Layout(
    "segmentation_models.pytorch DeepLabV3Plus with resnet18/34/50/101/152 or mobilenet_v2",
    "torch",
    _is_smp_deeplabv3plus,
    _describe_smp_deeplabv3plus,
    _smp_deeplabv3plus_blocks,
)
UNET = Layout(
    "segmentation_models.pytorch Unet with resnet18/34/50/101/152 or mobilenet_v2",
    "torch",
    _is_smp_unet,
    _describe_smp_unet,
    _smp_unet_blocks,
)
LAYOUTS = (
    Layout(
        "segmentation_models.pytorch DeepLabV3 with resnet18/34/50/101/152 or mobilenet_v2",
        "torch",
        _is_smp_deeplabv3,
        _describe_smp_deeplabv3,
        _smp_deeplabv3_blocks,
    ),
    Layout(
        "segmentation_models.pytorch PSPNet with resnet18/34/50/101/152",
        "torch",
        _is_smp_pspnet,
        _describe_smp_pspnet,
        _smp_pspnet_blocks,
    ),
    DEEPLABV3PLUS,
    UNET,
)
