"""Every protocol against itself written out: loops over pixels and classes on shared label maps."""

import math

import numpy as np
import pytest

from segjax.metrics import protocols
from segjax.metrics.confusion import ImageConfusions, confusion_matrix, summarize

K, NAN = 5, float("nan")


def label_maps(case: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Five images: ignored pixels in all of them, the last one wholly ignored. Class 3 is only ever
    predicted and class 4 never occurs (`absent`), or all classes occur (`full`)."""
    rng = np.random.default_rng(3)
    classes = K if case == "full" else 3
    labels = [rng.integers(0, classes, (6, 7)) for _ in range(5)]
    labels[1][labels[1] == 2] = 0  # an image that lacks a class
    noise = [rng.integers(0, K if case == "full" else 4, (6, 7)) for _ in range(5)]
    right = [rng.random((6, 7)) < 0.6 for _ in range(5)]
    predictions = [np.where(r, a, b) for r, a, b in zip(right, labels, noise, strict=True)]
    for image, label in enumerate(labels):
        label[image, :] = 255
    labels[4][:] = 255
    return labels, predictions


def confusions_of(labels, predictions) -> np.ndarray:
    pairs = zip(labels, predictions, strict=True)
    return np.stack([np.asarray(confusion_matrix(a, b, K)) for a, b in pairs])


def pixels_of(labels, predictions):
    """(label, prediction) of every labelled pixel of some images."""
    return [
        (int(a), int(b))
        for label, prediction in zip(labels, predictions, strict=True)
        for a, b in zip(label.reshape(-1), prediction.reshape(-1), strict=True)
        if a != 255
    ]


def counted(pixels, k):
    """Pixels of class k: right, labelled so, predicted so."""
    hits = sum(1 for a, b in pixels if a == k and b == k)
    return hits, sum(1 for a, _ in pixels if a == k), sum(1 for _, b in pixels if b == k)


def accuracy_of(pixels):
    return sum(1 for a, b in pixels if a == b) / len(pixels)


def drop_absent(pixels):
    """mIoU and class average accuracy over the classes that have one; ours and mmseg's."""
    ious, accuracies = [], []
    for k in range(K):
        hits, labelled, predicted = counted(pixels, k)
        if labelled + predicted > 0:
            ious.append(hits / (labelled + predicted - hits))
        if labelled > 0:
            accuracies.append(hits / labelled)
    return sum(ious) / len(ious), accuracy_of(pixels), sum(accuracies) / len(accuracies)


def segnet2017(labels, predictions):
    """As compute_test_results.m goes: normalised rows, then only rows with a pixel, then / K."""
    pixels, ious, diagonal = pixels_of(labels, predictions), [0.0] * K, [0.0] * K
    for k in range(K):
        hits, labelled, predicted = counted(pixels, k)
        if labelled > 0:
            diagonal[k] = hits / labelled
            ious[k] = hits / (labelled + predicted - hits)
    return sum(ious) / K, accuracy_of(pixels), sum(diagonal) / K


def semseg(labels, predictions):
    pixels, ious, accuracies, hits_all, labelled_all = pixels_of(labels, predictions), [], [], 0, 0
    for k in range(K):
        hits, labelled, predicted = counted(pixels, k)
        ious.append(hits / (labelled + predicted - hits + 1e-10))
        accuracies.append(hits / (labelled + 1e-10))
        hits_all, labelled_all = hits_all + hits, labelled_all + labelled
    return sum(ious) / K, hits_all / (labelled_all + 1e-10), sum(accuracies) / K


def torchvision(labels, predictions):
    pixels, ious, accuracies = pixels_of(labels, predictions), [], []
    for k in range(K):
        hits, labelled, predicted = counted(pixels, k)
        union = labelled + predicted - hits
        ious.append(hits / union if union else NAN)
        accuracies.append(hits / labelled if labelled else NAN)
    return sum(ious) / K, accuracy_of(pixels), sum(accuracies) / K


def micro(labels, predictions):
    pixels = pixels_of(labels, predictions)
    tp = sum(1 for a, b in pixels if a == b)
    fp = fn = sum(1 for a, b in pixels if a != b)  # each wrong pixel is one of either
    return tp / (tp + fp + fn), tp / (tp + fn), tp / (tp + fn)


def frequency_weighted(labels, predictions):
    pixels, total = pixels_of(labels, predictions), 0.0
    for k in range(K):
        hits, labelled, predicted = counted(pixels, k)
        if labelled:
            total += labelled / len(pixels) * hits / (labelled + predicted - hits)
    return total, accuracy_of(pixels), accuracy_of(pixels)


def mean_of_groups(labels, predictions, size):
    scores = []
    for start in range(0, len(labels), size):
        pixels = pixels_of(labels[start : start + size], predictions[start : start + size])
        if pixels:
            scores.append(drop_absent(pixels))
    return tuple(sum(score[i] for score in scores) / len(scores) for i in range(3))


BY_HAND = {
    "segjax": lambda a, b: drop_absent(pixels_of(a, b)),
    "segnet2017": segnet2017,
    "semseg": semseg,
    "mmseg": lambda a, b: drop_absent(pixels_of(a, b)),
    "torchvision": torchvision,
    "micro": micro,
    "per_image": lambda a, b: mean_of_groups(a, b, 1),
    "frequency_weighted": frequency_weighted,
    "notebooks": lambda a, b: mean_of_groups(a, b, 2),
}


@pytest.mark.parametrize("case", ["absent", "full"])
@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_protocol_by_hand(name, case):
    labels, predictions = label_maps(case)
    scores = protocols.PROTOCOLS[name].score(confusions_of(labels, predictions))
    found = [scores[key] for key in ("miou", "global_accuracy", "class_average_accuracy")]
    np.testing.assert_allclose(found, BY_HAND[name](labels, predictions), rtol=1e-12)
    assert len(scores["iou"]) == len(scores["accuracy"]) == K


def test_protocols_agree_where_every_class_occurs_and_differ_where_not():
    def compared(case):
        rows = protocols.compare_protocols(confusions_of(*label_maps(case)))
        return {row["protocol"]: row for row in rows}

    full, part = compared("full"), compared("absent")
    for name in ("segnet2017", "semseg", "mmseg", "torchvision"):
        assert full[name]["difference"] == pytest.approx(0, abs=1e-9), name
        assert "same" in full[name]["why"], name
    # Four of five classes in our mean, so the others' is 4/5 of it.
    assert part["segnet2017"]["miou"] == pytest.approx(0.8 * part["segjax"]["miou"])
    assert "1 of 5 classes absent" in part["segnet2017"]["why"]
    assert math.isnan(part["torchvision"]["miou"])
    assert part["segjax"]["difference"] == part["mmseg"]["difference"] == 0
    assert part["micro"]["difference"] == part["micro"]["miou"] - part["segjax"]["miou"]
    assert "3 batches of two" in part["notebooks"]["why"]  # five images
    assert "5 images" in part["per_image"]["why"]


def test_our_protocol_is_what_metrics_say():
    confusions = confusions_of(*label_maps("absent"))
    default, summary = protocols.DEFAULT_PROTOCOL, summarize(confusions.sum(0))
    ours = default.score(confusions)
    assert "left out of the mean" in default.description
    for key, value in ours.items():
        np.testing.assert_allclose(value, summary[key])
    weighted = protocols.PROTOCOLS["frequency_weighted"].score(confusions)
    assert weighted["miou"] == pytest.approx(summary["fw_iou"])


def test_per_class_values():
    confusions = np.array([[[6, 2, 0], [1, 3, 0], [0, 0, 0]], [[4, 0, 0], [0, 0, 0], [0, 0, 0]]])
    score = {name: protocol.score(confusions) for name, protocol in protocols.PROTOCOLS.items()}
    np.testing.assert_allclose(score["segjax"]["iou"], [10 / 13, 3 / 6, NAN])
    np.testing.assert_allclose(score["segnet2017"]["iou"], [10 / 13, 3 / 6, 0])
    np.testing.assert_allclose(score["per_image"]["iou"], [(6 / 9 + 1) / 2, 3 / 6, NAN])
    np.testing.assert_allclose(score["per_image"]["accuracy"], [(6 / 8 + 1) / 2, 3 / 4, NAN])
    np.testing.assert_allclose(score["notebooks"]["iou"], [10 / 13, 3 / 6, NAN])


def test_sparse_and_dense_counts_score_alike():
    confusions = confusions_of(*label_maps("full"))
    sparse = ImageConfusions.from_dense(confusions)
    for protocol in protocols.PROTOCOLS.values():
        assert protocol.score(sparse) == protocol.score(confusions), protocol.name


def test_nothing_labelled_has_no_number():
    nothing = np.zeros((2, K, K), int)
    for name in ("segjax", "mmseg", "torchvision", "micro", "per_image", "notebooks"):
        assert math.isnan(protocols.PROTOCOLS[name].score(nothing)["miou"]), name
    assert math.isnan(protocols.PROTOCOLS["frequency_weighted"].score(nothing)["miou"])
    assert protocols.PROTOCOLS["semseg"].score(nothing)["miou"] == 0


def test_unknown_protocol_names_the_known():
    with pytest.raises(ValueError, match=r"'voc' is unknown; use segjax, segnet2017, semseg"):
        protocols.find_protocol("voc")
