"""Bilinear and nearest resizing in both pixel conventions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from segjax.layers import resize_bilinear, resize_nearest

pytestmark = pytest.mark.versions


def test_bilinear_equals_torch(torch_bilinear):
    case = torch_bilinear

    @jax.jit
    def resize(x, cotangent):
        y, vjp = jax.vjp(
            lambda x: resize_bilinear(x, tuple(case["size"]), align_corners=case["align_corners"]),
            x,
        )
        return y, vjp(cotangent)[0]

    y, gradient = resize(case["x"], case["cotangent"])
    # torch computes positions in float32, here they are exact: a few 1e-7 of a pixel apart.
    np.testing.assert_allclose(y, case["y"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, case["gradient"], rtol=1e-5, atol=1e-4)


def test_nearest_equals_torch(torch_nearest):
    found = resize_nearest(torch_nearest["x"], tuple(torch_nearest["size"]))
    np.testing.assert_array_equal(found, torch_nearest["y"])


def test_hand_computed():
    x = jnp.array([0.0, 4.0]).reshape(1, 1, 2, 1)
    half_pixel = resize_bilinear(x, (1, 4))
    np.testing.assert_allclose(half_pixel.ravel(), [0, 1, 3, 4])
    corners = resize_bilinear(x, (1, 5), align_corners=True)
    np.testing.assert_allclose(corners.ravel(), [0, 1, 2, 3, 4])


@pytest.mark.parametrize("align_corners", [False, True])
def test_properties(align_corners):
    x = np.random.default_rng(0).standard_normal((2, 6, 9, 3)).astype(np.float32)
    resize = lambda x, size: resize_bilinear(x, size, align_corners=align_corners)  # noqa: E731
    np.testing.assert_array_equal(resize(x, (6, 9)), x)
    np.testing.assert_allclose(resize(np.ones_like(x), (13, 4)), 1, rtol=1e-6)
    # One axis after the other is both at once.
    np.testing.assert_allclose(
        resize(resize(x, (13, 9)), (13, 4)), resize(x, (13, 4)), rtol=1e-5, atol=1e-6
    )
    corners = resize(x, (11, 17))[:, :: 11 - 1, :: 17 - 1]
    np.testing.assert_allclose(corners, x[:, ::5, ::8], rtol=1e-6)


def test_dtypes_stay():
    x = jnp.ones((1, 2, 3, 1), jnp.bfloat16)
    assert resize_bilinear(x, (5, 5)).dtype == jnp.bfloat16
    labels = np.array([[[0, 255], [3, 7]]], np.uint8)
    enlarged = resize_nearest(labels, (4, 6))
    assert enlarged.dtype == jnp.uint8
    np.testing.assert_array_equal(enlarged, labels.repeat(2, axis=1).repeat(3, axis=2))
    np.testing.assert_array_equal(resize_nearest(enlarged, (2, 2)), labels)


def test_derivatives_vmap_and_no_scatter():
    x = np.random.default_rng(0).standard_normal((2, 1, 5, 4, 2)).astype(np.float32)
    resize = lambda x: resize_bilinear(x, (7, 3), align_corners=True) ** 2  # noqa: E731
    check_grads(jax.jit(resize), (x[0],), 2, ("fwd", "rev"))
    found = jax.vmap(resize)(x)
    np.testing.assert_allclose(found[1], resize(x[1]), rtol=1e-5, atol=1e-6)
    program = str(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(resize(x))))(x[0]))
    assert "scatter" not in program
