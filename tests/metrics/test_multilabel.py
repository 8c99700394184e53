"""Counts and metrics of labels as bits against numpy twins and numbers by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.metrics import multilabel

K = 3


def random_maps(shape=(2, 6, 5), seed=0):
    random = np.random.default_rng(seed)
    labels, predictions = random.integers(0, 2**K, (2, *shape))
    labels[random.random(shape) < 0.25] = 255
    return labels.astype(np.int32), predictions.astype(np.int32)


def twin(labels, predictions):
    counts = np.zeros((K, 2, 2), np.int64)
    for label, prediction in zip(labels.ravel(), predictions.ravel(), strict=True):
        if label < 2**K:
            for k in range(K):
                counts[k, label >> k & 1, prediction >> k & 1] += 1
    return counts


@pytest.mark.versions
def test_counts_equal_a_loop_over_pixels():
    labels, predictions = random_maps()
    count = jax.jit(multilabel.label_confusion, static_argnums=2)
    counts = count(jnp.array(labels), jnp.array(predictions), K)
    np.testing.assert_array_equal(counts, twin(labels, predictions))
    small = multilabel.label_confusion(
        jnp.array(labels.astype(np.uint8)), jnp.array(predictions.astype(np.uint8)), K
    )
    np.testing.assert_array_equal(small, counts)
    # What is predicted where the label is ignored changes nothing.
    predictions[labels == 255] ^= 0b111
    np.testing.assert_array_equal(
        multilabel.label_confusion(jnp.array(labels), jnp.array(predictions), K), counts
    )


# Of label 0: 5 neither, 1 predicted alone, 2 present alone, 4 both. Label 1 is absent from both;
# label 2 is predicted and never present.
BY_HAND = np.array([[[5, 1], [2, 4]], [[12, 0], [0, 0]], [[9, 3], [0, 0]]])


def test_numbers_by_hand():
    summary = multilabel.summarize_labels(BY_HAND)
    np.testing.assert_allclose(summary["iou"], [4 / 7, np.nan, 0])
    np.testing.assert_allclose(summary["dice"], [8 / 11, np.nan, 0])
    np.testing.assert_allclose(summary["precision"], [4 / 5, np.nan, 0])
    np.testing.assert_allclose(summary["recall"], [4 / 6, np.nan, np.nan])
    assert summary["miou"] == pytest.approx(2 / 7)
    assert summary["mean_dice"] == pytest.approx(4 / 11)
    assert summary["mean_precision"] == pytest.approx(2 / 5)
    assert summary["mean_recall"] == pytest.approx(4 / 6)
    assert summary["global_accuracy"] == pytest.approx((9 + 12 + 9) / 36)
    assert summary["pixels"] == 12
    assert multilabel.mean_label_iou(BY_HAND)[0] == summary["miou"]
    nothing = multilabel.summarize_labels(np.zeros((2, 2, 2), int))
    assert np.isnan(nothing["miou"])
    assert np.isnan(nothing["global_accuracy"])


def test_images_are_kept_in_order():
    labels, predictions = random_maps((4, 6, 5))
    dense = np.stack([twin(*maps) for maps in zip(labels, predictions, strict=True)])
    first, second = (multilabel.LabelConfusions.from_dense(part) for part in (dense[:1], dense[1:]))
    joined = multilabel.LabelConfusions.joined([first, second])
    assert len(joined) == 4
    np.testing.assert_array_equal(joined.total(), twin(labels, predictions))
    np.testing.assert_array_equal(joined.take(np.array([2, 0])).counts, dense[[2, 0]])
    expected = [np.mean([c[1, 1] / (c.sum() - c[0, 0]) for c in image]) for image in dense]
    np.testing.assert_allclose(joined.mean_iou_by_image(), expected)
    presence = [[np.sum((m != 255) & (m >> k & 1 == 1)) for k in range(K)] for m in labels]
    np.testing.assert_array_equal(joined.label_pixels(), presence)
    empty = multilabel.LabelConfusions(np.array([[[[9, 0], [0, 0]]], [[[5, 0], [4, 0]]]]))
    np.testing.assert_array_equal(empty.mean_iou_by_image(), [np.nan, 0])


def test_best_threshold_is_that_of_a_search_over_all():
    random = np.random.default_rng(3)
    labels, _ = random_maps((4, 20, 20), seed=1)
    labels[labels < 8] &= 0b011  # label 2 never occurs
    truth = np.stack([labels >> k & 1 for k in range(K)], -1)
    logits = (random.normal(size=truth.shape) + 3 * truth - 2).astype(np.float32)
    counts = multilabel.threshold_counts(jnp.array(logits), jnp.array(labels))
    assert counts.shape == (K, 2, multilabel.BINS)
    assert int(counts.sum()) == K * np.sum(labels != 255)
    best = multilabel.best_thresholds(np.asarray(counts))
    kept, probability = labels != 255, 1 / (1 + np.exp(-logits))
    for k in range(2):
        found, present = probability[kept][:, k], truth[kept][:, k] == 1
        ious = {}
        for threshold in np.arange(1, 100) / 100:
            high = found >= threshold
            ious[threshold] = np.sum(high & present) / np.sum(high | present)
        assert best["iou"][k] == pytest.approx(max(ious.values()), abs=2e-3)
        assert ious[best["threshold"][k]] == pytest.approx(best["iou"][k], abs=2e-3)
        assert best["threshold"][k] < 0.6
    assert np.isnan([best["threshold"][2], best["iou"][2]]).all()


def test_of_equal_thresholds_the_nearest_to_a_half_is_taken():
    counts = np.zeros((1, 2, multilabel.BINS), int)
    counts[0, 0, 20], counts[0, 1, 90] = 5, 7  # any threshold from 0.21 to 0.90 is perfect
    assert multilabel.best_thresholds(counts) == {"threshold": [0.5], "iou": [1.0]}
