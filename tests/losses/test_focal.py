import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses
from tests.losses.cases import WEIGHTS, K, compiled, random_case, softmax

cross_entropy, focal = map(compiled, (losses.cross_entropy, losses.focal))


def test_hand_computed_numbers():
    # Probabilities 3/4 and 1/2 of what is true; the third is ignored.
    logits = jnp.array([[0.0, np.log(3.0)], [5.0, 5.0], [9.0, -9.0]])
    labels = jnp.array([1, 0, 255])
    expected = (np.log(4 / 3) / 16 + np.log(2) / 4) / 2
    assert float(focal(logits, labels)) == pytest.approx(expected, rel=1e-6)
    # Of each class: 1 - p is 1/4 and 1/2 at 1 (true) and 0 (false) of the first pixel.
    logits = jnp.array([[0.0, np.log(3.0)]])
    expected = (0.5**2 * np.log(2) * 0.9 + 0.25**2 * np.log(4 / 3) * 0.1) / 2
    value = focal(logits, jnp.array([1]), activation="sigmoid", alpha=0.1)
    assert float(value) == pytest.approx(expected, rel=1e-6)


def test_without_gamma_it_is_cross_entropy():
    logits, labels = map(jnp.array, random_case())
    weights = jnp.array(WEIGHTS)
    for by in ("labelled", "all", "weights", "none"):
        expected = float(cross_entropy(logits, labels, weights, divide_by=by))
        value = focal(logits, labels, weights, gamma=0.0, divide_by=by)
        assert float(value) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_sigmoid_equals_a_loop(alpha):
    logits, labels = random_case((2, 3, 4))
    total = 0.0
    for z, label in zip(logits.reshape(-1, K).astype(np.float64), labels.ravel(), strict=True):
        for c in range(K if label != 255 else 0):
            p = 1 / (1 + np.exp(-z[c]))
            p_true, balance = (p, alpha) if c == label else (1 - p, 1 - (alpha or 0))
            total -= (1 if alpha is None else balance) * (1 - p_true) ** 3 * np.log(p_true) / K
    value = focal(
        jnp.array(logits), jnp.array(labels), gamma=3.0, alpha=alpha, activation="sigmoid"
    )
    assert float(value) == pytest.approx(total / np.sum(labels != 255), rel=1e-5)


def test_it_looks_away_from_easy_pixels():
    logits, _ = random_case()
    p = softmax(logits)
    easy = p.argmax(-1)
    ratio = float(focal(jnp.array(logits), jnp.array(easy))) / float(
        cross_entropy(jnp.array(logits), jnp.array(easy))
    )
    assert ratio < 0.25


@pytest.mark.parametrize(
    "options, message",
    [
        ({"gamma": -1.0}, r"gamma=-1\.0; use a number of 0 or more"),
        ({"gamma": float("nan")}, r"gamma=nan"),
        ({"alpha": 2.0, "activation": "sigmoid"}, r"alpha=2\.0; use a number in \[0, 1\]"),
        ({"alpha": 0.5}, r"alpha=0\.5 with activation='softmax'; use activation=sigmoid"),
        ({"activation": "tanh"}, r"activation='tanh'; use softmax or sigmoid"),
        ({"divide_by": "mean"}, r"divide_by='mean'; use labelled, all, weights or none"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        focal(jnp.zeros((2, 3)), jnp.zeros(2, jnp.int32), **options)
