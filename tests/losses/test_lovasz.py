import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses
from tests.losses.cases import K, compiled, random_case, softmax

lovasz_softmax = compiled(losses.lovasz_softmax)


def jaccard_loss(wrong, members):
    """Of a class with these members, if these pixels are wrong: sets of pixels."""
    union = members | wrong
    return len(wrong) / len(union) if union else 0.0


def twin(p, labels, classes):
    """The Lovasz extension of `jaccard_loss` by its definition, over the pixels of an image."""
    losses = []
    for c in range(K):
        members = {i for i, label in enumerate(labels) if label == c}
        if classes == "present" and not members:
            continue
        errors = {i: abs((x == c) - p[i, c]) for i, x in enumerate(labels) if x < K}
        order, total = sorted(errors, key=errors.get, reverse=True), 0.0
        for n, pixel in enumerate(order):
            rise = jaccard_loss(set(order[: n + 1]), members) - jaccard_loss(
                set(order[:n]), members
            )
            total += errors[pixel] * rise
        losses.append(total)
    return np.mean(losses)


@pytest.mark.parametrize("classes", ["present", "all"])
@pytest.mark.parametrize("per_image", [False, True])
def test_equals_the_definition(classes, per_image):
    logits, labels = random_case((2, 4, 5))
    p, flat = softmax(logits).reshape(2, -1, K), labels.reshape(2, -1)
    if per_image:
        expected = np.mean([twin(*image, classes) for image in zip(p, flat, strict=True)])
    else:
        expected = twin(p.reshape(-1, K), flat.ravel(), classes)
    value = lovasz_softmax(
        jnp.array(logits), jnp.array(labels), classes=classes, per_image=per_image
    )
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_of_certain_predictions_it_is_one_minus_the_iou():
    """0 0 1 1 1 against 0 0 0 1 and one that is ignored: IoU 2/3 and 1/2."""
    logits = 200.0 * jnp.eye(3)[jnp.array([[0, 0, 1, 1, 1]])]
    labels = jnp.array([[0, 0, 0, 1, 255]])
    value = lovasz_softmax(logits, labels)
    assert float(value) == pytest.approx((1 / 3 + 1 / 2) / 2, rel=1e-6)
    assert float(lovasz_softmax(logits, labels, classes="all")) == pytest.approx(5 / 18, rel=1e-6)


@pytest.mark.slow
def test_many_pixels_keep_their_digits():
    """In float32 the difference of two Jaccard losses would be off by a tenth here."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (1, 2**18)).astype(np.int32)
    logits = random.normal(0, 1, (1, 2**18, 2)).astype(np.float32)
    with jax.enable_x64(True):
        exact = jax.grad(lovasz_softmax)(jnp.array(logits, jnp.float64), jnp.array(labels))
    gradient = jax.grad(lovasz_softmax)(jnp.array(logits), jnp.array(labels))
    # Pixels whose errors are equal in float32 may change places.
    np.testing.assert_allclose(gradient, exact, rtol=1e-3, atol=1e-10)


def test_an_image_that_is_ignored_counts_as_zero():
    logits, labels = random_case()
    alone = float(lovasz_softmax(jnp.array(logits[:1]), jnp.array(labels[:1])))
    labels[1] = 255
    value = lovasz_softmax(jnp.array(logits), jnp.array(labels), per_image=True)
    assert float(value) == pytest.approx(alone / 2, rel=1e-6)
    labels[1] = -1
    value = lovasz_softmax(jnp.array(logits), jnp.array(labels), per_image=True)
    assert float(value) == pytest.approx(alone, rel=1e-6)


def test_unknown_classes():
    with pytest.raises(ValueError, match=r"classes='some'; use present or all"):
        lovasz_softmax(jnp.zeros((1, 2, 3)), jnp.zeros((1, 2), jnp.int32), classes="some")
