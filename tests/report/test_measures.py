"""The report's sections beyond mIoU, from the measuring modules' own summaries."""

import numpy as np
import pytest

from segjax.data.classes import IGNORE, from_names
from segjax.metrics import boundary, by_object, calibration, protocols
from segjax.report import measures, tables
from tests.report.test_html import Page

CLASSES = from_names(["a", "b", "<c>"])


@pytest.fixture(scope="module")
def results():
    """Two splits of two images; class <c> does not occur."""
    rng, results = np.random.default_rng(0), {}
    for split in ("val", "test"):
        found, by_size, confusions = boundary.Boundaries(3), by_object.StratifiedIoU(3), []
        for _ in range(2):
            label = np.zeros((24, 32), np.uint8)
            label[:, rng.integers(8, 24) :] = 1
            prediction = np.roll(label, 2, 1)
            label[:3] = IGNORE
            found.add(label, prediction)
            by_size.add(label, prediction)
            pair = 3 * label[3:].astype(int) + prediction[3:]
            confusions.append(np.bincount(pair.ravel(), minlength=9).reshape(3, 3))
        right = sum(np.trace(confusion) for confusion in confusions)
        pixels = 2 * 21 * 32
        counts = {"pixels": [0, pixels], "hits": [0, right], "confidence": [0, 0.7 * pixels]}
        results[split] = {
            "boundary": found.summary(),
            "by_object": by_size.summary(),
            "calibration": calibration.summarize_calibration({**counts, "nll": 5.0, "brier": 3.0}),
            "protocols": protocols.compare_protocols(np.stack(confusions)),
        }
    return results


def row_of(page: Page, first: str) -> list[str]:
    """The texts after `first`, as many as there are splits."""
    place = page.texts.index(first)
    return page.texts[place + 1 : place + 3]


def test_protocols_stand_beside_their_numbers(results):
    page = Page(measures.protocols(results, "test"))
    for place, name in enumerate(protocols.PROTOCOLS):
        values = [results[split]["protocols"][place]["miou"] for split in ("val", "test")]
        assert row_of(page, name) == [tables.format_number(v) for v in values], name
    assert "1 of 3 classes absent: each counts 0 here" in page.text
    assert tables.ABSENT in page.texts  # torchvision's mean is NaN


def test_boundary_scores_and_curve(results):
    page = Page(measures.boundaries(results, CLASSES))
    found = [results[split]["boundary"] for split in ("val", "test")]
    assert row_of(page, "BF score") == [f"{b['bf']:.4f}" for b in found]
    assert row_of(page, "Boundary IoU") == [f"{b['boundary_iou']:.4f}" for b in found]
    assert row_of(page, "a") == [f"{b['bf_per_class'][0]:.4f}" for b in found]
    assert row_of(page, "<c>") == [tables.ABSENT] * 2
    for width, miou in found[1]["trimap"].items():
        assert f"test {width}: {miou:.4g}" in page.texts
    assert page.text.count("Boundary pixel: labelled") == 1  # the protocol, once for both


def test_bars_of_sizes_and_distances(results):
    page = Page(measures.by_object(results, "test"))
    for kind in ("size", "distance"):
        total = sum(row["pixels"] for row in results["test"]["by_object"][kind])
        assert total == 2 * 21 * 32
        for row in results["test"]["by_object"][kind]:
            place = page.texts.index(row["bucket"])
            remark = page.texts[place + 1]
            assert remark.startswith(f"{row['pixels'] / total:.1%} of the pixels")
            assert (", 4 objects" in remark) == (row.get("objects") == 4)
            shown = page.texts[page.texts.index("test", place) - 1]
            assert shown == tables.format_number(row["miou"])


def test_calibration_numbers_and_diagrams(results):
    page = Page(measures.calibration(results))
    found = [results[split]["calibration"] for split in ("val", "test")]
    expected = [f"{c['ece']:.4f}" for c in found]
    assert row_of(page, "expected calibration error") == expected
    assert page.text.count("confidence 0.50 to 1.00: 100.0% of the pixels") == 2
    for values in found:
        accuracy = values["bins"][1]["accuracy"]
        assert f"mean confidence 0.700, accuracy {accuracy:.3f}" in page.text
    assert page.text.count("Reliability, ") == 2


def test_numbers_read_back_from_json(results):
    """Null for NaN and text for widths, as in results.json."""
    found = {
        **results["val"]["boundary"],
        "bf": None,
        "trimap": {"1": None, "10": 0.5, "2": 0.25},
    }
    page = Page(measures.boundaries({"val": {"boundary": found}}, CLASSES))
    assert page.texts[page.texts.index("BF score") + 1] == tables.ABSENT
    assert "val 2: 0.25" in page.texts
    assert "val 1: nan" not in page.text


def test_a_section_without_data_is_left_out():
    bare = {"val": {"miou": 0.5}}
    assert measures.protocols(bare, "val") == measures.boundaries(bare, CLASSES) == ""
    assert measures.by_object(bare, "val") == measures.calibration(bare) == ""


def test_one_split_has_no_names_beside_its_bars():
    rows = [("road", {"validation": 0.5}, "background:red")]
    assert "validation" not in measures.bars(rows)
    rows = [("road", {"validation": 0.5, "test": None}, "background:red")]
    page = Page(measures.bars(rows))
    assert page.texts == ["road", "0.5000", "validation", tables.ABSENT, "test"]
