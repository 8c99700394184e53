"""The seed documents' networks: counts and sizes as there, and what holds at other sizes."""

import functools
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.layers import atrous_conv, resize_bilinear
from segjax.models.notebooks import (
    NCSUSegNet,
    NotebookDeepLabV3,
    NotebookPSPNet,
    NotebookSegNet,
    max_pool_even,
)

K = 5
# Odd maps in SegNet and DeepLabV3; PSPNet frames the rows with zeros and crops the columns.
SIZE = (90, 54)
NETWORKS = (NotebookSegNet, NotebookPSPNet, NotebookDeepLabV3, NCSUSegNet)
# What Keras counts for the documents' code; the report prints 11,604,365 for its last network,
# whose normalisations hold 2,280 numbers for columns where ours hold 3,840 for channels.
COUNTS = {
    NotebookSegNet: (7, (240, 480), 29_500_103),
    NotebookPSPNet: (7, (240, 480), 3_419_495),
    NotebookDeepLabV3: (7, (240, 480), 39_144_327),
    NCSUSegNet: (101, (416, 608), 11_604_365 - 2_280 + 3_840),
}


@functools.cache
def abstract_variables(model):
    return jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, 64, 64, 3)), train=False), jax.random.key(0)
    )


def random_variables(model):
    """He normal kernels; biases, scales and statistics that are all away from 0 and 1."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        values = rng.standard_normal(leaf.shape).astype(np.float32)
        if path[-1].key == "kernel":
            return values * np.float32(np.sqrt(2 / np.prod(leaf.shape[:-1])))
        return 0.1 * values + (1 if path[-1].key in ("scale", "var") else 0)

    return jax.tree_util.tree_map_with_path(draw, abstract_variables(model))


def tapped(model, variables, images):
    """The outputs, and {path: (input, output)} of every convolution, block and encoder."""
    taps = {}

    def tap(next_function, args, kwargs, context):
        out = next_function(*args, **kwargs)
        if isinstance(context.module, nn.Module) and context.method_name == "__call__" and args:
            taps["/".join(context.module.path)] = (args[0], out)
        return out

    with nn.intercept_methods(tap):
        outputs = model.apply(variables, images, train=False)
    return outputs, taps


def shapes(model, size) -> dict[str, tuple]:
    """{path: (input's, output's (h, w, c))} of an abstract pass."""
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    _, taps = jax.eval_shape(functools.partial(tapped, model), abstract_variables(model), images)
    return {
        path: (x.shape[1:], y.shape[1:]) for path, (x, y) in taps.items() if hasattr(y, "shape")
    }


def stage_shapes(found) -> list[list[tuple]]:
    """What every block of stages 2 to 5 returns."""
    blocks = {path: y for path, (_, y) in found.items() if path.count("/") == 1}
    return [[y for path, y in blocks.items() if f"stage{s}_" in path] for s in (2, 3, 4, 5)]


@pytest.mark.parametrize("network", NETWORKS)
def test_parameter_count_is_kerass(network):
    classes, _, wanted = COUNTS[network]
    variables = abstract_variables(network(classes))
    assert variables.keys() == {"params", "batch_stats"}
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == wanted


def test_segnet_sizes_at_240x480():
    found = shapes(NotebookSegNet(7), (240, 480))
    sizes = {1: (240, 480), 2: (120, 240), 3: (60, 120), 4: (30, 60), 5: (15, 30)}
    channels = {
        "encoder": {1: [64] * 2, 2: [128] * 2, 3: [256] * 3, 4: [512] * 3, 5: [512] * 3},
        "decoder": {
            5: [512] * 3,
            4: [512, 512, 256],
            3: [256, 256, 128],
            2: [128, 64],
            1: [64, 64],
        },
    }
    for side, stages in channels.items():
        for s, features in stages.items():
            outputs = [found[f"{side}{s}_{i}"][1] for i in range(1, len(features) + 1)]
            assert outputs == [(*sizes[s], c) for c in features]
            assert f"{side}{s}_{len(features) + 1}" not in found
    pooled, positions = jax.eval_shape(max_pool_even, jnp.zeros((1, 15, 30, 512)))
    assert pooled.shape == positions.shape == (1, 8, 15, 512)


def test_pspnet_sizes_at_240x480():
    found = shapes(NotebookPSPNet(7), (240, 480))
    assert found["encoder/stem"][1] == (120, 240, 64)
    assert stage_shapes(found) == [
        [(60, 120, 64)] * 3,
        [(30, 60, 128)] * 4,
        [(15, 30, 256)] * 6,
        [(8, 15, 512)] * 3,
    ]
    assert {name: found[name] for name in found if name.startswith("pyr") and "/" not in name} == {
        "pyramid6": ((6, 10, 512), (6, 10, 128)),
        "pyramid3": ((12, 20, 512), (12, 20, 128)),
        "pyramid2": ((18, 30, 512), (18, 30, 128)),
        "pyramid_global": ((1, 1, 512), (1, 1, 128)),
    }
    assert found["head"] == ((36, 60, 512 + 4 * 128), (240, 480, 64))


def test_deeplab_sizes_at_240x480():
    found = shapes(NotebookDeepLabV3(7), (240, 480))
    assert stage_shapes(found) == [
        [(60, 120, 256)] * 3,
        [(30, 60, 512)] * 4,
        [(15, 30, 1024)] * 6,
        [(15, 30, 2048)] * 3,
    ]
    assert found["image_pooling"] == ((1, 1, 2048), (1, 1, 256))
    for branch in ("conv1x1", "atrous1", "atrous2", "atrous3"):
        assert found[branch] == ((15, 30, 2048), (15, 30, 256))
    assert found["project"] == ((15, 30, 5 * 256), (15, 30, 256))
    assert found["classifier"] == ((240, 480, 64), (240, 480, 7))


def test_ncsu_sizes_are_the_reports():
    found = shapes(NCSUSegNet(101), (416, 608))
    assert found["decoder4"][0] == (26, 38, 512)
    assert [found[f"decoder{s}"][1] for s in (4, 3, 2, 1)] == [
        (26, 38, 512),
        (52, 76, 256),
        (104, 152, 128),
        (208, 304, 64),
    ]
    assert found["classifier"][1] == (208, 304, 101)


@pytest.fixture(scope="module", params=NETWORKS)
def run(request):
    """A thin network and what passes through it."""
    network = request.param
    model = network(K, width=1 / 16)
    variables = random_variables(model)
    rng = np.random.default_rng(1)
    images = rng.standard_normal((3, *SIZE, 3)).astype(np.float32)
    outputs, taps = jax.jit(functools.partial(tapped, model))(variables, images)
    return SimpleNamespace(
        network=network,
        model=model,
        variables=variables,
        outputs=outputs,
        taps=taps,
    )


def test_notebooks_scores_are_rectified(run):
    logits = np.asarray(run.outputs["logits"])
    assert logits.shape == (3, *SIZE, K)
    assert logits.max() > 0
    if run.network is NCSUSegNet:
        assert logits.min() < 0
    else:
        assert logits.min() == 0


@pytest.mark.parametrize("run", [NotebookPSPNet], indirect=True)
def test_pspnet_pyramid(run):
    """Enlargement, frame of zeros, pools, order of the concatenation, frame and crop."""
    taps = run.taps
    features = taps["encoder"][1]
    assert features.shape[1:3] == (3, 2)
    features = np.asarray(resize_bilinear(features, (12, 8)))
    features = np.pad(features, ((0, 0), (0, 0), (2, 2), (0, 0)))  # 12x8 to 12x12
    levels = [features]
    for size in (6, 3, 2):
        blocks = features.reshape(3, 12 // size, size, 12 // size, size, -1)
        pooled, level = taps[f"pyramid{size}"]
        np.testing.assert_allclose(pooled, blocks.mean((2, 4)), rtol=1e-5, atol=1e-5)
        levels.append(resize_bilinear(level, (12, 12)))
    pooled, level = taps["pyramid_global"]
    np.testing.assert_allclose(pooled[:, 0, 0], features.mean((1, 2)), rtol=1e-5, atol=1e-5)
    levels.append(jnp.broadcast_to(level, (3, 12, 12, level.shape[-1])))
    joined = jnp.concatenate(levels, axis=-1)
    np.testing.assert_allclose(taps["head"][0], joined, rtol=1e-4, atol=1e-5)
    wanted = resize_bilinear(joined, (72, 96))[:, :, 21:75]
    wanted = np.pad(wanted, ((0, 0), (9, 9), (0, 0), (0, 0)))  # 72 rows to 90
    head = run.variables["params"]["head"]["conv"]
    wanted = atrous_conv(wanted, head["kernel"]) + head["bias"]
    np.testing.assert_allclose(taps["head/conv"][1], wanted, rtol=1e-4, atol=1e-4)
    for name in ("pyramid2", "pyramid3", "pyramid6", "pyramid_global"):  # no ReLU in between
        np.testing.assert_array_equal(taps[f"{name}/norm"][0], taps[f"{name}/conv"][1])


@pytest.mark.parametrize("run", [NotebookDeepLabV3], indirect=True)
def test_deeplab_context_and_head_in_the_documents_order(run):
    taps, params = run.taps, run.variables["params"]
    mean = np.broadcast_to(taps["image_pooling"][1], (3, 6, 4, 16))
    branches = [taps[name][1] for name in ("conv1x1", "atrous1", "atrous2", "atrous3")]
    np.testing.assert_array_equal(taps["project"][0], np.concatenate([mean, *branches], axis=-1))
    # The document enlarges 256 channels, then convolves; the code here the other way round.
    x = resize_bilinear(taps["project"][1], (96, 64))[:, :90, :54]
    for name in ("head", "classifier"):
        x = nn.relu(x @ params[name]["kernel"][0, 0] + params[name]["bias"])
    np.testing.assert_allclose(run.outputs["logits"], x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("run", [NCSUSegNet], indirect=True)
def test_ncsu_decoder_repeats_cells_and_ends_at_half_size(run):
    taps = run.taps
    for s in (3, 2, 1):
        before = np.asarray(taps[f"decoder{s + 1}"][1])
        np.testing.assert_array_equal(
            taps[f"decoder{s}"][0], before.repeat(2, axis=1).repeat(2, axis=2)
        )
        np.testing.assert_allclose(
            taps[f"decoder{s}/norm"][0], taps[f"decoder{s}/conv"][1], rtol=1e-6
        )
    half = taps["classifier"][1]
    assert half.shape[1:3] == (48, 32)  # of 90x54, pooled to 6x4
    wanted = resize_bilinear(half, (96, 64))[:, :90, :54]
    np.testing.assert_allclose(run.outputs["logits"], wanted, rtol=1e-5, atol=1e-6)
