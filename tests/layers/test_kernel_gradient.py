"""Large maps: the same gradients as XLA's own, by another program on CPUs."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.layers import atrous_conv, kernel_gradient
from segjax.layers.kernel_gradient import _true


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def gradients(x, kernel, **options):
    def loss(x, kernel):
        return jnp.sum(jnp.sin(atrous_conv(jnp.maximum(x, 0) + 1, kernel, **options)))

    return jax.jit(jax.grad(loss, (0, 1)))(x, kernel)


@pytest.mark.parametrize(
    ("size", "channels", "options"),
    [
        (3, (5, 4), {}),
        (3, (4, 6), dict(strides=2, padding="SAME")),
        (3, (4, 3), dict(rate=2)),
        (5, (2, 3), dict(rate=2)),
        (1, (3, 5), {}),
        (1, (5, 3), dict(strides=2)),
        (2, (3, 2), dict(strides=2, padding=((0, 1), (1, 1)))),
        (2, (3, 2), dict(padding=((1, 1), (1, 1)))),
    ],
)
def test_gradients_of_large_maps_are_those_of_small_ones(monkeypatch, size, channels, options):
    x, kernel = normal(0, 2, 9, 10, channels[0]), normal(1, size, size, *channels)
    expected = gradients(x, kernel, **options)
    monkeypatch.setattr(kernel_gradient, "_LARGE", 1)
    for ours, theirs in zip(gradients(x, kernel, **options), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_large_map_is_transposed_by_itself():
    """In a branch, into which XLA fuses nothing."""
    branches = []
    for rows in (64, 8):
        x, kernel = normal(0, 2, rows, 64, 32), normal(1, 3, 3, 32, 32)
        loss = lambda kernel, x: jnp.sum(jnp.sin(atrous_conv(x * 2 + 1, kernel)))  # noqa: E731
        text = jax.jit(jax.grad(loss)).lower(kernel, x).compile().as_text()
        branches.append(len(re.findall(r" conditional\(", text)))
    assert branches == [1, 0]


def test_no_map_of_a_pointwise_convolution_is_transposed():
    x, kernel = normal(0, 2, 64, 64, 24), normal(1, 1, 1, 24, 40)
    loss = lambda kernel, x: jnp.sum(jnp.sin(atrous_conv(x * 2 + 1, kernel)))  # noqa: E731
    text = jax.jit(jax.grad(loss)).lower(kernel, x).compile().as_text()
    assert "[8192,24]" in text
    assert "[24,8192]" not in text


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_true_is_true_of_every_number(value):
    assert jax.jit(_true)(jnp.full((2, 2), value))


def test_second_derivatives(monkeypatch):
    monkeypatch.setattr(kernel_gradient, "_LARGE", 1)
    x, kernel = normal(0, 1, 4, 5, 2), normal(1, 3, 3, 2, 3)
    apply = functools.partial(atrous_conv, x)
    squared = jax.grad(lambda k: jnp.sum(jax.grad(lambda k: jnp.sum(apply(k) ** 2))(k) ** 2))
    a = jax.jacobian(apply)(kernel).reshape(-1, kernel.size)
    k = kernel.reshape(-1)
    np.testing.assert_allclose(
        squared(kernel).reshape(-1), 8 * a.T @ a @ (a.T @ a @ k), rtol=1e-3, atol=1e-2
    )
