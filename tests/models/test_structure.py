"""The models' inner sizes, rates and operations: output strides, atrous rates, unpooling."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.layers import AtrousSpatialPyramidPooling, Conv
from segjax.models import build
from segjax.models.resnet import Bottleneck, ResNet, max_pool_3x3
from segjax.models.segnet_basic import local_response_norm
from segjax.models.vgg import VGGEncoder


def calls(model, size, kind) -> list[tuple[nn.Module, object]]:
    """Every module of a kind that an abstract forward pass runs, with what it returned."""
    seen = []

    def record(next_function, args, kwargs, context):
        out = next_function(*args, **kwargs)
        if isinstance(context.module, kind) and context.method_name == "__call__":
            seen.append((context.module, out))
        return out

    def init(key):
        with nn.intercept_methods(record):
            return model.init(key, jnp.zeros((1, *size, 3)), train=False)

    jax.eval_shape(init, jax.random.key(0))
    return seen


def stage_rates(encoder: nn.Module) -> dict[int, list[int]]:
    """The rate of each block's 3x3 convolution, by stage."""
    rates = {}
    for conv, _ in calls(encoder, (65, 97), Conv):
        block = [name for name in conv.path if name.startswith("stage")]
        if block and conv.path[-2:] == ("conv", "conv"):
            rates.setdefault(int(block[0][len("stage")]), []).append(conv.rate)
    return rates


def thin_resnet(**options) -> ResNet:
    return ResNet(width=0.125, **options)


@pytest.mark.parametrize(
    ("output_stride", "sizes"),
    [
        (8, [(17, 25), (9, 13), (9, 13), (9, 13)]),
        (32, [(17, 25), (9, 13), (5, 7), (3, 4)]),
    ],
)
def test_resnet_output_strides(output_stride, sizes):
    encoder = thin_resnet(output_stride=output_stride, stem="3x3")
    ((_, stages),) = calls(encoder, (65, 97), ResNet)
    assert [stage.shape for stage in stages[1:]] == [
        (1, *size, 4 * 8 * 2**s) for s, size in enumerate(sizes)
    ]


@pytest.mark.parametrize(
    ("variant", "blocks"),
    [
        ("resnet50", 3 + 4 + 6 + 3),
        pytest.param("resnet101", 3 + 4 + 23 + 3, marks=pytest.mark.slow),
        pytest.param("resnet152", 3 + 8 + 36 + 3, marks=pytest.mark.slow),
    ],
)
def test_resnet_depths(variant, blocks):
    assert len(calls(thin_resnet(variant=variant), (8, 8), Bottleneck)) == blocks


@pytest.mark.parametrize(
    ("options", "stage4", "stage5"),
    [
        (dict(output_stride=8), [2] * 6, [4, 4, 4]),
        # Chen et al., section 3.2.1: rates 2 * (1, 2, 4) at output stride 16.
        (dict(output_stride=16, multi_grid=(1, 2, 4)), [1] * 6, [2, 4, 8]),
        (dict(output_stride=32, multi_grid=(1, 2)), [1] * 6, [1, 2, 1]),
        # torchvision: a stage's first block keeps the rate before it.
        (
            dict(output_stride=8, contract_dilation=True, multi_grid=(1, 2, 4)),
            [1, 2, 2, 2, 2, 2],
            [2, 8, 16],
        ),
    ],
)
def test_resnet_rates(options, stage4, stage5):
    assert stage_rates(thin_resnet(**options)) == {2: [1] * 3, 3: [1] * 4, 4: stage4, 5: stage5}


def test_basic_block_rates():
    """Both convolutions of an atrous stage are atrous; with `contract_dilation` not its first."""

    def rates(**options):
        encoder = thin_resnet(variant="resnet18", output_stride=8, **options)
        paths = [(c.path, c.rate) for c, _ in calls(encoder, (65, 97), Conv)]
        return [r for path, r in paths if path[-2].startswith("conv") and path[0] != "stem"]

    assert rates() == [1] * 8 + [2] * 4 + [4] * 4
    assert rates(contract_dilation=True) == [1] * 8 + [1, 2, 2, 2] + [2, 4, 4, 4]
    assert rates(multi_grid=(1, 2)) == [1] * 8 + [2] * 4 + [4, 4, 8, 8]


def test_resnet_strides_are_in_the_3x3_convolutions():
    strided = [
        "/".join(conv.path)
        for conv, _ in calls(thin_resnet(output_stride=32), (64, 64), Conv)
        if conv.strides == 2
    ]
    stages = [f"stage{s}_block1/{name}/conv" for s in (3, 4, 5) for name in ("conv", "shortcut")]
    assert strided == ["stem/conv", *stages]


def test_zero_init_residual_starts_as_the_identity():
    block = Bottleneck(2, zero_init=True)
    x = np.abs(np.random.default_rng(0).standard_normal((1, 6, 5, 8))).astype(np.float32)
    out, _ = jax.jit(lambda key: block.init_with_output(key, x, train=False))(jax.random.key(0))
    np.testing.assert_array_equal(out, x)


def test_stem_pooling_halves_rounding_up():
    x = jnp.arange(35.0).reshape(1, 5, 7, 1)
    # Windows of 3 centred on every other cell: each one's last cell is the largest.
    np.testing.assert_array_equal(
        max_pool_3x3(x)[0, :, :, 0], [[8, 10, 12, 13], [22, 24, 26, 27], [29, 31, 33, 34]]
    )


@pytest.mark.parametrize(
    ("output_stride", "rates"), [(8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))]
)
def test_deeplab_rates_follow_the_output_stride(output_stride, rates):
    options = {"encoder": "resnet18", "width": 0.125, "output_stride": output_stride}
    model = build({"name": "deeplabv3", **options}, 5)
    ((aspp, _),) = calls(model, (65, 65), AtrousSpatialPyramidPooling)
    assert aspp.rates == rates


def test_deeplab_defaults_are_the_papers():
    model = build({"name": "deeplabv3"}, 21)
    assert (model.output_stride, model.multi_grid, model.rates) == (16, (1, 2, 4), (6, 12, 18))
    assert model.image_pooling


def test_segnet_pools_360x480_to_12x15_and_comes_back():
    model = build({"name": "segnet"}, 11)
    ((_, (bottom, pools)),) = calls(model, (360, 480), VGGEncoder)
    assert bottom.shape == (1, 12, 15, 512)
    assert [pool.size for pool in pools] == [(360, 480), (180, 240), (90, 120), (45, 60), (23, 30)]
    assert [pool.positions.shape[1:3] for pool in pools] == [
        (180, 240),
        (90, 120),
        (45, 60),
        (23, 30),
        (12, 15),
    ]
    assert all(pool.positions.dtype == jnp.uint8 for pool in pools)


@pytest.mark.parametrize("name", ["segnet_basic", pytest.param("segnet", marks=pytest.mark.slow)])
def test_segnet_neither_scatters_nor_gathers(name):
    model = build({"name": name}, 11)
    x = jnp.zeros((1, 45, 61, 3))
    variables = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(lambda key: model.init(key, x, train=False), jax.random.key(0)),
    )

    def loss(params, x):
        outputs, _ = model.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(outputs["logits"])

    program = str(jax.make_jaxpr(jax.grad(loss))(variables["params"], x))
    assert "conv_general_dilated" in program
    assert "scatter" not in program
    assert "gather" not in program


def test_segnet_basic_decoder_has_no_activation():
    model = build({"name": "segnet_basic", "features": 8}, 5)
    blocks = {
        module.name: module.activation
        for module, _ in calls(model, (32, 32), nn.Module)
        if hasattr(module, "activation")
    }
    assert blocks == {f"encoder{s}": nn.relu for s in range(1, 5)} | {
        f"decoder{s}": None for s in range(1, 5)
    }


@pytest.mark.versions
def test_local_response_norm_equals_torch(torch_lrn):
    found = local_response_norm(torch_lrn["x"])
    np.testing.assert_allclose(found, torch_lrn["y"], rtol=1e-5, atol=1e-6)


def test_segnet_basic_may_normalise_its_input():
    options = {"name": "segnet_basic", "features": 4}
    images = 200 * jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
    plain, normalising = build(options, 3), build({**options, "input_lrn": True}, 3)

    @jax.jit
    def both(key, images):
        out, variables = plain.init_with_output(key, local_response_norm(images), train=False)
        return out, normalising.apply(variables, images, train=False)

    wanted, found = both(jax.random.key(1), images)
    np.testing.assert_allclose(found["logits"], wanted["logits"], rtol=1e-5, atol=1e-5)
