"""What is special to U-Net and DeepLabV3+; tests/weights/test_torch_parity.py compares outputs."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models import ResNet, build
from segjax.models.encoders import ENCODERS, Encoder
from segjax.models.unet import enlarged

K = 3


class WithoutC1(nn.Module):
    """A ResNet that hides its map at stride 2, as a network whose stem halves twice."""

    variant: str
    output_stride: int
    multi_grid: tuple
    width: float
    momentum: float
    dtype: object

    @nn.compact
    def __call__(self, x, *, train):
        resnet = ResNet("resnet18", width=self.width, dtype=self.dtype, name="resnet")
        return (None, *resnet(x, train=train)[1:])


def abstract(options, size=(61, 83)):
    model = build(options, K)
    init = lambda x: model.init_with_output(jax.random.key(0), x, train=False)  # noqa: E731
    outputs, variables = jax.eval_shape(init, jnp.zeros((1, *size, 3)))
    flat = flax.traverse_util.flatten_dict(variables["params"], sep="/")
    return outputs, {path: leaf.shape for path, leaf in flat.items()}


@pytest.mark.parametrize(("size", "out"), [((3, 4), (5, 8)), ((1, 1), (1, 2)), ((2, 2), (4, 3))])
def test_enlarging_is_the_nearest_cell(size, out):
    """torch's rule: output i reads input floor(i * size / out)."""
    x = np.random.default_rng(0).standard_normal((1, *size, 2)).astype(np.float32)
    rows, columns = (np.arange(o) * n // o for n, o in zip(size, out, strict=True))
    np.testing.assert_array_equal(enlarged(jnp.asarray(x), out), x[:, rows][:, :, columns])


def test_unet_on_an_encoder_without_c1(monkeypatch):
    """The fourth block, at stride 2, has nothing to join."""
    monkeypatch.setitem(ENCODERS, "no_c1", Encoder(WithoutC1, (0, 64, 128, 256, 512)))
    outputs, shapes = abstract({"name": "unet", "encoder": "no_c1"})
    assert outputs["logits"].shape == (1, 61, 83, K)
    inputs = [shapes[f"decoder{i}_1/conv/kernel"][2] for i in (1, 2, 3, 4, 5)]
    assert inputs == [512 + 256, 256 + 128, 128 + 64, 64, 32]


def test_deeplabv3plus_joins_48_channels_of_c2_at_stride_4():
    _, shapes = abstract({"name": "deeplabv3plus", "decoder_separable": False})
    assert shapes["low_level/conv/kernel"] == (1, 1, 256, 48)
    assert shapes["decoder1/conv/kernel"] == (3, 3, 256 + 48, 256)
    assert shapes["decoder2/conv/kernel"] == (3, 3, 256, 256)
    assert shapes["aspp/atrous1/depthwise/conv/kernel"] == (3, 3, 1, 2048)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "unet", "decoder_channels": (8, 8)}, r"decoder_channels=\(8, 8\); use five"),
        ({"name": "unet", "encoder": "vgg16"}, "model.encoder='vgg16' is unknown"),
        ({"name": "unet", "stem": "5x5"}, "model.stem='5x5'; use"),
        ({"name": "unet", "contract_dilation": True}, "unet has no such option"),
        ({"name": "deeplabv3plus", "decoder_convs": 0}, "model.decoder_convs=0; use 1 or more"),
        ({"name": "deeplabv3plus", "aspp_features": 0}, "model.aspp_features=0; use 1 or more"),
        ({"name": "deeplabv3plus", "project_kernel": 2}, "model.project_kernel=2; use 1 or 3"),
        ({"name": "deeplabv3plus", "rates": (6, 6)}, r"model.rates=\(6, 6\) of output stride 16"),
        ({"name": "fcn", "head_convs": 0}, "model.head_convs=0; use 1 or more"),
        ({"name": "pspnet", "pooling": "sum"}, 'model.pooling=\'sum\'; use "mean" or "max"'),
        ({"name": "pspnet", "bins": (2, 2)}, r"model.bins=\(2, 2\); use one or more different"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        build(options, K)
