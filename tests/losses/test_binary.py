"""The losses of sigmoid heads against loops over pixels and labels in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.losses import binary

pytestmark = pytest.mark.versions

K = 3


def random_case(shape=(2, 5, 7), seed=0):
    """Logits, and labels as bits, a quarter of them ignored; label 1 never occurs."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (*shape, K)).astype(np.float32)
    labels = random.integers(0, 2**K, shape) & 0b101
    labels[random.random(shape) < 0.25] = 255
    return logits, labels.astype(np.int32)


def pairs(logits, labels):
    """(pixel, label, logit, present) of the labelled pixels."""
    for i, (row, value) in enumerate(zip(logits.reshape(-1, K), labels.ravel(), strict=True)):
        for k in range(K if value < 2**K else 0):
            yield i, k, float(row[k]), bool(value >> k & 1)


def probability(z):
    return 1 / (1 + np.exp(-z))


def test_hand_computed_numbers():
    # Probabilities 3/4 and 1/2; the pixel has the first label alone; the second is ignored.
    logits = jnp.array([[np.log(3.0), 0.0], [50.0, -50.0]])
    labels = jnp.array([1, 255])
    total, pixels = binary.binary_cross_entropy_sum(logits, labels)
    expected = (np.log(4 / 3) + np.log(2)) / 2
    assert float(total) == pytest.approx(expected, rel=1e-6)
    assert int(pixels) == 1
    # A weight counts where its label is present, and not in the number.
    weighted = binary.binary_cross_entropy(logits, labels, jnp.array([10.0, 7.0]))
    assert float(weighted) == pytest.approx((10 * np.log(4 / 3) + np.log(2)) / 2, rel=1e-6)
    # 1 - Dice: label 0: 2 * 3/4 over 3/4 + 1; label 1 does not occur: 0. And of the Jaccard index.
    assert float(binary.binary_dice(logits, labels)) == pytest.approx((1 - 1.5 / 1.75) / 2)
    assert float(binary.binary_jaccard(logits, labels)) == pytest.approx((1 - 0.75) / 2)
    focal = binary.binary_focal(logits, labels, gamma=2.0, alpha=0.25)
    expected = (0.25 * (1 / 4) ** 2 * np.log(4 / 3) + 0.75 * (1 / 2) ** 2 * np.log(2)) / 2
    assert float(focal) == pytest.approx(expected, rel=1e-6)
    by_all = binary.binary_focal(logits, labels, gamma=2.0, alpha=0.25, divide_by="all")
    assert float(by_all) == pytest.approx(expected / 2, rel=1e-6)


@pytest.mark.parametrize("weights", [None, (0.5, 4.0, 2.0)])
def test_cross_entropy_equals_a_loop(weights):
    logits, labels = random_case()
    expected = 0.0
    for _, k, z, present in pairs(logits, labels):
        p = probability(z if present else -z)
        expected -= np.log(p) * ((weights or (1,) * K)[k] if present else 1) / K
    given = None if weights is None else jnp.array(weights)
    total, pixels = binary.binary_cross_entropy_sum(jnp.array(logits), jnp.array(labels), given)
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert int(pixels) == np.sum(labels != 255)


@pytest.mark.parametrize("gamma, alpha", [(0.0, None), (2.0, None), (1.5, 0.25)])
def test_focal_equals_a_loop(gamma, alpha):
    logits, labels = random_case()
    expected = 0.0
    for _, _, z, present in pairs(logits, labels):
        p = probability(z if present else -z)
        weight = 1 if alpha is None else alpha if present else 1 - alpha
        expected -= weight * (1 - p) ** gamma * np.log(p) / K
    total = binary.binary_focal(
        jnp.array(logits), jnp.array(labels), gamma=gamma, alpha=alpha, divide_by="none"
    )
    assert float(total) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_overlaps_equal_loops_and_an_absent_label_counts_nothing(smooth):
    logits, labels = random_case()
    sums = np.zeros((3, K))
    for _, k, z, present in pairs(logits, labels):
        sums[:, k] += np.array([present * probability(z), probability(z), present])
    both, found, present = sums
    occurs = present > 0
    assert occurs.tolist() == [True, False, True]
    dice = 1 - (2 * both + smooth) / (found + present + smooth)
    jaccard = 1 - (both + smooth) / (found + present - both + smooth)
    arrays = jnp.array(logits), jnp.array(labels)
    for loss, values in ((binary.binary_dice, dice), (binary.binary_jaccard, jaccard)):
        assert float(loss(*arrays, smooth=smooth)) == pytest.approx(
            np.sum(values * occurs) / K, rel=1e-5
        )


LOSSES = {
    "cross_entropy": binary.binary_cross_entropy,
    "focal": binary.binary_focal,
    "dice": binary.binary_dice,
    "jaccard": binary.binary_jaccard,
}


@pytest.mark.parametrize("ignored", [255, -1, 2**K])
@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_change_neither_value_nor_gradient(name, ignored):
    logits, labels = random_case()
    labels[labels == 255] = ignored
    void = labels == ignored
    loss = jax.value_and_grad(lambda z: LOSSES[name](z, jnp.array(labels)))
    value, gradient = loss(jnp.array(logits))
    other = logits.copy()
    other[void] = np.nan
    other_value, other_gradient = loss(jnp.array(other))
    assert float(value) == float(other_value)
    np.testing.assert_array_equal(gradient, other_gradient)
    np.testing.assert_array_equal(np.asarray(gradient)[void], 0)
    assert np.any(np.asarray(gradient)[~void] != 0)


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_labelled_is_zero(name):
    logits, labels = random_case()
    loss = jax.value_and_grad(lambda z: LOSSES[name](z, jnp.full(labels.shape, 255)))
    value, gradient = loss(jnp.array(logits))
    assert float(value) == 0
    np.testing.assert_array_equal(gradient, 0)


def test_gradient_is_probability_minus_presence():
    logits, labels = random_case()
    gradient = jax.grad(lambda z: binary.binary_cross_entropy_sum(z, jnp.array(labels))[0])
    expected = np.zeros((labels.size, K))
    for i, k, z, present in pairs(logits, labels):
        expected[i, k] = (probability(z) - present) / K
    np.testing.assert_allclose(
        np.reshape(gradient(jnp.array(logits)), (-1, K)), expected, atol=1e-6
    )


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_stay_finite(name):
    logits = jnp.array([[1e4, -1e4, 0.0], [-1e30, 1e30, 0.0]])
    loss = jax.value_and_grad(lambda z: LOSSES[name](z, jnp.array([0b010, 0b101])))
    value, gradient = loss(logits)
    assert np.isfinite(float(value))
    assert np.all(np.isfinite(gradient))


def test_bfloat16_logits_are_summed_in_float32():
    logits = jnp.full((1, 300, 300, 1), 0.0, jnp.bfloat16)
    total, _ = binary.binary_cross_entropy_sum(logits, jnp.zeros((1, 300, 300), jnp.int32))
    assert total.dtype == jnp.float32
    assert float(total) == pytest.approx(90_000 * np.log(2), rel=1e-5)
