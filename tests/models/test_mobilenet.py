"""The mobile encoders: what a width does, atrous stages, the options, and a step of training."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.layers import Conv, ConvNormAct
from segjax.models import build
from segjax.models.mobilenet import VARIANTS, Block, MobileNet, make_divisible
from tests.models.probing import abstract_variables, modules


def convolutions(**options) -> dict[str, Conv]:
    encoder = MobileNet(**options)
    return {path: conv for path, (conv, *_) in modules(encoder, (64, 64), Conv).items()}


def test_make_divisible():
    """The multiple of 8 next to it, unless that takes away more than a tenth."""
    assert [make_divisible(c) for c in (1, 11.9, 12, 20, 18, 27, 960)] == [
        8,
        16,
        16,
        24,
        24,
        32,
        960,
    ]


@pytest.fixture
def a_block_a_stage(monkeypatch):
    """What the first block of each stage shows is soon traced."""
    for name, network in VARIANTS.items():
        stages = tuple(stage[:1] for stage in network.stages)
        monkeypatch.setitem(VARIANTS, name, network._replace(stages=stages))


@pytest.mark.usefixtures("a_block_a_stage")
@pytest.mark.parametrize(
    ("variant", "stem", "inside", "last"),
    # torchvision's networks of width_mult 0.5.
    [("mobilenet_v2", 16, 96, 1280), ("mobilenet_v3_large", 8, 120, 480)],
)
def test_half_as_wide(variant, stem, inside, last):
    found = convolutions(variant=variant, width=0.5)
    assert found["stem/conv"].features == stem
    assert found["stage4_block1/expand/conv"].features == inside
    assert found["stage5_last/conv"].features == last


def test_atrous_stages():
    """At output stride 8 stages 4 and 5 have rates 2 and 4, multi-grid comes on top of the last."""
    found = convolutions(output_stride=8, multi_grid=(1, 2))
    depthwise = {p: c for p, c in found.items() if "depthwise" in p}
    rates = {p.split("/")[0]: c.rate for p, c in depthwise.items()}
    assert rates == {
        **{f"stage{s}_block{b + 1}": 1 for s in (1, 2, 3) for b in range(s)},
        **{f"stage4_block{b + 1}": 2 for b in range(7)},
        **{f"stage5_block{b + 1}": 4 * (1, 2)[b % 2] for b in range(4)},
    }
    strided = [path.split("/")[0] for path, conv in found.items() if conv.strides == 2]
    assert strided == ["stem", "stage2_block1", "stage3_block1"]


@pytest.mark.parametrize(
    ("maps", "channels"),
    [("last", [16, 24, 40, 112, 960]), ("first", [16, 24, 40, 80, 960])],
)
def test_first_maps_of_stages(maps, channels):
    encoder = MobileNet("mobilenet_v3_large", stage_maps=maps)
    init = lambda x: encoder.init_with_output(jax.random.key(0), x, train=False)[0]  # noqa: E731
    found = jax.eval_shape(init, jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))
    assert [x.shape[-1] for x in found] == channels


@pytest.mark.usefixtures("a_block_a_stage")
def test_normalisation_is_torchvisions():
    v2, v3, lite = (
        {c.momentum: c.epsilon for c, *_ in modules(MobileNet(**o), (32, 32), ConvNormAct).values()}
        for o in (
            dict(variant="mobilenet_v2"),
            dict(variant="mobilenet_v3_large"),
            dict(variant="efficientnet_lite0", tensorflow=True),
        )
    )
    assert (v2, lite) == ({0.9: 1e-5}, {0.9: 1e-3})
    assert list(v3.values()) == [1e-3]
    assert list(v3) == pytest.approx([0.99])


@pytest.fixture
def shallow(monkeypatch):
    """A block of each kind: squeeze-and-excitation or not, both activations, with and without an
    expansion, a residual and none."""
    network = VARIANTS["mobilenet_v3_large"]
    first, second, third, fourth, fifth = network.stages
    stages = (first, second[:2], third[:2], fourth[:1], fifth[:1])
    monkeypatch.setitem(VARIANTS, "mobilenet_v3_large", network._replace(stages=stages))
    assert all(isinstance(block, Block) for stage in stages for block in stage)


@pytest.mark.slow
def test_a_step_of_training(shallow):
    """Every parameter gets a gradient; statistics move by a tenth of what the head's do; in
    bfloat16 the step is traced."""
    model = build({"name": "lraspp", "width": 0.25, "features": 8}, 3)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            std = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return std * rng.standard_normal(leaf.shape).astype(np.float32)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, abstract_variables(model))
    x = rng.standard_normal((2, 45, 61, 3)).astype(np.float32)
    cotangent = rng.standard_normal((2, 45, 61, 3)).astype(np.float32)

    def loss(params, model=model):
        outputs, updates = model.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(outputs["logits"] * cotangent), updates["batch_stats"]

    gradient, moved = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    for path, value in flax.traverse_util.flatten_dict(gradient, sep="/").items():
        assert np.isfinite(value).all(), path
        assert np.any(value != 0), path
    means = flax.traverse_util.flatten_dict(moved, sep="/")
    for path, value in means.items():
        if path.endswith("var"):
            assert np.all(value >= (0.9 if path.startswith("project") else 0.99)), path
    half = functools.partial(loss, model=model.clone(dtype=jnp.bfloat16))
    shapes = jax.eval_shape(jax.grad(half, has_aux=True), variables["params"])[0]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))


def test_torchvisions_deeplabv3():
    """11,029,328 parameters, as torchvision counts `deeplabv3_mobilenet_v3_large` at 21 classes."""
    options = {"stage_maps": "first", "aux_map": "c3", "rates": (12, 24, 36), "multi_grid": (1,)}
    options |= {"aspp_features": 256, "head_conv": True, "output_stride": 16}
    model = build({"name": "deeplabv3", "encoder": "mobilenet_v3_large", **options}, 21)
    parameters = abstract_variables(model)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(parameters)) == 11_029_328
