import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses
from segjax.losses.boundary import nearness
from segjax.metrics.boundary import distance_to_boundary
from tests.losses.cases import WEIGHTS, K, compiled, random_case, softmax

boundary_cross_entropy = compiled(losses.boundary_cross_entropy)


def test_hand_computed_numbers():
    """A row of 0 0 0 1 1: pixels 2 and 3 are boundary pixels; logits of 0 cost log 2 a pixel."""
    labels = jnp.array([[[0, 0, 0, 1, 1]]])
    value = boundary_cross_entropy(jnp.zeros((1, 1, 5, 2)), labels, edge_weight=3.0, sigma=1.0)
    near = 2 + 2 * np.exp(-0.5) + np.exp(-2)
    assert float(value) == pytest.approx(np.log(2) * (5 + 3 * near) / 5, rel=1e-6)


@pytest.mark.parametrize("sigma", [0.5, 1.5, 4.0])
def test_nearness_is_that_of_exact_distances(sigma):
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, (3, 5, 7)).repeat(6, 1).repeat(4, 2)
    labels[random.random(labels.shape) < 0.1] = 255
    labels[2] = 1  # no boundary
    found = nearness(jnp.array(labels), jnp.array(labels != 255), sigma)
    distance = np.stack([distance_to_boundary(label.astype(np.uint8)) for label in labels])
    expected = np.exp(-(distance**2) / (2 * sigma**2)) * (distance <= np.ceil(4 * sigma))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not np.asarray(found)[2].any()
    assert (expected == 0).any()


def test_without_an_edge_weight_or_an_edge_it_is_cross_entropy():
    logits, labels = random_case()
    p = softmax(logits)[labels != 255]
    classes = labels[labels != 255]
    losses = -np.log(p[np.arange(len(p)), classes])
    expected = np.mean(losses * WEIGHTS[classes])
    value = boundary_cross_entropy(
        jnp.array(logits), jnp.array(labels), jnp.array(WEIGHTS), edge_weight=0.0
    )
    assert float(value) == pytest.approx(expected, rel=1e-5)
    alone = np.full_like(labels, 2)
    value = boundary_cross_entropy(jnp.array(logits), jnp.array(alone), edge_weight=5.0)
    assert float(value) == pytest.approx(np.mean(-np.log(softmax(logits)[..., 2])), rel=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"edge_weight": -1.0}, r"edge_weight=-1\.0; use a number of 0 or more"),
        ({"sigma": 0.0}, r"sigma=0\.0; use a number of pixels in \(0, 100\]"),
        ({"divide_by": "weights"}, r"divide_by='weights'; use labelled, all or none"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        boundary_cross_entropy(jnp.zeros((1, 2, 3, K)), jnp.zeros((1, 2, 3), jnp.int32), **options)
