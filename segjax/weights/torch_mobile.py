"""The names that torch projects give to arrays of the mobile encoders and of networks on them.

MobileNetV2 is torchvision's, timm's, or that of two older repositories (tonylins' and d-li14's),
whose names count the activations; MobileNetV3 is torchvision's; EfficientNet-Lite0 is timm's, or
that of the package efficientnet-lite-pytorch, whose weights were trained in TensorFlow.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from segjax.models.mobilenet import VARIANTS, Block
from segjax.weights.layout import IMAGENET_MEAN, IMAGENET_STD, Arrays, Layout, Names
from segjax.weights.torch_encoders import Blocks, Config
from segjax.weights.torch_heads import aspp_blocks, has, sequential_head

# TensorFlow's EfficientNet-Lite reads (image - 127) / 128.
EFFICIENTNET_LITE_MEAN, EFFICIENTNET_LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3


class _Place(NamedTuple):
    """A block of an encoder: our path, its place among all blocks, the number of the row of the
    paper's table, its place in that row, and the row itself."""

    path: str
    place: int
    row: int
    in_row: int
    block: Block


def _places(variant: str) -> Iterator[_Place]:
    place, row, in_row, before = 0, -1, 0, None
    for s, blocks in enumerate(VARIANTS[variant].stages, 1):
        for b, block in enumerate(blocks, 1):
            row, in_row = (row, in_row + 1) if before == (s, block.features) else (row + 1, 0)
            before = (s, block.features)
            yield _Place(f"encoder/stage{s}_block{b}", place, row, in_row, block)
            place += 1


def _parts(block: Block) -> tuple[str, ...]:
    expand = ("expand",) if block.expansion != 1 else ()
    return (*expand, "depthwise", *(("squeeze",) if block.squeeze else ()), "project")


def mobilenet_v2_blocks(prefix: str = "features.", counted: bool = False) -> Blocks:
    """From our paths to torchvision's names; `counted`: to the older repositories'."""
    blocks = {"encoder/stem": Names(f"{prefix}0.0", f"{prefix}0.1")}
    for path, place, *_, block in _places("mobilenet_v2"):
        theirs, n = f"{prefix}{place + 1}.conv", 0
        for part in _parts(block):
            if counted:  # convolution, normalisation, activation
                blocks[f"{path}/{part}"] = Names(f"{theirs}.{n}", f"{theirs}.{n + 1}")
                n += 3
            elif part == "project":
                blocks[f"{path}/{part}"] = Names(f"{theirs}.{n}", f"{theirs}.{n + 1}")
            else:
                blocks[f"{path}/{part}"] = Names(f"{theirs}.{n}.0", f"{theirs}.{n}.1")
                n += 1
    last = f"{prefix}{len(list(_places('mobilenet_v2'))) + 1}"
    return blocks | {"encoder/stage5_last": Names(f"{last}.0", f"{last}.1")}


def mobilenet_v3_blocks(prefix: str = "features.") -> Blocks:
    """From our paths to torchvision's names."""
    blocks = {"encoder/stem": Names(f"{prefix}0.0", f"{prefix}0.1")}
    last = 1
    for path, place, *_, block in _places("mobilenet_v3_large"):
        for i, part in enumerate(_parts(block)):
            theirs = f"{prefix}{place + 1}.block.{i}"
            if part == "squeeze":
                blocks[f"{path}/squeeze/reduce"] = Names(f"{theirs}.fc1")
                blocks[f"{path}/squeeze/expand"] = Names(f"{theirs}.fc2")
            else:
                blocks[f"{path}/{part}"] = Names(f"{theirs}.0", f"{theirs}.1")
        last = place + 2
    return blocks | {"encoder/stage5_last": Names(f"{prefix}{last}.0", f"{prefix}{last}.1")}


def timm_blocks(variant: str) -> Blocks:
    """From our paths to timm's names: rows of the table, and blocks in them."""
    blocks = {"encoder/stem": Names("conv_stem", "bn1")}
    for path, _, row, in_row, block in _places(variant):
        theirs, parts = f"blocks.{row}.{in_row}", _parts(block)
        convs = ("conv_pw", "conv_dw", "conv_pwl") if len(parts) == 3 else ("conv_dw", "conv_pw")
        for i, (part, conv) in enumerate(zip(parts, convs, strict=True), 1):
            blocks[f"{path}/{part}"] = Names(f"{theirs}.{conv}", f"{theirs}.bn{i}")
    if VARIANTS[variant].last:
        blocks["encoder/stage5_last"] = Names("conv_head", "bn2")
    return blocks


def _efficientnet_blocks() -> Blocks:
    """From our paths to the package's names."""
    blocks = {"encoder/stem": Names("_conv_stem", "_bn0")}
    norms = {"expand": 0, "depthwise": 1, "project": 2}
    for path, place, *_, block in _places("efficientnet_lite0"):
        for part in _parts(block):
            theirs = f"_blocks.{place}"
            blocks[f"{path}/{part}"] = Names(f"{theirs}._{part}_conv", f"{theirs}._bn{norms[part]}")
    return blocks


def is_variant(arrays: Arrays, variant: str, blocks: Blocks) -> bool:
    """Whether the arrays are those of `blocks`, with the kernels and channels of that network."""
    rows = {place.path: place.block for place in _places(variant)}
    for path, names in blocks.items():
        kernel = arrays.get(f"{names.conv}.weight")
        if kernel is None or kernel.ndim != 4:
            return False
        block, _, part = path.rpartition("/")
        if part == "depthwise" and kernel.shape[2] != rows[block].kernel_size:
            return False
        if part == "project" and kernel.shape[0] != rows[block].features:
            return False
    return True


def _classifier(
    title: str,
    variant: str,
    blocks: Blocks,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    **options: Any,
) -> Layout:
    return Layout(
        title,
        "torch",
        lambda arrays: is_variant(arrays, variant, blocks),
        lambda _: {"encoder": variant, **options},
        lambda *_: blocks,
        mean,
        std,
    )


CLASSIFIERS = (
    _classifier("torchvision mobilenet_v2", "mobilenet_v2", mobilenet_v2_blocks()),
    _classifier(
        "MobileNetV2 of github.com/tonylins or d-li14",
        "mobilenet_v2",
        mobilenet_v2_blocks(counted=True),
    ),
    _classifier("torchvision mobilenet_v3_large", "mobilenet_v3_large", mobilenet_v3_blocks()),
    _classifier("timm mobilenetv2_100", "mobilenet_v2", timm_blocks("mobilenet_v2")),
    _classifier(
        "timm efficientnet_lite0 (tf_efficientnet_lite0: with model.tensorflow=True)",
        "efficientnet_lite0",
        timm_blocks("efficientnet_lite0"),
    ),
    _classifier(
        "efficientnet-lite-pytorch's efficientnet-lite0",
        "efficientnet_lite0",
        _efficientnet_blocks(),
        EFFICIENTNET_LITE_MEAN,
        EFFICIENTNET_LITE_STD,
        tensorflow=True,
    ),
)


# torchvision's segmentation networks on MobileNetV3 ----------------------------------------------


def _is_torchvision(arrays: Arrays, *head: str) -> bool:
    blocks = mobilenet_v3_blocks("backbone.")
    return has(arrays, *head) and is_variant(arrays, "mobilenet_v3_large", blocks)


def _config(name: str, num_classes: int, **options: Any) -> dict[str, Any]:
    return {
        "name": name,
        "encoder": "mobilenet_v3_large",
        "output_stride": 16,
        "stage_maps": "first",
        **options,
        "align_corners": False,
        "num_classes": num_classes,
    }


def _describe_deeplabv3(arrays: Arrays) -> dict[str, Any]:
    return _config(
        "deeplabv3",
        arrays["classifier.4.weight"].shape[0],
        multi_grid=(1, 1, 1),
        rates=(12, 24, 36),
        aspp_features=arrays["classifier.1.weight"].shape[0],
        dropout_rate=0.5,
        head_conv=True,
        aux="aux_classifier.4.weight" in arrays,
        aux_map="c3",
    )


def _deeplabv3_blocks(config: Config, _: Arrays) -> Blocks:
    blocks = mobilenet_v3_blocks("backbone.") | aspp_blocks("classifier.0")
    blocks["head_conv"] = Names("classifier.1", "classifier.2")
    blocks["classifier"] = Names("classifier.4")
    return blocks | (sequential_head("aux_head", "aux_classifier") if config["aux"] else {})


def _describe_lraspp(arrays: Arrays) -> dict[str, Any]:
    return _config(
        "lraspp",
        arrays["classifier.low_classifier.weight"].shape[0],
        features=arrays["classifier.cbr.0.weight"].shape[0],
        aux=False,
        dropout_rate=0.0,
    )


def _lraspp_blocks(*_: Any) -> Blocks:
    return mobilenet_v3_blocks("backbone.") | {
        "project": Names("classifier.cbr.0", "classifier.cbr.1"),
        "gate": Names("classifier.scale.1"),
        "low_classifier": Names("classifier.low_classifier"),
        "high_classifier": Names("classifier.high_classifier"),
    }


_DEEPLABV3 = Layout(
    "torchvision deeplabv3_mobilenet_v3_large",
    "torch",
    lambda arrays: _is_torchvision(arrays, "classifier.4.weight", "classifier.1.weight"),
    _describe_deeplabv3,
    _deeplabv3_blocks,
)
_LRASPP = Layout(
    "torchvision lraspp_mobilenet_v3_large",
    "torch",
    lambda arrays: _is_torchvision(arrays, "classifier.low_classifier.weight"),
    _describe_lraspp,
    _lraspp_blocks,
)
NETWORKS = (_DEEPLABV3, _LRASPP)
TWINS = {
    "deeplabv3/mobilenet_v3_large": _DEEPLABV3,
    "lraspp/mobilenet_v3_large": _LRASPP,
}
