"""What holds for every loss of the table, and the values and gradients of other libraries."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from segjax import losses
from segjax.losses.table import ALIASES, LOSSES
from tests.conftest import GOLDENS
from tests.losses.cases import CASES, WEIGHTS, K, names, random_case

with np.load(GOLDENS / "losses.npz") as _file:
    GOLDEN = dict(_file)
GOLDEN_CASES = json.loads(str(GOLDEN.pop("cases")))

all_cases = pytest.mark.parametrize("case", range(len(CASES)), ids=[names(c) for c in CASES])


def loss_of(name, options, class_weights):
    """The loss of logits and labels, with class weights where it takes them."""
    row = LOSSES[name]
    weights = (class_weights,) if row.takes_class_weights and class_weights is not None else ()
    return lambda logits, labels: row.function(logits, labels, *weights, **options)


@functools.cache
def compiled(case):
    name, options = CASES[case]
    return jax.jit(jax.value_and_grad(loss_of(name, options, jnp.array(WEIGHTS))))


def value_and_gradient(case, logits, labels):
    value, gradient = compiled(case)(jnp.array(logits), jnp.array(labels))
    assert value.shape == ()
    assert value.dtype == jnp.float32
    return float(value), np.asarray(gradient)


@pytest.mark.versions
@pytest.mark.parametrize("i", range(len(GOLDEN_CASES)), ids=[c["name"] for c in GOLDEN_CASES])
def test_equals_other_libraries(i):
    case = GOLDEN_CASES[i]
    weights = jnp.array(GOLDEN["class_weights"]) if case["weighted"] else None
    loss = loss_of(case["loss"], case["options"], weights)
    arguments = jnp.array(GOLDEN["logits"]), jnp.array(GOLDEN[case["labels"]])
    value, gradient = jax.jit(jax.value_and_grad(loss))(*arguments)
    assert float(value) == pytest.approx(float(GOLDEN["values"][i]), rel=2e-6)
    expected = GOLDEN["gradients"][i]
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=5e-6 * np.abs(expected).max())


def test_every_loss_is_compared_with_another_library():
    softmax = {name for name, row in LOSSES.items() if row.head == "softmax"}
    assert {case["loss"] for case in GOLDEN_CASES} == softmax == {name for name, _ in CASES}


def test_the_table_holds_the_public_functions():
    for name, row in LOSSES.items():
        assert row.function is getattr(losses, name)
        assert (row.divisor is not None) <= ("divide_by" in row.options)
    for head, aliases in ALIASES.items():
        assert all(LOSSES[name].head == head for name in aliases.values())
    assert LOSSES["ohem"].options == {"threshold": 0.7, "min_kept": 100_000, "divide_by": "kept"}


@all_cases
@pytest.mark.parametrize("ignored", [255, K])
def test_ignored_pixels_take_no_part_whatever_their_logits(case, ignored):
    logits, labels = random_case()
    value, gradient = value_and_gradient(case, logits, labels)
    void = labels == 255
    labels[void] = ignored
    logits[void] = np.array([np.nan, np.inf, -np.inf, 1e30])
    other_value, other_gradient = value_and_gradient(case, logits, labels)
    assert np.isfinite(value)
    assert other_value == value
    np.testing.assert_array_equal(other_gradient, gradient)
    np.testing.assert_array_equal(gradient[void], 0)
    assert np.any(gradient[~void] != 0)


@all_cases
def test_rows_that_fill_up_a_batch_count_nowhere(case):
    logits, labels = random_case()
    labels[1, :3] = 255
    value, gradient = value_and_gradient(case, logits, labels)
    filled = np.concatenate([logits, np.full_like(logits, 9)])
    filled_value, filled_gradient = value_and_gradient(
        case, filled, np.concatenate([labels, np.full_like(labels, -1)])
    )
    assert filled_value == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(filled_gradient[:2], gradient, rtol=1e-5, atol=1e-8)
    np.testing.assert_array_equal(filled_gradient[2:], 0)


@all_cases
@pytest.mark.parametrize("nothing", [255, -1])
def test_nothing_labelled_is_zero(case, nothing):
    logits, labels = random_case()
    value, gradient = value_and_gradient(case, logits, np.full_like(labels, nothing))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


@all_cases
def test_the_order_of_images_does_not_matter(case):
    logits, labels = random_case()
    value, gradient = value_and_gradient(case, logits, labels)
    turned_value, turned_gradient = value_and_gradient(case, logits[::-1], labels[::-1])
    assert turned_value == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(turned_gradient[::-1], gradient, rtol=1e-5, atol=1e-8)


@all_cases
def test_gradient_is_the_slope(case):
    logits, labels = random_case((2, 3, 4))
    with jax.enable_x64(True):
        loss = jax.jit(loss_of(*CASES[case], jnp.array(WEIGHTS, jnp.float64)))
        of_logits = functools.partial(loss, labels=jnp.array(labels))
        check_grads(of_logits, (jnp.array(logits, jnp.float64),), 1, ["rev"], eps=1e-5)


@all_cases
def test_sums_are_float32_under_bfloat16(case):
    logits, labels = random_case((2, 64, 64))  # sums in bfloat16 would end at 256
    rounded = jnp.array(logits).astype(jnp.bfloat16)
    value, gradient = value_and_gradient(case, rounded, labels)
    exact, exact_gradient = value_and_gradient(case, rounded.astype(jnp.float32), labels)
    assert gradient.dtype == jnp.bfloat16
    assert value == pytest.approx(exact, rel=1e-6)
    np.testing.assert_allclose(gradient.astype(np.float32), exact_gradient, rtol=1e-2, atol=1e-8)


@all_cases
def test_extreme_logits_have_finite_gradients(case):
    _, labels = random_case()
    signs = np.sign(np.random.default_rng(1).normal(size=(*labels.shape, K)))
    for scale in (0.0, 1e4, 1e30):
        value, gradient = value_and_gradient(case, (scale * signs).astype(np.float32), labels)
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "boundary_cross_entropy", "ohem"])
def test_class_weights_are_factors(name):
    logits, labels = map(jnp.array, random_case())
    options = {"divide_by": "none"}
    if name == "boundary_cross_entropy":  # the edge's weight is added to them
        options["edge_weight"] = 0.0
    loss = jax.jit(functools.partial(LOSSES[name].function, logits, labels, **options))
    assert float(loss(jnp.ones(K))) == pytest.approx(float(loss()), rel=1e-6)
    assert float(loss(3 * jnp.ones(K))) == pytest.approx(3 * float(loss()), rel=1e-6)
    assert float(loss(jnp.array(WEIGHTS))) != pytest.approx(float(loss()), rel=0.01)
