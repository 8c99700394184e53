"""Depthwise and grouped convolution, against XLA's own and by brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from segjax.layers import Conv, atrous_conv, depthwise_conv, grouped_conv
from segjax.training.compiler_options import for_training

pytestmark = pytest.mark.versions

CENTER = "CENTER"


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def xla_conv(x, kernel, rate, strides, padding):
    if padding == CENTER:
        padding = [(rate * (k // 2),) * 2 for k in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        padding,
        rhs_dilation=(rate, rate),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


# The map, the kernel's sides, rate, strides, padding.
CASES = [
    ((9, 7), (3, 3), 1, 1, CENTER),
    ((9, 8), (3, 3), 1, 2, CENTER),
    ((8, 9), (3, 3), 1, 2, "SAME"),
    ((8, 9), (3, 5), 2, 3, "SAME"),
    ((4, 5), (5, 7), 1, 1, CENTER),  # wider than the map
    ((5, 9), (3, 3), 4, 1, CENTER),  # moved by more than half of the rows
    ((4, 4), (3, 3), 6, 1, CENTER),  # only the centre sees the map
    ((4, 5), (2, 2), 1, 2, ((0, 0), (0, 0))),
    ((7, 6), (2, 3), 3, 1, ((1, 2), (4, 0))),
    ((1, 1), (3, 3), 1, 2, CENTER),
]  # fmt: skip


@pytest.mark.parametrize(("size", "sides", "rate", "strides", "padding"), CASES, ids=str)
def test_depthwise_sums_are_the_convolution(size, sides, rate, strides, padding):
    check(depthwise_conv, normal(2, *size, 3), normal(*sides, 1, 3, seed=1), rate, strides, padding)


@pytest.mark.parametrize(("size", "sides", "rate", "strides", "padding"), CASES[2:4], ids=str)
def test_gradients_of_a_grouped_convolution(size, sides, rate, strides, padding):
    check(grouped_conv, normal(2, *size, 4), normal(*sides, 2, 6, seed=1), rate, strides, padding)


def check(function, x, kernel, rate, strides, padding):
    """Forward and both gradients, of what a CPU computes."""
    ours = lambda x, k: function(x, k, rate=rate, strides=strides, padding=padding)  # noqa: E731
    program = jax.jit(ours).lower(x, kernel).as_text()
    assert ("stablehlo.convolution" in program) == (function is grouped_conv)

    @jax.jit
    def both(x, kernel):
        results = []
        for conv in (ours, lambda x, k: xla_conv(x, k, rate, strides, padding)):
            y, vjp = jax.vjp(conv, x, kernel)
            results.append((y, *vjp(jnp.cos(jnp.arange(y.size)).reshape(y.shape))))
        return results

    for found, wanted in zip(*both(x, kernel), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-6 * np.abs(wanted).max() + 1e-7)


def test_each_channel_by_hand():
    x, kernel = normal(1, 5, 6, 3), normal(3, 3, 1, 3, seed=1)
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    wanted = np.zeros_like(x)
    for y, z, c in np.ndindex(5, 6, 3):
        for i, j in np.ndindex(3, 3):
            wanted[0, y, z, c] += padded[0, y + 2 * i, z + 2 * j, c] * kernel[i, j, 0, c]
    np.testing.assert_allclose(depthwise_conv(x, kernel, rate=2), wanted, rtol=1e-5, atol=1e-6)


def test_atrous_conv_by_groups():
    x = normal(1, 6, 6, 4)
    for groups, outputs in ((4, 4), (4, 8), (2, 6)):
        kernel = normal(3, 3, 4 // groups, outputs, seed=1)
        found = atrous_conv(x, kernel, groups=groups)
        np.testing.assert_allclose(found, xla_conv(x, kernel, 1, 1, CENTER), rtol=1e-5, atol=1e-5)


def test_half_precision_is_summed_in_float32():
    x, kernel = normal(1, 8, 8, 4), normal(7, 7, 1, 4, seed=1)
    half = [jnp.asarray(a, jnp.bfloat16) for a in (x, kernel)]
    found = depthwise_conv(*half)
    assert found.dtype == jnp.bfloat16
    wanted = xla_conv(*(a.astype(jnp.float32) for a in half), 1, 1, CENTER)
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, rtol=2**-8, atol=1e-6)


def test_a_module_with_groups():
    x = normal(1, 6, 6, 4)
    conv = Conv(8, groups=2)
    variables = conv.init(jax.random.key(0), x)
    assert variables["params"]["kernel"].shape == (3, 3, 2, 8)
    np.testing.assert_allclose(
        conv.apply(variables, x),
        xla_conv(x, variables["params"]["kernel"], 1, 1, CENTER),
        rtol=1e-5,
        atol=1e-5,
    )


def test_kernels_that_do_not_fit():
    x = normal(1, 6, 6, 4)
    with pytest.raises(ValueError, match="3 input channels and 6 outputs cannot be shared"):
        grouped_conv(x, normal(3, 3, 3, 6))
    with pytest.raises(ValueError, match=r'padding=\'VALID\'; use "CENTER", "SAME" or'):
        depthwise_conv(x, normal(3, 3, 1, 4), padding="VALID")


def test_no_map_is_computed_again_for_each_tap():
    """A chain of three: fused into one another, each would be computed 49 times by the next."""
    x, kernels = normal(1, 32, 32, 16), normal(3, 7, 7, 1, 16, seed=1)

    def loss(x, kernels):
        for kernel in kernels:
            x = depthwise_conv(jax.nn.relu(2 * x + 1), kernel)
        return jnp.sum(x**3)

    products = 2 * x.size * 3 * 49
    for function, passes in ((loss, 1), (jax.grad(loss, (0, 1)), 3)):
        program = jax.jit(function).lower(x, kernels)
        flops = program.compile(compiler_options=for_training("cpu")).cost_analysis()["flops"]
        assert flops < 1.5 * passes * products
