"""The rules that make ONNX of JAX's operations: computed by onnxruntime as JAX computes them."""

import collections

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from segjax.export.onnx.convert import convert
from segjax.export.onnx.graph import serialize
from segjax.export.onnx.load import Session
from segjax.export.onnx.values import NotConvertible
from segjax.layers import (
    ConvNormAct,
    adaptive_avg_pool,
    max_pool,
    max_pool_2x2,
    max_unpool_2x2,
    resize_bilinear,
    resize_nearest,
)
from segjax.layers.transpose import bilinear_conv_transpose, conv_transpose
from segjax.models.segnet_basic import local_response_norm
from segjax.training.head import Sigmoid
from segjax.transforms.normalize import Normalization

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SHAPE = (6, 8, 3)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def images(n, shape=SHAPE, dtype=np.float32):
    if dtype == np.uint8:
        return np.random.default_rng(1).integers(0, 256, (n, *shape), np.uint8)
    return drawn(n, *shape, seed=1)


def graph_of(function, shape=SHAPE, dtype=np.float32):
    return convert(lambda x: {"y": function(x)}, (None, *shape), dtype)


def ops_of(graph):
    return collections.Counter(node.op for node in graph.nodes.values())


def check(function, shape=SHAPE, dtype=np.float32, tolerance=1e-5):
    """Both give the same arrays, of one type, for one image and for three."""
    graph = graph_of(function, shape, dtype)
    session = Session(serialize(graph, {}, "0"))
    x = images(3, shape, dtype)
    expected = np.asarray(jax.jit(function)(x))
    for n in (1, 3):
        found = session.run(x[:n], "y")
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected[:n], rtol=tolerance, atol=tolerance)
    return ops_of(graph)


FUNCTIONS = {
    # Each number by itself.
    "arithmetic": lambda x: (2 - x) * (x + 1) / (x * x + 1) - 3 * -x,
    "powers": lambda x: lax.rsqrt(x**2 + 1) + jnp.sqrt(jnp.abs(x)) + x**3 + (x * x + 1) ** 0.75,
    "functions": lambda x: jnp.exp(x) + jnp.log(x * x + 1) + jnp.tanh(x) + lax.erf(x) + jnp.cos(x),
    "activations": lambda x: nn.relu(x) + nn.sigmoid(x) + nn.silu(x) + nn.gelu(x) + nn.relu6(x),
    "hard_swish": nn.hard_swish,
    "rounding": lambda x: jnp.floor(3 * x) + jnp.ceil(x / 2) + jnp.round(x * 4) + jnp.sign(x),
    "clipping": lambda x: jnp.clip(x, -0.5, 0.7) + jnp.minimum(x, 0.2) + jnp.maximum(x[:, ::-1], x),
    "comparisons": lambda x: ((x > 0) & ~(x < 0.5)) | (x >= 1) | (x <= -1) | (x == 0) ^ (x != 0.1),
    "selection": lambda x: jnp.where(x > 0.1, x[:, :, ::-1], 7.0) + jnp.where(x > 0, 1, 2),
    "bytes": lambda x: jnp.where(x > 1, jnp.uint8(200), jnp.uint8(50) + (x > 0).astype(jnp.uint8)),
    "to_bytes": lambda x: (jnp.abs(x) * 10).astype(jnp.int32).astype(jnp.uint8),
    "integers": lambda x: (x * 10).astype(jnp.int32) // 3 * 2 - 1,
    "remainders": lambda x: x % 0.25 + lax.rem(x * 5, jnp.float32(2)),
    "bits": Sigmoid((0.5, 0.3, 0.9)).predict,
    # The order of dimensions, and shapes.
    "transposed": lambda x: x.transpose(0, 3, 1, 2) + drawn(3, 6, 8),
    "joined": lambda x: x.reshape(x.shape[0], 48, 3) * 2,
    "joined_in_another_order": lambda x: x.transpose(0, 2, 1, 3).reshape(x.shape[0], 8, 18),
    "split": lambda x: x.reshape(-1, 2, 3, 8, 3).transpose(0, 1, 3, 2, 4).reshape(-1, 16, 9),
    "channel_by_channel": lambda x: x * drawn(3) + drawn(6, 1, 1),
    "new_dimensions": lambda x: (x[:, :, None] + drawn(4, 1, 1)).max(2)[..., None, :].squeeze(3),
    "repeated": lambda x: jnp.broadcast_to(x[:, :1, :1], (x.shape[0], 5, 7, 3)),
    "repeated_over_the_batch": lambda x: jnp.concatenate(
        [x, jnp.broadcast_to(drawn(6, 8, 1), (x.shape[0], 6, 8, 1))], -1
    ),
    # Cells.
    "slices": lambda x: x[:, 1:5, 2::3] + x[:, ::2, -1:, :1][:, 1:2],
    "one_cell": lambda x: x[:, 2] * x[:, 3, :, :1],
    "crossed": lambda x: x[:, np.array([[0], [4]]), np.array([[1, 5, 7]])],
    "taken": lambda x: jnp.take(x, np.array([5, 0, 2, 2]), axis=1) + x[:, :4],
    "padded": lambda x: jnp.pad(x, ((0, 0), (2, 1), (0, 3), (0, 0)), constant_values=1.5),
    "padded_and_cut": lambda x: lax.pad(x, 0.5, [(0, 0, 0), (-2, 1, 0), (3, -1, 0), (0, 0, 0)]),
    "tiled": lambda x: jnp.tile(x, (1, 2, 1, 3)),
    "reversed": lambda x: x[:, ::-1, ::-1],
    "parts": lambda x: jnp.concatenate(jnp.split(x, 3, -1)[::-1], 1),
    # Sums.
    "reductions": lambda x: x.sum((1, 2)) + x.max(1).min(1) + x.mean((2, 1)) * x[:, 0].prod(1),
    "best": lambda x: jnp.argmax(x, -1) * 10 + jnp.argmin(x[:, :, ::-1], -1),
    "any_and_all": lambda x: (x > 1).any(-1) | (x > -0.5).all(-1),
    "matrix_of_channels": lambda x: x @ drawn(3, 5),
    "matrix_of_rows": lambda x: jnp.einsum("oi,nihc->nohc", drawn(4, 6), x),
    "matrix_of_columns": lambda x: jnp.einsum("nhic,oi->nhoc", x, drawn(4, 8)),
    "matrices": lambda x: jnp.matmul(jnp.broadcast_to(drawn(6, 4, 8), (x.shape[0], 6, 4, 8)), x),
    "two_maps": lambda x: jnp.einsum("nhwc,nhvc->nhwv", x, x * 2),
    "all_of_a_map": lambda x: x.reshape(x.shape[0], -1) @ drawn(144, 5),
    "channel_to_several": lambda x: jnp.einsum("ni,hwio->nhwo", x[:, 0, 0], drawn(2, 4, 3, 5)),
    "max_pool": lambda x: nn.max_pool(x, (3, 2), (2, 2), ((1, 1), (0, 0))),
    "average_pool": lambda x: nn.avg_pool(x, (3, 3), (2, 1), ((1, 1), (1, 0))),
    "response_norm": local_response_norm,
    # Layers and preparation.
    "pool_and_unpool": lambda x: pooled_and_unpooled(x[:, :5]),
    "pool_3x3": lambda x: max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))),
    "enlarged": lambda x: resize_bilinear(x, (13, 20)),
    "enlarged_by_blocks": lambda x: resize_bilinear(jnp.tile(x, (1, 3, 1, 1)), (36, 8)),
    "made_smaller": lambda x: resize_bilinear(x, (4, 3), align_corners=True),
    "nearest": lambda x: resize_nearest(x, (12, 5)),
    "bins": lambda x: adaptive_avg_pool(x, (4, 3)),
    "deconvolution": lambda x: conv_transpose(x, drawn(4, 4, 3, 2), strides=2, padding=1),
    "bilinear_deconvolution": lambda x: bilinear_conv_transpose(x, 4, strides=2, padding=1),
    "local_contrast": Normalization((0.5,) * 3, (0.2,) * 3, local_contrast=3),
    "called": jax.jit(jax.checkpoint(lambda x: x + jax.lax.stop_gradient(x))),
    "by_platform": lambda x: lax.platform_dependent(
        x, cuda=jnp.sort, tpu=jnp.sort, default=lambda x: x
    ),
}


def pooled_and_unpooled(x):
    values, positions = max_pool_2x2(x)
    return max_unpool_2x2(values, positions, x.shape[1:3])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_same_numbers(name):
    check(FUNCTIONS[name])


def test_bytes_come_in():
    ops = check(lambda x: x.astype(jnp.float32) / 255, dtype=np.uint8)
    assert ops == {"Cast": 1, "Div": 1}
    check(lambda x: jnp.where(x > 100, x, jnp.uint8(3)), dtype=np.uint8)


def convolution(x, kernel, strides=(1, 1), padding="SAME", **options):
    options["dimension_numbers"] = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


CONVOLUTIONS = {
    "plain": dict(kernel=(3, 3, 3, 4)),
    "strided": dict(kernel=(3, 2, 3, 4), strides=(2, 3), padding=((1, 0), (2, 1))),
    "atrous": dict(kernel=(3, 3, 3, 4), rhs_dilation=(2, 3), padding=((2, 2), (3, 3))),
    "groups": dict(kernel=(3, 3, 1, 6), feature_group_count=3),
    "transposed": dict(kernel=(3, 4, 3, 2), lhs_dilation=(2, 3), padding=((1, 2), (3, 0))),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name):
    options = dict(CONVOLUTIONS[name])
    kernel = drawn(*options.pop("kernel"))
    ops = check(lambda x: convolution(x, kernel, **options))
    assert ops == {"Transpose": 2, "ConvTranspose" if name == "transposed" else "Conv": 1}


def test_a_block_is_a_convolution_and_its_activation():
    """Normalisation, bias and factors join the weights; between blocks nothing is transposed."""

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            for features in (4, 5):
                x = ConvNormAct(features, use_bias=True)(x, train=False)
            return (3 - x) / 2

    network = Network()
    variables = network.init(jax.random.key(0), images(1))
    variables = jax.tree.map(lambda a: a + drawn(*a.shape) ** 2, variables)
    ops = check(lambda x: network.apply(variables, x), tolerance=1e-4)
    assert ops == {"Transpose": 2, "Conv": 2, "Relu": 2, "Sub": 1, "Div": 1}


def test_a_map_that_others_read_is_not_folded():
    kernel = drawn(3, 3, 3, 3)

    def function(x):
        y = convolution(x, kernel)
        return y + y * drawn(3)

    assert check(function)["Mul"] == 1


def test_a_factor_per_row_is_not_folded():
    kernel = drawn(3, 3, 3, 6)
    assert check(lambda x: convolution(x, kernel) * drawn(6, 1, 1))["Mul"] == 1
    assert check(lambda x: convolution(x, kernel) * drawn(6, 8, 6))["Mul"] == 1


def test_what_does_not_depend_on_the_image_is_computed():
    weights = drawn(3, 3)
    graph = graph_of(lambda x: x + jnp.sort(jnp.linalg.norm(weights, axis=0)) * jnp.arange(3))
    assert ops_of(graph) == {"Add": 1}


def test_the_larger_one_is_a_maximum():
    """`where(a > b or a is NaN, a, b)`, as pooling has it, and no other selection."""
    larger = lambda a, b: jnp.where((a > b) | (a != a), a, b)  # noqa: E731
    assert check(lambda x: larger(x, x[:, ::-1])) == {"Slice": 1, "Max": 1}
    assert "Max" not in check(lambda x: jnp.where(x > 0, x, 3 * x))
    smaller = lambda x: jnp.where((x > x[:, ::-1]) | (x != x), x[:, ::-1], x)  # noqa: E731
    assert "Max" not in check(smaller)
    mask = drawn(6, 8, 3) > 0
    assert "Max" not in check(lambda x: jnp.where((x > 0) | mask, x, 0))
    session = Session(serialize(graph_of(lambda x: larger(x, x[:, ::-1])), {}, "0"))
    x = images(1)
    x[0, 0, 0, 0] = np.nan
    np.testing.assert_array_equal(session.run(x, "y"), larger(x, x[:, ::-1]))


REFUSED = {
    "sort": (jnp.sort, "sort: it has no form in ONNX here"),
    "scope": (jax.named_scope("head")(lambda x: jnp.cumsum(x, 1)), "cumsum in head: it has"),
    "computed_indices": (
        lambda x: jnp.take_along_axis(x, jnp.argmax(x, 1, keepdims=True), 1),
        "gather.*reading at computed indices",
    ),
    "overflow": (lambda x: x.astype(jnp.uint8) + jnp.uint8(1), "add.*uint8 that may overflow"),
    "division": (lambda x: 7 // x.astype(jnp.int32), "int32 by a number that may be 0"),
    "loop": (lambda x: lax.fori_loop(0, 3, lambda i, y: y * 2, x), "(scan|while): it has no form"),
    "rounding": (lambda x: lax.round(x), "round: rounding half away from zero"),
    "half": (lambda x: x.astype(jnp.float16), "convert_element_type.*type float16"),
    "between": (
        lambda x: lax.pad(x, 0.0, [(0, 0, 0)] * 3 + [(0, 0, 1)]),
        "pad: padding between cells",
    ),
    "batch": (lambda x: jnp.concatenate([x, x[:1]]), r"an array of n \+ 1 cells"),
    "nothing": (lambda x: x[:, 2:2], "an array without cells"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name):
    function, message = REFUSED[name]
    with pytest.raises(NotConvertible, match=message):
        graph_of(function)


def test_too_many_weights_for_one_file(monkeypatch):
    monkeypatch.setattr("segjax.export.onnx.graph.LARGEST_BYTES", 50)
    with pytest.raises(NotConvertible, match=r"0\.00 GB of weights: an ONNX file holds"):
        serialize(graph_of(lambda x: x * drawn(6, 8, 3)), {}, "0")
