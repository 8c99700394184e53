"""The names that torch projects give to arrays of the encoders, ResNets and VGG16."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from segjax.models.resnet import EXPANSION, INNER, VARIANTS, BasicBlock
from segjax.models.vgg import VGG16_STAGES
from segjax.weights.layout import Arrays, Layout, Names

Config = Mapping[str, Any]
Blocks = dict[str, Names]

# Our name and torch's number of each convolution in a block; a normalisation has its convolution's.
_BASIC = (("conv1", 1), ("conv2", 2))
_BOTTLENECK = (("reduce", 1), ("conv", 2), ("expand", 3))
STEM_7X7 = (("conv1", "bn1"),)
STEM_3X3 = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))
# The PSPNet authors' network has stem and pooling in one Sequential, which counts activations.
STEM_LAYER0 = (("layer0.0", "layer0.1"), ("layer0.3", "layer0.4"), ("layer0.6", "layer0.7"))


def resnet_variant(arrays: Arrays, prefix: str = "") -> str | None:
    """The ResNet of `VARIANTS` whose blocks are in the file; None for another one, also where the
    names agree and the groups or the widths of 3x3 convolutions do not."""
    block = re.compile(re.escape(prefix) + r"layer([1-4])\.(\d+)\.")
    blocks = {match.groups() for name in arrays if (match := block.match(name))}
    depths = tuple(sum(layer == str(n) for layer, _ in blocks) for n in (1, 2, 3, 4))
    bottleneck = any(block.match(name) and ".conv3." in name for name in arrays)
    second = arrays.get(f"{prefix}layer1.0.conv2.weight")
    third = arrays.get(f"{prefix}layer1.0.conv3.weight")
    inner = (64, 1)
    if second is not None:
        outputs, inputs = second.shape[:2]
        features = outputs if third is None else third.shape[0] // EXPANSION
        inner = (round(64 * inputs / features), outputs // inputs)
    for variant, (kind, variant_depths) in VARIANTS.items():
        same = variant_depths == depths and INNER.get(variant, (64, 1)) == inner
        if same and (kind is not BasicBlock) == bottleneck:
            return variant
    return None


def resnet_blocks(
    variant: str, stem: Sequence[tuple[str, str]], prefix: str = "", stages: int = 4
) -> Blocks:
    """From `encoder/stem*` and `encoder/stage{s}_block{b}/*` to torchvision's names."""
    blocks = {
        "encoder/stem" + (str(i) if len(stem) > 1 else ""): Names(prefix + conv, prefix + norm)
        for i, (conv, norm) in enumerate(stem, 1)
    }
    kind, depths = VARIANTS[variant]
    basic = kind is BasicBlock
    for layer, depth in enumerate(depths[:stages], 1):
        for b in range(depth):
            theirs, ours = f"{prefix}layer{layer}.{b}", f"encoder/stage{layer + 1}_block{b + 1}"
            for name, i in _BASIC if basic else _BOTTLENECK:
                blocks[f"{ours}/{name}"] = Names(f"{theirs}.conv{i}", f"{theirs}.bn{i}")
            # The first basic block keeps the 64 channels of a 7x7 stem; a 3x3 stem has 128.
            if b == 0 and not (basic and layer == 1 and len(stem) == 1):
                shortcut = f"{theirs}.downsample"
                blocks[f"{ours}/shortcut"] = Names(f"{shortcut}.0", f"{shortcut}.1")
    return blocks


def _classifier_stem(arrays: Arrays) -> Sequence[tuple[str, str]]:
    if "layer0.0.weight" in arrays:
        return STEM_LAYER0
    return STEM_3X3 if "conv3.weight" in arrays else STEM_7X7


def _is_resnet(arrays: Arrays) -> bool:
    stem, _ = _classifier_stem(arrays)[0]
    return f"{stem}.weight" in arrays and resnet_variant(arrays) is not None


def _describe_resnet(arrays: Arrays) -> dict[str, Any]:
    stem = "7x7" if _classifier_stem(arrays) is STEM_7X7 else "3x3"
    return {"encoder": resnet_variant(arrays), "stem": stem}


def _classifier_blocks(config: Config, arrays: Arrays) -> Blocks:
    return resnet_blocks(config["encoder"], _classifier_stem(arrays))


def _vgg_blocks(norm: bool) -> Blocks:
    """From `encoder/conv{s}_{i}`, and the fully connected layers that FCN has as convolutions."""
    blocks, place = {}, 0
    for s, channels in enumerate(VGG16_STAGES, 1):
        for i in range(1, len(channels) + 1):
            names = (f"features.{place}", f"features.{place + 1}" if norm else "")
            # The NCSU report's network ends before stage 5.
            blocks[f"encoder/conv{s}_{i}"] = Names(*names, optional=s == 5)
            place += 3 if norm else 2  # one for the activation
        place += 1  # pooling
    blocks["fc6"] = Names("classifier.0", optional=True)
    blocks["fc7"] = Names("classifier.3", optional=True)
    return blocks


def _is_vgg16(arrays: Arrays, norm: bool) -> bool:
    """Whether the last convolution is where VGG16 has it, and none is where VGG16 has none (VGG13
    ends earlier, VGG19 has more)."""
    convs = [n.conv for n in _vgg_blocks(norm).values() if n.conv.startswith("features.")]
    expected = [f"{conv}.weight" for conv in convs]
    kernels = {k for k, v in arrays.items() if k.startswith("features.") and v.ndim == 4}
    return expected[-1] in kernels and kernels <= set(expected)


# ImageNet classifiers; they describe an encoder only.
CLASSIFIERS = (
    *(
        Layout(
            title,
            "torch",
            partial(_is_vgg16, norm=norm),
            lambda _: {},
            lambda *_, norm=norm: _vgg_blocks(norm),
        )
        for title, norm in (("torchvision vgg16_bn", True), ("torchvision vgg16", False))
    ),
    Layout(
        "torchvision resnet18/34/50/101/152, wide or resnext, or the PSPNet authors' with a 3x3 "
        "stem",
        "torch",
        _is_resnet,
        _describe_resnet,
        _classifier_blocks,
    ),
)
