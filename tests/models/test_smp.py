"""What is special to SMP's PSPNet; tests/weights/test_torch_parity.py compares its outputs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models.resnet import ResNet
from segjax.models.smp import SMPPSPNet

K = 3


def thin(**options) -> SMPPSPNet:
    return SMPPSPNet(**{"num_classes": K, "encoder": "resnet18", "width": 0.125, **options})


def abstract(model, size=(64, 64), *, train=False):
    """Shapes of outputs and variables, without computing anything."""
    key = jax.random.key(0)
    return jax.eval_shape(
        lambda x: model.init_with_output({"params": key, "dropout": key}, x, train=train),
        jnp.zeros((2, *size, 3)),
    )


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        # SMP 0.6's own counts at 7 classes, less the stages that its encoder keeps but does not
        # run: 11,357,479 and 24,328,647 with them. (resnet34's: test_models.py.)
        ({"encoder": "resnet18"}, 864_039),
        ({"encoder": "resnet50"}, 2_265_543),
        ({"encoder": "resnet50", "encoder_depth": 5}, 29_836_359),
    ],
)
def test_parameters(options, parameters):
    _, variables = abstract(SMPPSPNet(7, **options))
    assert count(variables["params"]) == parameters


@pytest.mark.parametrize("size, train", [((1, 2), False), ((33, 47), True)])
def test_logits_have_the_images_size(size, train):
    """SMP raises on the first two."""
    outputs, _ = abstract(thin(dtype=jnp.bfloat16), size, train=train)
    assert outputs.keys() == {"logits"}
    assert outputs["logits"].shape == (2, *size, K)
    assert outputs["logits"].dtype == jnp.float32


@pytest.mark.parametrize(("depth", "size"), [(3, (8, 12)), (4, (4, 6)), (5, (2, 3))])
def test_every_stage_of_the_encoder_halves_the_map(depth, size):
    maps = []

    def record(next_function, args, kwargs, context):
        out = next_function(*args, **kwargs)
        if isinstance(context.module, ResNet):
            maps.extend(out)
        return out

    with nn.intercept_methods(record):
        abstract(thin(encoder_depth=depth), (64, 96))
    assert len(maps) == depth
    assert maps[-1].shape == (2, *size, 64 * 2 ** (depth - 2) // 8)


def test_the_level_of_one_bin_has_a_bias_and_no_statistics():
    _, variables = abstract(thin())
    assert variables["params"]["pyramid1"].keys() == {"kernel", "bias"}
    assert "pyramid1" not in variables["batch_stats"]
    for bins in (2, 3, 6):
        assert variables["params"][f"pyramid{bins}"]["conv"].keys() == {"kernel"}
        assert f"pyramid{bins}" in variables["batch_stats"]


def test_dropout_takes_whole_channels():
    model = thin(dropout_rate=0.5)
    dropped = []

    def record(next_function, args, kwargs, context):
        out = next_function(*args, **kwargs)
        if isinstance(context.module, nn.Dropout):
            dropped.append((args[0], out))
        return out

    @jax.jit
    def run(key, images):
        rngs = {"params": jax.random.key(0), "dropout": key}
        with nn.intercept_methods(record):
            model.init_with_output(rngs, images, train=True)
        return dropped.pop()

    images = np.random.default_rng(0).standard_normal((2, 32, 48, 3)).astype(np.float32)
    x, y = run(jax.random.key(1), images)
    alive = np.asarray(x).any((1, 2))
    kept = np.asarray(y).any((1, 2))
    assert 0.2 < kept[alive].mean() < 0.8
    wanted = np.where(kept[:, None, None], 2 * x, 0)
    np.testing.assert_allclose(y, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "vgg16"}, "model.encoder='vgg16' is unknown; known: resnet18"),
        ({"encoder_depth": 2}, "model.encoder_depth=2; use 3, 4 or 5"),
        ({"bins": ()}, r"model.bins=\(\); use one or more different numbers"),
        ({"bins": (1, 1)}, r"model.bins=\(1, 1\); use one or more different numbers"),
        ({"decoder_features": 0}, "model.decoder_features=0; use 1 or more"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        thin(**options)
