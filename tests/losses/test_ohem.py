import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses
from tests.losses.cases import WEIGHTS, compiled, random_case, softmax

cross_entropy, ohem = map(compiled, (losses.cross_entropy, losses.ohem))


def twin(logits, labels, threshold, min_kept):
    """Losses and classes of the pixels that are kept, hardest first."""
    labelled = labels != 255
    p = softmax(logits)[labelled]
    classes = labels[labelled]
    pixels = sorted(zip(p[np.arange(len(p)), classes], classes, strict=True))
    count = sum(probability <= threshold for probability, _ in pixels)
    pixels = pixels[: max(count, min_kept * len(labels))]
    return -np.log([x for x, _ in pixels]), np.array([c for _, c in pixels])


@pytest.mark.parametrize(
    "threshold, min_kept", [(0.3, 1), (0.3, 25), (0.0, 7), (1.0, 1), (0.5, 1000)]
)
def test_equals_a_sort(threshold, min_kept):
    logits, labels = random_case()
    losses, classes = twin(logits, labels, threshold, min_kept)
    by = {
        "kept": len(losses),
        "weights": WEIGHTS[classes].sum(),
        "all": labels.size,
        "none": 1,
    }
    for divide_by, divisor in by.items():
        value = ohem(
            jnp.array(logits),
            jnp.array(labels),
            jnp.array(WEIGHTS),
            threshold=threshold,
            min_kept=min_kept,
            divide_by=divide_by,
        )
        expected = np.sum(losses * WEIGHTS[classes]) / divisor
        assert float(value) == pytest.approx(expected, rel=1e-5)


def test_only_pixels_that_are_kept_have_a_gradient():
    logits, labels = random_case()
    gradient = jax.grad(ohem)(jnp.array(logits), jnp.array(labels), threshold=0.0, min_kept=7)
    assert np.sum(np.any(np.asarray(gradient) != 0, -1)) == 14


def test_all_pixels_is_cross_entropy():
    logits, labels = map(jnp.array, random_case())
    value = ohem(logits, labels, threshold=1.0)
    assert float(value) == pytest.approx(float(cross_entropy(logits, labels)), rel=1e-6)
    assert float(ohem(logits, labels)) == pytest.approx(float(value), rel=1e-6)  # 100,000 are more


@pytest.mark.parametrize(
    "options, message",
    [
        ({"threshold": 1.5}, r"threshold=1\.5; use a number in \[0, 1\]"),
        ({"min_kept": 0}, r"min_kept=0; use 1 or more"),
        ({"divide_by": "labelled"}, r"divide_by='labelled'; use kept, weights, all or none"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        ohem(jnp.zeros((1, 2, 3)), jnp.zeros((1, 2), jnp.int32), **options)
