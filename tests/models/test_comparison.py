"""The networks that SegNet is compared with: the numbers that torch's functions give, sizes by the
authors' Caffe networks, and the published counts."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.layers import Conv
from segjax.models import build
from segjax.models.fcn_vgg import IMAGE_OFFSET, SKIPS
from segjax.models.largefov import max_pool_3x3
from segjax.models.segnet_basic import TABLE1
from segjax.models.vgg import PlainVGG, mirrored, scaled_stages
from tests.models.probing import GOLDENS, abstract_variables, count, draw, drawn_variables, modules

# As make_comparison.py.
IMAGE = (1, 37, 50)
THIN = dict(width=1 / 16, fc_features=8)
NETWORKS = {
    "fcn32": dict(THIN, name="fcn_vgg", stride=32),
    "fcn16": dict(THIN, name="fcn_vgg", stride=16),
    "fcn8": dict(THIN, name="fcn_vgg", stride=8),
    "fcn8_fixed": dict(THIN, name="fcn_vgg", stride=8, learn_upsampling=False),
    "largefov": dict(THIN, name="deeplab_largefov"),
    "deconvnet_framed": dict(THIN, name="deconvnet", fc_kernel=(3, 4)),
    "deconvnet_sliding": dict(THIN, name="deconvnet", fc_kernel=(1, 2)),
    **{row: dict(options, name="segnet_basic", features=6) for row, options in TABLE1.items()},
}


# Networks of parts that others here have too.
SLOW = (
    "fcn16",
    "fcn8_fixed",
    "fcn_basic_no_addition",
    "fcn_basic_no_dim_reduction",
    "fcn_basic_no_addition_no_dim_reduction",
)


@pytest.mark.versions
@pytest.mark.parametrize(
    "network", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in NETWORKS]
)
def test_equals_torch(network):
    model = build(NETWORKS[network], 3)
    apply = jax.jit(functools.partial(model.apply, train=False))
    found = apply(drawn_variables(model), draw().images(*IMAGE))["logits"]
    with np.load(GOLDENS / "comparison.npz") as file:
        wanted = file[network]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("stride", SKIPS)
def test_fcn_crops_fit_every_image(stride):
    """The arithmetic of the authors' network, for images of 1 to 600 pixels."""
    for size in range(1, 601):
        n, pooled = size + 2 * 100 - 2, []
        for _ in range(5):
            n = -(-n // 2)
            pooled.append(n)
        scores = n - 6
        assert scores >= 1
        for stage, offset in SKIPS[stride]:
            scores = (scores - 1) * 2 + 4
            assert offset + scores <= pooled[stage - 1], size
        assert IMAGE_OFFSET[stride] + size <= (scores - 1) * stride + 2 * stride, size


@pytest.mark.parametrize("stride", SKIPS)
def test_fcn_scores_lie_where_the_image_does(stride):
    """Offsets by centres: the j-th cell of pool p is centred at 2^p j + (2^p - 1) / 2 of the padded
    image, fc6 adds 3 cells, and a transposed convolution of 2 f at stride f puts the centre of cell
    j at f j + f - 1/2. What is added or cut must have the same centre, to half a cell."""
    # Where cell 0 of the scores is in the padded map, and how far apart cells are.
    centre, step = 3 * 32 + 15.5, 32
    # conv1_1 pads 100 and its map begins 99 pixels before the image.
    shift = 99

    def up(centre, step, factor):
        step //= factor
        return centre - (factor - 0.5) * step, step

    for stage, offset in SKIPS[stride]:
        centre, step = up(centre, step, 2)
        skip = offset * 2**stage + (2**stage - 1) / 2
        assert step == 2**stage
        assert centre == skip
    centre, step = up(centre, step, stride)
    assert step == 1
    assert centre + IMAGE_OFFSET[stride] == shift


def test_fcn_starts_with_even_odds_and_bilinear_upsampling():
    model = build(dict(NETWORKS["fcn8"]), 3)
    init = jax.jit(lambda key: model.init_with_output(key, jnp.ones((1, 3, 5, 3)), train=False))
    outputs, variables = init(jax.random.key(0))
    np.testing.assert_array_equal(outputs["logits"], 0)
    fixed = build({**NETWORKS["fcn8"], "learn_upsampling": False}, 3)
    params = variables["params"]
    assert params.keys() - abstract_variables(fixed)["params"].keys() == {
        "upscore2",
        "upscore_pool4",
        "upscore8",
    }
    params = jax.tree.map(lambda leaf: leaf + 0.01, {k: params[k] for k in params if "up" not in k})
    upscores = {k: v for k, v in variables["params"].items() if "up" in k}
    apply = lambda m, p: m.apply({"params": p}, draw().images(1, 9, 13), train=False)["logits"]  # noqa: E731
    learnt = jax.jit(functools.partial(apply, model))({**params, **upscores})
    wanted = jax.jit(functools.partial(apply, fixed))(params)
    assert np.abs(wanted).max() > 0
    np.testing.assert_allclose(learnt, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("stride", "names"),
    [(32, {"upscore32"}), (16, {"score_pool4", "upscore2", "upscore16"})],
)
def test_fcn_layers_by_stride(stride, names):
    params = abstract_variables(build({**NETWORKS["fcn8"], "stride": stride}, 3))["params"]
    assert params.keys() == {"encoder", "fc6", "fc7", "score", *names}
    assert set(params["encoder"]["conv1_1"]) == {"kernel", "bias"}


def test_largefov_sizes_are_caffes():
    """321 pixels, the authors' crop, make 41 cells; 360x480 make 46x61."""
    for size, cells in (((321, 321), (41, 41)), ((360, 480), (46, 61)), ((1, 2), (1, 2))):
        model = build(NETWORKS["largefov"], 3)
        assert modules(model, size, Conv)["fc8"][2] == (1, *cells, 3)
    rates = {path: m.rate for path, (m, *_) in modules(model, (33, 33), Conv).items() if m.rate > 1}
    assert rates == {"encoder/conv5_1": 2, "encoder/conv5_2": 2, "encoder/conv5_3": 2, "fc6": 12}


def test_caffes_3x3_pooling_by_hand():
    x = jnp.arange(24.0).reshape(1, 4, 6, 1)
    np.testing.assert_array_equal(
        max_pool_3x3(x, strides=2)[0, :, :, 0], [[7, 9, 11, 11], [19, 21, 23, 23], [19, 21, 23, 23]]
    )
    assert max_pool_3x3(x, strides=1).shape == x.shape
    assert max_pool_3x3(x[:, :3, :5], strides=2).shape == (1, 2, 3, 1)


def bottleneck(size, fc_kernel) -> list:
    """Shapes before and after fc6 and deconv_fc6."""
    model = build({**THIN, "name": "deconvnet", "fc_kernel": fc_kernel}, 3)
    seen = modules(model, size, nn.Module)
    return [seen[f"{name}/conv"][1:] for name in ("fc6", "deconv_fc6")]


def test_deconvnet_bottlenecks():
    authors = [((1, 7, 7, 32), (1, 1, 1, 8)), ((1, 1, 1, 8), (1, 7, 7, 32))]
    assert bottleneck((224, 224), (7, 7)) == authors
    assert bottleneck((33, 97), (7, 7)) == authors  # 2x4 cells, framed
    whole = [((1, 12, 15, 32), (1, 1, 1, 8)), ((1, 1, 1, 8), (1, 12, 15, 32))]
    assert bottleneck((360, 480), (12, 15)) == whole
    slides = [((1, 7, 8, 32), (1, 1, 2, 8)), ((1, 1, 2, 8), (1, 7, 8, 32))]
    assert bottleneck((224, 250), (7, 7)) == slides


def test_mirrored_stages():
    stages = scaled_stages(1.0)
    assert mirrored(stages, 5) == (512, 512, 512)
    assert mirrored(stages, 4) == (512, 512, 256)
    assert mirrored(stages, 3) == (256, 256, 128)
    assert mirrored(stages, 2) == (128, 64)
    assert mirrored(stages, 1) == (64, 64)
    assert min(itertools.chain(*scaled_stages(1e-3))) == 1


def conv(inputs, features, *kernel):
    return int(np.prod(kernel or (3, 3))) * inputs * features + features


def chain(inputs, features) -> int:
    """3x3 convolutions one after the other."""
    return sum(conv(i, o) for i, o in zip([inputs, *features], features, strict=False))


VGG = chain(3, [64, 64, 128, 128, *[256] * 3, *[512] * 6])


def test_plain_vgg_is_vgg16():
    encoder = PlainVGG(scaled_stages(1.0), (lambda x: x[:, ::2, ::2],) * 5)
    init = lambda key: encoder.init(key, jnp.zeros((1, 32, 32, 3)))  # noqa: E731
    leaves = jax.tree.leaves(jax.eval_shape(init, jax.random.key(0)))
    assert sum(leaf.size for leaf in leaves) == VGG == 14_714_688


def fcn8_count(k) -> int:
    scores = conv(4096, k, 1, 1) + conv(512, k, 1, 1) + conv(256, k, 1, 1)
    upscores = (4 * 4 + 4 * 4 + 16 * 16) * k * k
    return VGG + conv(512, 4096, 7, 7) + conv(4096, 4096, 1, 1) + scores + upscores


def largefov_count(k) -> int:
    return VGG + conv(512, 1024) + conv(1024, 1024, 1, 1) + conv(1024, k, 1, 1)


def deconvnet_counts(k, fc, kernel) -> tuple[int, int]:
    """Weights and biases of the convolutions, and scales and shifts of the normalisations."""
    decoder = [512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64, 64]
    bottleneck = conv(512, fc, *kernel) + conv(fc, fc, 1, 1) + conv(fc, 512, *kernel)
    convolutions = VGG + bottleneck + chain(512, decoder) + conv(64, k, 1, 1)
    encoder = 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512
    return convolutions, 2 * (encoder + 2 * fc + 512 + sum(decoder))


def test_counts_by_hand():
    assert count(build({"name": "fcn_vgg"}, 11)) == fcn8_count(11) == 134_348_929
    assert count(build({"name": "deeplab_largefov"}, 11)) == largefov_count(11) == 20_495_179
    assert count(build({"name": "deconvnet"}, 11)) == sum(deconvnet_counts(11, 4096, (7, 7)))
    compared = build({"name": "deconvnet", "fc_features": 1024, "fc_kernel": (12, 15)}, 11)
    convolutions, normalisation = deconvnet_counts(11, 1024, (12, 15))
    assert convolutions == 219_259_595
    assert count(compared) == convolutions + normalisation


# Table 6 of the SegNet paper: model size in MB.
TABLE6 = {
    117: {"name": "segnet"},
    83: {"name": "deeplab_largefov"},
    539: {"name": "fcn_vgg", "learn_upsampling": True},
    877: {"name": "deconvnet", "fc_features": 1024, "fc_kernel": (12, 15)},
}


@pytest.mark.parametrize("megabytes", TABLE6)
def test_table6_model_sizes(megabytes):
    found = 4 * count(build(TABLE6[megabytes], 11)) / 1e6
    assert found == pytest.approx(megabytes, rel=0.015)
