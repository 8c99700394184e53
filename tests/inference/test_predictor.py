"""Prediction at the image's own size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.data.fitted import fit_image, fitted_size
from segjax.inference.options import InferenceOptions
from segjax.inference.predictor import Predictor
from segjax.layers import resize_bilinear
from tests.inference.toys import BrightestThird, SeesItsPlace, toy_predictor

pytestmark = pytest.mark.versions


def scene(size):
    """Left half green, right half blue, upper rows red; the classes and the image."""
    height, width = size
    truth = np.ones(size, int)
    truth[:, width // 2 :] = 2
    truth[: height // 3] = 0
    return truth, (np.eye(3)[truth] * 250).astype(np.uint8)


SIZES = [(24, 32), (48, 64), (37, 53), (30, 90), (100, 20), (1, 1)]


@pytest.mark.parametrize("inference", ["resize", "whole", "slide"])
def test_labels_have_the_images_size_and_place(inference):
    predictor = toy_predictor(BrightestThird(), inference=inference)
    for size in SIZES:
        truth, image = scene(size)
        label = predictor.predict(image)
        assert label.shape == size
        assert label.dtype == np.uint8
        # Resizing to the canvas and back may change pixels beside a border.
        assert np.mean(label == truth) > (0.85 if inference == "resize" else 0.9999)


def canvas_logits(image, apply, canvas=(24, 32)):
    """The logits as evaluation computes them: on the canvas, then resized."""
    fitted = fitted_size(image.shape[:2], canvas)
    logits = apply(fit_image(image, canvas)[None].astype(np.float32) / 255)
    return np.asarray(resize_bilinear(logits[:, : fitted[0], : fitted[1]], image.shape[:2]))[0]


@pytest.mark.parametrize("size", [(24, 32), (31, 57), (90, 70)])
def test_the_canvas_is_what_evaluation_scores(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    predictor = toy_predictor(SeesItsPlace())
    expected = canvas_logits(
        image, lambda x: SeesItsPlace().apply(1.0, jnp.asarray(x), train=False)["logits"]
    )
    np.testing.assert_allclose(predictor.logits(image), expected, atol=1e-5)
    np.testing.assert_array_equal(predictor.predict(image), expected.argmax(-1))


def test_views_are_averaged_as_probabilities():
    """Two scales, each mirrored too, against one view after the other."""
    image = np.random.default_rng(1).integers(0, 256, (37, 53, 3)).astype(np.uint8)

    def model(x):
        return SeesItsPlace().apply(3.0, jnp.asarray(x), train=False)["logits"]

    probabilities = []
    for canvas in ((24, 32), (36, 48)):
        for apply in (model, lambda x: model(x[:, :, ::-1])[:, :, ::-1]):
            logits = canvas_logits(image, apply, canvas).astype(np.float64)
            e = np.exp(logits - logits.max(-1, keepdims=True))
            probabilities.append(e / e.sum(-1, keepdims=True))
    expected = np.mean(probabilities, 0)
    predictor = toy_predictor(SeesItsPlace(), 3.0, scales=(1.0, 1.5), flip=True)
    np.testing.assert_allclose(np.exp(predictor.logits(image)), expected, atol=1e-5)
    np.testing.assert_array_equal(predictor.predict(image), expected.argmax(-1))
    np.testing.assert_array_equal(predictor.predict_batch([image])[0], expected.argmax(-1))


@pytest.mark.parametrize("inference", ["resize", "whole", "slide"])
def test_batches_of_many_sizes(inference):
    """In the order they came, each as if alone; one program for all batches of the canvas."""
    rng = np.random.default_rng(2)
    sizes = [(24, 32), (40, 50), (24, 32), (33, 33), (7, 60), (24, 32), (24, 31)]
    images = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]
    predictor = toy_predictor(SeesItsPlace(), inference=inference, batch_size=2)
    labels = predictor.predict_batch(images)
    if inference == "resize":
        assert predictor._view_logits._cache_size() == 1
    for image, label in zip(images, labels, strict=True):
        np.testing.assert_array_equal(label, predictor.predict(image))
    assert predictor.predict_batch([]) == []


def test_many_sizes_compile_few_programs():
    """40 sizes up to 64x64: a network for each pair of 2 buckets; one on the canvas."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 65, (40, 2))
    images = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]
    traced = []

    class Counted(BrightestThird):
        def apply(self, variables, images, *, train):
            traced.append(images.shape)
            return super().apply(variables, images, train=train)

    for inference, most in (("whole", 4), ("resize", 1), ("slide", 1)):
        traced.clear()
        predictor = toy_predictor(Counted(), inference=inference)
        for image in images:
            predictor.predict(image)
        assert len(traced) == most, inference


def test_whole_images_are_padded_with_the_training_colour():
    """The model sees 0 beyond the image; the local mean of a blank image would show otherwise."""
    seen = []

    class Looks(BrightestThird):
        def apply(self, variables, images, *, train):
            jax.debug.callback(lambda x: seen.append(np.array(x)), images)
            return super().apply(variables, images, train=train)

    predictor = toy_predictor(Looks(), inference="whole")
    predictor.config.data.mean = (0.5, 0.5, 0.5)
    predictor = Predictor(
        Looks(), 1.0, predictor.classes, predictor.config, InferenceOptions(inference="whole")
    )
    predictor.predict(np.full((20, 40, 3), 255, np.uint8))
    jax.effects_barrier()
    assert seen[0].shape == (1, 32, 64, 3)
    np.testing.assert_allclose(seen[0][0, :20, :40], 0.5, rtol=1e-6)
    assert not seen[0][0, 20:].any()
    assert not seen[0][0, :, 40:].any()


@pytest.mark.usefixtures("unchecked")
def test_wrong_input():
    predictor = toy_predictor(BrightestThird())
    with pytest.raises(ValueError, match=r"uint8 image \[h, w, 3\], found float64 \(4, 4, 3\)"):
        predictor.predict(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match=r"found uint8 \(4, 4\)"):
        predictor.predict_batch([np.zeros((4, 4), np.uint8)])
    with pytest.raises(ValueError, match=r"image with pixels, found \(0, 4, 3\)"):
        predictor.predict(np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"out is float64 \(4, 4\); use a uint8 array \(4, 5\)"):
        predictor.predict(np.zeros((4, 5, 3), np.uint8), np.zeros((4, 4)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "options, message",
    [
        (dict(inference="tiles"), "inference='tiles' is unknown; use resize, whole, slide"),
        (dict(inference="slide", blend="cubic"), "blend='cubic' is unknown; use uniform, linear"),
        (dict(window=(8, 8)), r"window=\(8, 8\) with inference='resize'; use inference='slide'"),
        (dict(inference="slide", window=(8, 0)), r"window=\(8, 0\); use \(height, width\)"),
        (dict(inference="slide", window=(8,)), r"window=\(8,\); use \(height, width\)"),
        (dict(overlap=1.0), "overlap=1.0; use a share from 0 to below 1"),
        (dict(scales=()), r"scales=\(\); use factors above 0"),
        (dict(scales=(1, -1)), r"scales=\(1, -1\); use factors above 0"),
        (dict(batch_size=0), "batch_size=0; use a whole number, 1 or more"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        InferenceOptions(**options)


def test_no_run(tmp_path):
    with pytest.raises(ValueError, match=r"holds no run \(there is no config.json\)"):
        Predictor.from_workdir(tmp_path)
