"""The decoders of the SegNet paper's table 1, and Bayesian SegNet."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.layers import Conv, ConvTranspose
from segjax.models import build
from segjax.models.segnet_basic import TABLE1
from segjax.models.vgg import VGGEncoder
from tests.models.probing import abstract_variables, count, draw, drawn_variables, modules

# The printed millions of parameters, and ours at 11 classes.
TABLE1_COUNTS = {
    "bilinear_interpolation": (0.625, 613_003),
    "segnet_basic": (1.425, 1_416_587),
    "encoder_addition": (1.425, 1_416_587),
    "single_channel_decoder": (0.625, 626_315),
    "fcn_basic": (0.65, 646_124),
    "fcn_basic_no_addition": (0.65, 643_979),
    # 4 kernels of 8x8x64x64 (1,048,576), the encoder (612,288) and the classifier (715).
    "fcn_basic_no_dim_reduction": (1.625, 1_661_579),
    "fcn_basic_no_addition_no_dim_reduction": (1.625, 1_661_579),
}


def test_table1_parameters():
    assert list(TABLE1_COUNTS) == list(TABLE1)
    for row, (printed, pinned) in TABLE1_COUNTS.items():
        found = count(build({"name": "segnet_basic", **TABLE1[row]}, 11))
        assert found == pinned, row
        # The paper prints multiples of 0.025, and 1.4166 as 1.425.
        tolerance = 0.025 * printed if printed == 1.625 else 0.025
        assert abs(found / 1e6 - printed) <= tolerance, row


def test_segnet_basic_is_what_it_was():
    names = {f"{part}{s}" for part in ("encoder", "decoder") for s in range(1, 5)}
    assert abstract_variables(build({"name": "segnet_basic"}, 11))["params"].keys() == {
        *names,
        "classifier",
    }


@pytest.mark.parametrize("row", TABLE1)
def test_table1_rows_share_the_encoder_and_keep_sizes(row):
    model = build({"name": "segnet_basic", "features": 8, **TABLE1[row]}, 5)
    plain = abstract_variables(build({"name": "segnet_basic", "features": 8}, 5))["params"]
    params = abstract_variables(model)["params"]
    for s in range(1, 5):
        assert params[f"encoder{s}"] == plain[f"encoder{s}"]
    for size in ((37, 50), (1, 2)):
        apply = lambda key: model.init_with_output(key, jnp.zeros((2, *size, 3)), train=False)  # noqa: B023, E731
        logits = jax.eval_shape(apply, jax.random.key(0))[0]["logits"]
        assert (logits.shape, logits.dtype) == ((2, *size, 5), jnp.float32)


def test_fcn_basic_decodes_in_as_many_channels_as_classes():
    model = build({"name": "segnet_basic", **TABLE1["fcn_basic"]}, 11)
    assert {
        path: (before, after)
        for path, (_, before, after) in modules(model, (360, 480), (ConvTranspose, Conv)).items()
        if "/" not in path
    } == {
        "reduce4": ((1, 23, 30, 64), (1, 23, 30, 11)),
        "decoder4": ((1, 23, 30, 11), (1, 46, 60, 11)),
        "reduce3": ((1, 45, 60, 64), (1, 45, 60, 11)),
        "decoder3": ((1, 45, 60, 11), (1, 90, 120, 11)),
        "reduce2": ((1, 90, 120, 64), (1, 90, 120, 11)),
        "decoder2": ((1, 90, 120, 11), (1, 180, 240, 11)),
        "reduce1": ((1, 180, 240, 64), (1, 180, 240, 11)),
        "decoder1": ((1, 180, 240, 11), (1, 360, 480, 11)),
    }


def test_no_dim_reduction_decodes_in_the_encoders_channels():
    model = build({"name": "segnet_basic", **TABLE1["fcn_basic_no_dim_reduction"]}, 11)
    channels = [after[-1] for _, _, after in modules(model, (32, 32), ConvTranspose).values()]
    assert channels == [64] * 4


def test_deconvolution_starts_as_interpolation():
    """A constant map comes through all four decoders as that constant, far from the border."""
    model = build({"name": "segnet_basic", "features": 2, "upsampling": "deconv"}, 2)
    init = jax.jit(lambda key: model.init(key, jnp.zeros((1, 32, 32, 3)), train=False))
    x = jnp.ones((1, 20, 20, 2))
    for s in range(4, 0, -1):
        kernel = {"params": init(jax.random.key(0))["params"][f"decoder{s}"]}
        x = ConvTranspose(2, 8, strides=2, padding=3).apply(kernel, x)
        x = x[:, 4:-4, 4:-4][:, :20, :20]
        np.testing.assert_allclose(x, 1, rtol=1e-5)


# Caffe's layer names in the authors' networks, and the size of a 32x48 image there.
DROPOUTS = {
    "segnet": {
        "encoder/encdrop3": (4, 6),
        "encoder/encdrop4": (2, 3),
        "encoder/encdrop5": (1, 2),
        "decdrop5": (2, 3),
        "decdrop4": (4, 6),
        "decdrop3": (8, 12),
    },
    "segnet_basic": {
        "encdrop3": (4, 6),
        "encdrop4": (2, 3),
        "decdrop4": (4, 6),
        "decdrop3": (8, 12),
    },
}


def thin_segnet(name, **options):
    thin = {"segnet": dict(width=0.0625), "segnet_basic": dict(features=8)}
    return build({"name": name, **thin[name], **options}, 3)


@pytest.mark.parametrize("name", DROPOUTS)
def test_dropouts_are_where_the_authors_have_them(name):
    model = thin_segnet(name, dropout_rate=0.5)
    seen = modules(model, (32, 48), (nn.Dropout, VGGEncoder, nn.BatchNorm))
    dropouts = {path: s for path, (m, *_, s) in seen.items() if isinstance(m, nn.Dropout)}
    assert {path: shape[1:3] for path, shape in dropouts.items()} == DROPOUTS[name]
    assert list(dropouts) == list(DROPOUTS[name])
    assert all(m.rate == 0.5 for m, *_ in seen.values() if isinstance(m, nn.Dropout))
    # A decoder's dropout follows its last normalisation.
    order = list(seen)
    for path in dropouts:
        if path.startswith("decdrop"):
            s = path.removeprefix("decdrop")
            before = order[order.index(path) - 1]
            assert before == f"decoder{s}{'_1' if name == 'segnet' else ''}/norm"


@pytest.mark.parametrize("name", ["segnet_basic", pytest.param("segnet", marks=pytest.mark.slow)])
def test_dropout_draws_in_training_only_and_adds_no_parameters(name):
    model, plain = thin_segnet(name, dropout_rate=0.5), thin_segnet(name)
    assert abstract_variables(model) == abstract_variables(plain)
    variables, images = drawn_variables(model), draw().images(2, 32, 48)

    @jax.jit
    def run(key):
        apply = functools.partial(model.apply, variables, images, rngs={"dropout": key})
        trained, _ = apply(train=True, mutable=["batch_stats"])
        return trained["logits"], apply(train=False)["logits"]

    (first, still), (again, _), (other, also) = map(run, map(jax.random.key, (0, 0, 1)))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01 * np.abs(first).max()
    np.testing.assert_array_equal(still, also)
    wanted = jax.jit(functools.partial(plain.apply, train=False))(variables, images)["logits"]
    np.testing.assert_allclose(still, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
