"""report.html: every number stands on the page, everything is escaped, nothing is loaded."""

import html
import re

import numpy as np
import pytest

from segjax.data.class_lists import IDD_LEVEL1
from segjax.data.classes import IGNORE, ClassTable, from_names
from segjax.metrics import boundary, by_object, calibration, protocols
from segjax.metrics.confusion import summarize
from segjax.report import pictures
from segjax.report.numbers import ABSENT, format_number
from segjax.report.run_page import Run, Scores, write_run_page
from tests.report.html import Page

CONFUSION = np.diag([50, 40, 0, 30, 20, 10, 60])
CONFUSION[0, 1] = 25
THREE = from_names(["a", "b", "<c>"])


def sample(height=48, width=64, name="street 1"):
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(8, dtype=np.uint8), height // 8)[:, None].repeat(width, 1)
    label[label == 7] = IGNORE
    prediction = np.zeros_like(label)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return {"name": name, "image": image, "label": label, "prediction": prediction, "miou": 0.125}


def report(tmp_path, samples=None, remarks=(), **changes) -> tuple[str, Page]:
    """The page of a small run in which `changes` take the place of fields of `Run` and `Scores`."""
    history = [
        {"step": s, "split": "train", "loss": 1.0, "learning_rate": 0.1, "images_per_second": r}
        for s, r in ((10, 1.0), (20, 35.0), (30, 36.0))
    ]
    history += [{"step": s, "split": "val", "miou": m} for s, m in ((10, 0.3), (20, 0.7125))]
    record = {
        "environment": {
            "jax": "0.10.2",
            "command": "python launch.py",
            "parameters": 29_443_915,
        },
        "changes": {
            "optim.learning_rate": {"base": 0.1, "run": 0.01},
            "dtype": {"base": "float32", "run": "bfloat16"},
        },
        "seconds": 4000.0,
    }
    fields = {
        "title": "PSPNet on streets",
        "config": {"seed": 0, "data": {"name": "streets"}, "optim": {"learning_rate": 0.01}},
        "record": record | changes.pop("record", {}),
        "history": history,
        "classes": IDD_LEVEL1,
        "results": {"val": {**summarize(CONFUSION), "loss": 0.5, "images": 12}},
        "confusion": {"val": CONFUSION},
        "protocol": protocols.DEFAULT_PROTOCOL.description,
    } | changes
    run = Run(*(fields[name] for name in ("title", "config", "record", "history")))
    scores = Scores(*(fields[n] for n in ("classes", "results", "confusion", "protocol")))
    if samples is None:
        samples = {"best": [sample()], "worst": [sample(name="street 2")]}
    path = tmp_path / "run" / "report.html"
    write_run_page(path, run, scores, samples, remarks)
    source = path.read_text(encoding="utf-8")
    return source, Page(source)


def test_numbers_are_on_the_page(tmp_path):
    _, page = report(tmp_path, remarks=["Two pictures were left out."])
    miou = f"{summarize(CONFUSION)['miou']:.4f}"
    words = ["0.7125", "at step 20", miou, "1 h 06 m", "35.0", "29.4 M", "29,443,915"]
    words += ["drivable → non-drivable", "33.3 %", "25", "0.1250", "Two pictures were left out."]
    words += ["optim.learning_rate", "0.1", "bfloat16", "python launch.py", "0.10.2"]
    for word in words:
        assert any(word in text for text in page.texts), word
    assert protocols.DEFAULT_PROTOCOL.description in page.text
    assert page.after("drivable", 1) == ["50"]  # the last of them: the matrix in pixels
    # The IoU of the class that does not occur, as a bar and in the table.
    assert page.texts.count(ABSENT) == 2
    # drivable: 50 / (50 + 25); non-drivable: 40 / (40 + 25).
    assert page.texts.count("0.6667") == page.texts.count("0.6154") == 2


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    source, page = report(tmp_path)
    assert not re.search(r"https?://|@import|url\((?!#)|<script|<link", source)
    for tag, attrs in page.tags:
        for key in {"src", "srcset", "href"} & attrs.keys():
            start = "#" if tag == "a" else "data:image/"
            assert attrs[key].startswith(start)
    anchors = {attrs["id"] for tag, attrs in page.tags if tag == "h2"}
    links = {attrs["href"][1:] for tag, attrs in page.tags if tag == "a"}
    assert links == anchors
    assert (
        "meta",
        {"name": "viewport", "content": "width=device-width, initial-scale=1"},
    ) in page.tags


def test_figures_do_not_share_ids(tmp_path):
    splits = {name: {**summarize(CONFUSION), "images": 3} for name in ("val", "test")}
    _, page = report(tmp_path, results=splits, confusion=dict.fromkeys(splits, CONFUSION))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids)) > 10


def test_sample_pictures_are_those_of_the_sample(tmp_path):
    _, page = report(tmp_path, history=[], confusion={})
    shown, s = page.pictures(), sample()
    for panel in pictures.PANELS:
        assert shown[f"{panel} of street 2"].size == (64, 48)
    expected = dict(
        zip(pictures.PANELS, pictures.sample_panels(s, IDD_LEVEL1, tint=0.6), strict=True)
    )
    for panel in expected:
        # JPEG is close, not equal; noise is the worst for it.
        picture = np.asarray(shown[f"{panel} of street 1"]).astype(int)
        distance = {other: np.abs(picture - p).mean() for other, p in expected.items()}
        assert distance[panel] < 15, panel
        assert min(distance, key=distance.get) == panel


@pytest.mark.parametrize("evil", ["<b>&\"'</b>", "</style><script>alert(1)</script>"])
def test_everything_is_escaped(tmp_path, evil):
    classes = ClassTable((evil, *IDD_LEVEL1.names[1:]), IDD_LEVEL1.palette)
    source, page = report(
        tmp_path,
        title=evil,
        classes=classes,
        config={evil: {evil: evil}},
        record={
            "environment": {evil: evil},
            "changes": {evil: {"base": evil, "run": [evil]}},
            "data": {evil: {"images": 1, "fingerprint": evil}},
        },
        results={evil: {**summarize(CONFUSION), "loss": 0.5, "images": 12}},
        confusion={evil: CONFUSION},
        samples={evil: [sample(name=evil)]},
        protocol=evil,
        remarks=[evil],
    )
    assert evil not in source
    assert html.escape(evil) in source.replace("&#34;", "&quot;").replace("&#39;", "&#x27;")
    assert {"script", "b"} & {tag for tag, _ in page.tags} <= {"b"}
    assert page.text.count(evil) >= 10
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")


def test_a_run_without_anything(tmp_path):
    empty = {"environment": {}, "changes": {}, "seconds": None}
    nothing = {"config": {}, "results": {}, "confusion": {}, "samples": {"best": []}}
    _, page = report(tmp_path, record=empty, history=[], **nothing)
    assert not [tag for tag, _ in page.tags if tag in ("img", "h2", "aside", "svg")]


def test_nan_and_null_numbers(tmp_path):
    empty = {**summarize(np.zeros((7, 7), int)), "loss": None}
    _, page = report(
        tmp_path,
        results={"val": empty},
        confusion={"val": np.zeros((7, 7), int)},
        history=[{"step": 1, "split": "val", "miou": None}, {"step": 1, "split": "train"}],
        samples={"best": [{**sample(), "miou": float("nan")}]},
    )
    assert "nan" not in page.text.lower()
    assert "best validation mIoU" not in page.text


def test_large_photographs_are_bounded(tmp_path):
    big = sample(height=1024, width=2048)
    source, page = report(tmp_path, samples={"best": [big]}, history=[], confusion={})
    assert page.pictures()["image of street 1"].size == (720, 360)
    assert len(source) < 3_000_000


def test_first_screen_says_how_good_on_what_and_how(tmp_path):
    numbers = {"val": {**summarize(CONFUSION), "images": 12}}
    numbers["test"] = {**summarize(np.eye(7, dtype=int)), "images": 1234, "protocol": "segjax"}
    _, page = report(tmp_path, results=numbers)
    text = " ".join(" ".join(page.texts).split())
    lead = text[: text.index("Results")]
    assert (
        "1.0000 mIoU on the test split of streets (1,234 images, 7 classes) by the protocol segjax"
        in lead
    )
    assert protocols.DEFAULT_PROTOCOL.description in lead


def test_data_are_named(tmp_path):
    _, page = report(tmp_path, record={"data": {"val": {"images": 1234, "fingerprint": "00ff"}}})
    assert page.after("fingerprint", 3) == ["val", "1,234", "00ff"]


def test_many_classes(tmp_path):
    k = 60
    confusion = np.eye(k, dtype=np.int64)
    source, page = report(
        tmp_path,
        classes=from_names([f"class {i}" for i in range(k)]),
        results={"val": summarize(confusion)},
        confusion={"val": confusion},
        history=[],
    )
    assert "class 59" in page.text
    assert "stand side by side" in page.text
    assert "100" not in page.texts  # percent, as the cells of few classes have
    assert len(source) < 400_000


def test_confusion_must_fit_the_classes(tmp_path):
    with pytest.raises(
        ValueError, match=r"confusion of 'val' .* \(6, 6\); 7 classes need \(7, 7\)"
    ):
        report(tmp_path, confusion={"val": np.eye(6, dtype=int)})


@pytest.fixture(scope="module")
def results():
    """Two splits of two images; class <c> does not occur."""
    rng, results = np.random.default_rng(0), {}
    for split in ("val", "test"):
        edges, by_size, confusions = boundary.Boundaries(3), by_object.StratifiedIoU(3), []
        for _ in range(2):
            label = np.zeros((24, 32), np.uint8)
            label[:, rng.integers(8, 24) :] = 1
            prediction = np.roll(label, 2, 1)
            label[:3] = IGNORE
            edges.add(label, prediction)
            by_size.add(label, prediction)
            pair = 3 * label[3:].astype(int) + prediction[3:]
            confusions.append(np.bincount(pair.ravel(), minlength=9).reshape(3, 3))
        right = sum(np.trace(confusion) for confusion in confusions)
        pixels = 2 * 21 * 32
        counts = {"pixels": [0, pixels], "hits": [0, right], "confidence": [0, 0.7 * pixels]}
        results[split] = {
            **summarize(sum(confusions)),
            "boundary": edges.summary(),
            "by_object": by_size.summary(),
            "calibration": calibration.summarize_calibration({**counts, "nll": 5.0, "brier": 3.0}),
            "protocols": protocols.compare_protocols(np.stack(confusions)),
        }
    return results


def measured(tmp_path, results) -> Page:
    return report(tmp_path, classes=THREE, results=results, confusion={}, samples={})[1]


def test_protocols_stand_beside_their_numbers(tmp_path, results):
    page = measured(tmp_path, results)
    for place, rule in enumerate(protocols.PROTOCOLS):
        values = [results[split]["protocols"][place]["miou"] for split in ("val", "test")]
        assert page.after(rule, 2) == [format_number(v) for v in values], rule
    assert "1 of 3 classes absent: each counts 0 here" in page.text


def test_boundary_scores_and_curve(tmp_path, results):
    page = measured(tmp_path, results)
    summaries = [results[split]["boundary"] for split in ("val", "test")]
    assert page.after("BF score", 2) == [f"{b['bf']:.4f}" for b in summaries]
    assert page.after("Boundary IoU", 2) == [f"{b['boundary_iou']:.4f}" for b in summaries]
    assert page.after("a", 2) == [f"{b['bf_per_class'][0]:.4f}" for b in summaries]
    assert page.after("<c>", 2) == [ABSENT] * 2
    for width in summaries[1]["trimap"]:
        values = [format_number(b["trimap"][width]) for b in summaries]
        assert page.after(f"{width} px", 2) == values
    assert page.text.count("Boundary pixel: labelled") == 1  # the note, once for both


def test_sizes_and_distances(tmp_path, results):
    page = measured(tmp_path, results)
    for kind in ("size", "distance"):
        total = sum(row["pixels"] for row in results["test"]["by_object"][kind])
        assert total == 2 * 21 * 32
        for row in results["test"]["by_object"][kind]:
            objects = f", {row['objects']} objects" if "objects" in row else ""
            place = page.texts.index(f"{row['bucket']}{objects}")
            assert page.texts[place + 1] == f"{row['pixels'] / total:.1%} of the pixels"
            assert format_number(row["miou"]) in page.texts


def test_calibration_numbers_and_diagrams(tmp_path, results):
    page = measured(tmp_path, results)
    summaries = [results[split]["calibration"] for split in ("val", "test")]
    assert page.after("expected calibration error", 2) == [f"{c['ece']:.4f}" for c in summaries]
    for split, values in zip(("val", "test"), summaries, strict=True):
        assert f"Reliability, {split}" in page.texts
        place = page.texts.index(f"in numbers, {split}")
        accuracy = f"{values['bins'][1]['accuracy']:.3f}"
        row = ["0.50 to 1.00", "100.0%", "0.700", accuracy]
        assert page.texts[place + 5 : place + 9] == row


def test_numbers_read_back_from_json(tmp_path, results):
    """Null for NaN and text for widths, as in results.json."""
    values = {"bf": None, "trimap": {"1": None, "10": 0.5, "2": 0.25}}
    values = {**results["val"], "boundary": {**results["val"]["boundary"], **values}}
    page = measured(tmp_path, {"val": values})
    assert page.after("BF score", 1) == [ABSENT]
    assert page.after("within", 7) == ["val", "1 px", ABSENT, "2 px", "0.2500", "10 px", "0.5000"]
    assert not {"nan", "None", "null"} & set(page.texts)


def test_a_section_without_data_is_left_out(tmp_path):
    headings = {"Boundaries", "Size and distance", "Calibration"}
    assert headings.isdisjoint(report(tmp_path)[1].texts)
