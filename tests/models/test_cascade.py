"""DeepLabV3's cascade of blocks (arXiv 1706.05587, section 3.2) against the paper's rule."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.layers import Conv
from segjax.models import build
from segjax.models.resnet import VARIANTS, Bottleneck, ResNet
from tests.models.probing import abstract_variables, modules

K = 3
CASCADE = {"name": "deeplabv3", "width": 0.125, "cascade": 3, "with_aspp": False, "aux": False}


def rates(**options) -> dict[str, list[int]]:
    """The rate of each unit's 3x3 convolution, by block as the paper counts: block4 is stage 5."""
    found = {}
    for path, (conv, _, _) in modules(ResNet(width=0.125, **options), (65, 65), Conv).items():
        if path.startswith("stage") and path.endswith("conv/conv"):
            found.setdefault(f"block{int(path[5]) - 1}", []).append(conv.rate)
    return found


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        # Figure 3a: every block strides.
        (
            dict(output_stride=256, cascade=3),
            dict(block3=[1] * 6, block4=[1] * 3, block5=[1] * 3, block6=[1] * 3, block7=[1] * 3),
        ),
        # Figure 3b: rates 2, 4, 8, 16.
        (
            dict(output_stride=16, cascade=3),
            dict(block3=[1] * 6, block4=[2] * 3, block5=[4] * 3, block6=[8] * 3, block7=[16] * 3),
        ),
        (
            dict(output_stride=8, cascade=3),
            dict(block3=[2] * 6, block4=[4] * 3, block5=[8] * 3, block6=[16] * 3, block7=[32] * 3),
        ),
        (
            dict(output_stride=64, cascade=3),
            dict(block3=[1] * 6, block4=[1] * 3, block5=[1] * 3, block6=[2] * 3, block7=[4] * 3),
        ),
        (
            dict(output_stride=32, cascade=1),
            dict(block3=[1] * 6, block4=[1] * 3, block5=[2] * 3),
        ),
        # Section 3.2.1: unit rates times the block's.
        (
            dict(output_stride=16, cascade=3, multi_grid=(1, 2, 4)),
            dict(
                block3=[1] * 6,
                block4=[2, 4, 8],
                block5=[4, 8, 16],
                block6=[8, 16, 32],
                block7=[16, 32, 64],
            ),
        ),
        (
            dict(output_stride=128, cascade=3, multi_grid=(1, 2, 1)),
            dict(
                block3=[1] * 6,
                block4=[1, 2, 1],
                block5=[1, 2, 1],
                block6=[1, 2, 1],
                block7=[2, 4, 2],
            ),
        ),
        # A first unit keeps the rate that it would have with its stride.
        (
            dict(output_stride=16, cascade=1, multi_grid=(2, 2, 2), contract_dilation=True),
            dict(block3=[1] * 6, block4=[2, 4, 4], block5=[4, 8, 8]),
        ),
    ],
    ids=str,
)
def test_rates_are_the_papers(options, wanted):
    found = rates(**options)
    assert found.pop("block1") == [1] * 3
    assert found.pop("block2") == [1] * 4
    assert found == wanted


@functools.cache
def strided_variables():
    return abstract_variables(build({**CASCADE, "output_stride": 256}, K))


@pytest.mark.parametrize("output_stride", [8, 16, 32, 64, 128, 256])
def test_maps_and_parameters_of_every_output_stride(output_stride):
    """c5 is the last copy's; the parameters are those of output stride 256."""
    model = build({**CASCADE, "output_stride": output_stride}, K)
    size = (300, 517)
    (_, shape, _) = modules(model, size, Conv)["classifier"]
    assert shape == (1, *(-(-n // output_stride) for n in size), 4 * 64)
    assert abstract_variables(model) == strided_variables()


def test_layers_of_the_cascade():
    """A copy of block4 after itself: no projection in its first unit, no ASPP, 1x1 to classes."""
    flat = flax.traverse_util.flatten_dict(abstract_variables(build(CASCADE, K))["params"], sep="/")
    shapes = {path: leaf.shape for path, leaf in flat.items()}
    copy = {p.split("/", 2)[2]: s for p, s in shapes.items() if p.startswith("encoder/stage6_bl")}
    assert {path: shape for path, shape in copy.items() if path.endswith("kernel")} == {
        "reduce/conv/kernel": (1, 1, 256, 64),
        "conv/conv/kernel": (3, 3, 64, 64),
        "expand/conv/kernel": (1, 1, 64, 256),
    }
    for s in (6, 7, 8):
        assert {f"stage{s}_block{b}" for b in (1, 2, 3)} == {
            path.split("/")[1] for path in shapes if path.startswith(f"encoder/stage{s}")
        }
    assert {path for path in shapes if not path.startswith("encoder")} == {
        "classifier/kernel",
        "classifier/bias",
    }
    assert shapes["classifier/kernel"] == (1, 1, 256, K)


@pytest.mark.parametrize("variant", [pytest.param("resnet18", marks=pytest.mark.slow), "shallow"])
def test_output_strides_share_their_responses(variant, monkeypatch):
    """Chen et al., section 3.1: atrous convolution computes the strided network's responses, and
    those between them, borders included. A stage's first unit must keep the rate of its stride."""
    monkeypatch.setitem(VARIANTS, "shallow", (Bottleneck, (1, 1, 2, 2)))
    network = functools.partial(
        ResNet, variant, cascade=2, multi_grid=(1, 2), width=0.125, contract_dilation=True
    )
    images = np.random.default_rng(0).standard_normal((1, 99, 141, 3)).astype(np.float32)
    variables = jax.jit(functools.partial(network().init, train=False))(jax.random.key(0), images)

    @functools.partial(jax.jit, static_argnums=0)
    def c5(output_stride):
        return network(output_stride=output_stride).apply(variables, images, train=False)[-1]

    dense = c5(8)
    assert dense.shape[1:3] == (13, 18)
    for output_stride in (16, 64, 128):
        step = output_stride // 8
        wanted = c5(output_stride)
        np.testing.assert_allclose(
            dense[:, ::step, ::step], wanted, rtol=1e-4, atol=1e-4 * float(jnp.abs(wanted).max())
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cascade": 4}, "model.cascade=4; use 0, 1, 2 or 3"),
        ({"cascade": -1}, "model.cascade=-1; use 0, 1, 2 or 3"),
        ({"cascade": 0, "output_stride": 64}, "model.output_stride=64; use 8, 16 or 32$"),
        (
            {"cascade": 1, "output_stride": 128},
            "model.output_stride=128; use 8, 16, 32 or 64 with model.cascade=1",
        ),
        ({"output_stride": 4}, "model.output_stride=4; use 8, 16, 32, 64, 128 or 256 with"),
        ({"multi_grid": (1, 0)}, r"model.multi_grid=\(1, 0\); use one or more"),
        (
            {"rates": (2, 4, 6)},
            r"model.rates=\(2, 4, 6\), but model.with_aspp=False: there is no A",
        ),
        ({"dropout_rate": 0.1}, "model.dropout_rate=0.1, but .* leave it at its default, 0.0"),
        ({"head_conv": True}, "model.head_conv=True, but model.with_aspp=False"),
        (
            {"with_aspp": True, "output_stride": 256},
            r"model.rates=\(6, 12, 18\) of output stride 16 are \(0, 0, 1\) at output stride 256",
        ),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        build({**CASCADE, **options}, K)


def test_aspp_may_follow_the_cascade():
    variables = abstract_variables(build({**CASCADE, "cascade": 1, "with_aspp": True}, K))
    assert {"aspp", "classifier", "encoder"} == variables["params"].keys()
