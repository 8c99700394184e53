"""Folded normalisation, and argmax without full-size logits: the same labels as without them."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.inference import fused_argmax
from segjax.inference.folding import fold, foldable
from segjax.inference.fused_argmax import argmax_resized, predict_labels
from segjax.layers import ConvNormAct, resize_bilinear
from segjax.models import build
from segjax.models.deconvnet import FullMapBlock
from segjax.models.notebook_resnet import ConvActNorm
from segjax.models.registry import MODELS
from segjax.models.segnet_basic import SingleChannelConv

slow = pytest.mark.slow
TINY = {
    "segnet": dict(width=1 / 16),
    "segnet_basic": dict(features=3, single_channel=True),
    "fcn": dict(encoder="resnet18", width=1 / 16),
    "pspnet": dict(encoder="resnet18", width=1 / 16),
    "deeplabv3": dict(encoder="resnet18", width=1 / 16, rates=(2, 4)),
    "fcn_vgg": dict(width=1 / 16, fc_features=8),
    "deeplab_largefov": dict(width=1 / 16, fc_features=8),
    "deconvnet": dict(width=1 / 16, fc_features=8, fc_kernel=(2, 2)),
    "notebook_segnet": dict(width=1 / 16),
    "notebook_pspnet": dict(width=1 / 8),
    "notebook_deeplabv3": dict(width=1 / 16),
    "ncsu_segnet": dict(width=1 / 16),
    "smp_pspnet": dict(encoder="resnet18", width=1 / 8),
}
# Normalisations that follow a convolution, of all; the rest follow a ReLU.
FOLDED = {
    "segnet": (25, 25),
    "segnet_basic": (8, 8),
    "fcn": (22, 22),
    "pspnet": (29, 29),
    "deeplabv3": (26, 26),
    "fcn_vgg": (0, 0),
    "deeplab_largefov": (0, 0),
    "deconvnet": (29, 29),
    "notebook_segnet": (0, 26),
    "notebook_pspnet": (24, 58),
    "notebook_deeplabv3": (20, 59),
    "ncsu_segnet": (4, 4),
    "smp_pspnet": (14, 14),
}


def random_variables(model, size=(32, 48)):
    """Parameters and statistics of which none is 0 or 1."""
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, *size, 3)), train=False)
    )
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1] in ("var", "scale"):
            return rng.uniform(0.5, 2, leaf.shape).astype(np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if path[-1] == "kernel" else 10
        return (rng.standard_normal(leaf.shape) * np.sqrt(2 / fan_in)).astype(np.float32)

    flat = flax.traverse_util.flatten_dict(shapes)
    return flax.traverse_util.unflatten_dict({p: draw(p, leaf) for p, leaf in flat.items()})


def images(n=1, size=(32, 48)):
    return np.random.default_rng(1).standard_normal((n, *size, 3)).astype(np.float32)


def norms(variables):
    return {p[:-1] for p in flax.traverse_util.flatten_dict(variables.get("batch_stats", {}))}


QUICK = ("segnet_basic", "smp_pspnet", "fcn_vgg", "ncsu_segnet")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=slow) for name in MODELS]
)
def test_which_norms_fold(name):
    model = build({"name": name, **TINY[name]}, 5)
    variables = random_variables(model)
    pairs = foldable(model, variables)
    assert (len(pairs), len(norms(variables))) == FOLDED[name]
    assert all(norm[:-1] == conv[:-1] for norm, (conv, _) in pairs.items())


class Blocks(nn.Module):
    """One of each kind of block that folds, and one that does not."""

    @nn.compact
    def __call__(self, x, *, train):
        x = ConvNormAct(4, strides=2, name="plain")(x, train=train)
        x = ConvNormAct(4, use_bias=True, activation=None, name="biased")(x, train=train)
        x = SingleChannelConv(name="depthwise")(x, train=train)
        x = FullMapBlock(3, (2, 2), name="linen")(x, train=train)
        x = FullMapBlock(5, (3, 2), transposed=True, name="transposed")(x, train=train)
        return {"logits": ConvActNorm(5, name="after_relu")(x, train=train)}


@pytest.mark.parametrize(
    "name",
    [
        "blocks",
        pytest.param("segnet_basic", marks=slow),
        pytest.param("pspnet", marks=slow),
        pytest.param("deconvnet", marks=slow),
        pytest.param("notebook_pspnet", marks=slow),
    ],
)
def test_same_logits_and_labels(name):
    """With and without convolution biases, depthwise, transposed, and with norms that stay."""
    model = Blocks() if name == "blocks" else build({"name": name, **TINY[name]}, 5)
    variables, x = random_variables(model), images()
    folded, fewer = fold(model, variables)
    assert len(folded.absorbed) + len(folded.shifts) == len(foldable(model, variables)) > 0
    expected = np.asarray(jax.jit(lambda v: model.apply(v, x, train=False)["logits"])(variables))
    logits = np.asarray(jax.jit(lambda v: folded.apply(v, x)["logits"])(fewer))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, atol=1e-5 * scale, rtol=0)
    top = np.sort(expected, -1)
    clear = top[..., -1] - top[..., -2] > 1e-4 * scale
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(logits.argmax(-1)[clear], expected.argmax(-1)[clear])


def test_nothing_of_the_norms_is_left():
    """A folded network multiplies by no scale: its leaves are kernels and biases."""
    folded, variables = fold(Blocks(), random_variables(Blocks()))
    assert variables["batch_stats"].keys() == {"after_relu"}
    del variables["params"]["after_relu"]
    names = {path[-1] for path in flax.traverse_util.flatten_dict(variables["params"])}
    assert names == {"kernel", "bias"}
    with pytest.raises(ValueError, match="no statistics to train"):
        folded.apply(variables, images(), train=True)


class Between(nn.Module):
    """Convolution, norm, ReLU; convolution, ReLU, norm."""

    @nn.compact
    def __call__(self, x, *, train):
        x = ConvNormAct(4, name="direct")(x, train=train)
        x = nn.relu(nn.Conv(4, (3, 3), name="behind")(x))
        return nn.BatchNorm(use_running_average=not train, name="stays")(x)


def test_a_norm_behind_an_activation_stays():
    variables = random_variables(Between())
    assert foldable(Between(), variables) == {("direct", "norm"): (("direct", "conv"), 1e-5)}


def test_fold_by_hand():
    """scale 3, mean 2, variance 4 - epsilon, bias 5 of a 1x1 convolution with kernel 2: at x = 7,
    3 * (14 - 2) / 2 + 5 = 23."""
    block = ConvNormAct(1, 1, activation=None)
    variables = {
        "params": {
            "conv": {"kernel": jnp.full((1, 1, 1, 1), 2.0)},
            "norm": {"scale": jnp.full(1, 3.0), "bias": jnp.full(1, 5.0)},
        },
        "batch_stats": {"norm": {"mean": jnp.full(1, 2.0), "var": jnp.full(1, 4 - 1e-5)}},
    }
    folded, fewer = fold(block, variables, channels=1)
    assert fewer["params"]["conv"]["kernel"].item() == pytest.approx(3)
    assert fewer["params"]["norm"] == {"bias": pytest.approx(2)}
    assert folded.apply(fewer, jnp.full((1, 1, 1, 1), 7.0)).item() == pytest.approx(23)


@pytest.mark.versions
@pytest.mark.parametrize(
    "size, align_corners",
    [((40, 33), False), ((40, 33), True), ((9, 5), False), ((16, 7), True), ((1, 1), False)],
)
def test_argmax_resized_is_argmax_of_resized(size, align_corners):
    logits = jnp.asarray(np.random.default_rng(2).standard_normal((2, 9, 7, 6)), jnp.float32)
    full = np.asarray(resize_bilinear(logits, size, align_corners=align_corners))
    labels = np.asarray(argmax_resized(logits, size, align_corners=align_corners))
    assert labels.dtype == np.uint8
    top = np.sort(full, -1)
    clear = top[..., -1] - top[..., -2] > 1e-5
    assert clear.mean() > 0.99 or size == (1, 1)
    np.testing.assert_array_equal(labels[clear], full.argmax(-1)[clear])


def test_argmax_resized_keeps_no_full_logits():
    """150 classes at 2048x4096: 5 GB of logits, of which nothing like that is allocated."""
    logits = jax.ShapeDtypeStruct((1, 64, 128, 150), jnp.float32)
    size = (2048, 4096)
    full = size[0] * size[1] * 150 * 4
    compiled = jax.jit(argmax_resized, static_argnums=1).lower(logits, size).compile()
    memory = compiled.memory_analysis()
    assert memory.output_size_in_bytes == size[0] * size[1]
    assert memory.temp_size_in_bytes < full / 50


FUSED = ("fcn", "pspnet", "deeplabv3", "deeplab_largefov", "smp_pspnet")


def test_which_models_are_fused():
    fused = {name for name, kind in MODELS.items() if kind in fused_argmax._CLASSIFIERS}
    assert fused == set(FUSED)


@pytest.mark.parametrize("name", FUSED)
def test_fused_models(name, monkeypatch):
    """What they enlarge at their end, to what, and how."""
    model = build({"name": name, **TINY[name]}, 5)
    theirs, ours = [], []

    def resize(x, size, *, align_corners=False):
        theirs.append((x.shape, size, align_corners))
        return resize_bilinear(x, size, align_corners=align_corners)

    def argmax(x, size, *, align_corners):
        ours.append((x.shape, size, align_corners))
        return x

    for module in ("dilated", type(model).__module__.split(".")[-1]):
        monkeypatch.setattr(f"segjax.models.{module}.resize_bilinear", resize, raising=False)
    monkeypatch.setattr(fused_argmax, "argmax_resized", argmax)
    variables = random_variables(model)
    theirs.clear()
    jax.eval_shape(lambda v: predict_labels(model, v, images()), variables)
    assert len(ours) == 1
    assert ours[0] in theirs
    assert ours[0][0][-1] == 5


@pytest.mark.parametrize("name", ["deeplab_largefov", pytest.param("smp_pspnet", marks=slow)])
def test_fused_labels(name):
    model = build({"name": name, **TINY[name]}, 5)
    variables, x = random_variables(model), images()
    labels, logits = jax.jit(
        lambda v: (predict_labels(model, v, x), model.apply(v, x, train=False)["logits"])
    )(variables)
    top = np.sort(logits, -1)
    clear = top[..., -1] - top[..., -2] > 1e-4 * np.abs(logits).max()
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(np.asarray(labels)[clear], logits.argmax(-1)[clear])


@slow
def test_predict_labels_of_a_folded_model():
    model = build({"name": "smp_pspnet", **TINY["smp_pspnet"]}, 5)
    variables, x = random_variables(model), images()
    folded, fewer = fold(model, variables)
    labels = jax.jit(lambda v: predict_labels(folded, v, x))(fewer)
    expected = jax.jit(lambda v: predict_labels(model, v, x))(variables)
    assert np.mean(np.asarray(labels) == np.asarray(expected)) > 0.999
