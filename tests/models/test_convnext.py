"""ConvNeXt: atrous stages compute what strided ones do; stochastic depth; what is fresh."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models import convnext
from segjax.models.convnext import ConvNeXt
from tests.models.probing import draw


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    monkeypatch.setitem(convnext.VARIANTS, "convnext_tiny", (1, 1, 2, 2))


def variables_of(encoder, size=(64, 64)):
    """Drawn values, among them layer scales that let the blocks through."""
    init = functools.partial(encoder.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, *size, 3)))

    def leaf(path, abstract):
        name = "/".join(key.key for key in path).replace("/scale", "/gamma")
        return draw().draw(name, abstract.shape, channels_last=True)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def maps(encoder, variables, x, **options):
    return jax.jit(functools.partial(encoder.apply, train=False, **options))(variables, x)


@pytest.mark.parametrize("output_stride", [pytest.param(16, marks=pytest.mark.slow), 8])
def test_atrous_stages_compute_the_strided_ones_values(output_stride):
    strided = ConvNeXt(width=1 / 12)
    variables = variables_of(strided)
    x = draw().images(1, 128, 192)
    wanted = maps(strided, variables, x)
    found = maps(strided.clone(output_stride=output_stride), variables, x)
    for stride, a, b in zip((4, 8, 16, 32), found[1:], wanted[1:], strict=True):
        step = max(1, stride // output_stride)
        assert a.shape[1] == b.shape[1] * step
        np.testing.assert_allclose(a[:, ::step, ::step], b, rtol=0, atol=1e-5 * np.abs(b).max())


def test_stochastic_depth():
    """In training a branch is left out for some examples, and made up for in the others; in
    evaluation nothing changes. The first block is never left out."""
    block = convnext.Block(drop_rate=0.5)
    x = draw().images(64, 3, 4, channels=2)
    variables = variables_of_block(block, x)
    apply = jax.jit(block.apply, static_argnames="train")
    branch = apply(variables, x, train=False) - x
    found = apply(variables, x, train=True, rngs={"dropout": jax.random.key(1)}) - x
    kept = np.abs(found).max((1, 2, 3)) > 1e-6
    assert 16 < kept.sum() < 48
    np.testing.assert_allclose(found[kept], 2 * branch[kept], rtol=1e-4, atol=1e-5)
    rates = []

    def record(next_function, args, kwargs, context):
        if isinstance(context.module, convnext.Block) and context.method_name == "__call__":
            rates.append(context.module.drop_rate)
        return next_function(*args, **kwargs)

    with nn.intercept_methods(record):
        variables_of(ConvNeXt(width=1 / 12, drop_path_rate=0.5))
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3, 0.4, 0.5])


def variables_of_block(block, x):
    shapes = jax.eval_shape(functools.partial(block.init, train=False), jax.random.key(0), x)
    return jax.tree.map(lambda leaf: draw().draw("kernel", leaf.shape, channels_last=True), shapes)


def test_a_fresh_block_is_the_identity():
    x = draw().images(1, 5, 6, channels=4)
    block = convnext.Block()
    init = jax.jit(functools.partial(block.init_with_output, train=False))
    found, _ = init(jax.random.key(0), x)
    np.testing.assert_allclose(found, x, rtol=0, atol=1e-4)
