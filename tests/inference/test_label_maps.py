"""Scores of label maps, against counts by hand; and IDD-Lite's published scores."""

import math
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from segjax.data.classes import ClassTable
from segjax.data.files.predictions import PredictedFiles, find_predictions, label_of_ids
from segjax.data.sets import idd_lite
from segjax.inference.label_maps import LabelMaps, score_label_maps
from tests.data.drawn import THREE, save, uint8

IDD_LITE = pathlib.Path(
    os.environ.get("SEGJAX_IDD_LITE", pathlib.Path(__file__).parents[3] / "shared" / "idd_lite")
)
LABELS = [uint8([0, 0, 1, 255], [2, 2, 1, 255]), uint8([1, 1], [0, 2])]


class Labels:
    """Two samples, of 2x4 and 2x2 pixels."""

    def __len__(self):
        return len(LABELS)

    def __getitem__(self, index):
        return {"label": LABELS[index], "name": "ab"[index]}


def label_maps(folder, *predictions, classes=THREE, **options):
    paths = [save(folder / f"{i}.png", p) for i, p in enumerate(predictions)]
    files = PredictedFiles(paths, "*", [])
    return LabelMaps(files, classes, label_of_ids(classes, "raw"), **options)


def test_counts_of_each_image_at_the_labels_size(tmp_path):
    second = uint8([1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 2, 2], [0, 0, 2, 2])  # twice the label's size
    maps = label_maps(tmp_path, uint8([0, 1, 1, 9], [2, 2, 0, 7]), second)
    found, resized = score_label_maps(Labels(), maps)
    assert (resized, list(found.names)) == (1, ["a", "b"])
    np.testing.assert_array_equal(found.confusions[0], [[1, 1, 0], [1, 1, 0], [0, 0, 2]])
    np.testing.assert_array_equal(found.confusions[1], [[1, 0, 0], [1, 1, 0], [0, 0, 1]])
    summary = found.summary()
    assert summary["miou"] == pytest.approx((2 / 5 + 2 / 5 + 3 / 3) / 3)
    assert math.isnan(summary["loss"])
    assert summary["boundary"]["images"] == 2
    assert "ece" not in summary


def test_both_are_resized_to_a_stated_size(tmp_path):
    """A row of one pixel: of 2 rows the second, of 4 columns the third; of 4 rows the third."""
    maps = label_maps(
        tmp_path, uint8([0] * 4, [2, 2, 1, 0]), np.eye(4).astype(np.uint8), size=(1, 1)
    )
    found, _ = score_label_maps(Labels(), maps)
    np.testing.assert_array_equal(found.confusions[0], np.diag([0, 1, 0]))
    np.testing.assert_array_equal(found.confusions[1], [[0, 0, 0], [0, 0, 0], [0, 1, 0]])


def test_no_class_on_a_labelled_pixel_is_an_error_or_wrong(tmp_path):
    predictions = uint8([0, 0, 9, 9], [2, 255, 255, 9]), LABELS[1]
    message = (
        r"0\.png: ids of no class .*: 9 \(1 pixels\), 255 \(2 pixels\); classes have 0, 1, 2; use"
    )
    with pytest.raises(ValueError, match=message):
        score_label_maps(Labels(), label_maps(tmp_path, *predictions))
    found, _ = score_label_maps(Labels(), label_maps(tmp_path, *predictions, void="wrong"))
    np.testing.assert_array_equal(found.confusions[0], [[2, 0, 0, 0], [0, 0, 0, 2], [0, 0, 1, 1]])
    summary = found.summary()
    # Missed by class 1 and by class 2, and no false pixel of any class.
    assert summary["iou"] == [1, 2 / 4, 2 / 3]
    assert summary["miou"] == pytest.approx((1 + 2 / 4 + 2 / 3) / 3)
    assert summary["global_accuracy"] == pytest.approx(7 / 10)
    assert {row["protocol"]: row["miou"] for row in summary["protocols"]}["micro"] == 0.7
    assert "boundary_f1" not in summary
    found.save(tmp_path / "scores.npz")
    loaded = type(found).__mro__[1].load(tmp_path / "scores.npz")
    np.testing.assert_array_equal(loaded.confusion, found.confusion)
    assert loaded.summary()["iou"] == summary["iou"]


def test_train_ids_are_recognised_in_the_message(tmp_path):
    classes = ClassTable(THREE.names, THREE.palette, ids=(7, 8, 26))
    with pytest.raises(ValueError, match="--ids=train if the ids are 0"):
        score_label_maps(Labels(), label_maps(tmp_path, *LABELS, classes=classes))


def test_labels_that_may_overlap(tmp_path):
    """Bits: the label has a, a, b, -, a+b... against the prediction, per class."""
    classes = ClassTable(("a", "b"), ((1, 1, 1), (2, 2, 2)), multilabel=True)
    maps = label_maps(tmp_path, uint8([0, 3, 1, 3], [2, 0, 3, 0]), LABELS[1], classes=classes)
    found, _ = score_label_maps(Labels(), maps)
    # Labels [0, 0, 1, -], [2, 2, 1, -]: bit 0 is set in two pixels, bit 1 in two.
    np.testing.assert_array_equal(found.confusions.counts[0], [[[3, 1], [0, 2]], [[2, 2], [1, 1]]])
    assert found.summary()["iou"][0] == pytest.approx(4 / 5)


def official(labels, predictions):
    """evaluation/idd_lite_evaluate_mIoU.py of AutoNUE/public-code, in our words: the mean IoU."""
    counts = np.zeros((8, 8), int)
    for pair in zip(labels, predictions, strict=True):
        ids = [
            np.asarray(Image.open(path).resize((256, 128), Image.Resampling.NEAREST)).clip(max=7)
            for path in pair
        ]
        np.add.at(counts, tuple(ids), 1)
    hits = np.diag(counts)[:7]
    return np.mean(hits / (counts[:7].sum(1) + counts[:7, :7].sum(0) - hits))


@pytest.mark.slow
@pytest.mark.skipif(not (IDD_LITE / "predictions").is_dir(), reason="needs IDD-Lite")
@pytest.mark.parametrize(
    "network, published",
    [("pspnet", 66.1755), ("deeplabv3", 69.2313), ("deeplabv3plus", 66.6531)],
)
def test_published_predictions_of_idd_lite(network, published):
    """The authors' scorer gives exactly ours. It gave 0.001 to 0.018 more for the published
    numbers, whose per-class rows no resizing of these files reaches: PSPNet's far objects are 1.9
    apart, so other predictions were scored."""
    source = idd_lite.open_idd_lite(IDD_LITE, "val")
    files = find_predictions(IDD_LITE / "predictions" / network, source.names)
    known = label_of_ids(source.classes, "raw", source.id_map.labels)
    maps = LabelMaps(files, source.classes, known, idd_lite.SPEC.server_size)
    found, resized = score_label_maps(source, maps)
    assert resized == len(source) == 204
    miou = found.summary()["miou"]
    assert miou == pytest.approx(official(source.mask_paths, files.paths), abs=1e-12)
    assert 100 * miou == pytest.approx(published, abs=0.02)
