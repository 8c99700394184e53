"""The full evaluation against the quick one, and against each measure taken one image at a time."""

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.data.scored import ScoredDataset
from segjax.data.streets.dataset import Streets
from segjax.inference import scoring
from segjax.inference.crf import DenseCRF, dense_crf
from segjax.metrics.boundary import Boundaries
from segjax.metrics.by_object import StratifiedIoU
from segjax.metrics.calibration import calibration_counts, summarize_calibration
from segjax.metrics.protocols import PROTOCOLS
from segjax.training.evaluation import evaluate
from segjax.training.mesh import make_devices
from segjax.training.step import make_eval_step
from segjax.transforms.normalize import Normalization

K, SIZE, SCORED, LENGTH = 7, (16, 24), (32, 48), 5
NONE = {"none": {"x": np.zeros(1)}}  # pmap of JAX 0.10 fails without any array
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
NORMALIZATION = Normalization(MEAN, STD)


class Colours(nn.Module):
    """Logits that are a fixed linear function of a pixel's colour."""

    num_classes: int = K

    @nn.compact
    def __call__(self, images, *, train):
        weights = np.random.default_rng(0).normal(size=(3, K)).astype(np.float32)
        return {"logits": images @ weights}


def canvas() -> ScoredDataset:
    return ScoredDataset(Streets("val", SCORED, length=LENGTH), SIZE)


@functools.cache
def placed(mode="jit", data=1, space=1):
    """Devices, and the scoring step on them."""
    config = {"mode": mode, "data": data, "space": space, "shard_optimizer": False}
    devices = make_devices(config)
    return devices, devices.compile_eval(scoring.make_scoring_step(Colours(), NORMALIZATION))


def full(where=None, batch_size=2, **options) -> scoring.FullEvaluation:
    devices, step = placed(**(where or {}))
    return scoring.evaluate_fully(step, NONE, canvas(), batch_size, devices, K, **options)


@pytest.fixture(scope="module")
def evaluated():
    return full()


def test_counts_and_loss_are_the_quick_evaluation_s(evaluated):
    devices, _ = placed()
    step = devices.compile_eval(make_eval_step(Colours(), NORMALIZATION))
    quick = evaluate(step, {}, canvas(), 2, devices)
    np.testing.assert_array_equal(evaluated.confusion, quick.confusion)
    np.testing.assert_array_equal(evaluated.image_miou, quick.image_miou)
    assert list(evaluated.names) == list(quick.names)
    assert evaluated.loss == pytest.approx(quick.loss)
    assert evaluated.calibration["nll"] == pytest.approx(quick.loss, rel=1e-5)
    ours, theirs = evaluated.summary(), quick.summary()
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, rtol=1e-12, err_msg=key)


def test_measures_are_those_of_each_image_by_itself(evaluated):
    """One image after the other, without batches or padding."""
    boundaries, by_object, counts = Boundaries(K), StratifiedIoU(K), None

    @jax.jit
    def measured(image, label):
        image = (image / 255 - jnp.array(MEAN)) / jnp.array(STD)
        logits = Colours().apply({}, image, train=False)["logits"]
        logits = jax.image.resize(logits, (*SCORED, K), "bilinear")
        return jnp.argmax(logits, -1), calibration_counts(logits, label)

    for index in range(LENGTH):
        sample = canvas()[index]
        prediction, more = measured(sample["image"].astype(np.float32), sample["label"])
        prediction = np.asarray(prediction, np.uint8)
        boundaries.add(sample["label"], prediction)
        by_object.add(sample["label"], prediction)
        more = {key: np.asarray(value, np.float64) for key, value in more.items()}
        counts = {key: counts[key] + value for key, value in more.items()} if counts else more
    np.testing.assert_equal(evaluated.boundary, boundaries.summary())
    np.testing.assert_equal(evaluated.by_object, by_object.summary())
    wanted = summarize_calibration(counts)
    for key in ("ece", "mce", "brier", "nll", "pixels"):
        assert evaluated.calibration[key] == pytest.approx(wanted[key], rel=1e-4), key


def test_threads_change_nothing(evaluated):
    alone = full(threads=1)
    np.testing.assert_equal(alone.summary(), evaluated.summary())


@pytest.mark.parametrize("where", [{"data": 4}, {"data": 4, "mode": "pmap"}, {"space": 2}])
def test_devices_change_nothing(evaluated, where):
    """Batches of 3 on up to 4 devices, over which they do not divide."""
    many = full(where, batch_size=3)
    assert many.names == evaluated.names
    np.testing.assert_array_equal(many.confusion, evaluated.confusion)
    np.testing.assert_equal(many.boundary, evaluated.boundary)
    np.testing.assert_equal(many.by_object, evaluated.by_object)
    assert many.loss == pytest.approx(evaluated.loss, rel=1e-6)
    for key in ("ece", "mce", "brier", "nll", "pixels"):
        assert many.calibration[key] == pytest.approx(evaluated.calibration[key], rel=1e-5), key


@pytest.mark.parametrize("measures", [(), ("boundary",), ("objects",), ("calibration",)])
def test_measures_are_left_out_without_effect_on_others(evaluated, measures):
    devices, _ = placed()
    step = scoring.make_scoring_step(Colours(), NORMALIZATION, measures=measures)
    step = devices.compile_eval(step)
    found = scoring.evaluate_fully(step, NONE, canvas(), 2, devices, K, measures=measures)
    np.testing.assert_array_equal(found.confusion, evaluated.confusion)
    assert found.loss == pytest.approx(evaluated.loss)
    fields = {"boundary": "boundary", "objects": "by_object", "calibration": "calibration"}
    for name, field in fields.items():
        kept = getattr(evaluated, field) if name in measures else {}
        assert repr(getattr(found, field)) == repr(kept)
    assert ("ece" in found.summary()) == ("calibration" in measures)


def test_summary_by_another_protocol(evaluated):
    summary = full(protocol="micro").summary()
    assert summary["protocol"] == "micro"
    assert summary["miou"] == PROTOCOLS["micro"].score(evaluated.confusions)["miou"]
    assert summary["miou"] != evaluated.summary()["miou"]
    rows = {row["protocol"]: row["miou"] for row in summary["protocols"]}
    assert rows["segjax"] == pytest.approx(evaluated.summary()["miou"])
    assert summary["boundary_f1"] == evaluated.boundary["bf"] > 0
    json.dumps(summary)  # plain types only


def test_unknown_protocol_before_anything_runs():
    def never(variables, batch):
        raise AssertionError("the step ran")

    with pytest.raises(ValueError, match="'voc' is unknown; use segjax"):
        scoring.evaluate_fully(never, {}, canvas(), 2, placed()[0], K, protocol="voc")


def test_an_error_in_a_thread_is_raised(monkeypatch):
    def add(self, label, prediction, distance):
        raise FloatingPointError("of a thread")

    monkeypatch.setattr(Boundaries, "add", add)
    with pytest.raises(FloatingPointError, match="of a thread"):
        full()


class Odd:
    """The scenes of `canvas()` in another shape, which leaves a part of the canvas empty."""

    def __init__(self):
        self.scenes = Streets("val", (32, 32), length=LENGTH)
        self.classes = self.scenes.classes

    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        return self.scenes[index]


CRF = DenseCRF(iterations=3, bilateral_color_std=20)


@functools.cache
def refined(mode="jit", data=1, space=1):
    devices = make_devices({"mode": mode, "data": data, "space": space, "shard_optimizer": False})
    step = scoring.make_logits_step(Colours(), NORMALIZATION)
    fitted = ScoredDataset(Odd(), SIZE)
    return scoring.evaluate_fully(
        devices.compile_eval(step), NONE, fitted, 2, devices, K, threads=2, crf=CRF
    )


def test_a_crf_refines_each_image_where_it_fills_the_canvas_at_the_labels_size():
    boundaries, confusion, nll, source = Boundaries(K), np.zeros((K, K), int), 0.0, Odd()
    fitted = ScoredDataset(source, SIZE)
    for index in range(LENGTH):
        image = (fitted[index]["image"] / 255 - MEAN) / STD
        logits = Colours().apply({}, image.astype(np.float32), train=False)["logits"]
        logits = jax.image.resize(logits[:, :16], (32, 32, K), "bilinear")
        image, label = source[index]["image"], source[index]["label"]  # 32x32, as scored
        found = dense_crf(np.asarray(jax.nn.softmax(logits)), image, CRF)
        prediction = found.argmax(-1).astype(np.uint8)
        known = label < K
        np.add.at(confusion, (label[known], prediction[known]), 1)
        nll -= np.log(np.take_along_axis(found[known], label[known][:, None], 1)).sum()
        boundaries.add(label, prediction)
    np.testing.assert_array_equal(refined().confusion, confusion)
    np.testing.assert_equal(refined().boundary, boundaries.summary())
    assert refined().loss == pytest.approx(nll / confusion.sum(), rel=1e-5)
    assert refined().calibration["pixels"] == confusion.sum()
    assert np.trace(confusion) != np.trace(full().confusion)


@pytest.mark.parametrize("where", [{"data": 4}, {"data": 4, "mode": "pmap"}, {"space": 2}])
def test_devices_change_nothing_after_a_crf(where):
    many = refined(**where)
    np.testing.assert_array_equal(many.confusion, refined().confusion)
    assert many.loss == pytest.approx(refined().loss, rel=1e-6)
