"""What the notebooks' networks are made of: orders, paddings, strides and rates, by hand."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.layers import Conv
from segjax.models.notebook_resnet import ConvActNorm, NotebookBottleneck, NotebookResNet
from segjax.models.notebooks import (
    NotebookDeepLabV3,
    NotebookPSPNet,
    max_pool_even,
    max_unpool_even,
    pad_or_crop,
)


def same_convolution(x, kernel, strides, rate):
    """TensorFlow's "SAME": ceil(n / stride) outputs, the padding's smaller half before the map."""
    k, out_channels = kernel.shape[0], kernel.shape[-1]
    span = rate * (k - 1) + 1
    sizes = [-(-n // strides) for n in x.shape[1:3]]
    before = [
        max((o - 1) * strides + span - n, 0) // 2 for n, o in zip(x.shape[1:3], sizes, strict=True)
    ]
    out = np.zeros((x.shape[0], *sizes, out_channels))
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            for a in range(k):
                for b in range(k):
                    row = i * strides - before[0] + a * rate
                    column = j * strides - before[1] + b * rate
                    if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                        out[:, i, j] += x[:, row, column] @ kernel[a, b]
    return out


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 2)], ids=str)
@pytest.mark.parametrize(
    ("kernel", "strides", "rate"),
    [(7, 2, 1), (3, 2, 1), (1, 2, 1), (3, 1, 1), (3, 1, 4), (5, 1, 1)],
)
def test_block_is_convolution_relu_normalisation(size, kernel, strides, rate):
    block = ConvActNorm(4, kernel, strides, rate)
    x = np.random.default_rng(1).standard_normal((2, *size, 3)).astype(np.float32)
    variables = jax.eval_shape(lambda: block.init(jax.random.key(0), x, train=False))
    rng = np.random.default_rng(2)
    variables = jax.tree.map(lambda v: rng.uniform(-1, 1, v.shape).astype(np.float32), variables)
    variables["batch_stats"]["norm"]["var"] **= 2
    conv, norm = variables["params"]["conv"], variables["params"]["norm"]
    mean, variance = (variables["batch_stats"]["norm"][name] for name in ("mean", "var"))

    y = np.maximum(same_convolution(x, conv["kernel"], strides, rate) + conv["bias"], 0)
    wanted = norm["scale"] * (y - mean) / np.sqrt(variance + 1e-3) + norm["bias"]
    found = jax.jit(functools.partial(block.apply, train=False))(variables, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_block_keeps_99_hundredths_of_its_statistics():
    block = ConvActNorm(2, 1)
    x = np.random.default_rng(1).standard_normal((2, 4, 5, 3)).astype(np.float32)
    variables = block.init(jax.random.key(0), x, train=False)
    y = np.maximum(x @ variables["params"]["conv"]["kernel"][0, 0], 0)  # biases begin at 0
    _, updates = block.apply(variables, x, train=True, mutable=["batch_stats"])
    moved = updates["batch_stats"]["norm"]
    np.testing.assert_allclose(moved["mean"], 0.01 * y.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(moved["var"], 0.99 + 0.01 * y.var((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("size", [(8, 6), (7, 5)], ids=str)
def test_stem_pools_as_keras_pads(size):
    """3x3 windows at stride 2: an even size is padded after its end only, an odd one both sides."""
    encoder = NotebookResNet(4, (), (), ())  # the stem alone
    images = (
        np.random.default_rng(3).standard_normal((1, 2 * size[0], 2 * size[1], 3)).astype("float32")
    )
    variables = encoder.init(jax.random.key(0), images, train=False)
    stem = ConvActNorm(4, 7, 2).apply(
        {kind: tree["stem"] for kind, tree in variables.items()}, images, train=False
    )
    assert stem.shape[1:3] == size
    wanted = np.full((1, -(-size[0] // 2), -(-size[1] // 2), 4), -np.inf)
    before = [n % 2 for n in size]
    for i in range(wanted.shape[1]):
        for j in range(wanted.shape[2]):
            rows = slice(max(0, 2 * i - before[0]), 2 * i - before[0] + 3)
            columns = slice(max(0, 2 * j - before[1]), 2 * j - before[1] + 3)
            wanted[0, i, j] = np.asarray(stem)[0, rows, columns].max((0, 1))
    found = encoder.apply(variables, images, train=False)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def bottlenecks(network) -> dict[int, list[tuple[int, int, bool]]]:
    """(stride, rate, whether projected) of every block, by stage."""
    found = {}

    def note(next_function, args, kwargs, context):
        block = context.module
        if isinstance(block, NotebookBottleneck) and context.method_name == "__call__":
            options = (block.strides, block.rate, block.shortcut)
            found.setdefault(int(block.name[len("stage")]), []).append(options)
        return next_function(*args, **kwargs)

    model = network(5, width=1 / 16)
    with nn.intercept_methods(note):
        jax.eval_shape(
            lambda key: model.init(key, jnp.zeros((1, 64, 64, 3)), train=False), jax.random.key(0)
        )
    return found


def test_pspnet_has_strides_beside_its_rates():
    rest = lambda rate, blocks: [(1, rate, False)] * blocks  # noqa: E731
    assert bottlenecks(NotebookPSPNet) == {
        2: [(1, 1, True), *rest(1, 2)],
        3: [(2, 1, True), *rest(1, 3)],
        4: [(2, 2, True), *rest(2, 5)],
        5: [(2, 4, True), *rest(4, 2)],
    }


def test_deeplab_has_a_multi_grid_in_its_last_stage():
    rest = lambda blocks: [(1, 1, False)] * blocks  # noqa: E731
    assert bottlenecks(NotebookDeepLabV3) == {
        2: [(1, 1, True), *rest(2)],
        3: [(2, 1, True), *rest(3)],
        4: [(2, 1, True), *rest(5)],
        5: [(1, 2, True), (1, 4, False), (1, 8, False)],
    }


def test_bottleneck_strides_in_its_first_and_its_shortcut_convolutions():
    block = NotebookBottleneck(2, strides=2, shortcut=True)
    strides = {}

    def note(next_function, args, kwargs, context):
        if isinstance(context.module, Conv) and context.method_name == "__call__":
            strides[context.module.path[0]] = context.module.strides
        return next_function(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(
            lambda key: block.init(key, jnp.zeros((1, 6, 5, 8)), train=False), jax.random.key(0)
        )
    assert strides == {"reduce": 2, "conv": 1, "expand": 1, "shortcut": 2}


def test_segnet_pools_an_odd_map_with_zeros_before_it():
    x = jnp.array([[-3.0, 4], [1, 2], [-5, -6]])[None, :, :, None]  # 3 rows, 2 columns
    values, positions = max_pool_even(x)
    # Windows: rows (zeros, 0) and (1, 2). The zeros come first, but 4 is larger.
    np.testing.assert_array_equal(values[0, :, :, 0], [[4], [2]])
    back = max_unpool_even(values, positions, (3, 2))
    np.testing.assert_array_equal(back[0, :, :, 0], [[0, 4], [0, 2], [0, 0]])

    # The zero of the frame is the largest of its window, and its place is cropped afterwards.
    values, positions = max_pool_even(-jnp.abs(x))
    np.testing.assert_array_equal(values[0, :, :, 0], [[0], [-1]])
    np.testing.assert_array_equal(positions[0, :, :, 0], [[0], [0]])
    back = max_unpool_even(values + 7, positions, (3, 2))
    np.testing.assert_array_equal(back[0, :, :, 0], [[0, 0], [6, 0], [0, 0]])


def test_pad_or_crop_keeps_the_middle():
    x = jnp.arange(1.0, 7).reshape(1, 2, 3, 1)
    found = pad_or_crop(x, (5, 2))[0, :, :, 0]
    np.testing.assert_array_equal(found, [[0, 0], [1, 2], [4, 5], [0, 0], [0, 0]])
    np.testing.assert_array_equal(pad_or_crop(x, (2, 3)), x)
