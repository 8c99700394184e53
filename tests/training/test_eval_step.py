"""The evaluation step: counts per image, at the labels' size."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.losses.pixelwise import cross_entropy_sum
from segjax.training.step import augmented, make_eval_step
from segjax.transforms.normalize import Normalization
from tests.training.toys import (
    FIXED,
    KEY,
    MEAN,
    NORMALIZATION,
    SIZE,
    STD,
    K,
    N,
    Plain,
    make_batch,
    new_state,
    numpy_confusion,
)

pytestmark = pytest.mark.versions


@pytest.mark.parametrize("label_size", [SIZE, (20, 24)])
def test_eval_step_counts_each_image_at_the_labels_size(label_size):
    model = Plain()
    variables = new_state(model).eval_variables()
    random = np.random.default_rng(2)
    labels = random.integers(0, K, (N, *label_size)).astype(np.uint8)
    labels[random.random(labels.shape) < 0.2] = 255
    labels[-1] = 255  # a row of padding
    image = np.asarray(make_batch()["image"])
    rows, sums = jax.jit(make_eval_step(model, NORMALIZATION))(
        variables, {"image": jnp.array(image), "label": jnp.array(labels)}
    )
    outputs = rows | sums
    normalised = jnp.array((image / 255 - np.array(MEAN)) / np.array(STD), jnp.float32)
    logits = model.apply(variables, normalised, train=False)["logits"]
    if label_size != SIZE:
        # Half-pixel bilinear; at the edges, jax.image.resize renormalises to the same numbers.
        logits = jax.image.resize(logits, (N, *label_size, K), "bilinear", antialias=False)
    predictions = np.argmax(logits, -1)
    assert outputs["confusion"].shape == (N, K, K)
    for image_counts, label, prediction in zip(
        outputs["confusion"], labels, predictions, strict=True
    ):
        difference = np.abs(np.asarray(image_counts) - numpy_confusion(label, prediction))
        assert difference.sum() <= 2  # a tie broken by rounding
    assert int(outputs["confusion"][-1].sum()) == 0
    assert int(outputs["pixels"]) == np.sum(labels < K) == int(outputs["confusion"].sum())
    expected, _ = cross_entropy_sum(logits[:-1], jnp.array(labels[:-1], jnp.int32))
    assert float(outputs["loss_sum"]) == pytest.approx(float(expected), rel=1e-5)


def test_training_and_evaluation_see_the_same_local_contrast():
    normalization = Normalization(MEAN, STD, 5)
    objective = dataclasses.replace(FIXED, normalization=normalization)
    batch = make_batch(ignored=(0.0,) * N)
    images, _ = jax.jit(lambda batch: augmented(KEY, batch, objective))(batch)

    class Seen(nn.Module):
        """Returns its input."""

        num_classes: int = 3

        @nn.compact
        def __call__(self, images, *, train):
            return {"logits": images}

    _, outputs = jax.jit(make_eval_step(Seen(), normalization))({}, batch)
    expected, _ = cross_entropy_sum(images, batch["label"].astype(jnp.int32))
    assert float(outputs["loss_sum"]) == pytest.approx(float(expected), rel=1e-5)
    _, plain = jax.jit(make_eval_step(Seen(), NORMALIZATION))({}, batch)
    assert abs(float(plain["loss_sum"]) - float(expected)) > 1
