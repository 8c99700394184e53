"""The views of the canvas: against `Predictor`, by hand, and through the steps of evaluation."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.data.fitted import FittedDataset, fit_image, fitted_size
from segjax.data.scored import ScoredDataset
from segjax.data.streets.dataset import Streets
from segjax.inference import scoring
from segjax.inference.options import InferenceOptions
from segjax.inference.tta import view_scores
from segjax.layers import resize_bilinear
from segjax.training.evaluation import evaluate
from segjax.training.forward import logits_fn
from segjax.training.head import SOFTMAX, Sigmoid
from segjax.training.mesh import make_devices
from segjax.training.step import make_eval_step
from segjax.transforms.normalize import Normalization
from tests.inference.test_scoring import NONE
from tests.inference.toys import BrightestThird, SeesItsPlace, toy_predictor
from tests.training.toys import numpy_confusion

CANVAS, K = (24, 32), 3
VIEWS = InferenceOptions(scales=(0.75, 1, 1.25), flip=True)
NORMALIZATION = Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def softmax(scores):
    return np.asarray(jax.nn.softmax(scores))


def noise(size, seed=0):
    """Levels that vary from pixel to pixel, in steps of 8 pixels too."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 160, (-(-size[0] // 8), -(-size[1] // 8), 3))
    coarse = coarse.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
    return (coarse + random.integers(0, 96, (*size, 3))).astype(np.uint8)


def test_without_views_the_forward_pass_itself():
    forward = logits_fn(BrightestThird(), NORMALIZATION)
    assert view_scores(forward, InferenceOptions()) is forward
    assert view_scores(forward, InferenceOptions(scales=(1,), batch_size=2)) is forward


@pytest.mark.parametrize("scales", [(1.0,), (0.75, 1, 1.25), (0.4, 1.75)])
@pytest.mark.parametrize("flip", [True, False])
def test_an_image_of_the_canvas_s_size_has_the_views_of_prediction(scales, flip):
    """Pillow and the device round levels in another order: they may differ by one."""
    images = np.stack([noise(CANVAS, 1), noise(CANVAS, 2)])
    options = InferenceOptions(scales=scales, flip=flip)
    predictor = toy_predictor(SeesItsPlace(), 3.0, scales=scales, flip=flip)
    forward = jax.jit(view_scores(predictor.forward, options))
    for image, scores in zip(images, forward(3.0, images), strict=True):
        found, wanted = softmax(scores), softmax(predictor.logits(image))
        np.testing.assert_allclose(found, wanted, atol=0.01)
        assert np.mean(np.abs(found - wanted)) < 1e-3
        other = np.asarray(scores).argmax(-1) != predictor.predict(image)
        first, second = np.sort(wanted[other], -1)[:, :0:-1].T
        assert np.all(first - second < 0.02)
        assert other.mean() < 0.01


@pytest.mark.parametrize("size", [(24, 16), (12, 32), (48, 32), (90, 61)])
def test_an_image_that_fills_a_part_of_the_canvas_stays_in_its_place(size):
    """The pixels beside the rest of the canvas mix with it; the others have the views of
    prediction, of the image that lies on the canvas."""
    height, width = fitted_size(size, CANVAS)
    fitted = fit_image(noise(size), CANVAS)
    predictor = toy_predictor(SeesItsPlace(), 3.0, scales=(0.5, 1, 1.5), flip=True)
    scores = view_scores(predictor.forward, predictor.options)(3.0, fitted[None])[0]
    # Prediction works on the image in its own pixels, as does the canvas of an image of its size.
    wanted = softmax(predictor.logits(fitted[:height, :width]))
    found = softmax(scores)[:height, :width]
    inner = np.ix_(*(range(n - 2 * (n < m)) for n, m in zip((height, width), CANVAS, strict=True)))
    np.testing.assert_allclose(found[inner], wanted[inner], atol=0.04)
    assert np.abs(found - wanted).mean() < 0.01
    # Elsewhere on the canvas, as if a view had moved the image, they differ.
    assert np.abs(softmax(scores)[:height, ::-1][:, :width] - wanted).mean() > 0.04


def test_a_mirrored_view_changes_nothing_where_the_network_is_symmetric():
    images = np.stack([noise(CANVAS), fit_image(noise((20, 9)), CANVAS)])
    forward = logits_fn(BrightestThird(), NORMALIZATION)
    plain = forward(1.0, images)
    mirrored = view_scores(forward, InferenceOptions(flip=True))(1.0, images)
    np.testing.assert_allclose(softmax(mirrored), softmax(plain), atol=1e-6)
    scaled = view_scores(forward, InferenceOptions(scales=(0.5,)))(1.0, images)
    both = view_scores(forward, InferenceOptions(scales=(0.5,), flip=True))(1.0, images)
    np.testing.assert_allclose(softmax(both), softmax(scaled), atol=1e-6)
    assert np.abs(softmax(scaled) - softmax(plain)).max() > 0.1


class Stencil(nn.Module):
    """Logits that are fixed sums of a pixel and its neighbours, unlike on both sides."""

    num_classes: int = K

    @nn.compact
    def __call__(self, images, *, train):
        weights = np.random.default_rng(0).normal(size=(3, 3, 3, K)).astype(np.float32)
        dims = ("NHWC", "HWIO", "NHWC")
        logits = jax.lax.conv_general_dilated(
            images, weights, (1, 1), "SAME", dimension_numbers=dims
        )
        return {"logits": logits}


class Scenes:
    """Street scenes with 3 of their classes, each second one too narrow for the canvas."""

    classes = None

    def __len__(self):
        return 5

    def __getitem__(self, index):
        size = (48, 64) if index % 2 else (40, 32)
        sample = Streets("val", size, length=5)[index]
        label = sample["label"]
        return {"image": sample["image"], "label": np.where(label < K, label, 255).astype(np.uint8)}


def data(scored):
    return FittedDataset(Scenes(), CANVAS) if scored is None else ScoredDataset(Scenes(), CANVAS)


@functools.cache
def evaluated(scored=None, mode="jit", count=1, space=1, head=SOFTMAX, options=VIEWS):
    """The evaluation of all views, in batches of 3."""
    where = {"mode": mode, "data": count, "space": space, "shard_optimizer": False}
    devices = make_devices(where)
    step = scoring.make_scoring_step(Stencil(), NORMALIZATION, head, options=options)
    step = devices.compile_eval(step)
    return scoring.evaluate_fully(step, NONE, data(scored), 3, devices, K, head=head)


@functools.cache
def scores_by_hand(head=SOFTMAX):
    """The scores of each scene on its canvas, from the mean of the probabilities in float64."""
    forward, all_scores = logits_fn(Stencil(), NORMALIZATION), []
    for index in range(len(Scenes())):
        image = jnp.asarray(data(None)[index]["image"])
        views = []
        for scale in VIEWS.scales:
            size = round(CANVAS[0] * scale), round(CANVAS[1] * scale)
            seen = jax.image.resize(image.astype(jnp.float32), (*size, 3), "bilinear")
            seen = jnp.round(seen).astype(jnp.uint8)[None]
            for logits in (forward({}, seen), forward({}, seen[:, :, ::-1])[:, :, ::-1]):
                views.append(np.float64(head.probabilities(resize_bilinear(logits, CANVAS))[0]))
        mean = np.mean(views, 0)
        all_scores.append(np.log(mean) - (0 if head is SOFTMAX else np.log1p(-mean)))
    return all_scores


def at_labels(scores, scored, label):
    """Scores on the canvas at the size of the label."""
    if scored is None:
        return scores
    height, width = fitted_size(label.shape, CANVAS)
    return np.asarray(resize_bilinear(jnp.float32(scores[None, :height, :width]), label.shape))[0]


@pytest.mark.parametrize("scored", [None, "own"])
def test_evaluation_measures_the_mean_probabilities(scored):
    found, total, nll = evaluated(scored), np.zeros((K, K), int), 0.0
    for index, scores in enumerate(scores_by_hand()):
        label = (data(None) if scored is None else Scenes())[index]["label"]
        scores = at_labels(scores, scored, label)
        confusion = numpy_confusion(label, scores.argmax(-1))
        assert np.abs(found.confusions[index] - confusion).sum() <= 2  # ties
        total += confusion
        known, logs = label < K, np.log(softmax(scores))
        nll -= np.take_along_axis(logs[known], label[known][:, None], 1).sum()
    pixels = found.confusion.sum()
    assert pixels == total.sum() == found.calibration["pixels"]
    assert found.loss == pytest.approx(nll / pixels, rel=1e-4)
    assert found.calibration["nll"] == pytest.approx(found.loss, rel=1e-4)
    assert found.boundary["bf"] > 0
    plain = evaluated(scored, options=InferenceOptions())
    assert plain.confusion.sum() == pixels
    assert np.abs(plain.confusion - found.confusion).sum() > pixels / 100


def test_one_view_is_the_plain_evaluation():
    devices = make_devices({"mode": "jit", "data": 1, "space": 1, "shard_optimizer": False})
    step = devices.compile_eval(make_eval_step(Stencil(), NORMALIZATION))
    plain = evaluate(step, NONE, data(None), 3, devices)
    found = evaluated(options=InferenceOptions(scales=(1,)))
    np.testing.assert_array_equal(found.confusion, plain.confusion)
    assert found.loss == plain.loss


@pytest.mark.parametrize("where", [{"count": 4}, {"count": 4, "mode": "pmap"}, {"space": 2}])
@pytest.mark.parametrize("scored", [None, "own"])
def test_devices_change_nothing(scored, where):
    many, one = evaluated(scored, **where), evaluated(scored)
    assert many.names == one.names
    assert np.abs(many.confusion - one.confusion).sum() <= 4  # ties
    assert many.loss == pytest.approx(one.loss, rel=1e-5)
    assert many.calibration["ece"] == pytest.approx(one.calibration["ece"], rel=1e-3)


@pytest.mark.parametrize("scored", [None, "own"])
def test_views_of_a_sigmoid_head(scored):
    """Labels of 3 bits: the ids 0 to 2 are labels here too."""
    head = Sigmoid((0.5, 0.3, 0.6))
    found = evaluated(scored, head=head)
    thresholds = np.log(head.thresholds) - np.log1p(-np.array(head.thresholds))
    for index, scores in enumerate(scores_by_hand(head)):
        label = (data(None) if scored is None else Scenes())[index]["label"]
        predicted = (at_labels(scores, scored, label) > thresholds) @ (1 << np.arange(K))
        counts = head.counts(jnp.int32(label), jnp.int32(predicted), K)
        assert np.abs(found.confusions.counts[index] - counts).sum() <= 4  # ties
    assert np.isfinite(found.loss)


def test_a_crf_is_given_the_scores_of_the_views():
    image = np.stack([data(None)[index]["image"] for index in range(len(Scenes()))])
    step = jax.jit(scoring.make_logits_step(Stencil(), NORMALIZATION, VIEWS))
    rows, _ = step({}, {"image": image})
    np.testing.assert_allclose(
        softmax(rows["logits"]), softmax(np.stack(scores_by_hand())), atol=0.01
    )
