"""Atrous convolution, and the convolution-normalisation-activation block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from segjax.layers import Conv, ConvNormAct, atrous_conv
from segjax.layers.conv import _TAP_SUM_BELOW, _share_inside
from segjax.layers.dilated import dilated_conv, dilated_conv_with_phases

pytestmark = pytest.mark.versions


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def xla_conv(x, kernel, rate, strides=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        [(rate * (k // 2),) * 2 for k in kernel.shape[:2]],
        rhs_dilation=(rate, rate),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def test_equals_torch(torch_conv):
    case = torch_conv

    @jax.jit
    def conv(x, kernel, cotangent):
        y, vjp = jax.vjp(
            lambda x, kernel: atrous_conv(x, kernel, rate=case["rate"], strides=case["strides"]),
            x,
            kernel,
        )
        return y, *vjp(cotangent)

    y, x_gradient, kernel_gradient = conv(case["x"], case["kernel"], case["cotangent"])
    np.testing.assert_array_equal(y, case["y"])
    np.testing.assert_array_equal(x_gradient, case["x_gradient"])
    np.testing.assert_array_equal(kernel_gradient, case["kernel_gradient"])


@pytest.mark.parametrize(
    ("size", "kernel_size", "rate", "taps"),
    [
        ((13, 9), (3, 3), 1, False),
        ((33, 33), (3, 3), 6, False),
        ((33, 33), (3, 3), 8, False),
        ((33, 33), (3, 3), 9, True),
        ((17, 17), (3, 3), 16, True),
        ((13, 9), (3, 3), 9, True),  # the rate equals the width
        ((13, 9), (3, 3), 36, True),  # only the centre sees the map
        ((12, 7), (5, 3), 3, True),
        ((20, 24), (1, 3), 10, False),
        ((20, 24), (1, 3), 12, True),
        ((1, 1), (3, 3), 2, True),
        ((4, 4), (7, 7), 1, False),  # 49 products for 16 cells would not pay
    ],
    ids=str,
)
def test_sum_of_taps_is_the_convolution(size, kernel_size, rate, taps):
    x, kernel = normal(2, *size, 16), normal(*kernel_size, 16, 8, seed=1)
    if rate > 1:
        assert (_share_inside(size, kernel.shape, rate) < _TAP_SUM_BELOW) == taps
    program = jax.jit(lambda x: atrous_conv(x, kernel, rate=rate)).lower(x).as_text()
    assert ("stablehlo.convolution" in program) != taps

    @jax.jit
    def both(x, kernel):
        results = []
        for conv in (lambda x, k: atrous_conv(x, k, rate=rate), lambda x, k: xla_conv(x, k, rate)):
            y, vjp = jax.vjp(conv, x, kernel)
            results.append((y, *vjp(jnp.cos(jnp.arange(y.size)).reshape(y.shape))))
        return results

    for found, wanted in zip(*both(x, kernel), strict=True):
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-6 * scale)


@pytest.mark.parametrize(("rate", "convolutions"), [(1, 1), (12, 1), (13, 3), (15, 3), (25, 0)])
def test_far_rates_go_by_rows(rate, convolutions):
    """At more than a quarter of 48 rows, row by row of the kernel, as long as most taps count."""
    x, kernel = normal(1, 48, 96, 2), normal(3, 3, 2, 2, seed=1)
    program = jax.jit(lambda x: atrous_conv(x, kernel, rate=rate)).lower(x).as_text()
    assert program.count("stablehlo.convolution(") == convolutions
    found = atrous_conv(x, kernel, rate=rate)
    np.testing.assert_allclose(found, xla_conv(x, kernel, rate), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "kernel_size", "rate"),
    [((12, 8), (3, 3), 2), ((13, 9), (3, 3), 2), ((19, 17), (5, 3), 3), ((9, 20), (1, 3), 4),
     ((9, 9), (3, 3), 4), ((9, 7), (3, 3), 8)],
    ids=str,
)  # fmt: skip
def test_the_kernels_gradient_by_phases_or_taps(size, kernel_size, rate):
    """What GPUs compute, here on a CPU."""
    x, kernel = normal(2, *size, 3), normal(*kernel_size, 3, 2, seed=1)
    y, vjp = jax.vjp(lambda x, k: dilated_conv_with_phases(rate, x, k), x, kernel)
    wanted, wanted_vjp = jax.vjp(lambda x, k: xla_conv(x, k, rate), x, kernel)
    np.testing.assert_array_equal(y, wanted)
    cotangent = normal(*y.shape, seed=2)
    for a, b in zip(vjp(cotangent), wanted_vjp(cotangent), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", [(12, 9), (5, 4)], ids=["phases", "too small for phases"])
@pytest.mark.parametrize("inputs", [1, 2])
def test_the_kernels_gradient_by_phases_of_groups(inputs, size):
    x, kernel = normal(2, *size, 4), normal(3, 3, inputs, 4, seed=1)
    y, vjp = jax.vjp(lambda x, k: dilated_conv_with_phases(2, x, k), x, kernel)
    plain = lambda x, k: dilated_conv(x, k, 2, ((2, 2), (2, 2)), groups=4 // inputs)  # noqa: E731
    wanted, wanted_vjp = jax.vjp(plain, x, kernel)
    np.testing.assert_array_equal(y, wanted)
    cotangent = normal(*y.shape, seed=2)
    for a, b in zip(vjp(cotangent), wanted_vjp(cotangent), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)


def test_a_frozen_bias_has_no_gradient():
    x = normal(1, 4, 4, 2)
    for frozen in (False, True):
        conv = Conv(3, use_bias=True, frozen_bias=frozen)
        variables = conv.init(jax.random.key(0), x)
        gradient = jax.grad(lambda v, conv=conv: jnp.sum(conv.apply(v, x)))(variables)["params"]
        np.testing.assert_array_equal(gradient["bias"], 0 if frozen else 16)
        assert np.any(gradient["kernel"])


def test_share_inside_counts_taps():
    size, kernel_size, rate = (5, 8), (3, 5), 2
    inside = 0
    for i, j in np.ndindex(size):
        for a, b in np.ndindex(kernel_size):
            y, x = i + rate * (a - kernel_size[0] // 2), j + rate * (b - kernel_size[1] // 2)
            inside += 0 <= y < size[0] and 0 <= x < size[1]
    total = np.prod(size) * np.prod(kernel_size)
    assert _share_inside(size, (*kernel_size, 1, 1), rate) == pytest.approx(inside / total)


def test_1x1_is_a_matrix_product():
    x, kernel = normal(2, 7, 5, 4), normal(1, 1, 4, 3, seed=1)
    for strides in (1, 2):
        found = atrous_conv(x, kernel, strides=strides)
        np.testing.assert_allclose(found, xla_conv(x, kernel, 1, strides), rtol=1e-5, atol=1e-5)
    padded = atrous_conv(x, kernel, padding=((1, 1), (0, 0)))
    assert padded.shape == (2, 9, 5, 3)
    np.testing.assert_array_equal(padded[:, 0], 0)


def test_derivatives_and_vmap():
    x, kernel = normal(3, 1, 5, 4, 2), normal(3, 3, 2, 2, seed=1)
    for rate in (1, 3):
        conv = lambda x, k: atrous_conv(x, k, rate=rate)  # noqa: B023, E731
        check_grads(jax.jit(conv), (x[0], kernel), 1, eps=0.5)  # bilinear: any step is exact
        found = jax.vmap(conv, (0, None))(x, kernel)
        np.testing.assert_allclose(found[2], conv(x[2], kernel), rtol=1e-5, atol=1e-5)


def test_even_kernels_need_padding_pairs():
    x, kernel = normal(1, 6, 6, 2), normal(2, 2, 2, 2)
    with pytest.raises(ValueError, match=r"even kernel \(2, 2\) has no centre; give padding"):
        atrous_conv(x, kernel)
    assert atrous_conv(x, kernel, padding=((0, 1), (0, 1))).shape == (1, 6, 6, 2)


def test_conv_computes_in_dtype_with_float32_parameters():
    x = normal(1, 6, 6, 2)
    conv = Conv(3, use_bias=True, dtype=jnp.bfloat16)
    variables = conv.init(jax.random.key(0), x)
    assert jax.tree.map(lambda p: (p.shape, p.dtype), variables["params"]) == {
        "kernel": ((3, 3, 2, 3), jnp.float32),
        "bias": ((3,), jnp.float32),
    }
    y = conv.apply(variables, x)
    assert y.dtype == jnp.bfloat16
    wanted = xla_conv(x, variables["params"]["kernel"], 1)
    np.testing.assert_allclose(y.astype(jnp.float32), wanted, rtol=0.05, atol=0.05)


def test_block_normalises_with_linen_momentum():
    x = 3 + normal(4, 5, 7, 2)
    block = ConvNormAct(3, 1, activation=None)
    variables = block.init(jax.random.key(0), x, train=False)
    assert sorted(variables["params"]) == ["conv", "norm"]
    assert sorted(variables["params"]["conv"]) == ["kernel"]
    y, updates = block.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(jnp.mean(y, (0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(jnp.var(y, (0, 1, 2)), 1, atol=1e-3)
    # torch's momentum of 0.1: a tenth of the batch's mean, from 0.
    mean = jnp.mean(x @ variables["params"]["conv"]["kernel"][0, 0], (0, 1, 2))
    np.testing.assert_allclose(
        updates["batch_stats"]["norm"]["mean"], 0.1 * mean, rtol=1e-3, atol=1e-4
    )
    # Fresh statistics (0 and 1) change nothing but the epsilon.
    still = block.apply(variables, x, train=False)
    wanted = x @ variables["params"]["conv"]["kernel"][0, 0] / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(still, wanted, rtol=1e-4, atol=1e-5)
