import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.losses.pixelwise import cross_entropy, cross_entropy_sum

pytestmark = pytest.mark.versions

K = 4


def random_case(shape=(2, 5, 7), seed=0):
    """Logits, and labels of which a quarter are ignored."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (*shape, K)).astype(np.float32)
    labels = random.integers(0, K, shape)
    labels[random.random(shape) < 0.25] = 255
    return logits, labels.astype(np.int32)


def numpy_cross_entropy(logits, labels, weights):
    """Pixel by pixel in float64: the weighted sum and the count."""
    total, count = 0.0, 0
    for z, label in zip(logits.reshape(-1, K).astype(np.float64), labels.ravel(), strict=True):
        if label < K:
            total += weights[label] * (np.log(np.sum(np.exp(z - z.max()))) + z.max() - z[label])
            count += 1
    return total, count


def test_hand_computed_numbers():
    # Probabilities (1/4, 3/4) and (1/2, 1/2): -log(3/4) - log(1/2); the third is ignored.
    logits = jnp.array([[0.0, np.log(3.0)], [5.0, 5.0], [9.0, -9.0]])
    total, count = cross_entropy_sum(logits, jnp.array([1, 0, 255]))
    assert float(total) == pytest.approx(np.log(4 / 3) + np.log(2), rel=1e-6)
    assert int(count) == 2
    # Weights count in the sum, not in the number.
    total, count = cross_entropy_sum(logits, jnp.array([1, 0, 255]), jnp.array([2.0, 10.0]))
    assert float(total) == pytest.approx(10 * np.log(4 / 3) + 2 * np.log(2), rel=1e-6)
    assert int(count) == 2


def test_the_mean_is_over_labelled_pixels():
    logits = jnp.array([[0.0, np.log(3.0)], [5.0, 5.0], [9.0, -9.0]])
    mean = cross_entropy(logits, jnp.array([1, 0, 255]))
    assert float(mean) == pytest.approx((np.log(4 / 3) + np.log(2)) / 2, rel=1e-6)
    weighted = cross_entropy(logits, jnp.array([1, 0, 255]), jnp.array([2.0, 10.0]))
    assert float(weighted) == pytest.approx(5 * np.log(4 / 3) + np.log(2), rel=1e-6)
    ignored = jnp.full(3, 255)
    assert float(cross_entropy(logits, ignored)) == 0
    assert not jax.grad(cross_entropy)(logits, ignored).any()


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 0.0, 7.0)])
def test_equals_a_loop_over_pixels(weights):
    logits, labels = random_case()
    given = None if weights is None else jnp.array(weights)
    total, count = cross_entropy_sum(jnp.array(logits), jnp.array(labels), given)
    expected, pixels = numpy_cross_entropy(logits, labels, weights or (1.0,) * K)
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert int(count) == pixels


def test_mean_over_labelled_pixels_is_not_the_mean_over_weights():
    logits, labels = random_case()
    weights = np.array([0.5, 2.0, 1.0, 7.0])
    total, count = cross_entropy_sum(jnp.array(logits), jnp.array(labels), jnp.array(weights))
    expected, pixels = numpy_cross_entropy(logits, labels, weights)
    assert float(total / count) == pytest.approx(expected / pixels, rel=1e-5)
    by_weight = expected / weights[labels[labels < K]].sum()
    assert abs(float(total / count) - by_weight) > 0.1
    # A factor on all weights is a factor on the loss.
    doubled, _ = cross_entropy_sum(jnp.array(logits), jnp.array(labels), jnp.array(2 * weights))
    assert float(doubled) == pytest.approx(2 * float(total), rel=1e-6)


@pytest.mark.parametrize("ignored", [255, -1, K])
def test_ignored_pixels_change_neither_value_nor_gradient(ignored):
    logits, labels = random_case()
    labels[labels == 255] = ignored
    void = labels == ignored
    loss = jax.value_and_grad(lambda z: cross_entropy_sum(z, jnp.array(labels))[0])
    value, gradient = loss(jnp.array(logits))
    other = logits.copy()
    other[void] = 50 * np.random.default_rng(1).normal(size=(void.sum(), K))
    other_value, other_gradient = loss(jnp.array(other))
    assert float(value) == float(other_value)
    np.testing.assert_array_equal(gradient, other_gradient)
    np.testing.assert_array_equal(np.asarray(gradient)[void], 0)
    assert np.all(np.any(np.asarray(gradient)[~void] != 0, axis=-1))


def test_gradient_is_softmax_minus_one_hot():
    logits, labels = random_case()
    gradient = jax.grad(lambda z: cross_entropy_sum(z, jnp.array(labels))[0])(jnp.array(logits))
    exponentials = np.exp(logits.astype(np.float64))
    expected = exponentials / exponentials.sum(-1, keepdims=True)
    expected -= np.eye(K)[np.minimum(labels, K - 1)]
    expected[labels == 255] = 0
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_nothing_labelled_gives_zero_of_zero_pixels():
    logits, labels = random_case()
    labels = jnp.full(labels.shape, 255)
    (total, count), gradient = jax.value_and_grad(
        lambda z: cross_entropy_sum(z, labels), has_aux=True
    )(jnp.array(logits))
    assert float(total) == 0
    assert int(count) == 0
    np.testing.assert_array_equal(gradient, 0)


def test_extreme_logits_stay_finite():
    logits = jnp.array([[1e4, -1e4, 0.0], [-1e30, 1e30, 0.0], [-1e4, -1e4, -1e4]])
    value, gradient = jax.value_and_grad(lambda z: cross_entropy_sum(z, jnp.array([1, 1, 2]))[0])(
        logits
    )
    assert float(value) == pytest.approx(2e4 + np.log(3), rel=1e-6)
    assert np.all(np.isfinite(gradient))
