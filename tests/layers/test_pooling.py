"""Max pooling with indices, and unpooling."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from segjax.layers import (
    max_pool,
    max_pool_2x2,
    max_pool_argmax,
    max_unpool,
    max_unpool_2x2,
    pool_padding,
    positions_to_indices,
)

INF = np.inf


def sample(kind: str, shape=(2, 5, 7, 3), seed=0) -> np.ndarray:
    """An input of a named kind, float32 except where the name says otherwise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    holes = rng.random(shape) < 0.4
    return {
        "random": x,
        "bfloat16": x.astype(jnp.bfloat16),
        "tied": rng.integers(0, 3, shape).astype(np.float32),
        "negative": -1 - np.abs(x),
        "nan": np.where(holes, np.nan, x),
        "-inf": np.where(holes, -INF, x),
        "-inf everywhere": np.full(shape, -INF, np.float32),
        "inf": np.where(holes, INF, x),
        "int32": rng.integers(-9, 9, shape).astype(np.int32),
        "lowest int32": np.full(shape, np.iinfo(np.int32).min, np.int32),
    }[kind]


KINDS = (
    "random",
    "bfloat16",
    "tied",
    "negative",
    "nan",
    "-inf",
    "-inf everywhere",
    "inf",
    "int32",
    "lowest int32",
)


def brute_force_pool(x, window, strides, pads):
    """`max_pool_argmax` with one loop per index; NaN beats all, of several the last one."""
    n, height, width, channels = x.shape
    (top, bottom), (left, right) = pads
    rows = (height + top + bottom - window[0]) // strides[0] + 1
    columns = (width + left + right - window[1]) // strides[1] + 1
    values = np.zeros((n, rows, columns, channels), x.dtype)
    indices = np.zeros(values.shape, np.int32)
    for at in np.ndindex(values.shape):
        b, r, q, c = at
        best = None
        for i in range(r * strides[0] - top, r * strides[0] - top + window[0]):
            for j in range(q * strides[1] - left, q * strides[1] - left + window[1]):
                if 0 <= i < height and 0 <= j < width:
                    value = x[b, i, j, c]
                    if best is None or value > best or value != value:
                        best, values[at], indices[at] = value, value, i * width + j
    return values, indices


def torch_pads(case):
    """The padding pairs of a torch pooling: its own, and what ceil mode adds after the end."""
    sizes = zip(
        case["x"].shape[1:3],
        case["values"].shape[1:3],
        case["window"],
        case["strides"],
        case["padding"],
        strict=True,
    )
    return tuple((p, max(p, (out - 1) * s + k - n - p)) for n, out, k, s, p in sizes)


@pytest.mark.versions
def test_pooling_and_unpooling_equal_torch(torch_pool):
    case = torch_pool
    dtype = jnp.bfloat16 if case["input"] == "bfloat16" else jnp.float32
    x, cotangent = jnp.asarray(case["x"], dtype), jnp.asarray(case["cotangent"], dtype)
    window, strides = tuple(case["window"]), tuple(case["strides"])

    @jax.jit
    def pool(x, cotangent):
        values, vjp, indices = jax.vjp(
            lambda x: max_pool_argmax(x, window, strides, torch_pads(case)), x, has_aux=True
        )
        return values, indices, vjp(cotangent)[0]

    values, indices, gradient = pool(x, cotangent)
    assert values.dtype == gradient.dtype == dtype
    assert indices.dtype == jnp.int32
    np.testing.assert_array_equal(values.astype(jnp.float32), case["values"])
    np.testing.assert_array_equal(indices, case["indices"])
    # Multiples of 1/8: sums over overlapping windows are exact, in bfloat16 too.
    np.testing.assert_array_equal(gradient.astype(jnp.float32), case["gradient"])

    if case["padding"] == [0, 0]:
        named = "CEIL" if case["ceil_mode"] else "VALID"
        twin = jax.eval_shape(lambda x: max_pool_argmax(x, window, strides, named), x)[0]
        assert twin.shape == values.shape

    if "unpooled" in case:

        @jax.jit
        def unpool(values, indices, cotangent):
            out, vjp = jax.vjp(lambda v: max_unpool(v, indices, x.shape[1:3]), values)
            return out, vjp(cotangent)[0]

        out, gradient = unpool(values, indices, jnp.asarray(case["unpool_cotangent"], dtype))
        np.testing.assert_array_equal(out.astype(jnp.float32), case["unpooled"])
        np.testing.assert_array_equal(gradient.astype(jnp.float32), case["unpool_gradient"])


@pytest.mark.parametrize(
    ("window", "strides", "padding"),
    [
        ((2, 2), None, "CEIL"),
        ((3, 3), (2, 2), "SAME"),
        ((3, 2), (1, 3), ((1, 2), (1, 0))),
        ((1, 4), (2, 1), ((0, 0), (3, 3))),
    ],
    ids=str,
)
def test_pooling_equals_brute_force(window, strides, padding):
    pool = jax.jit(lambda x: max_pool_argmax(x, window, strides, padding))
    pads = pool_padding((5, 6), window, strides, padding)
    for kind in KINDS:
        x = sample(kind, (1, 5, 6, 2))
        values, indices = brute_force_pool(x, window, strides or window, pads)
        found = pool(x)
        assert found[0].dtype == x.dtype
        np.testing.assert_array_equal(found[0], values, err_msg=kind)
        np.testing.assert_array_equal(found[1], indices, err_msg=kind)


@pytest.mark.versions
@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 4, 6, 2), (2, 1, 1, 3), (1, 1, 9, 2)], ids=str)
def test_2x2_form_equals_general_form(shape):
    size = shape[1:3]
    back = jnp.asarray(sample("random", shape, seed=1))

    def both(x):
        values, positions = max_pool_2x2(x)
        general, indices = max_pool_argmax(x, padding="CEIL")
        return (
            (
                values,
                positions_to_indices(positions, size),
                max_unpool_2x2(values, positions, size),
            ),
            (general, indices, max_unpool(general, indices, size)),
        )

    def both_gradients(x):
        pairs = []
        for pool, unpool, options in (
            (max_pool_2x2, max_unpool_2x2, {}),
            (max_pool_argmax, max_unpool, {"padding": "CEIL"}),
        ):
            values, vjp, indices = jax.vjp(lambda x: pool(x, **options), x, has_aux=True)  # noqa: B023
            cotangent = jnp.arange(values.size, dtype=x.dtype).reshape(values.shape)
            unpool_vjp = jax.vjp(lambda v: unpool(v, indices, size), values)[1]  # noqa: B023
            pairs.append((vjp(cotangent)[0], unpool_vjp(back.astype(x.dtype))[0]))
        return pairs

    both, both_gradients = jax.jit(both), jax.jit(both_gradients)
    for kind in KINDS:
        x = jnp.asarray(sample(kind, shape))
        for found, wanted in zip(*both(x), strict=True):
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted, err_msg=kind)
        if jnp.issubdtype(x.dtype, jnp.floating):
            for found, wanted in zip(*both_gradients(x), strict=True):
                np.testing.assert_array_equal(found, wanted, err_msg=kind)


@pytest.mark.versions
@pytest.mark.parametrize("shape", [(2, 8, 9, 3), (1, 1, 1, 3)], ids=str)
@pytest.mark.parametrize(
    ("window", "strides", "padding"),
    [
        ((3, 3), (2, 2), ((1, 1), (1, 1))),  # ResNet's
        ((3, 3), (2, 2), ((1, 2), (1, 2))),  # Caffe's ceil mode
        ((3, 3), (1, 1), "SAME"),
        ((3, 3), (2, 2), "SAME"),
        ((2, 1), (3, 2), ((0, 1), (0, 0))),
    ],
    ids=str,
)
def test_pooling_equals_xlas_window(shape, window, strides, padding):
    """Values, and which cell of a window gets the derivative, ties too."""
    pads = pool_padding(shape[1:3], window, strides, padding)

    def xla(x):
        low = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
        low = np.asarray(low, x.dtype)
        edges = ((0, 0), *pads, (0, 0))
        return lax.reduce_window(x, low, lax.max, (1, *window, 1), (1, *strides, 1), edges)

    pool = lambda x: max_pool(x, window, strides, padding)  # noqa: E731

    @jax.jit
    def both(x):
        return pool(x), xla(x)

    @jax.jit
    def both_gradients(x, cotangent):
        return [jax.vjp(function, x)[1](cotangent)[0] for function in (pool, xla)]

    for kind in KINDS:
        x = sample(kind, shape)
        found, wanted = both(x)
        np.testing.assert_array_equal(found, wanted, err_msg=kind)
        if kind in ("random", "tied", "negative"):
            cotangent = np.arange(found.size, dtype=np.float32).reshape(found.shape)
            np.testing.assert_array_equal(*both_gradients(x, cotangent), err_msg=kind)
    program = str(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(pool(x))))(x.astype("f4")))
    assert "scatter" not in program


@pytest.mark.versions
def test_gradients_are_derivatives():
    # A permutation: no ties, and steps far larger than the numerical derivative's.
    x = np.random.default_rng(0).permutation(2 * 5 * 7).reshape(1, 5, 7, 2).astype(np.float32)
    values = sample("random", (1, 3, 4, 2))
    _, positions = max_pool_2x2(x)
    indices = positions_to_indices(positions, (5, 7))
    check = lambda f, x, modes: check_grads(jax.jit(f), (x,), 1, modes, eps=1e-2)  # noqa: E731
    check(lambda x: max_pool_argmax(x, (3, 2), (2, 1), "SAME")[0] ** 2 / 100, x, ("fwd", "rev"))
    check(lambda v: max_unpool(v, indices, (5, 7)) ** 2, values, ("fwd", "rev"))
    check(lambda x: max_pool_2x2(x)[0] ** 2 / 100, x, ("rev",))
    check(lambda v: max_unpool_2x2(v, positions, (5, 7)) ** 2, values, ("rev",))


def test_there_and_back_keeps_maxima_in_place():
    x = jnp.asarray(sample("random", (2, 45, 7, 3)))

    @jax.jit
    def round_trips(x):
        return (
            max_unpool_2x2(*max_pool_2x2(x), (45, 7)),
            max_unpool(*max_pool_argmax(x, padding="CEIL"), (45, 7)),
        )

    for back in round_trips(x):
        np.testing.assert_array_equal(jnp.where(back != 0, x, 0), back)
        assert int(jnp.sum(back != 0)) == 2 * 23 * 4 * 3


def test_overlapping_windows_count_a_shared_maximum_once():
    x = jnp.asarray(sample("random", (1, 6, 6, 2)))

    def there_and_back(x):
        return max_unpool(*max_pool_argmax(x, (3, 3), (1, 1), "SAME"), (6, 6))

    @jax.jit
    def with_gradient(x):
        back, vjp = jax.vjp(there_and_back, x)
        return back, vjp(x)[0]

    back, gradient = with_gradient(x)
    np.testing.assert_array_equal(gradient, jnp.where(back != 0, x, 0))


@pytest.mark.versions
def test_vmap():
    x = jnp.asarray(sample("random", (3, 2, 5, 7, 2)))

    def pooled(x):
        values, positions = max_pool_2x2(x)
        general, indices = max_pool_argmax(x, (3, 3), (2, 2), "SAME")
        return (
            values,
            max_unpool_2x2(values, positions, (5, 7)),
            general,
            indices,
            max_unpool(general, indices, (5, 7)),
            jax.grad(lambda x: jnp.sum(max_pool_2x2(x)[0] ** 2))(x),
        )

    one = jax.jit(pooled)
    for found, wanted in zip(
        jax.jit(jax.vmap(pooled))(x),
        jax.tree.map(lambda *xs: jnp.stack(xs), *[one(y) for y in x]),
        strict=True,
    ):
        np.testing.assert_array_equal(found, wanted)


def test_2x2_form_keeps_one_byte_per_window_and_scatters_nothing():
    x = jnp.asarray(sample("random", (2, 8, 8, 4)))
    (_, positions), vjp = jax.vjp(max_pool_2x2, x)
    assert positions.dtype == jnp.uint8
    kept = [leaf for leaf in jax.tree.leaves(vjp) if leaf.size > 1]
    assert sum(leaf.nbytes for leaf in kept) == positions.size

    def round_trip(x):
        return jnp.sum(max_unpool_2x2(*max_pool_2x2(x), (8, 8)) ** 2)

    program = str(jax.make_jaxpr(jax.grad(round_trip))(x))
    assert "scatter" not in program
    assert "gather" not in program


@pytest.mark.parametrize(
    ("size", "window", "strides", "padding", "pairs"),
    [
        ((45, 60), (2, 2), None, "CEIL", ((0, 1), (0, 0))),
        ((45, 60), (2, 2), None, "VALID", ((0, 0), (0, 0))),
        ((45, 60), (3, 3), (2, 2), "SAME", ((1, 1), (0, 1))),
        ((1, 1), (2, 2), None, "CEIL", ((0, 1), (0, 1))),
        ((7, 7), (2, 2), (3, 3), "CEIL", ((0, 1), (0, 1))),
        ((6, 6), (2, 2), (3, 3), "CEIL", ((0, 0), (0, 0))),  # a window would start past the end
        ((5, 5), (3, 3), (2, 2), ((1, 1), (2, 0)), ((1, 1), (2, 0))),
    ],
)
def test_pool_padding(size, window, strides, padding, pairs):
    assert pool_padding(size, window, strides, padding) == pairs


def test_errors_name_what_fits():
    x = jnp.zeros((1, 5, 7, 2))
    with pytest.raises(ValueError, match='padding=\'FULL\'; use "VALID", "SAME", "CEIL"'):
        max_pool_argmax(x, padding="FULL")
    with pytest.raises(ValueError, match="smaller than the window, or a window would hold padding"):
        max_pool_argmax(x, padding=((2, 0), (0, 0)))
    with pytest.raises(ValueError, match="each side must be at least 0"):
        max_pool_argmax(x, padding=((-1, 0), (0, 0)))
    with pytest.raises(ValueError, match=r'smaller than the window .*use padding="SAME" or "CEIL"'):
        max_pool_argmax(x, (6, 2))
    values, positions = max_pool_2x2(x)
    with pytest.raises(ValueError, match=r"\(6, 9\) does not pool to \(3, 4\); heights 5 or 6 and"):
        max_unpool_2x2(values, positions, (6, 9))


@pytest.mark.slow
def test_2x2_form_takes_a_quarter_of_the_general_forms_time():
    """In a process of its own: the tests' compiles leave out what makes programs fast."""
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "benchmarks.layers", "pool"]
    printed = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    ratios = [float(line.split()[-1]) for line in printed.splitlines() if line.startswith("  2x2")]
    assert ratios[0] <= 0.25, printed
