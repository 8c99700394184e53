"""Depthwise convolution against a brute-force twin, and the separable block."""

import flax
import jax
import numpy as np
import pytest

from segjax.layers import SeparableConvNormAct, depthwise_conv

pytestmark = pytest.mark.versions


def by_hand(x, kernel, rate, strides):
    """Every output cell by itself, zeros around the map."""
    (n, height, width, c), (kh, kw) = x.shape, kernel.shape[:2]
    y = np.zeros((n, -(-height // strides), -(-width // strides), c))
    for i, j in np.ndindex(*y.shape[1:3]):
        for a, b in np.ndindex(kh, kw):
            row = i * strides + rate * (a - kh // 2)
            column = j * strides + rate * (b - kw // 2)
            if 0 <= row < height and 0 <= column < width:
                y[:, i, j] += x[:, row, column] * kernel[a, b, 0]
    return y


@pytest.mark.parametrize(
    ("size", "k", "rate", "strides"),
    [
        ((7, 9), 3, 1, 1),
        ((7, 9), 5, 1, 2),
        ((8, 9), 3, 2, 1),
        ((5, 12), 3, 4, 1),
        ((3, 3), 3, 6, 1),
    ],
)
def test_depthwise(size, k, rate, strides):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *size, 4)).astype(np.float32)
    kernel = rng.standard_normal((k, k, 1, 4)).astype(np.float32)
    y = depthwise_conv(x, kernel, rate=rate, strides=strides)
    np.testing.assert_allclose(y, by_hand(x, kernel, rate, strides), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("k", "padding", "message"), [(3, "SAME", "use .CENTER."), (2, "CENTER", "has no centre")]
)
def test_padding_that_is_refused(k, padding, message):
    with pytest.raises(ValueError, match=message):
        depthwise_conv(np.zeros((1, 4, 4, 2)), np.zeros((k, k, 1, 2)), padding=padding)


@pytest.mark.parametrize(("between", "norms"), [(True, 2), (False, 1)])
def test_separable_block(between, norms):
    """The parameters of both convolutions, and normalisation once or twice."""
    block = SeparableConvNormAct(5, rate=2, norm_between=between)
    x = np.ones((2, 6, 6, 3), np.float32)
    y, variables = jax.eval_shape(
        lambda key: block.init_with_output(key, x, train=False), jax.random.key(0)
    )
    shapes = flax.traverse_util.flatten_dict(variables["params"], sep="/")
    assert y.shape == (2, 6, 6, 5)
    assert shapes["depthwise/conv/kernel"].shape == (3, 3, 1, 3)
    assert shapes["pointwise/conv/kernel"].shape == (1, 1, 3, 5)
    assert sum(path.endswith("norm/scale") for path in shapes) == norms
