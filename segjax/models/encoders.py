"""The encoders by name: what stands under FCN, PSPNet, DeepLabV3 and their relatives.

An encoder is a module, `encoder(images, train=...) -> (c1, c2, c3, c4, c5)`: the maps of an image
at strides 2, 4, 8, 16 and 32, each rounded up. Stages that would pass `output_stride` keep their
resolution and widen their kernels by an atrous rate instead. c1 is None where an encoder has no map
of that stride.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from segjax.models.convnext import ConvNeXt, check_convnext
from segjax.models.mobilenet import MobileNet, check_mobilenet
from segjax.models.resnet import ResNet, check_resnet

Map = Float[Array, "n _h _w _c"]
Maps = tuple[Map | None, Map, Map, Map, Map]


class Encoder(NamedTuple):
    """A row of `ENCODERS`.

    Attributes:
      module: its class, with the fields `variant` (the row's name), `output_stride`, `multi_grid`,
        `width`, `momentum` and `dtype`.
      channels: of c1 to c5 at width 1; 0 where there is no c1.
      options: the module's own fields that a model with an encoder hands on to it.
      check: takes the name and those options by keyword; raises ValueError naming the option.
    """

    module: type[nn.Module]
    channels: tuple[int, int, int, int, int]
    options: tuple[str, ...] = ()
    check: Any = None


_RESNET_OPTIONS = ("cascade", "stem", "contract_dilation", "strided_1x1", "zero_init_residual")
_MOBILE_OPTIONS = ("stage_maps", "tensorflow")
_CONVNEXT = Encoder(ConvNeXt, (0, 96, 192, 384, 768), ("drop_path_rate",), check_convnext)
_BASIC = Encoder(ResNet, (64, 64, 128, 256, 512), _RESNET_OPTIONS, check_resnet)
_BOTTLENECK = Encoder(ResNet, (64, 256, 512, 1024, 2048), _RESNET_OPTIONS, check_resnet)

ENCODERS: dict[str, Encoder] = {
    "resnet18": _BASIC,
    "resnet34": _BASIC,
    "resnet50": _BOTTLENECK,
    "resnet101": _BOTTLENECK,
    "resnet152": _BOTTLENECK,
    "resnet269": _BOTTLENECK,
    "wide_resnet50_2": _BOTTLENECK,
    "wide_resnet101_2": _BOTTLENECK,
    "resnext50_32x4d": _BOTTLENECK,
    "resnext101_32x8d": _BOTTLENECK,
    "convnext_tiny": _CONVNEXT,
    "convnext_small": _CONVNEXT,
    "mobilenet_v2": Encoder(MobileNet, (16, 24, 32, 96, 1280), _MOBILE_OPTIONS, check_mobilenet),
    "mobilenet_v3_large": Encoder(
        MobileNet, (16, 24, 40, 112, 960), _MOBILE_OPTIONS, check_mobilenet
    ),
    "efficientnet_lite0": Encoder(
        MobileNet, (16, 24, 40, 112, 320), _MOBILE_OPTIONS, check_mobilenet
    ),
}


def check_encoder(name: str, output_stride: int, changed: dict[str, Any]) -> None:
    """Raises ValueError, naming the option, for what an encoder cannot have.

    Args:
      name: a row of `ENCODERS`.
      output_stride: 8, 16 or 32; with a cascade of one, two or three blocks up to 64, 128 or 256.
      changed: options of encoders (`Encoder.options` of any row) that are not at the default of the
        model that they belong to, and their values.
    """
    if name not in ENCODERS:
        raise ValueError(f"model.encoder={name!r} is unknown; known: {', '.join(ENCODERS)}")
    row = ENCODERS[name]
    for option, value in changed.items():
        if option not in row.options:
            owned = ", ".join(row.options) or "none"
            raise ValueError(
                f"model.{option}={value!r}: {name} has no such option (its own: {owned}); leave it "
                "at its default"
            )
    if row.check:
        row.check(name, **changed)
    cascade = changed.get("cascade", 0)
    *most, last = (8, 16, 32, 64, 128, 256)[: 3 + cascade]
    if output_stride not in (*most, last):
        where = f" with model.cascade={cascade}" if cascade else ""
        allowed = f"{', '.join(map(str, most))} or {last}"
        raise ValueError(f"model.output_stride={output_stride}; use {allowed}{where}")


def encoder_options(network: nn.Module) -> dict[str, Any]:
    """A network's fields that some encoder has and others have not, and their values."""
    names = dict.fromkeys(option for row in ENCODERS.values() for option in row.options)
    fields = {field.name for field in dataclasses.fields(network)}
    return {name: getattr(network, name) for name in names if name in fields}


def changed_options(network: nn.Module) -> dict[str, Any]:
    """Those of `encoder_options` that are not at the default of the network's class."""
    defaults = {field.name: field.default for field in dataclasses.fields(network)}
    return {o: v for o, v in encoder_options(network).items() if v != defaults[o]}


def make_encoder(
    name: str,
    *,
    output_stride: int = 32,
    multi_grid: tuple[int, ...] = (1, 1, 1),
    width: float = 1.0,
    momentum: float = 0.9,
    dtype: DTypeLike,
    **options: Any,
) -> nn.Module:
    """An encoder as the submodule "encoder" of the module that calls.

    Args:
      name: a row of `ENCODERS`.
      output_stride: the image's size over c5's, see `check_encoder`.
      multi_grid: factors on the atrous rates of the last stage's blocks, repeated if there are more
        blocks.
      width: factor on every channel count; 1 is the paper's.
      momentum: share of the old statistics that batch normalisation keeps at each step.
      dtype: compute dtype; parameters and statistics are float32.
      options: of any encoder; those that are not this one's are left out.
    """
    row = ENCODERS[name]
    own = {option: value for option, value in options.items() if option in row.options}
    return row.module(
        variant=name,
        output_stride=output_stride,
        multi_grid=multi_grid,
        width=width,
        momentum=momentum,
        dtype=dtype,
        **own,
        name="encoder",
    )
