"""Pyramid pooling and atrous spatial pyramid pooling."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.layers import AtrousSpatialPyramidPooling, PyramidPooling

pytestmark = pytest.mark.versions


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def initialised(module, x):
    """Outputs of a freshly initialised module, and its variables."""
    init = jax.jit(lambda key, x: module.init_with_output(key, x, train=False))
    return init(jax.random.key(0), x)


def parameter_shapes(module, x) -> dict[str, tuple[int, ...]]:
    variables = jax.eval_shape(lambda key: module.init(key, x, train=False), jax.random.key(0))
    flat = flax.traverse_util.flatten_dict(variables["params"], sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}


@pytest.mark.parametrize(
    ("size", "align_corners"),
    [((7, 9), True), ((2, 3), False), ((1, 1), False)],
    ids=str,
)
def test_pyramid_keeps_the_map_and_adds_its_bins(size, align_corners):
    x = normal(2, *size, 8)
    y, variables = initialised(PyramidPooling(align_corners=align_corners), x)
    assert y.shape == (2, *size, 8 + 4 * 2)
    np.testing.assert_array_equal(y[..., :8], x)
    # One bin: the projected mean, the same everywhere.
    kernel = variables["params"]["bin1"]["conv"]["kernel"][0, 0]
    mean = jnp.maximum(x.mean((1, 2), keepdims=True) @ kernel, 0)
    np.testing.assert_allclose(
        y[..., 8:10], jnp.broadcast_to(mean, (2, *size, 2)), rtol=1e-4, atol=1e-5
    )


def test_pyramid_of_a_constant_is_constant():
    y, _ = initialised(
        PyramidPooling((1, 2, 3, 6, 8), features=5),
        np.full((1, 7, 5, 4), 0.5, np.float32),
    )
    assert y.shape == (1, 7, 5, 4 + 5 * 5)
    np.testing.assert_allclose(y, jnp.broadcast_to(y[:, :1, :1], y.shape), rtol=1e-5, atol=1e-6)


def test_pyramid_parameter_paths():
    wanted = {}
    for bins in (1, 2, 3, 6):
        wanted[f"bin{bins}/conv/kernel"] = (1, 1, 8, 2)
        wanted[f"bin{bins}/norm/scale"] = wanted[f"bin{bins}/norm/bias"] = (2,)
    assert parameter_shapes(PyramidPooling(), normal(1, 6, 6, 8)) == wanted


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pyramid_without_reduction_has_the_pooled_maps(pooling):
    """One bin is the same everywhere; as many bins as cells are the map."""
    x = normal(2, 3, 3, 4)
    y, variables = initialised(PyramidPooling((1, 3), pooling=pooling, reduce=False), x)
    assert variables == {}
    pooled = x.mean((1, 2), keepdims=True) if pooling == "mean" else x.max((1, 2), keepdims=True)
    wanted = np.concatenate([x, np.broadcast_to(pooled, x.shape), x], -1)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)


def test_pyramid_of_maxima_projects_them():
    x = normal(2, 5, 7, 8)
    y, variables = initialised(PyramidPooling(pooling="max"), x)
    kernel = variables["params"]["bin1"]["conv"]["kernel"][0, 0]
    wanted = jnp.maximum(x.max((1, 2), keepdims=True) @ kernel, 0)
    np.testing.assert_allclose(
        y[..., 8:10], jnp.broadcast_to(wanted, (2, 5, 7, 2)), rtol=1e-4, atol=1e-5
    )
    means = parameter_shapes(PyramidPooling(), x)
    assert parameter_shapes(PyramidPooling(pooling="max"), x) == means


@pytest.mark.parametrize("size", [(13, 9), (1, 2)], ids=str)
@pytest.mark.parametrize("image_pooling", [True, False])
def test_aspp_shapes(size, image_pooling):
    module = AtrousSpatialPyramidPooling((2, 4, 12), 5, image_pooling)
    init = lambda x: module.init_with_output(jax.random.key(0), x, train=False)  # noqa: E731
    y, variables = jax.eval_shape(init, normal(2, *size, 8))
    assert y.shape == (2, *size, 5)
    branches = 4 + image_pooling
    assert variables["params"]["project"]["conv"]["kernel"].shape == (1, 1, branches * 5, 5)
    assert ("image_pooling" in variables["params"]) == image_pooling


def test_aspp_parameter_paths():
    shapes = parameter_shapes(AtrousSpatialPyramidPooling(features=5), normal(1, 6, 6, 8))
    kernels = {path: shape for path, shape in shapes.items() if path.endswith("kernel")}
    assert kernels == {
        "conv1x1/conv/kernel": (1, 1, 8, 5),
        "atrous1/conv/kernel": (3, 3, 8, 5),
        "atrous2/conv/kernel": (3, 3, 8, 5),
        "atrous3/conv/kernel": (3, 3, 8, 5),
        "image_pooling/conv/kernel": (1, 1, 8, 5),
        "project/conv/kernel": (1, 1, 25, 5),
    }


def test_aspp_at_rates_past_the_map_sees_its_own_cell_and_the_image():
    # Section 3.3: a 3x3 kernel whose rate nears the map's size is its centre tap.
    module = AtrousSpatialPyramidPooling((50,), 5, image_pooling=False)
    x = normal(1, 6, 4, 8)
    y, _ = initialised(module, x)
    moved, _ = initialised(module, np.roll(x, 1, axis=1))
    np.testing.assert_allclose(moved, np.roll(y, 1, axis=1), rtol=1e-5, atol=1e-6)


def test_aspp_of_a_constant():
    # Constant where no branch sees padding; with 1x1 branches only, everywhere.
    module = AtrousSpatialPyramidPooling((50,), 5)
    y, _ = initialised(module, np.full((1, 7, 5, 4), 0.5, np.float32))
    np.testing.assert_allclose(y, jnp.broadcast_to(y[:, :1, :1], y.shape), rtol=1e-5, atol=1e-6)


def test_dropout_only_in_training():
    module = AtrousSpatialPyramidPooling((2,), 16, dropout_rate=0.5)
    x = normal(2, 6, 6, 4)
    y, variables = initialised(module, x)
    again = jax.jit(lambda v: module.apply(v, x, train=False))(variables)
    np.testing.assert_allclose(again, y, rtol=1e-5, atol=1e-6)
    dropped, _ = jax.jit(
        lambda v, key: module.apply(
            v, x, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
    )(variables, jax.random.key(1))
    assert float(jnp.mean(dropped == 0)) > float(jnp.mean(y == 0)) + 0.15


@pytest.mark.parametrize(
    "module",
    [PyramidPooling(dtype=jnp.bfloat16), AtrousSpatialPyramidPooling((2,), 4, dtype=jnp.bfloat16)],
)
def test_bfloat16(module):
    x = normal(1, 6, 6, 8)
    out, variables = jax.eval_shape(
        lambda key: module.init_with_output(key, x, train=False), jax.random.key(0)
    )
    assert out.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
