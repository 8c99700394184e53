"""Batch normalisation with its activation: linen's numbers, other passes over the map."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.layers import BatchNorm, relu
from segjax.layers.norm import _apart, _together

pytestmark = pytest.mark.versions

X, COTANGENT = np.random.default_rng(0).standard_normal((2, 3, 5, 7, 4)).astype(np.float32)
X = X * np.float32([1, 2, 0.5, 30.0]) + 3


def trained(module, x, activation, cotangent=COTANGENT, **options):
    """Output, statistics, and gradients of input, scale and bias."""
    drawn = jax.device_get(jax.jit(module.init)(jax.random.key(2), x))
    ramp = lambda p: p + (0.3 * np.arange(p.size) - 0.4).astype(p.dtype)  # noqa: E731
    params = jax.tree.map(ramp, drawn["params"])

    def loss(params, x):
        variables = {**drawn, "params": params}
        if isinstance(module, BatchNorm):
            y, new = module.apply(
                variables, x, mutable=["batch_stats"], activation=activation, **options
            )
        else:
            y, new = module.apply(variables, x, mutable=["batch_stats"], **options)
            y = activation(y) if activation else y
        return jnp.sum(y * cotangent), (y, new["batch_stats"])

    gradients, (y, statistics) = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)
    return y, statistics, gradients


@pytest.mark.parametrize("activation", [None, nn.relu, nn.softplus], ids=["none", "relu", "other"])
def test_equals_linen_and_the_activation(activation):
    options = dict(use_running_average=False, momentum=0.8, epsilon=1e-3)
    ours = trained(BatchNorm(**options), X, activation)
    theirs = trained(nn.BatchNorm(**options), X, activation)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_equals_linen_in_float64():
    with jax.enable_x64(True):
        x, cotangent = (np.asarray(v, np.float64) for v in (X, COTANGENT))
        options = dict(use_running_average=False, dtype=jnp.float64, param_dtype=jnp.float64)
        ours = trained(BatchNorm(**options), x, nn.relu, cotangent)
        theirs = trained(nn.BatchNorm(**options), x, nn.relu, cotangent)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            # Linen keeps running statistics in float32.
            np.testing.assert_allclose(a, b, rtol=1e-6 if a.ndim == 1 else 1e-10, atol=1e-10)


def test_half_precision_keeps_its_dtype():
    module = BatchNorm(use_running_average=False, dtype=jnp.bfloat16)
    y, statistics, (params, dx) = trained(module, X.astype(jnp.bfloat16), nn.relu)
    assert (y.dtype, dx.dtype) == (jnp.bfloat16, jnp.bfloat16)
    assert {a.dtype for a in jax.tree.leaves((statistics, params))} == {jnp.dtype("float32")}


def test_masked_cells_are_no_part_of_the_statistics():
    mask = np.array([True, False, True]).reshape(3, 1, 1, 1)
    cotangent = np.where(mask, COTANGENT, 0)
    module = BatchNorm(use_running_average=False, momentum=0.8)
    y, statistics, (params, dx) = trained(module, X, nn.relu, cotangent, mask=mask)
    kept = trained(module, X[::2], nn.relu, COTANGENT[::2])
    np.testing.assert_allclose(y[::2], kept[0], rtol=1e-5, atol=1e-5)
    for a, b in zip(
        jax.tree.leaves((statistics, params)), jax.tree.leaves((kept[1], kept[2][0])), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx[::2], kept[2][1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(dx[1], 0)


def test_running_statistics_evaluate():
    module = BatchNorm(use_running_average=True)
    variables = module.init(jax.random.key(0), X)
    y = module.apply(variables, X - 3, activation=nn.relu)
    np.testing.assert_allclose(y, nn.relu((X - 3) / np.sqrt(1 + 1e-5)), rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 5, 7, 4), (6, 4), (2, 3, 4)], ids=str)
def test_sums_on_gpus_are_sums(shape):
    """What GPUs compute, here on a CPU."""
    a, b = jax.random.normal(jax.random.key(0), (2, *shape))
    for x, y in zip(_together(a, b), _apart(a, b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_relu_has_jax_derivative():
    x = jnp.array([-2.0, -0.0, 0.0, 3.0, jnp.nan, jnp.inf])
    np.testing.assert_array_equal(relu(x), jax.nn.relu(x))
    for ours, theirs in zip(
        jax.vjp(relu, x)[1](x + 1), jax.vjp(jax.nn.relu, x)[1](x + 1), strict=True
    ):
        np.testing.assert_array_equal(ours[:4], theirs[:4])
