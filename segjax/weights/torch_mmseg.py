"""The names that mmsegmentation gives to our networks' arrays: `backbone.`, `decode_head.`,
`auxiliary_head.`.

Its PSPHead, ASPPHead, DepthwiseSeparableASPPHead and FCNHead on ResNet-50, 101 and 152 with either
stem, as the configs of mmsegmentation 0.x and 1.x named NETWORK_rN-d8 and NETWORK_rNb-d8 build
them. What a file cannot tell (stride 8, rates, no alignment of corners, dropout) is as there; a
network of stride 16 (-d16) has the same names.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from segjax.weights.layout import Arrays, Layout, Names
from segjax.weights.torch_encoders import (
    STEM_7X7,
    Blocks,
    Config,
    resnet_blocks,
    resnet_variant,
)
from segjax.weights.torch_heads import has

# Convolution and normalisation of the stem of ResNetV1c, a Sequential that counts activations.
_STEM_V1C = (("stem.0", "stem.1"), ("stem.3", "stem.4"), ("stem.6", "stem.7"))
_BINS = (1, 2, 3, 6)
_BASIC = ("resnet18", "resnet34")


def _is_mmseg(arrays: Arrays, head: tuple[str, ...]) -> bool:
    """Whether the head's modules are there, on a ResNet whose blocks have our shortcuts."""
    names = [f"decode_head.{name}.weight" for name in ("conv_seg", *head)]
    names.append("backbone.layer2.0.downsample.0.weight")  # not of ResNetV1d, which pools there
    return has(arrays, *names) and resnet_variant(arrays, "backbone.") is not None


def _describe(name: str, arrays: Arrays, **options: Any) -> dict[str, Any]:
    encoder = resnet_variant(arrays, "backbone.")
    if encoder in _BASIC:
        raise ValueError(
            f"a file of mmsegmentation's {name} on {encoder} cannot be used: its blocks dilate "
            "their first convolution alone, segjax's both; use one of ResNet-50, 101 or 152"
        )
    return {
        "name": name,
        "encoder": encoder,
        "output_stride": 8,
        "stem": "v1c" if "backbone.stem.0.weight" in arrays else "7x7",
        "contract_dilation": True,
        **options,
        "dropout_rate": 0.1,
        "aux": "auxiliary_head.conv_seg.weight" in arrays,
        "align_corners": False,
        "num_classes": arrays["decode_head.conv_seg.weight"].shape[0],
    }


def _features(arrays: Arrays, module: str) -> int:
    """Output channels of a convolution of the head."""
    return arrays[f"decode_head.{module}.weight"].shape[0]


def _conv(theirs: str) -> Names:
    """mmcv's ConvModule."""
    return Names(f"{theirs}.conv", f"{theirs}.bn")


def _separable(ours: str, theirs: str) -> Blocks:
    """mmcv's DepthwiseSeparableConvModule."""
    parts = ("depthwise", "pointwise")
    return {f"{ours}/{part}": _conv(f"{theirs}.{part}_conv") for part in parts}


def _blocks(config: Config, head: Blocks, classifier: str) -> Blocks:
    stem = _STEM_V1C if config["stem"] == "v1c" else STEM_7X7
    blocks = resnet_blocks(config["encoder"], stem, "backbone.") | head
    blocks[classifier] = Names("decode_head.conv_seg")
    if config["aux"]:
        blocks["aux_head/conv"] = _conv("auxiliary_head.convs.0")
        blocks["aux_head/classifier"] = Names("auxiliary_head.conv_seg")
    return blocks


def _describe_pspnet(arrays: Arrays) -> dict[str, Any]:
    return _describe("pspnet", arrays, bins=_BINS, pooling="mean")


def _pspnet_blocks(config: Config, _: Arrays) -> Blocks:
    head = {
        f"pyramid/bin{bins}": _conv(f"decode_head.psp_modules.{i}.1")
        for i, bins in enumerate(_BINS)
    }
    head["head/conv"] = _conv("decode_head.bottleneck")
    return _blocks(config, head, "head/classifier")


def _aspp_options(arrays: Arrays) -> dict[str, Any]:
    """ASPP's options; the dilations 1, 12, 24 and 36 are those of stride 8."""
    features = _features(arrays, "bottleneck.conv")
    return dict(multi_grid=(1, 1, 1), rates=(6, 12, 18), aspp_features=features, project_kernel=3)


def _aspp(config: Config, branch: Callable[[str, str], Blocks]) -> Blocks:
    """ASPP, whose concatenation begins with the mean of the map; ours ends with it."""
    f = config["aspp_features"]
    blocks = {"aspp/conv1x1": _conv("decode_head.aspp_modules.0")}
    for i in (1, 2, 3):
        blocks |= branch(f"aspp/atrous{i}", f"decode_head.aspp_modules.{i}")
    blocks["aspp/image_pooling"] = _conv("decode_head.image_pool.1")
    project = _conv("decode_head.bottleneck")
    blocks["aspp/project"] = project._replace(inputs=(*range(f, 5 * f), *range(f)))
    return blocks


def _describe_deeplabv3(arrays: Arrays) -> dict[str, Any]:
    return _describe("deeplabv3", arrays, **_aspp_options(arrays), head_conv=False)


def _deeplabv3_blocks(config: Config, _: Arrays) -> Blocks:
    head = _aspp(config, lambda ours, theirs: {ours: _conv(theirs)})
    return _blocks(config, head, "classifier")


def _describe_deeplabv3plus(arrays: Arrays) -> dict[str, Any]:
    return _describe(
        "deeplabv3plus",
        arrays,
        **_aspp_options(arrays),
        aspp_separable=True,
        decoder_separable=True,
        norm_between=True,
        head_conv=False,
        low_level_features=_features(arrays, "c1_bottleneck.conv"),
        decoder_convs=2,
    )


def _deeplabv3plus_blocks(config: Config, _: Arrays) -> Blocks:
    head = _aspp(config, _separable)
    head["low_level"] = _conv("decode_head.c1_bottleneck")
    for i in (1, 2):
        head |= _separable(f"decoder{i}", f"decode_head.sep_bottleneck.{i - 1}")
    return _blocks(config, head, "classifier")


def _describe_fcn(arrays: Arrays) -> dict[str, Any]:
    convs = sum(f"decode_head.convs.{i}.conv.weight" in arrays for i in range(len(arrays)))
    concat = "decode_head.conv_cat.conv.weight" in arrays
    return _describe("fcn", arrays, head_convs=convs, concat_input=concat)


def _fcn_blocks(config: Config, _: Arrays) -> Blocks:
    convs = [f"decode_head.convs.{i}" for i in range(config["head_convs"])]
    convs += ["decode_head.conv_cat"] * config["concat_input"]
    ours = [f"head_conv{i}" for i in range(1, len(convs))] + ["head/conv"]
    head = {block: _conv(conv) for block, conv in zip(ours, convs, strict=True)}
    return _blocks(config, head, "head/classifier")


def _layout(network: str, head: tuple[str, ...], describe: Callable, blocks: Callable) -> Layout:
    recognises = partial(_is_mmseg, head=head)
    return Layout(f"mmsegmentation {network}-d8", "torch", recognises, describe, blocks)


LAYOUTS = (
    _layout("pspnet_r50/101", ("psp_modules.3.1.conv",), _describe_pspnet, _pspnet_blocks),
    _layout(
        "deeplabv3_r50/101",
        ("aspp_modules.3.conv", "bottleneck.conv"),
        _describe_deeplabv3,
        _deeplabv3_blocks,
    ),
    _layout(
        "deeplabv3plus_r50/101",
        ("aspp_modules.3.depthwise_conv.conv", "bottleneck.conv", "c1_bottleneck.conv"),
        _describe_deeplabv3plus,
        _deeplabv3plus_blocks,
    ),
    _layout("fcn_r50/101", ("convs.0.conv",), _describe_fcn, _fcn_blocks),
)
