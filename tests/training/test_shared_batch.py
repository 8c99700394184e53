"""A padded batch, and a batch in parts, give the numbers of the batch on its own."""

import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.layers import BatchNorm
from segjax.models import build
from segjax.training.shared_batch import norms_of_one_value, shared_batch

INDEX = np.array([3, 9, 4, 20], np.int32)
X = np.random.default_rng(1).normal(1, 2, (4, 6, 5, 8)).astype(np.float32)


class Block(nn.Module):
    """Batch normalisation (linen's or ours), a convolution and dropout."""

    rate: float = 0.0
    dtype: object = jnp.float32
    norm: type = BatchNorm

    @nn.compact
    def __call__(self, x, *, train):
        norm = self.norm(use_running_average=not train, momentum=0.9, dtype=self.dtype, name="norm")
        x = nn.Conv(5, (1, 1), dtype=self.dtype)(norm(x))
        return nn.Dropout(self.rate, deterministic=not train)(x)


def variables(model):
    """Scales and running statistics differ from the initial ones."""
    drawn = model.init(jax.random.key(0), X, train=False)
    return jax.tree.map(lambda v: v + 0.1 * jnp.arange(v.shape[-1]), drawn)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def apply(model, x, index=None, axis_name=None, padded=False):
    """Outputs, new statistics, and the gradient of a sum of squares, without padding rows; outside
    of `shared_batch` if there is no index."""
    given = variables(model)
    counted = 1 if index is None else (index >= 0)[:, None, None, None]

    def shared():
        if index is None:
            return contextlib.nullcontext()
        return shared_batch(index, axis_name=axis_name, padded=padded)

    def loss(params):
        with shared():
            y, new = model.apply(
                {**given, "params": params},
                x,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(5)},
            )
        y = y.astype(jnp.float32)
        return jnp.sum(jnp.square(y * counted)), (y, new["batch_stats"])

    gradient, (y, statistics) = jax.grad(loss, has_aux=True)(given["params"])
    return y, statistics, gradient


def assert_close(ours, theirs, rtol=2e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-4), ours, theirs)


@pytest.mark.parametrize("norm", [BatchNorm, nn.BatchNorm], ids=["ours", "linen"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_padding_rows_are_no_part_of_the_statistics(dtype, norm):
    model = Block(dtype=dtype, norm=norm)
    extra = np.concatenate([X, np.full((3, *X.shape[1:]), 50, np.float32)])
    index = np.concatenate([INDEX, np.full(3, -1, np.int32)])
    y, statistics, gradient = apply(model, extra, index, None, True)
    expected = apply(model, X)
    rounding = 2e-5 if dtype == jnp.float32 else 2e-2
    assert_close((y[:4], statistics), expected[:2], rounding)
    scale = max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(expected[2]))
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected[2]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=rounding * scale)


@pytest.mark.versions
@pytest.mark.parametrize("norm", [BatchNorm, nn.BatchNorm], ids=["ours", "linen"])
def test_parts_on_devices_are_one_batch(norm):
    """Two programs of two rows each have the statistics, dropout masks and gradients of one."""
    model = Block(rate=0.4, norm=norm)
    complete = apply(model, X, INDEX)

    def part(x, index):
        y, statistics, gradient = apply(model, x, index, "rows")
        return y, statistics, jax.lax.psum(gradient, "rows")

    halves = [v.reshape(2, 2, *v.shape[1:]) for v in (X, INDEX)]
    parts = jax.pmap(part, axis_name="rows", devices=jax.devices()[:2])(*halves)
    for device in range(2):
        ours = jax.tree.map(lambda v, device=device: v[device], parts)
        assert_close(ours[0], complete[0][2 * device : 2 * device + 2])
        assert_close(ours[1:], complete[1:])


def test_dropout_masks_belong_to_the_example():
    model = Block(rate=0.4)
    y, _, _ = apply(model, X, INDEX)
    dropped = np.asarray(y) == 0
    assert 0.3 < dropped.mean() < 0.5
    order = np.array([2, 0, 3, 1])
    moved, _, _ = apply(model, X[order], INDEX[order])
    np.testing.assert_array_equal(np.asarray(moved) == 0, dropped[order])
    others, _, _ = apply(model, X, INDEX + 1)
    assert np.mean((np.asarray(others) == 0) != dropped) > 0.2
    channels = nn.Dropout(0.5, broadcast_dims=(1, 2), deterministic=False)
    with shared_batch(INDEX):
        y = channels.apply({}, jnp.ones_like(X), rngs={"dropout": jax.random.key(2)})
    assert set(np.unique(y)) == {0, 2}
    np.testing.assert_array_equal(y, jnp.broadcast_to(y[:, :1, :1], y.shape))


@pytest.mark.parametrize("norm", [BatchNorm, nn.BatchNorm], ids=["ours", "linen"])
@pytest.mark.parametrize("padded", [False, True])
def test_a_frozen_norm_uses_its_running_statistics_and_keeps_them(norm, padded):
    model = Block(norm=norm)
    given = jax.jit(variables, static_argnums=0)(model)

    @functools.partial(jax.jit, static_argnums=2)
    def trained(given, index, frozen):
        with shared_batch(index, padded=padded, frozen_norms=frozenset({frozen})):
            return model.apply(
                given,
                X,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(5)},
            )

    y, new = trained(given, INDEX, "norm")
    assert_close(y, jax.jit(functools.partial(model.apply, train=False))(given, X))
    jax.tree.map(np.testing.assert_array_equal, new["batch_stats"], given["batch_stats"])
    _, new = trained(given, INDEX, "other/norm")
    assert np.all(new["batch_stats"]["norm"]["mean"] != given["batch_stats"]["norm"]["mean"])


PSPNET, DEEPLAB = (
    build({"name": name, "encoder": "resnet18", "width": 0.0625}, 3)
    for name in ("pspnet", "deeplabv3")
)


@pytest.mark.parametrize(
    "model, shape, frozen, expected",
    [
        (PSPNET, (1, 64, 96, 3), (), ["pyramid/bin1/norm"]),
        (PSPNET, (2, 64, 96, 3), (), []),
        (PSPNET, (1, 64, 96, 3), ("pyramid/bin1/norm",), []),
        (DEEPLAB, (1, 64, 96, 3), (), ["aspp/image_pooling/norm"]),
        # A map of one cell, after the stride of 16: all of ASPP and of the last stages.
        (DEEPLAB, (1, 16, 16, 3), (), None),
    ],
    ids=["pspnet", "two images", "frozen", "deeplabv3", "one cell"],
)
def test_norms_of_one_value_are_found_from_shapes(model, shape, frozen, expected):
    found = norms_of_one_value(model, shape, frozenset(frozen))
    if expected is None:
        assert {"aspp/image_pooling/norm", "aspp/project/norm", "aux_head/conv/norm"} <= set(found)
        assert not any(path.startswith("encoder/st") and "stage" not in path for path in found)
    else:
        assert found == expected


def test_a_norm_of_one_value_returns_its_bias_and_passes_no_gradient():
    """What the warning says."""
    model, x = BatchNorm(use_running_average=False), jnp.array([[[[3.0, -7.0]]]])
    given = model.init(jax.random.key(0), x)
    given["params"]["bias"] += jnp.array([0.5, 2.0])

    def output(x):
        return model.apply(given, x, mutable=["batch_stats"])[0]

    np.testing.assert_array_equal(output(x)[0, 0, 0], [0.5, 2.0])
    np.testing.assert_array_equal(jax.grad(lambda x: output(x).sum())(x), 0 * x)
