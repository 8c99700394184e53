"""The form of few products against XLA's convolution, in numbers, gradients and choice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from segjax.layers import atrous_conv
from segjax.layers.dilated import centered_padding, dilated_conv
from segjax.layers.winograd import pays, winograd_conv


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize("rate", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (6, 8), (7, 5), (13, 16)])
def test_it_is_the_convolution(size, rate):
    with jax.enable_x64(True):
        x, kernel, dy = normal(0, 2, *size, 3), normal(1, 3, 3, 3, 4), normal(2, 2, *size, 4)
        padding = centered_padding(kernel, rate)
        expected, pull = jax.vjp(lambda x, k: dilated_conv(x, k, rate, padding), x, kernel)
        found, ours = jax.vjp(lambda x, k: winograd_conv(x, k, rate), x, kernel)
        results = [found, *ours(dy)], [expected, *pull(dy)]
        for a, b in zip(*map(jax.tree.leaves, results), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_rounding_in_float32_is_that_of_the_plain_form():
    """Against float64: at most three times the plain form's error."""
    x, kernel = normal(0, 2, 16, 16, 256), normal(1, 3, 3, 256, 256)
    with jax.enable_x64(True):
        wide = x.astype("f8"), kernel.astype("f8")
        exact = np.asarray(dilated_conv(*wide, 1, centered_padding(kernel, 1)))
    plain = dilated_conv(x, kernel, 1, centered_padding(kernel, 1))
    errors = [np.abs(y - exact).max() for y in (winograd_conv(x, kernel, 1), plain)]
    assert errors[0] < 3 * errors[1]
    assert errors[0] < 1e-6 * np.abs(exact).max()


def program(x, kernel, **options):
    compiled = jax.jit(lambda x, k: atrous_conv(x, k, **options)).lower(x, kernel).compile()
    return compiled.as_text() or ""


@pytest.mark.parametrize(
    ("size", "channels", "options", "expected"),
    [
        ((16, 16), (256, 256), {}, True),
        ((16, 16), (512, 256), dict(rate=2), True),
        ((16, 16), (256, 64), {}, False),  # few channels
        ((4, 4), (256, 256), {}, False),  # few cells
        ((16, 16), (256, 256), dict(strides=2), False),
        ((16, 16), (256, 256), dict(padding="SAME"), True),
        ((13, 26), (256, 256), dict(rate=3), False),  # much padding
    ],
)
def test_where_it_runs(size, channels, options, expected):
    x, kernel = jnp.zeros((2, *size, channels[0])), jnp.zeros((3, 3, *channels))
    assert (" convolution(" not in program(x, kernel, **options)) == expected


def test_where_it_does_not_run():
    x, kernel = jnp.zeros((2, 16, 16, 256)), jnp.zeros((3, 3, 256, 256))
    assert pays(x, kernel, 1)
    assert not pays(x.astype(jnp.bfloat16), kernel, 1)
    assert not pays(x, jnp.zeros((5, 5, 256, 256)), 1)
    with jax.sharding.use_abstract_mesh(AbstractMesh((1, 4), ("data", "space"))):
        assert not pays(x, kernel, 1)
    with jax.sharding.use_abstract_mesh(AbstractMesh((4, 1), ("data", "space"))):
        assert pays(x, kernel, 1)
