"""IoU by object size and by distance to the boundary."""

import json
import math

import numpy as np
import pytest

from segjax import metrics
from segjax.metrics import by_object
from segjax.metrics.by_object import StratifiedIoU

IGNORED = 255


def scene() -> tuple[np.ndarray, np.ndarray]:
    """2,000 pixels: objects of class 1 of 1, 12 and 100 pixels, a false one of class 2."""
    label = np.zeros((40, 50), np.uint8)
    label[2, 2] = 1  # 0.05 %
    label[10:12, 10:16] = 1  # 0.6 %
    label[20:30, 20:30] = 1  # 5 %
    prediction = label.copy()
    prediction[2, 2] = 0
    prediction[10, 10:13] = 0
    prediction[35:37, 40:42] = 2  # 0.2 %
    return label, prediction


def patches(seed: int, shape=(21, 34)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.choice(3, shape, p=[0.7, 0.2, 0.1]).astype(np.uint8)
    prediction = np.where(rng.random(shape) < 0.3, np.roll(label, 1), label)
    label[rng.random(shape) < 0.05] = IGNORED
    return label, prediction


def slow_components(label):
    """Flood fill over 8 neighbours: a list of (class, list of pixels)."""
    left = {tuple(p) for p in np.argwhere(label != IGNORED)}
    components = []
    while left:
        start = left.pop()
        pixels, front = [start], [start]
        while front:
            y, x = front.pop()
            around = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
            new = [p for p in around if p in left and label[p] == label[start]]
            left -= set(new)
            pixels += new
            front += new
        components.append((label[start], pixels))
    return components


def slow_bucket(size, total):
    return sum(size * 1000 >= total * permille for permille in (1, 10, 100))


def test_sizes_by_hand():
    label, prediction = scene()
    total = StratifiedIoU(3)
    total.add(label, prediction)
    small, medium, large, huge = total.summary()["size"]
    assert [b["bucket"] for b in (small, medium, large, huge)] == list(by_object.SIZE_NAMES)
    assert [b["objects"] for b in (small, medium, large, huge)] == [1, 1, 1, 1]
    assert [b["pixels"] for b in (small, medium, large, huge)] == [1, 12, 100, 1887]
    # The pixels falsely called 0 belong to the predicted background, which is huge.
    assert small["recall"] == 0
    np.testing.assert_array_equal(small["iou"], [math.nan, 0, math.nan])
    assert medium["recall"] == pytest.approx(9 / 12)
    np.testing.assert_allclose(medium["iou"], [math.nan, 9 / 12, 0])
    assert medium["miou"] == pytest.approx(9 / 24)
    np.testing.assert_allclose(large["iou"], [math.nan, 1, math.nan])
    np.testing.assert_allclose(huge["iou"], [1883 / (1887 + 4), math.nan, math.nan])
    np.testing.assert_allclose(huge["recall_per_class"], [1883 / 1887, math.nan, math.nan])


@pytest.mark.parametrize("seed", range(3))
def test_sizes_equal_a_flood_fill(seed):
    label, prediction = patches(seed)
    masked = np.where(label == IGNORED, IGNORED, prediction)
    right, missed, false = np.zeros((3, 4, 3), int)
    objects = np.zeros(4, int)
    for c, pixels in slow_components(label):
        bucket = slow_bucket(len(pixels), label.size)
        objects[bucket] += 1
        for p in pixels:
            (right if masked[p] == c else missed)[bucket, c] += 1
    for c, pixels in slow_components(masked):
        false[slow_bucket(len(pixels), label.size), c] += sum(label[p] != c for p in pixels)
    counts = by_object.image_counts(label, prediction, 3)
    np.testing.assert_array_equal(counts.right, right)
    np.testing.assert_array_equal(counts.missed, missed)
    np.testing.assert_array_equal(counts.false, false)
    np.testing.assert_array_equal(counts.objects, objects)
    assert (objects > 0).sum() >= 3


def test_buckets_add_up_to_the_whole():
    label, prediction = patches(4)
    counts = by_object.image_counts(label, prediction, 3)
    confusion = np.asarray(metrics.confusion_matrix(label, prediction, 3))
    np.testing.assert_array_equal(counts.right.sum(0), np.diag(confusion))
    np.testing.assert_array_equal((counts.right + counts.missed).sum(0), confusion.sum(1))
    np.testing.assert_array_equal((counts.right + counts.false).sum(0), confusion.sum(0))
    np.testing.assert_array_equal(counts.distances.sum(0), confusion)


def test_diagonal_neighbours_are_one_object():
    label = np.zeros((10, 10), np.uint8)
    label[np.arange(3), np.arange(3)] = 1
    components, pixels = by_object.object_sizes(label)
    assert sorted(pixels) == [0, 3, 97]
    assert components[0, 0] == components[1, 1] == components[2, 2]
    label[1, 1] = IGNORED  # cuts it
    assert sorted(by_object.object_sizes(label)[1]) == [0, 1, 1, 97]


def test_distances_by_hand():
    label = np.zeros((4, 60), np.uint8)
    label[:, 30:] = 1
    prediction = np.zeros((4, 60), np.uint8)
    prediction[:, 33:] = 1
    total = StratifiedIoU(2)
    total.add(label, prediction)
    buckets = total.summary()["distance"]
    # Columns of each class in 0-2, 2-5, 5-10, 10-20, 20+ pixels, and those wrong.
    for bucket, columns, wrong in zip(buckets, (2, 3, 5, 10, 10), (2, 1, 0, 0, 0), strict=True):
        assert bucket["pixels"] == 2 * columns * 4
        assert bucket["accuracy"] == pytest.approx(1 - wrong / (2 * columns))
        wanted = [columns / (columns + wrong), (columns - wrong) / columns]
        np.testing.assert_allclose(bucket["iou"], wanted)
        assert bucket["miou"] == pytest.approx(np.mean(wanted))


def test_ignored_pixels_change_nothing():
    label, prediction = patches(5)
    once, again = StratifiedIoU(3), StratifiedIoU(3)
    once.add(label, prediction)
    again.add(label, np.where(label == IGNORED, (prediction + 1) % 3, prediction))
    again.add(np.full((5, 6), IGNORED, np.uint8), np.zeros((5, 6), np.uint8))
    assert json.dumps(once.summary()) == json.dumps(again.summary())


def test_nothing_counted():
    with np.errstate(all="raise"):
        summary = StratifiedIoU(3).summary()
    assert all(math.isnan(b["miou"]) for b in summary["size"] + summary["distance"])
    assert all(b["pixels"] == 0 for b in summary["size"] + summary["distance"])
