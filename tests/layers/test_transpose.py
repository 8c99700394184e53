"""Transposed convolution, and bilinear upsampling by it."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from segjax.layers import (
    ConvTranspose,
    bilinear_conv_transpose,
    bilinear_kernel,
    conv_transpose,
    resize_bilinear,
)

pytestmark = pytest.mark.versions

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "comparison.npz"
CASES = 10  # make_comparison.py: TRANSPOSES


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def brute_force(x, kernel, strides, padding):
    """Each cell adds its multiple of the kernel."""
    n, h, w, _ = x.shape
    kh, kw, _, o = kernel.shape
    y = np.zeros((n, (h - 1) * strides + kh, (w - 1) * strides + kw, o), np.float64)
    for i, j in np.ndindex(h, w):
        rows, columns = i * strides, j * strides
        y[:, rows : rows + kh, columns : columns + kw] += np.einsum(
            "ni,abio->nabo", x[:, i, j], kernel
        )
    return y[:, padding : y.shape[1] - padding, padding : y.shape[2] - padding]


@pytest.mark.parametrize("index", range(CASES))
def test_equals_torch(index):
    with np.load(GOLDENS) as file:
        assert f"transpose{CASES}/x" not in file.files  # none is left out
        prefix = f"transpose{index}/"
        case = {k.removeprefix(prefix): file[k] for k in file.files if k.startswith(prefix)}
    strides, padding = map(int, case["geometry"])

    @jax.jit
    def run(x, kernel, cotangent):
        y, vjp = jax.vjp(
            lambda x, k: conv_transpose(x, k, strides=strides, padding=padding), x, kernel
        )
        return y, *vjp(cotangent)

    y, x_gradient, kernel_gradient = run(case["x"], case["kernel"], case["cotangent"])
    np.testing.assert_array_equal(y, case["y"])
    np.testing.assert_array_equal(x_gradient, case["x_gradient"])
    np.testing.assert_array_equal(kernel_gradient, case["kernel_gradient"])
    np.testing.assert_array_equal(
        y, brute_force(case["x"], case["kernel"], strides, padding).astype(np.float32)
    )


def test_hand_computed():
    x = jnp.array([1.0, 10.0]).reshape(1, 1, 2, 1)
    kernel = jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
    found = conv_transpose(x, kernel, strides=2)
    np.testing.assert_array_equal(found.ravel(), [1, 2, 3 + 10, 20, 30])


def test_is_the_gradient_of_the_convolution():
    x, kernel = normal(1, 4, 5, 3), normal(4, 4, 2, 3, seed=1)

    def conv(y):
        return jax.lax.conv_general_dilated(
            y, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    y = jnp.zeros((1, (4 - 1) * 2 + 4, (5 - 1) * 2 + 4, 2))
    wanted = jax.vjp(conv, y)[1](x)[0]
    found = conv_transpose(x, kernel.swapaxes(2, 3), strides=2)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_no_zeros_are_multiplied():
    x, kernel = jnp.zeros((1, 6, 7, 2)), jnp.zeros((16, 16, 2, 3))
    program = str(jax.make_jaxpr(lambda x: conv_transpose(x, kernel, strides=8))(x))
    assert "lhs_dilation=(1, 1)" in program
    assert program.count("conv_general_dilated[") == 1
    cell = str(jax.make_jaxpr(lambda x: conv_transpose(x, kernel, strides=8))(x[:, :1, :1]))
    assert "conv_general_dilated" not in cell


def test_its_kernels_gradient_has_a_quick_program():
    """By a transposition in a branch of its own: XLA's takes 25 to 400 times as long."""
    x, kernel = normal(2, 6, 7, 3), normal(4, 4, 3, 5, seed=1)
    loss = lambda kernel, x: jnp.sum(jnp.sin(conv_transpose(x, kernel, strides=2)))  # noqa: E731
    text = jax.jit(jax.grad(loss)).lower(kernel, x).compile().as_text()
    assert " conditional(" in text


def test_derivatives_and_vmap():
    x, kernel = normal(3, 1, 3, 4, 2), normal(4, 3, 2, 2, seed=1)
    conv = lambda x, k: conv_transpose(x, k, strides=2, padding=1)  # noqa: E731
    check_grads(jax.jit(conv), (x[0], kernel), 1, ["rev"], eps=0.5)  # bilinear: any step is exact
    found = jax.vmap(conv, (0, None))(x, kernel)
    np.testing.assert_allclose(found[2], conv(x[2], kernel), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", [-1, 3])
def test_padding_must_leave_an_output(padding):
    x, kernel = jnp.zeros((1, 2, 2, 1)), jnp.zeros((4, 4, 1, 1))
    with pytest.raises(
        ValueError, match=rf"padding={padding} on an output of \(6, 6\); use 0 to 2"
    ):
        conv_transpose(x, kernel, strides=2, padding=padding)
    with pytest.raises(ValueError, match=rf"padding={padding} leaves \d+ of 6 output cells"):
        bilinear_conv_transpose(x, 4, strides=2, padding=padding)


def test_bilinear_kernel_by_hand():
    row = np.array([0.25, 0.75, 0.75, 0.25])
    np.testing.assert_array_equal(bilinear_kernel(4), np.outer(row, row))
    odd = np.array([0.5, 1, 0.5])
    np.testing.assert_array_equal(bilinear_kernel(3), np.outer(odd, odd))
    assert bilinear_kernel(16).max() == (1 - 0.5 / 8) ** 2


@pytest.mark.parametrize(
    ("size", "strides", "padding"), [(4, 2, 0), (16, 8, 4), (8, 2, 3), (3, 2, 1), (64, 32, 0)]
)
def test_fixed_form_is_the_fresh_modules(size, strides, padding):
    x = normal(2, 4, 3, 2)
    module = ConvTranspose(2, size, strides, padding, bilinear=True)
    wanted, variables = jax.jit(module.init_with_output)(jax.random.key(0), x)
    assert variables["params"]["kernel"].shape == (size, size, 2, 2)
    found = jax.jit(lambda x: bilinear_conv_transpose(x, size, strides=strides, padding=padding))(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "strides"), [(4, 2), (16, 8), (8, 2), (3, 2), (12, 3)])
def test_bilinear_upsampling_interpolates(size, strides):
    """Away from the border, where it fades, a constant stays and a ramp becomes a finer ramp."""
    margin = size + strides
    enlarge = jax.jit(lambda x: bilinear_conv_transpose(x, size, strides=strides))
    constant = enlarge(np.ones((1, 20, 20, 1), np.float32))
    constant = np.asarray(constant)[0, margin:-margin, margin:-margin]
    np.testing.assert_allclose(constant, 1, rtol=1e-6)
    ramp = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None, None], (1, 20, 20, 1))
    fine = enlarge(ramp)[0, margin:-margin, margin, 0]
    np.testing.assert_allclose(np.diff(fine), 1 / strides, rtol=1e-4)


def test_twice_the_stride_is_half_pixel_resizing():
    x = normal(1, 6, 7, 2)
    wanted = resize_bilinear(x, (24, 28))
    found = bilinear_conv_transpose(x, 8, strides=4, padding=2)
    np.testing.assert_allclose(found[:, 2:-2, 2:-2], wanted[:, 2:-2, 2:-2], rtol=1e-5, atol=1e-5)


def test_fixed_form_keeps_the_dtype():
    x = jnp.ones((1, 3, 3, 1), jnp.bfloat16)
    assert bilinear_conv_transpose(x, 4, strides=2).dtype == jnp.bfloat16


def test_module_has_a_bias_if_asked_and_computes_in_its_dtype():
    x = normal(1, 3, 3, 2)
    module = ConvTranspose(5, (2, 3), strides=2, use_bias=True, dtype=jnp.bfloat16)
    y, variables = module.init_with_output(jax.random.key(0), x)
    assert (y.shape, y.dtype) == ((1, 6, 7, 5), jnp.bfloat16)
    params = variables["params"]
    assert {name: p.shape for name, p in params.items()} == {"kernel": (2, 3, 2, 5), "bias": (5,)}
    assert all(p.dtype == jnp.float32 for p in params.values())
    shifted = module.apply({"params": {**params, "bias": jnp.full(5, 2.0)}}, x)
    np.testing.assert_allclose(np.float32(shifted - y), 2, atol=0.1)


def test_bilinear_modules_keep_the_channels():
    with pytest.raises(ValueError, match=r"square and keeps the channels; not \(4, 4, 2, 3\)"):
        ConvTranspose(3, 4, bilinear=True).init(jax.random.key(0), jnp.zeros((1, 3, 3, 2)))
