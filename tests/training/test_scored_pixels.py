"""Scores at the labels' own size, against an evaluation of one image after the other in numpy."""

import functools
import itertools

import jax
import numpy as np
import pytest

from segjax.data.fitted import fit_image, fitted_size
from segjax.data.scored import ScoredDataset, resize_label
from segjax.inference.scoring import evaluate_fully, make_scoring_step
from segjax.metrics.boundary import Boundaries
from segjax.training import scored_pixels
from segjax.training.evaluation import evaluate
from segjax.training.mesh import make_devices
from segjax.training.step import make_eval_step
from tests.inference.test_scoring import MEAN, NONE, NORMALIZATION, STD, Colours, K

CANVAS = (16, 24)
# Larger and smaller than the canvas, of its shape, wider and taller; one of a single row.
OWN = [(40, 60), (16, 24), (37, 21), (9, 70), (8, 12), (1, 5), (33, 50)]


class ManySizes:
    """Noise with labels of many sizes, some of it ignored."""

    classes = None

    def __len__(self):
        return len(OWN)

    def __getitem__(self, index):
        random = np.random.default_rng(index)
        coarse = random.integers(0, 256, (-(-OWN[index][0] // 4), -(-OWN[index][1] // 4), 3))
        image = coarse.repeat(4, 0).repeat(4, 1)[: OWN[index][0], : OWN[index][1]]
        label = random.integers(0, K, OWN[index])
        label[random.random(OWN[index]) < 0.2] = 255
        return {
            "image": image.astype(np.uint8),
            "label": label.astype(np.uint8),
            "name": f"{index}",
        }


def counted(label, prediction):
    kept = label < K
    return np.bincount(label[kept] * K + prediction[kept], minlength=K * K).reshape(K, K)


def bilinear(logits, size):
    """Two pixels along each axis, by half-pixel centres, in float64."""
    for axis, n in enumerate(size):
        m = logits.shape[axis]
        at = np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
        low = np.floor(at).astype(int)
        high, weight = np.minimum(low + 1, m - 1), (at - low).reshape(-1, *[1] * (2 - axis))
        logits = logits.take(low, axis) * (1 - weight) + logits.take(high, axis) * weight
    return logits


@functools.cache
def by_hand(scored):
    """(label, prediction) of each image, at the scored size."""
    pairs = []
    for sample in (ManySizes()[index] for index in range(len(OWN))):
        image = (fit_image(sample["image"], CANVAS) / 255 - MEAN) / STD
        logits = np.asarray(Colours().apply({}, image.astype(np.float32), train=False)["logits"])
        height, width = fitted_size(sample["label"].shape, CANVAS)
        logits = bilinear(logits[:height, :width].astype(np.float64), sample["label"].shape)
        prediction = logits.argmax(-1).astype(np.uint8)
        size = scored or sample["label"].shape
        pairs.append((resize_label(sample["label"], size), resize_label(prediction, size)))
    return pairs


@pytest.mark.parametrize("scored", [None, (20, 26), (3, 90)])
def test_every_image_is_scored_at_its_own_size_or_at_the_stated_one(monkeypatch, scored):
    monkeypatch.setattr(scored_pixels, "_LOGITS", 1 << 10)  # several pieces
    devices = make_devices({"mode": "jit", "data": 1, "space": 1, "shard_optimizer": False})
    step = devices.compile_eval(make_scoring_step(Colours(), NORMALIZATION))
    canvas = ScoredDataset(ManySizes(), CANVAS, scored, cache_mb=1)
    found = evaluate_fully(step, NONE, canvas, 4, devices, K)
    pairs, boundaries = by_hand(scored), Boundaries(K)
    for index, pair in enumerate(pairs):
        np.testing.assert_array_equal(found.confusions[index], counted(*pair))
        boundaries.add(*pair)
    np.testing.assert_equal(found.boundary, boundaries.summary())
    assert found.calibration["pixels"] == found.confusion.sum()
    assert found.loss == pytest.approx(found.calibration["nll"], rel=1e-5)
    # The evaluation during training counts the same.
    quick = devices.compile_eval(make_eval_step(Colours(), NORMALIZATION))
    np.testing.assert_array_equal(
        evaluate(quick, NONE, canvas, 4, devices).confusion, found.confusion
    )


@pytest.mark.parametrize("where", [{"data": 4}, {"data": 4, "mode": "pmap"}, {"space": 2}])
def test_devices_change_nothing(where):
    config = {"mode": "jit", "data": 1, "space": 1, "shard_optimizer": False, **where}
    devices = make_devices(config)
    step = devices.compile_eval(make_eval_step(Colours(), NORMALIZATION))
    found = evaluate(step, NONE, ScoredDataset(ManySizes(), CANVAS), 3, devices)
    for index, pair in enumerate(by_hand(None)):
        np.testing.assert_array_equal(found.confusions[index], counted(*pair))


def test_no_device_gathers_what_another_one_has():
    """Devices that share a batch send each other counts alone."""
    devices = make_devices({"mode": "jit", "data": 4, "space": 1, "shard_optimizer": False})
    canvas = ScoredDataset(ManySizes(), CANVAS)
    batch = canvas.stack([canvas[i] for i in range(4)])
    batch = devices.put({name: batch[name] for name in ("image", "label", "sizes")})
    step = devices.compile_eval(make_eval_step(Colours(), NORMALIZATION))
    text = step.lower(NONE, batch).compile().as_text()
    assert "all-reduce" in text
    assert "all-gather" not in text
    assert "collective-permute" not in text


def test_labels_are_flat_rows_of_few_lengths():
    canvas = ScoredDataset(ManySizes(), CANVAS)
    assert canvas.label_shape == (1024,)
    batch = canvas.stack([canvas[0], canvas[3]])
    assert batch["label"].shape == (2, 4096)
    assert canvas.label_shape == (4096,)  # the next batch too: one program more, not two
    np.testing.assert_array_equal(batch["label"][1, :630].reshape(9, 70), ManySizes()[3]["label"])
    assert (batch["label"][1, 630:] == 255).all()
    assert batch["sizes"].tolist() == [[40, 60, 40, 60, 16, 24], [9, 70, 9, 70, 3, 24]]


def test_samples_are_dropped_once_they_take_more_than_they_may():
    source = ManySizes()
    images = len(OWN) * 16 * 24 * 4
    canvas = ScoredDataset(source, CANVAS, cache_mb=(images + 3000) / 1e6)
    assert canvas[5] is canvas[5]
    for index in range(len(OWN)):
        canvas[index]
    assert canvas[5] is not canvas[5]


def test_logits_between_pixels_are_exact_for_any_two_sizes():
    logits = np.random.default_rng(0).normal(size=(129, 2, 3)).astype(np.float32)
    run = jax.jit(scored_pixels.logits_at)
    for own, filled in itertools.product((1, 2, 5, 16, 227), (1, 3, 16, 129)):
        found = run(logits, np.array([own, 1, own, 1, filled, 1], np.int32), np.arange(227))
        wanted = bilinear(logits[:filled, :1].astype(np.float64), (own, 1))[:, 0]
        np.testing.assert_allclose(found[:own], wanted, atol=1e-6)
