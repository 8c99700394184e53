"""The report in a real browser: `pytest -m slow tests/report/test_browser.py`."""

import numpy as np
import pytest

from segjax.data.classes import from_names
from segjax.metrics.confusion import summarize
from tests.report import browser
from tests.report.test_run_page import report, sample
from tests.report.test_run_page import results as measured  # noqa: F401  a fixture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not browser.chromium(), reason="no Chromium or Chrome here: apt-get install chromium"
    ),
]
PHONE, DESK = 390, 1280


def full_report(tmp_path, measured, k):  # noqa: F811
    """Everything the report can hold, with `k` classes of long names."""
    rng = np.random.default_rng(0)
    classes = from_names([f"a class with a rather long name {i}" for i in range(k)])
    confusion = rng.integers(0, 500, (k, k)) + 20_000 * np.eye(k, dtype=np.int64)
    result = {**summarize(confusion), "loss": 0.5, "images": 12}
    results = {}
    for split in ("val", "test"):
        bf = {**measured[split]["boundary"], "bf_per_class": rng.random(k).tolist()}
        results[split] = {**measured[split], **result, "boundary": bf}
    history = [
        {"step": s, "split": "train", "loss": 9 / s, "learning_rate": 0.1, "accuracy": 0.5}
        for s in range(1, 2000)
    ]
    history += [{"step": s, "split": "val", "loss": 1, "miou": 0.4} for s in range(100, 2000, 100)]
    samples = {"best": [sample()], "worst": [sample(1024, 2048, "a_very_long_file_name_" * 4)]}
    report(
        tmp_path,
        classes=classes,
        history=history,
        samples=samples,
        results=results,
        confusion={"val": confusion, "test": confusion},
        record={
            "environment": {"command": "python launch.py --config=" + "configs/long_name" * 12},
            "data": {"test": {"images": 12, "fingerprint": "0123456789abcdef"}},
        },
    )
    return tmp_path / "run" / "report.html"


@pytest.mark.parametrize("k", [7, 150])
def test_report_in_a_browser(tmp_path, measured, k):  # noqa: F811
    path = full_report(tmp_path, measured, k)
    assert path.stat().st_size < 3_000_000
    for width in (PHONE, DESK):
        shown = browser.show(path, width)
        assert shown.console == []
        assert shown.images == 8
        assert shown.broken == []
        assert shown.window_width == shown.page_width == width
        assert shown.wide == []
        assert shown.smallest_text >= 10
        assert shown.lead_bottom < 400
        assert len(shown.headings) == 9


def test_report_prints(tmp_path, measured):  # noqa: F811
    pdf = tmp_path / "report.pdf"
    browser.to_pdf(full_report(tmp_path, measured, 7), pdf)
    assert pdf.read_bytes().startswith(b"%PDF-")
    assert 20_000 < pdf.stat().st_size < 5_000_000


def test_the_checks_find_what_is_wrong(tmp_path):
    """A page with one fault of each kind."""
    path = tmp_path / "bad.html"
    path.write_text(
        '<!DOCTYPE html><body><h2>One</h2><img alt="gone" src="data:image/png;base64,AAAA">'
        '<div id="wide" style="width:600px">wide</div>'
        '<svg width="100" viewBox="0 0 1000 10"><text font-size="12" y="9">tiny</text></svg>'
        "<script>console.error('a complaint')</script></body>"
    )
    shown = browser.show(path, PHONE)
    assert shown.broken == ["gone"]
    assert len(shown.wide) == 1
    assert 'id="wide"' in shown.wide[0]
    assert shown.page_width > shown.window_width == PHONE
    assert shown.smallest_text < 2
    assert any("a complaint" in line for line in shown.console)
