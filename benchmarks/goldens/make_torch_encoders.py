"""Writes encoders_torch.npz: the maps of torch's encoders, and outputs of torchvision's mobile
networks, with drawn weights.

Only this script needs torch; the tests read what it leaves behind.

    pip install torch torchvision==0.29.1 timm==1.0.31 segmentation_models_pytorch==0.6.0
    python -m benchmarks.goldens.make_torch_encoders

As in make_torch_weights.py every array of a network is `draw(NAME, shape)`, and all is computed in
float64. For each row of `ENCODERS` and `NETWORKS` there are, under "ROW/":

  about: JSON: `names`, [[name, shape], ...] of the state dict; `size`, of `draw.images`; `options`,
    of our model, that the names cannot tell.
  maps: `draw.digest` of the maps that are named in the row, channels-last, [5, 9]; NaN where there
    is none.
  logits, aux: of a network, every fourth row and column.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from torch import nn

from tests.goldens.draw import digest, draw, images

GOLDEN = Path(__file__).parents[2] / "tests" / "goldens" / "encoders_torch.npz"
CLASSES = 5
Names = Callable[[str], str]


class Row(NamedTuple):
    """A classifier; the modules that give c1 to c5; options of ours; how other projects name what
    this one has."""

    build: Callable[[], nn.Module]
    maps: tuple[str, ...]
    options: Mapping[str, Any] = MappingProxyType({})
    renamed: Names = str


def by_older_repositories(name: str) -> str:
    """torchvision's name of an array of MobileNetV2 as tonylins and d-li14 have it."""
    head, conv, rest = name.partition(".conv.")
    if not conv:
        return name
    parts = rest.split(".")
    first = head == "features.1"
    if len(parts) == 3:  # a block of convolution, normalisation and activation
        parts = [str(3 * int(parts[0]) + int(parts[1])), parts[2]]
    else:  # the projection and its normalisation
        parts[0] = str(int(parts[0]) + (2 if first else 4))
    return head + conv + ".".join(parts)


def by_efficientnet_pytorch(name: str) -> str:
    """timm's name of an array of EfficientNet-Lite as lukemelas' project has it."""
    if not name.startswith("blocks."):
        for ours, theirs in (("conv_stem", "_conv_stem"), ("bn1", "_bn0"), ("bn2", "_bn1"),
                             ("conv_head", "_conv_head"), ("classifier", "_fc")):  # fmt: skip
            if name.startswith(ours):
                return theirs + name.removeprefix(ours)
    _, stage, block, module, rest = name.split(".")
    place = sum((1, 2, 2, 3, 3, 4, 1)[: int(stage)]) + int(block)
    convs = {"conv_pw": "_expand_conv", "conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv"}
    norms = {"bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"}
    if stage == "0":
        convs = {"conv_dw": "_depthwise_conv", "conv_pw": "_project_conv"}
        norms = {"bn1": "_bn1", "bn2": "_bn2"}
    return f"_blocks.{place}.{(convs | norms)[module]}.{rest}"


FEATURES = tuple(f"features.{i}" for i in range(20))
MOBILE_V2 = tuple(FEATURES[i] for i in (1, 3, 6, 13, 18))
CONVNEXT = ("", *(FEATURES[i] for i in (1, 3, 5, 7)))
RESNET = ("relu", "layer1", "layer2", "layer3", "layer4")
LITE = tuple(f"blocks.{i}" for i in (0, 1, 2, 4, 6))
STAGES = ("", *(f"stages.{i}" for i in range(4)))
tv, tm = torchvision.models, timm.create_model
ENCODERS = {
    "mobilenet_v2": Row(tv.mobilenet_v2, MOBILE_V2),
    "mobilenet_v2_counted": Row(tv.mobilenet_v2, MOBILE_V2, renamed=by_older_repositories),
    "mobilenet_v2_timm": Row(partial(tm, "mobilenetv2_100"), (*LITE[:3], LITE[3], "bn2")),
    "mobilenet_v3_large": Row(tv.mobilenet_v3_large, tuple(FEATURES[i] for i in (1, 3, 6, 12, 16))),
    "efficientnet_lite0": Row(partial(tm, "efficientnet_lite0"), LITE),
    "efficientnet_lite0_tf": Row(partial(tm, "tf_efficientnet_lite0"), LITE, {"tensorflow": True}),
    "efficientnet_lite0_counted": Row(
        partial(tm, "tf_efficientnet_lite0"), LITE, renamed=by_efficientnet_pytorch
    ),
    "convnext_tiny": Row(tv.convnext_tiny, CONVNEXT),
    "convnext_tiny_timm": Row(partial(tm, "convnext_tiny"), STAGES),
    "convnext_tiny_timm_16": Row(
        partial(tm, "convnext_tiny", output_stride=16), STAGES, {"output_stride": 16}
    ),
    "convnext_small": Row(tv.convnext_small, CONVNEXT),
    "resnext50_32x4d": Row(tv.resnext50_32x4d, ("", *RESNET[1:])),
    "wide_resnet50_2": Row(tv.wide_resnet50_2, ("", *RESNET[1:])),
}
# segmentation_models.pytorch's MobileNetV2 at other output strides.
DILATED = {f"mobilenet_v2_smp_{stride}": stride for stride in (8, 16)}
NETWORKS = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")


def fill(network: nn.Module, renamed: Names = str) -> nn.Module:
    state = {
        name: torch.from_numpy(draw(renamed(name), tuple(array.shape)))
        for name, array in network.state_dict().items()
        if array.is_floating_point()
    }
    network.load_state_dict(state, strict=False)
    return network.double().eval()


def about(network: nn.Module, size, renamed: Names = str, **options) -> str:
    names = [(renamed(n), list(a.shape)) for n, a in network.state_dict().items()]
    return json.dumps({"names": names, "size": size, "options": options})


def channels_last(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).contiguous().numpy()


def channels_first(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x).permute(0, 3, 1, 2).double()


def digests(maps: list[torch.Tensor | None]) -> np.ndarray:
    nothing = np.full(9, np.nan, np.float32)
    for x in maps:
        print("  ", None if x is None else (tuple(x.shape), float(x.abs().max())))
    return np.stack([nothing if x is None else digest(channels_last(x)) for x in maps])


def encoder(row: Row) -> dict[str, np.ndarray]:
    network, found = fill(row.build(), row.renamed), {}
    for path in filter(None, row.maps):

        def keep(_, __, output, path=path):
            found[path] = output

        network.get_submodule(path).register_forward_hook(keep)
    size = (2, 64, 96)
    network(channels_first(images(*size)))
    maps = [found[path] if path else None for path in row.maps]
    return {
        "about": np.array(about(network, size, row.renamed, **row.options)),
        "maps": digests(maps),
    }


def dilated(stride: int) -> dict[str, np.ndarray]:
    network = smp.encoders.get_encoder("mobilenet_v2", weights=None, output_stride=stride)
    size = (2, 64, 96)
    maps = fill(network)(channels_first(images(*size)))[1:]
    return {"about": np.array(about(network, size, output_stride=stride)), "maps": digests(maps)}


def segmentation(name: str) -> dict[str, np.ndarray]:
    builder = getattr(torchvision.models.segmentation, name)
    aux = {"aux_loss": True} if name.startswith("deeplab") else {}
    network = fill(builder(weights=None, weights_backbone=None, num_classes=CLASSES, **aux))
    size = (1, 97, 130)
    outputs = network(channels_first(images(*size)))
    thin = {k: channels_last(v)[:, ::4, ::4].astype(np.float32) for k, v in outputs.items()}
    golden = {"about": np.array(about(network, size)), "logits": thin.pop("out")}
    return golden | thin


def main() -> None:
    golden = {}
    with torch.no_grad():
        for names, make in (
            ({name: (row,) for name, row in ENCODERS.items()}, encoder),
            ({name: (stride,) for name, stride in DILATED.items()}, dilated),
            ({name: (name,) for name in NETWORKS}, segmentation),
        ):
            for name, arguments in names.items():
                print(name)
                made = make(*arguments)
                golden |= {f"{name}/{key}": value for key, value in made.items()}
    np.savez_compressed(GOLDEN, **golden)
    print(f"{GOLDEN.name}: {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
