"""Boundary metrics against slow twins written pixel by pixel."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import optimize, spatial

from benchmarks import boundary as bench_boundary
from segjax import metrics
from segjax.metrics import boundary
from segjax.metrics.boundary import Boundaries, boundary_pixels, distance_to_boundary, image_counts

IGNORED = 255


def halves(column: int, shape=(8, 12)) -> np.ndarray:
    """Class 0 left of a column, class 1 from it on."""
    label = np.zeros(shape, np.uint8)
    label[:, column:] = 1
    return label


def blobs(seed: int, shape=(14, 19), classes=4, ignored=0.08) -> tuple[np.ndarray, np.ndarray]:
    """Patchy label and prediction with common parts; some label pixels ignored."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (shape[0] // 3 + 1, shape[1] // 3 + 1)).astype(np.uint8)
    label = np.kron(coarse, np.ones((3, 3), np.uint8))[: shape[0], : shape[1]]
    other = np.roll(label, (1, 2), (0, 1))
    other[rng.random(shape) < 0.1] = rng.integers(classes)
    return np.where(rng.random(shape) < ignored, IGNORED, label).astype(np.uint8), other


def slow_boundary(label, class_id):
    """Coordinates of the class's boundary pixels."""
    found = []
    for y, x in itertools.product(*map(range, label.shape)):
        if label[y, x] != class_id:
            continue
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [(v, u) for v, u in around if 0 <= v < len(label) and 0 <= u < len(label[0])]
        if any(label[p] not in (class_id, IGNORED) for p in inside):
            found.append((y, x))
    return found


def slow_matched(points, others, tolerance):
    return sum(any(math.dist(p, q) <= tolerance for q in others) for p in points)


def slow_f1(label, prediction, class_id, tolerance):
    """None where the label has no boundary of the class."""
    prediction = np.where(label == IGNORED, IGNORED, prediction)
    wanted, found = slow_boundary(label, class_id), slow_boundary(prediction, class_id)
    if not wanted:
        return None
    right = slow_matched(found, wanted, tolerance)
    if not right:
        return 0.0
    precision = right / len(found)
    recall = slow_matched(wanted, found, tolerance) / len(wanted)
    return 2 * precision * recall / (precision + recall)


def slow_region(label, class_id, reach):
    """Pixels of the class that `reach` erosions with a 3x3 square of a zero-padded mask remove."""
    padded = np.pad(label, reach, constant_values=254)
    region = np.zeros(label.shape, bool)
    for y, x in zip(*np.nonzero(label == class_id), strict=True):
        window = padded[y : y + 2 * reach + 1, x : x + 2 * reach + 1]
        region[y, x] = any(v not in (class_id, IGNORED) for v in window.ravel())
    return region


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.0075, 0.05, 0.1])
def test_bf_equals_the_slow_matcher(seed, share, monkeypatch):
    monkeypatch.setattr(boundary, "BF_TOLERANCE", share)
    pairs = [blobs(seed), blobs(seed + 10, (9, 23))]
    total = Boundaries(5)
    per_image, per_class = [], [[] for _ in range(5)]
    for label, prediction in pairs:
        total.add(label, prediction)
        tolerance = share * math.hypot(*label.shape)
        values = [slow_f1(label, prediction, c, tolerance) for c in range(5)]
        per_image.append(np.mean([v for v in values if v is not None]))
        for c, value in enumerate(values):
            per_class[c] += [value] if value is not None else []
    summary = total.summary()
    assert summary["bf"] == pytest.approx(np.mean(per_image))
    assert 0.1 < summary["bf"] < 1
    np.testing.assert_allclose(
        summary["bf_per_class"], [np.mean(v) if v else math.nan for v in per_class]
    )
    np.testing.assert_allclose(total.bf_per_image(), per_image)


def test_bf_by_hand():
    # Diagonal 500: tolerance 3.75 pixels, and both boundaries are straight lines.
    label = halves(200, (300, 400))
    for shift, wanted in [(0, 1.0), (3, 1.0), (4, 0.0)]:
        total = Boundaries(2)
        total.add(label, halves(200 + shift, (300, 400)))
        assert total.summary()["bf"] == wanted, shift
    # Rows 0-149 are right, the rest 50 columns off: the step between adds 49 pixels to each class,
    # row 150 of class 0, row 149 of class 1.
    prediction = halves(200, (300, 400))
    prediction[150:] = halves(250, (300, 400))[150:]
    counts = image_counts(label, prediction, 2)
    np.testing.assert_array_equal(counts.label_pixels, [300, 300])
    np.testing.assert_array_equal(counts.prediction_pixels, [349, 349])
    # Below row 149 the label's column 199 is near (150, 200) down to row 153, 3 rows and 1 column
    # away; column 200 is near (149, 200) down to row 152.
    np.testing.assert_array_equal(counts.label_matched, [154, 153])
    # Of each step 3 pixels are near.
    np.testing.assert_array_equal(counts.prediction_matched, [153, 153])
    wanted = [2 / (349 / 153 + 300 / matched) for matched in (154, 153)]
    np.testing.assert_allclose(counts.f1, wanted)


@pytest.mark.parametrize("seed", range(3))
def test_one_to_one_matching_is_never_higher(seed):
    label, prediction = blobs(seed, (30, 40))
    wanted, found = boundary_pixels(label), boundary_pixels(prediction)
    tolerance = 1.5
    near = spatial.distance.cdist(np.argwhere(wanted), np.argwhere(found)) <= tolerance
    rows, columns = optimize.linear_sum_assignment(near, maximize=True)
    pairs = bench_boundary.one_to_one(wanted, found, tolerance)
    assert pairs == near[rows, columns].sum()
    assert pairs < near.any(0).sum()  # several pixels of the prediction share one of the label
    total = Boundaries(4)
    total.add(label, prediction)
    assert bench_boundary.bf_one_to_one(label, prediction) <= total.summary()["bf"]


def test_a_neighbour_at_the_tolerance_matches(monkeypatch):
    monkeypatch.setattr(boundary, "BF_TOLERANCE", 0.2)  # of the diagonal 10: 2 pixels
    label = halves(3, (6, 8))
    for shift, wanted in [(2, 1.0), (3, 0.0)]:
        total = Boundaries(2)
        total.add(label, halves(3 + shift, (6, 8)))
        assert total.summary()["bf"] == wanted


def test_bf_classes_of_label_and_of_prediction():
    label = halves(6)
    prediction = halves(6)
    prediction[0, 11] = 2  # its neighbours of class 1 become boundary pixels, far from the label's
    total = Boundaries(4)
    total.add(label, prediction)
    summary = total.summary()
    precision = 8 / 10  # of class 1: 8 along the column, 2 beside the false pixel
    assert summary["bf_per_class"][:2] == pytest.approx([1, 2 * precision / (precision + 1)])
    assert np.isnan(summary["bf_per_class"][2:]).all()
    assert summary["bf"] == pytest.approx(np.mean(summary["bf_per_class"][:2]))
    assert summary["bf_false_classes"] == pytest.approx(sum(summary["bf_per_class"][:2]) / 3)


def test_images_without_a_boundary():
    total = Boundaries(2)
    with np.errstate(all="raise"):
        total.add(np.zeros((8, 12), np.uint8), halves(6))  # no boundary in the label
        total.add(np.full((8, 12), IGNORED, np.uint8), halves(6))  # no label
        summary = total.summary()
    assert math.isnan(summary["bf"])
    assert summary["bf_false_classes"] == 0  # only the first image, whose two classes are false
    assert summary["images"] == 2
    assert all(math.isnan(value) for value in summary["trimap"].values())
    total.add(halves(6), halves(6))
    assert total.summary()["bf"] == 1
    np.testing.assert_array_equal(total.bf_per_image(), [math.nan, math.nan, 1])


def test_missing_prediction_counts_zero():
    total = Boundaries(2)
    total.add(halves(6), np.zeros((8, 12), np.uint8))
    assert total.summary()["bf"] == 0


def test_boundary_pixels_by_hand():
    label = np.array(
        [[0, 0, 0, 1], [0, 255, 0, 1], [0, 2, 255, 255], [0, 2, 255, 1]],
        np.uint8,
    )
    wanted = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]], bool)
    np.testing.assert_array_equal(boundary_pixels(label), wanted)


def test_ignored_pixels_change_nothing():
    label, prediction = blobs(3)
    once, again = Boundaries(4), Boundaries(4)
    once.add(label, prediction)
    again.add(label, np.where(label == IGNORED, (prediction + 1) % 4, prediction))
    assert json.dumps(once.summary()) == json.dumps(again.summary())
    # An ignored strip between two classes takes their boundary away, on both sides.
    label = halves(6)
    label[:, 5:7] = IGNORED
    assert not image_counts(label, halves(6), 2).label_pixels.any()
    assert not image_counts(label, halves(6), 2).prediction_pixels.any()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.02, 0.1, 0.15])
def test_boundary_iou_equals_erosions(seed, share, monkeypatch):
    monkeypatch.setattr(boundary, "BOUNDARY_IOU_DILATION", share)
    pairs = [blobs(seed), blobs(seed + 10, (9, 23))]
    both, union = np.zeros(5), np.zeros(5)
    total = Boundaries(5)
    for label, prediction in pairs:
        total.add(label, prediction)
        reach = max(1, round(share * math.hypot(*label.shape)))
        masked = np.where(label == IGNORED, IGNORED, prediction)
        for c in range(5):
            one, other = slow_region(label, c, reach), slow_region(masked, c, reach)
            both[c] += (one & other).sum()
            union[c] += (one | other).sum()
    wanted = [i / u if u else math.nan for i, u in zip(both, union, strict=True)]
    summary = total.summary()
    np.testing.assert_allclose(summary["boundary_iou_per_class"], wanted)
    assert math.isnan(wanted[4])
    assert summary["boundary_iou"] == pytest.approx(np.mean(wanted[:4]))


def test_boundary_iou_by_hand():
    # Diagonal 500: 10 pixels. Class 0's region: a frame, 10 wide, of 300 x 200.
    total = Boundaries(2)
    total.add(halves(200, (300, 400)), halves(205, (300, 400)))
    frame = 300 * 200 - 280 * 180
    wider = 300 * 205 - 280 * 185
    # In common: all of the label's frame but the columns 190-194 inside; none beyond it.
    both = frame - 280 * 5
    expected = both / (frame + wider - both)
    assert total.summary()["boundary_iou_per_class"][0] == pytest.approx(expected)
    assert total.summary()["boundary_iou_dilation"] == 0.02


def test_distance_equals_brute_force():
    label, _ = blobs(5)
    edge = np.argwhere(boundary_pixels(label))
    wanted = [
        min(math.dist(p, q) for q in edge) for p in itertools.product(*map(range, label.shape))
    ]
    np.testing.assert_allclose(distance_to_boundary(label), np.reshape(wanted, label.shape))
    assert np.isinf(distance_to_boundary(np.zeros((3, 4), np.uint8))).all()


def test_trimap_by_hand():
    label, prediction = halves(30, (6, 60)), halves(33, (6, 60))
    total = Boundaries(2)
    total.add(label, prediction)
    trimap = total.summary()["trimap"]
    assert list(trimap) == [1, 2, 3, 5, 10, 20]
    # Width w holds w columns on either side; of class 1's, the first 3 are predicted as 0.
    for width, found in trimap.items():
        wrong = min(3, width)
        wanted = (width / (width + wrong) + (width - wrong) / width) / 2
        assert found == pytest.approx(wanted), width


def test_trimap_equals_masked_miou():
    pairs = [blobs(6), blobs(7, (20, 30))]
    total = Boundaries(4)
    for label, prediction in pairs:
        total.add(label, prediction)
    for width, found in total.summary()["trimap"].items():
        confusion = np.zeros((4, 4), int)
        for label, prediction in pairs:
            near = (distance_to_boundary(label) < width) & (label != IGNORED)
            np.add.at(confusion, (label[near], prediction[near]), 1)
        assert found == pytest.approx(metrics.mean_iou(confusion)[0])


@pytest.mark.usefixtures("unchecked")
def test_wrong_maps():
    label = halves(6)
    with pytest.raises(ValueError, match=r"label \(8, 12\) and prediction \(8, 11\) must be maps"):
        image_counts(label, label[:, 1:], 2)
    with pytest.raises(ValueError, match="prediction holds id 1, the classes are 0 to 0; use"):
        image_counts(np.zeros_like(label), label, 1)
    with pytest.raises(ValueError, match="num_classes=300 for uint8 label maps; use 1 to 255"):
        image_counts(label, label, 300)
