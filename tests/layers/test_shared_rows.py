"""Layers on a map whose rows are shared between devices: what they send each other.

Forward and backward, each device may ask its neighbours for rows and add up what is small; a
gathered map fails. The numbers are those of one device. Whole networks: tests/training/test_space.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from segjax.accelerators.collectives import collectives
from segjax.layers import (
    adaptive_avg_pool,
    atrous_conv,
    bilinear_conv_transpose,
    depthwise_conv,
    grouped_conv,
    max_pool,
    max_pool_2x2,
    max_unpool_2x2,
    resize_bilinear,
    resize_nearest,
)
from segjax.layers import conv as conv_module
from segjax.metrics.confusion import confusion_matrix

pytestmark = pytest.mark.versions

WIDTH, CHANNELS = 48, 2


def kernel(*size):
    draw = np.random.default_rng(1).standard_normal((*size, CHANNELS, 3))
    return draw.astype(np.float32)


def conv(rate=1, size=3, strides=1):
    weights = kernel(size, size)
    return lambda x: atrous_conv(x, weights, rate=rate, strides=strides)


def depthwise(rate=1, size=3, strides=1):
    weights = kernel(size, size)[:, :, None, :, 0]
    return lambda x: depthwise_conv(x, weights, rate=rate, strides=strides)


def grouped(strides=1):
    weights = kernel(3, 3)[:, :, :1, :2]
    return lambda x: grouped_conv(jnp.concatenate([x, x], -1)[..., ::2], weights, strides=strides)


# The function, the rows of its input, the devices.
LAYERS = {
    "7x7 stride 2": (conv(size=7, strides=2), 32, 4),
    "1x1 stride 2": (conv(size=1, strides=2), 32, 4),
    "rate within a share": (conv(rate=2), 32, 4),
    "rate of several shares": (conv(rate=12), 64, 8),
    "rate of a quarter": (conv(rate=12), 48, 4),
    "rate of more": (conv(rate=18), 48, 8),  # by rows of the kernel
    "rate of more than half": (conv(rate=18), 32, 4),  # by taps
    "rate of almost all rows": (conv(rate=24), 32, 8),
    "depthwise 7x7": (depthwise(size=7), 32, 4),
    "depthwise 5x5 stride 2": (depthwise(size=5, strides=2), 32, 4),
    "depthwise rate of several shares": (depthwise(rate=12), 64, 8),
    "depthwise rate of almost all rows": (depthwise(rate=24), 32, 8),
    "grouped stride 2": (grouped(strides=2), 32, 4),
    "3x3 max pooling": (lambda x: max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))), 64, 8),
    "unpooling": (lambda x: max_unpool_2x2(*max_pool_2x2(x), x.shape[1:3]), 32, 8),
    "pyramid": (lambda x: [adaptive_avg_pool(x, (b, b)) for b in (1, 2, 3, 6)], 64, 8),
    "pyramid and back": (
        lambda x: resize_bilinear(adaptive_avg_pool(x, (6, 6)), x.shape[1:3]),
        64,
        4,
    ),
    "8 times": (lambda x: resize_bilinear(x, (128, 8 * WIDTH)), 16, 8),
    "8 times, corners": (lambda x: resize_bilinear(x, (128, 32), align_corners=True), 16, 8),
    "3 to 2": (lambda x: resize_bilinear(x, (32, 8)), 48, 4),
    "awkward ratio": (lambda x: resize_bilinear(x, (360, WIDTH)), 256, 4),
    "fixed deconvolution": (lambda x: bilinear_conv_transpose(x, 4, strides=2, padding=1), 16, 4),
}


def shared(space):
    mesh = jax.make_mesh((space,), ("space",), (AxisType.Auto,), devices=jax.devices()[:space])
    return NamedSharding(mesh, PartitionSpec(None, "space")), NamedSharding(mesh, PartitionSpec())


# They take the way of another that is here, at another rate or size.
SLOW = (
    "rate within a share",
    "rate of a quarter",
    "rate of almost all rows",
    "depthwise rate of several shares",
    "grouped stride 2",
    "pyramid",
    "8 times, corners",
    "3 to 2",
)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in LAYERS]
)
def test_exchanges_and_numbers(name, monkeypatch):
    monkeypatch.setattr(conv_module, "_TAP_SUM_BELOW", 0.55)  # as accelerators, mostly not by taps
    layer, height, space = LAYERS[name]
    x = np.random.default_rng(0).standard_normal((1, height, WIDTH, CHANNELS)).astype(np.float32)

    rows, whole = shared(space)

    def program(x):
        with jax.sharding.use_abstract_mesh(rows.mesh.abstract_mesh):  # as a step does
            y, vjp = jax.vjp(layer, x)
            return y, vjp(jax.tree.map(jnp.sin, y))[0]

    # A pyramid's levels are whole everywhere, other results shared as their input is.
    out = jax.tree.map(
        lambda y: rows if y.shape[1] % space == 0 else whole, jax.eval_shape(program, x)
    )
    compiled = jax.jit(program, out_shardings=out).lower(jax.device_put(x, rows)).compile()
    for found in collectives(compiled.as_text()):
        if found.kind != "collective-permute":
            assert found.kind == "all-reduce", found
            assert sum(a.elements for a in found.arrays) <= (1 + 4 + 9 + 36) * CHANNELS, found
    found = jax.tree.leaves(compiled(jax.device_put(x, rows)))
    for a, b in zip(found, jax.tree.leaves(jax.jit(program)(x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1, np.abs(b).max()))


def test_labels_stay_where_they_are():
    rows, whole = shared(4)
    rng = np.random.default_rng(0)
    labels, predictions = (rng.integers(0, 6, (2, 32, 24)).astype(np.int32) for _ in range(2))

    def program(labels, predictions):
        counts = confusion_matrix(labels, predictions, 5)
        each = jax.vmap(confusion_matrix, (0, 0, None))(labels, predictions, 5)
        return counts, each, resize_nearest(labels, (64, 48))

    args = [jax.device_put(x, rows) for x in (labels, np.minimum(predictions, 4))]
    compiled = jax.jit(program, out_shardings=(whole, whole, rows)).lower(*args).compile()
    found = collectives(compiled.as_text())
    assert {c.kind for c in found} == {"all-reduce"}
    assert sum(a.elements for c in found for a in c.arrays) == 3 * (5 * 5 + 1)
    counts, each, enlarged = compiled(*args)
    np.testing.assert_array_equal(each.sum(0), counts)
    assert counts.sum() == (labels < 5).sum()
    np.testing.assert_array_equal(enlarged, labels.repeat(2, 1).repeat(2, 2))
