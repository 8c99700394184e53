"""Segmentation metrics from one confusion matrix."""

import json
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.metrics.confusion import (
    ImageConfusions,
    _counts_compared,
    _counts_multiplied,
    _counts_scattered,
    class_average_accuracy,
    confusion_matrix,
    frequency_weighted_iou,
    global_accuracy,
    mean_iou,
    mean_iou_by_image,
    summarize,
)

pytestmark = pytest.mark.versions

NAN = math.nan
# Row = label, column = prediction.
TWO = np.array([[6, 2], [1, 3]])
THREE = np.array([[4, 1, 0], [2, 3, 0], [0, 0, 10]])
# Class 1 is never labelled but predicted twice; class 2 occurs nowhere.
ABSENT = np.array([[6, 2, 0], [0, 0, 0], [0, 0, 0]])
ALL = (mean_iou, global_accuracy, class_average_accuracy, frequency_weighted_iou, summarize)


def brute_force_confusion(labels, predictions, k):
    counts = np.zeros((k, k), np.int32)
    for label, prediction in zip(labels.ravel(), predictions.ravel(), strict=True):
        if 0 <= label < k:
            counts[label, prediction] += 1
    return counts


def test_confusion_by_hand():
    labels = np.array([[0, 0, 1], [1, 255, 2]])
    predictions = np.array([[0, 2, 1], [0, 1, 2]])
    np.testing.assert_array_equal(
        confusion_matrix(labels, predictions, 3), [[1, 0, 1], [1, 1, 0], [0, 0, 1]]
    )


@pytest.mark.parametrize("k", [1, 2, 7, 150])
@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_confusion_equals_brute_force(k, dtype):
    rng = np.random.default_rng(k)
    shape = (2, 9, 11)
    ignored = [255] if dtype == np.uint8 else [255, -1, k, k + 3, -k - 1]
    labels = rng.integers(0, k, shape)
    labels = np.where(rng.random(shape) < 0.3, rng.choice(ignored, shape), labels).astype(dtype)
    predictions = rng.integers(0, k, shape).astype(np.int32)
    wanted = brute_force_confusion(labels, predictions, k)
    found = jax.jit(confusion_matrix, static_argnums=2)(labels, predictions, k)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(confusion_matrix(labels, predictions, k), wanted)
    for form in (_counts_scattered, _counts_compared, _counts_multiplied):  # by platform
        counts = form(labels.astype(np.int32), predictions, k)
        assert counts.dtype == jnp.int32
        np.testing.assert_array_equal(counts, wanted)


def test_ignored_pixels_change_nothing():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 4, (2, 5, 6)), rng.integers(0, 4, (2, 5, 6))
    counts = confusion_matrix(labels, predictions, 4)
    padding = np.full((3, 5, 6), 255)
    padded = confusion_matrix(
        np.concatenate([labels, padding]), np.concatenate([predictions, padding * 0]), 4
    )
    np.testing.assert_array_equal(padded, counts)
    assert not np.any(confusion_matrix(padding, padding * 0, 4))


def test_two_classes_by_hand():
    mean, per_class = mean_iou(TWO)
    np.testing.assert_allclose(per_class, [6 / 9, 3 / 6])
    assert mean == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert global_accuracy(TWO) == pytest.approx(9 / 12)
    mean, per_class = class_average_accuracy(TWO)
    np.testing.assert_allclose(per_class, [6 / 8, 3 / 4])
    assert mean == pytest.approx(3 / 4)
    assert frequency_weighted_iou(TWO) == pytest.approx((8 * 6 / 9 + 4 * 3 / 6) / 12)


def test_three_classes_by_hand():
    mean, per_class = mean_iou(THREE)
    np.testing.assert_allclose(per_class, [4 / 7, 3 / 6, 1])
    assert mean == pytest.approx((4 / 7 + 1 / 2 + 1) / 3)
    assert global_accuracy(THREE) == pytest.approx(17 / 20)
    mean, per_class = class_average_accuracy(THREE)
    np.testing.assert_allclose(per_class, [4 / 5, 3 / 5, 1])
    assert mean == pytest.approx(0.8)
    assert frequency_weighted_iou(THREE) == pytest.approx((5 * 4 / 7 + 5 / 2 + 10) / 20)


def test_absent_classes_are_left_out():
    mean, per_class = mean_iou(ABSENT)
    np.testing.assert_array_equal(per_class, [6 / 8, 0, NAN])  # predicted, never right: 0
    assert mean == pytest.approx((6 / 8 + 0) / 2)
    mean, per_class = class_average_accuracy(ABSENT)
    np.testing.assert_array_equal(per_class, [6 / 8, NAN, NAN])
    assert mean == pytest.approx(6 / 8)
    assert global_accuracy(ABSENT) == pytest.approx(6 / 8)
    assert frequency_weighted_iou(ABSENT) == pytest.approx(6 / 8)


def test_nothing_counted_is_nan_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = summarize(np.zeros((2, 2), np.int64))
        summarize(ABSENT)
    for key in ("miou", "global_accuracy", "class_average_accuracy", "fw_iou"):
        assert math.isnan(summary[key]), key
    assert np.isnan(summary["iou"]).all()
    assert summary["pixels"] == 0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("shape", [(3, 2), (4,), (2, 2, 2)])
def test_not_square(metric, shape):
    with pytest.raises(ValueError, match=r"a confusion matrix is square, found shape \("):
        metric(np.zeros(shape, np.int64))


def test_counts_past_32_bits():
    counts = np.array([[3 * 2**40, 2**40], [0, 2**40]], np.int64)
    assert global_accuracy(counts) == pytest.approx(4 / 5)
    assert summarize(counts)["pixels"] == 5 * 2**40


def test_summary_names_and_json():
    summary = summarize(jnp.asarray(ABSENT))
    assert list(summary) == [
        "miou",
        "global_accuracy",
        "class_average_accuracy",
        "fw_iou",
        "iou",
        "accuracy",
        "pixels",
    ]
    assert summary["pixels"] == 8
    nulls = {
        key: [None if math.isnan(v) else v for v in value] if isinstance(value, list) else value
        for key, value in summary.items()
    }
    text = json.dumps(nulls, allow_nan=False)
    assert json.loads(text)["iou"] == [0.75, 0.0, None]


def some_images(k=4, images=7):
    """Matrices of which most cells, and all of the third image's, are empty."""
    rng = np.random.default_rng(1)
    dense = rng.integers(1, 2**40, (images, k, k)) * (rng.random((images, k, k)) < 0.3)
    dense[2] = 0
    return dense


def test_images_sparse_and_back():
    dense = some_images()
    sparse = ImageConfusions.from_dense(dense)
    assert len(sparse) == 7
    assert len(sparse.counts) == np.count_nonzero(dense)
    for image in (0, 2, 6, -1):
        np.testing.assert_array_equal(sparse[image], dense[image])
    np.testing.assert_array_equal(sparse.total(), dense.sum(0))
    with pytest.raises(IndexError):
        sparse[7]
    parts = [ImageConfusions.from_dense(dense[part]) for part in (slice(3), slice(3, 7))]
    joined = ImageConfusions.joined(parts)
    for found, wanted in zip(joined, sparse, strict=True):
        np.testing.assert_array_equal(found, wanted)
    order = np.array([5, 2, 0, 6, 5])
    for found, wanted in zip(sparse.take(order), dense[order], strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert len(sparse.take(order[:0])) == 0


def test_pixels_of_classes_by_image():
    dense = some_images()
    hits, labels, predictions = ImageConfusions.from_dense(dense).class_pixels()
    np.testing.assert_array_equal(hits, [np.diag(c) for c in dense])
    np.testing.assert_array_equal(labels, dense.sum(2))
    np.testing.assert_array_equal(predictions, dense.sum(1))


def test_mean_iou_of_each_image():
    dense = np.stack([THREE, ABSENT, np.zeros((3, 3), int)])
    found = mean_iou_by_image(ImageConfusions.from_dense(dense))
    np.testing.assert_allclose(found, [mean_iou(THREE)[0], 0.375, NAN])


@pytest.mark.usefixtures("unchecked")
def test_bad_matrices_of_images():
    with pytest.raises(ValueError, match=r"\[n, k, k\], found shape \(3, 3\)"):
        ImageConfusions.from_dense(np.zeros((3, 3), int))
    with pytest.raises(ValueError, match="not negative, found -1"):
        ImageConfusions.from_dense(np.full((1, 2, 2), -1))
