"""The names that torchvision and timm give to arrays of ConvNeXt."""

from segjax.models.convnext import VARIANTS
from segjax.weights.layout import Arrays, Layout, Names
from segjax.weights.torch_encoders import Blocks


def _norm(conv: str, norm: str) -> Names:
    return Names(conv, norm, statistics=False)


def torchvision_blocks(variant: str, prefix: str = "features.") -> Blocks:
    """From our paths to torchvision's names: a Sequential of stem, stage, step, stage, ..."""
    blocks = {"encoder/stem": _norm(f"{prefix}0.0", f"{prefix}0.1")}
    for i, depth in enumerate(VARIANTS[variant]):
        if i:
            step = f"{prefix}{2 * i}"
            blocks[f"encoder/stage{i + 2}_down"] = _norm(f"{step}.1", f"{step}.0")
        for b in range(depth):
            ours, theirs = f"encoder/stage{i + 2}_block{b + 1}", f"{prefix}{2 * i + 1}.{b}"
            blocks[f"{ours}/depthwise"] = _norm(f"{theirs}.block.0", f"{theirs}.block.2")
            blocks[f"{ours}/expand"] = Names(f"{theirs}.block.3")
            blocks[f"{ours}/project"] = Names(f"{theirs}.block.5")
            blocks[f"{ours}/layer_scale"] = Names("", scale=f"{theirs}.layer_scale")
    return blocks


def timm_blocks(variant: str) -> Blocks:
    """From our paths to timm's names."""
    blocks = {"encoder/stem": _norm("stem.0", "stem.1")}
    for i, depth in enumerate(VARIANTS[variant]):
        if i:
            step = f"stages.{i}.downsample"
            blocks[f"encoder/stage{i + 2}_down"] = _norm(f"{step}.1", f"{step}.0")
        for b in range(depth):
            ours, theirs = f"encoder/stage{i + 2}_block{b + 1}", f"stages.{i}.blocks.{b}"
            blocks[f"{ours}/depthwise"] = _norm(f"{theirs}.conv_dw", f"{theirs}.norm")
            blocks[f"{ours}/expand"] = Names(f"{theirs}.mlp.fc1")
            blocks[f"{ours}/project"] = Names(f"{theirs}.mlp.fc2")
            blocks[f"{ours}/layer_scale"] = Names("", scale=f"{theirs}.gamma")
    return blocks


def _is_variant(arrays: Arrays, blocks: Blocks) -> bool:
    """Whether all blocks are there, no stage has more, and the channels are tiny's and small's."""
    depthwise = {f"{n.conv}.weight" for path, n in blocks.items() if path.endswith("/depthwise")}
    found = {k for k, v in arrays.items() if v.ndim == 4 and v.shape[1:] == (1, 7, 7)}
    stem = arrays.get(f"{blocks['encoder/stem'].conv}.weight")
    return depthwise == found and stem is not None and stem.shape[0] == 96


def _classifier(variant: str, blocks: Blocks, project: str) -> Layout:
    return Layout(
        f"{project} {variant}",
        "torch",
        lambda arrays: _is_variant(arrays, blocks),
        lambda _: {"encoder": variant},
        lambda *_: blocks,
    )


CLASSIFIERS = tuple(
    _classifier(variant, blocks(variant), project)
    for variant in VARIANTS
    for project, blocks in (("torchvision", torchvision_blocks), ("timm", timm_blocks))
)
