import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses
from tests.losses.cases import K, compiled, random_case, softmax

dice, jaccard, tversky = map(compiled, (losses.dice, losses.jaccard, losses.tversky))

# Predictions that are certain: 0 0 1 1 1 with the labels 0 0 0 1 and one that is ignored.
CERTAIN = 200 * np.eye(3, dtype=np.float32)[[[0, 0, 1, 1, 1]]]
LABELS = np.array([[0, 0, 0, 1, 255]], np.int32)


@pytest.mark.parametrize(
    "loss, scores",
    [
        (dice, (4 / 5, 2 / 3)),
        (jaccard, (2 / 3, 1 / 2)),
        (lambda *a, **o: tversky(*a, alpha=0.2, beta=0.8, **o), (2 / 2.8, 1 / 1.2)),
    ],
)
def test_hand_computed_numbers(loss, scores):
    misses = 2 - sum(scores)
    assert float(loss(CERTAIN, LABELS)) == pytest.approx(misses / 3, rel=1e-6)
    assert float(loss(CERTAIN, LABELS, absent="skip")) == pytest.approx(misses / 2, rel=1e-6)


def test_an_absent_class_that_is_predicted():
    """Two pixels, 0 and 2 predicted, 0 and 0 right; smooth 1. Scores: 3/4, 1 of absent 1, 1/2."""
    logits = 200.0 * jnp.eye(3)[jnp.array([[0, 2]])]
    labels = jnp.array([[0, 0]])
    for absent, expected in (("zero", 0.25 / 3), ("skip", 0.25), ("count", 0.75 / 3)):
        value = dice(logits, labels, smooth=1.0, absent=absent)
        assert float(value) == pytest.approx(expected, rel=1e-6)
    gradient = jax.grad(dice)(jnp.zeros((1, 2, 3)), labels)
    assert np.all(np.isfinite(gradient))


def twin(logits, labels, score, smooth, squared, per_image, absent):
    """Pixel by pixel: `score(both, predicted, labelled)` of each class."""
    images = [[i] for i in range(len(labels))] if per_image else [range(len(labels))]
    means = []
    for rows in images:
        losses = []
        for c in range(K):
            both = predicted = labelled = 0.0
            for i in rows:
                p = softmax(logits[i])[..., c]
                for place in np.ndindex(p.shape):
                    if labels[i][place] < K:
                        both += p[place] * (labels[i][place] == c)
                        predicted += p[place] ** (2 if squared else 1)
                        labelled += labels[i][place] == c
            loss = 1 - score(both, predicted, labelled, smooth)
            if labelled or absent == "count":
                losses.append(loss)
            elif absent == "zero":
                losses.append(0.0)
        means.append(np.mean(losses))
    return np.mean(means)


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("absent", ["zero", "skip", "count"])
def test_equals_a_loop_over_pixels(per_image, absent):
    logits, labels = random_case((2, 3, 4))
    options = {"smooth": 1.5, "per_image": per_image, "absent": absent}
    for loss, squared, score in (
        (dice, False, lambda i, p, t, s: (2 * i + s) / (p + t + s)),
        (dice, True, lambda i, p, t, s: (2 * i + s) / (p + t + s)),
        (jaccard, False, lambda i, p, t, s: (i + s) / (p + t - i + s)),
        (
            lambda *a, **o: tversky(*a, alpha=0.3, beta=0.9, **o),
            False,
            lambda i, p, t, s: (i + s) / (i + 0.3 * (p - i) + 0.9 * (t - i) + s),
        ),
    ):
        more = {"squared": True} if squared else {}
        value = loss(jnp.array(logits), jnp.array(labels), **options, **more)
        expected = twin(logits, labels, score, squared=squared, **options)
        assert float(value) == pytest.approx(expected, rel=1e-5)


def test_relations():
    logits, labels = map(jnp.array, random_case())
    value = float(dice(logits, labels, absent="skip"))
    assert float(tversky(logits, labels, absent="skip")) == pytest.approx(value, rel=1e-6)
    squared = float(tversky(logits, labels, gamma=2.0, absent="skip"))
    assert squared == pytest.approx(value**2, rel=1e-6)
    one = float(jaccard(logits, labels))
    assert float(tversky(logits, labels, alpha=1.0, beta=1.0)) == pytest.approx(one, rel=1e-6)


def test_a_batch_is_not_the_mean_of_its_parts():
    logits, labels = map(jnp.array, random_case())
    parts = [float(dice(logits[i : i + 1], labels[i : i + 1])) for i in (0, 1)]
    assert abs(float(dice(logits, labels)) - np.mean(parts)) > 1e-3
    image_by_image = float(dice(logits, labels, per_image=True))
    assert image_by_image == pytest.approx(np.mean(parts), rel=1e-6)


@pytest.mark.parametrize(
    "loss, options, message",
    [
        (dice, {"smooth": -1.0}, r"smooth=-1\.0; use a number of 0 or more"),
        (jaccard, {"absent": "mean"}, r"absent='mean'; use zero, skip or count"),
        (dice, {"absent": "count"}, r"absent='count' with smooth=0; use smooth=1"),
        (tversky, {"alpha": float("nan")}, r"alpha=nan"),
        (tversky, {"beta": -0.1}, r"beta=-0\.1"),
        (tversky, {"gamma": 0.0}, r"gamma=0\.0; use a number above 0"),
    ],
)
def test_options_out_of_range(loss, options, message):
    with pytest.raises(ValueError, match=message):
        loss(CERTAIN, LABELS, **options)
