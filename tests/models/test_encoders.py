"""The table of encoders: every one under every head, by shapes; and what is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from segjax.models import build, encoders
from segjax.models.encoders import ENCODERS

# Their shapes take seconds to trace; they differ from others in depth or width only.
DEEP = (
    "resnet101",
    "resnet152",
    "resnet269",
    "wide_resnet101_2",
    "resnext101_32x8d",
    "convnext_small",
)
HEADS = ("fcn", "pspnet", "deeplabv3", "deeplabv3plus", "unet", "lraspp")


def test_options_of_encoders_are_fields_of_the_networks():
    for row in ENCODERS.values():
        assert set(row.options) <= set(row.module.__dataclass_fields__)


# Parameters at width 1, and where the number is from.
PARAMETERS = {
    "resnet18": (11_176_512, "torchvision's 11,689,512 less a classifier of 513,000"),
    "resnet34": (21_284_672, "torchvision's 21,797,672 less a classifier of 513,000"),
    "resnet50": (23_508_032, "torchvision's 25,557,032 less a classifier of 2,049,000"),
    "resnet101": (42_500_160, "torchvision's 44,549,160 less a classifier of 2,049,000"),
    "resnet152": (58_143_808, "torchvision's 60,192,808 less a classifier of 2,049,000"),
    "resnet269": (
        58_143_808 + sum(n * (17 * f**2 + 12 * f) for n, f in ((22, 128), (12, 256), (5, 512))),
        "resnet152 and the blocks that its stages 3, 4 and 5 have less",
    ),
    "wide_resnet50_2": (66_834_240, "torchvision's 68,883,240 less a classifier of 2,049,000"),
    "wide_resnet101_2": (124_837_696, "torchvision's 126,886,696 less a classifier of 2,049,000"),
    "resnext50_32x4d": (22_979_904, "torchvision's 25,028,904 less a classifier of 2,049,000"),
    "resnext101_32x8d": (86_742_336, "torchvision's 88,791,336 less a classifier of 2,049,000"),
    "convnext_tiny": (
        28_589_128 - 769_000 - 1_536,
        "torchvision's 28,589,128 less a classifier of 769,000 and its norm",
    ),
    "convnext_small": (
        50_223_688 - 769_000 - 1_536,
        "torchvision's 50,223,688 less a classifier of 769,000 and its norm",
    ),
    "mobilenet_v2": (2_223_872, "torchvision's 3,504,872 less a classifier of 1,281,000"),
    "mobilenet_v3_large": (2_971_952, "torchvision's 5,483,032 less classifiers of 2,511,080"),
    "efficientnet_lite0": (
        4_652_008 - 1_281_000 - 412_160,
        "timm's 4,652,008 less a classifier and the 1x1 convolution before it",
    ),
}


# At the other output strides: one of each kind of block.
STRIDES = [(name, 8) for name in ENCODERS] + [
    (name, stride)
    for name in ("resnet18", "resnext50_32x4d", "convnext_tiny", "mobilenet_v2")
    for stride in (16, 32)
]


@pytest.mark.parametrize(
    "name, output_stride",
    [pytest.param(*s, marks=pytest.mark.slow) if s[0] in DEEP else s for s in STRIDES],
)
def test_maps(name, output_stride):
    """Channels as the table says; sizes halved, rounded up, down to the output stride. The number
    of parameters is its source's."""
    size = (75, 101)
    encoder = encoders.make_encoder(name, output_stride=output_stride, dtype=jnp.float32)
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    init = lambda x: encoder.init_with_output(jax.random.key(0), x, train=False)  # noqa: E731
    maps, variables = jax.eval_shape(init, images)
    wanted, source = PARAMETERS[name]
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == wanted, source
    for stride, channels, found in zip(
        (2, 4, 8, 16, 32), ENCODERS[name].channels, maps, strict=True
    ):
        if found is None:
            assert channels == 0
            continue
        stride = min(stride, output_stride)
        assert found.shape == (1, *(-(-s // stride) for s in size), channels), stride


class Maps(nn.Module):
    """Zeros in the place of an encoder's maps, which `test_maps` checks."""

    variant: str
    output_stride: int

    def __call__(self, images, *, train):
        strides = (min(stride, self.output_stride) for stride in (2, 4, 8, 16, 32))
        n, *size, _ = images.shape
        return tuple(
            jnp.zeros((n, *(-(-s // stride) for s in size), channels)) if channels else None
            for stride, channels in zip(strides, ENCODERS[self.variant].channels, strict=True)
        )


# Heads see the maps' channels and which options an encoder has, so that one of each will do.
DISTINCT = {(row.channels, row.options): name for name, row in ENCODERS.items()}.values()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("encoder", DISTINCT)
def test_every_encoder_under_every_head(head, encoder, monkeypatch):
    def maps(variant, output_stride, name, **options):
        assert options.keys() <= {*row.module.__dataclass_fields__}
        return Maps(variant, output_stride, name=name)

    row = ENCODERS[encoder]
    monkeypatch.setitem(ENCODERS, encoder, row._replace(module=maps))
    model = build({"name": head, "encoder": encoder}, 4)
    images = jax.ShapeDtypeStruct((2, 67, 90, 3), jnp.float32)
    init = lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0]  # noqa: E731
    outputs = jax.eval_shape(init, images)
    assert {x.shape for x in outputs.values()} == {(2, 67, 90, 4)}


@pytest.mark.usefixtures("unchecked")
def test_an_option_of_another_encoder_is_refused(monkeypatch):
    row = ENCODERS["resnet18"]._replace(options=("stem",))
    monkeypatch.setitem(ENCODERS, "other", row)
    build({"name": "pspnet", "encoder": "other", "stem": "7x7"}, 4)
    with pytest.raises(ValueError, match=r"model.contract_dilation=True: other has no such option"):
        build({"name": "pspnet", "encoder": "other", "contract_dilation": True}, 4)


REFUSED = {
    "stem='3x3': mobilenet_v2 has no such option": dict(encoder="mobilenet_v2", stem="3x3"),
    "tensorflow=True: resnet18 has no such option": dict(encoder="resnet18", tensorflow=True),
    "stage_maps='all' of mobilenet_v2; use": dict(encoder="mobilenet_v2", stage_maps="all"),
    "drop_path_rate=1.0 of convnext_tiny": dict(encoder="convnext_tiny", drop_path_rate=1.0),
    "cascade=1: mobilenet_v2 has no such option": dict(
        name="deeplabv3", encoder="mobilenet_v2", cascade=1
    ),
    "aux_map='c1'; use one of c2, c3, c4, c5": dict(name="deeplabv3", aux_map="c1"),
    "encoder='mobilenet' is unknown; known: resnet18": dict(encoder="mobilenet"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_an_encoder_cannot_have_is_refused(message):
    with pytest.raises(ValueError, match=f"model.{message}"):
        build({"name": "fcn", **REFUSED[message]}, 4)
