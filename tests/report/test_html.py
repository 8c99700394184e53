import base64
import html
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from segjax.data.classes import IDD_LEVEL1, IGNORE, ClassTable, from_names
from segjax.metrics.confusion import summarize
from segjax.metrics.protocols import DEFAULT_PROTOCOL
from segjax.report import plots, sample_figures
from segjax.report.html import write_report

CONFUSION = np.diag([50, 40, 0, 30, 20, 10, 60])
CONFUSION[0, 1] = 25


class Page(HTMLParser):
    """Collects tags, text and attributes, and checks that tags close in order."""

    VOID = frozenset({"meta", "img", "source", "br"})

    def __init__(self, source: str):
        super().__init__()
        self.tags, self.texts, self.stack = [], [], []
        self.feed(source)
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if not self.stack or self.stack[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return "\n".join(self.texts)

    def pictures(self):
        """alt -> decoded picture of every <img>."""
        images = [attrs for tag, attrs in self.tags if tag == "img"]
        data = {a["alt"]: base64.b64decode(a["src"].split(",", 1)[1]) for a in images}
        return {alt: Image.open(io.BytesIO(d)).convert("RGB") for alt, d in data.items()}


def sample(height=48, width=64, name="street 1"):
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(8, dtype=np.uint8), height // 8)[:, None].repeat(width, 1)
    label[label == 7] = IGNORE
    prediction = np.zeros_like(label)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return {"name": name, "image": image, "label": label, "prediction": prediction, "miou": 0.125}


def report(tmp_path, **changes) -> tuple[str, Page]:
    history = [
        {"step": s, "split": "train", "loss": 1.0, "learning_rate": 0.1, "images_per_second": r}
        for s, r in ((10, 1.0), (20, 35.0), (30, 36.0))
    ]
    history += [{"step": s, "split": "val", "miou": m} for s, m in ((10, 0.3), (20, 0.7125))]
    arguments = {
        "title": "PSPNet on streets",
        "config": {"seed": 0, "optim": {"name": "sgd", "learning_rate": 0.01}},
        "config_diff": {
            "optim": {"learning_rate": {"base": 0.1, "run": 0.01}},
            "dtype": "bfloat16",
        },
        "environment": {"jax": "0.10.2", "command": "python launch.py", "parameters": 29_443_915},
        "history": history,
        "results": {"val": {**summarize(CONFUSION), "loss": 0.5, "images": 12}},
        "confusion": {"val": CONFUSION},
        "classes": IDD_LEVEL1,
        "samples": {"best": [sample()], "worst": [sample(name="street 2")]},
        "protocol": DEFAULT_PROTOCOL.description,
        "seconds": 4000.0,
        "notes": ["Two pictures were left out."],
    }
    write_report(tmp_path / "run" / "report.html", **(arguments | changes))
    source = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    return source, Page(source)


def test_numbers_are_on_the_page(tmp_path):
    _, page = report(tmp_path)
    miou = f"{summarize(CONFUSION)['miou']:.4f}"
    words = ["0.7125", "at step 20", miou, "1 h 06 m", "35.0", "29.4 M", "29,443,915"]
    words += ["drivable → non-drivable", "33.3 %", "25", "0.1250", "Two pictures were left out."]
    words += ["optim.learning_rate", "0.1", "bfloat16", "python launch.py", "0.10.2"]
    for word in words:
        assert any(word in text for text in page.texts), word
    assert DEFAULT_PROTOCOL.description in page.text
    assert page.texts.count("–") == 1  # the IoU of the class that does not occur


def test_bars_have_the_length_of_the_iou_and_the_colour_of_the_class(tmp_path):
    source, _ = report(tmp_path, history=[], confusion={})
    widths = re.findall(r"width:([\d.]+)%;background:rgb(\(\d+, \d+, \d+\))", source)
    # drivable: 50 / (50 + 25); non-drivable: 40 / (40 + 25); living things: no bar.
    assert widths[:3] == [
        ("66.67", str(IDD_LEVEL1.palette[0])),
        ("61.54", str(IDD_LEVEL1.palette[1])),
        ("100.00", str(IDD_LEVEL1.palette[3])),
    ]
    assert len(widths) == 6


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    source, page = report(tmp_path)
    assert not re.search(r"https?://|@import|url\(|<script|<link", source)
    for tag, attrs in page.tags:
        for key in {"src", "srcset", "href"} & attrs.keys():
            start = "#" if tag == "a" else "data:image/"
            assert attrs[key].startswith(start)
    anchors = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    links = {attrs["href"][1:] for tag, attrs in page.tags if tag == "a"}
    assert links == anchors
    assert (
        "meta",
        {"name": "viewport", "content": "width=device-width, initial-scale=1"},
    ) in page.tags


def test_sample_pictures_are_those_of_the_sample(tmp_path):
    _, page = report(tmp_path, history=[], confusion={})
    pictures, s = page.pictures(), sample()
    for panel in plots.PANELS:
        assert pictures[f"{panel} of street 2"].size == (64, 48)
    expected = {
        "image": s["image"],
        "truth": plots.overlay(s["image"], s["label"], IDD_LEVEL1, 0.6),
        "prediction": plots.overlay(s["image"], s["prediction"], IDD_LEVEL1, 0.6),
        "errors": plots.error_map(s["image"], s["label"], s["prediction"]),
    }
    for panel in expected:
        # JPEG is close, not equal; noise is the worst for it.
        shown = np.asarray(pictures[f"{panel} of street 1"]).astype(int)
        distance = {other: np.abs(shown - p).mean() for other, p in expected.items()}
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
        config_diff={evil: {"base": evil, "run": [evil]}},
        environment={evil: evil},
        results={evil: {**summarize(CONFUSION), "loss": 0.5, "images": 12}},
        confusion={evil: CONFUSION},
        samples={evil: [sample(name=evil)]},
        protocol=evil,
        notes=[evil],
        history=[],
    )
    assert evil not in source
    assert html.escape(evil) in source
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(evil) >= 10
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")


def test_a_run_without_anything(tmp_path):
    _, page = report(
        tmp_path,
        **{k: {} for k in ("config", "config_diff", "environment", "results", "confusion")},
        **{"samples": {"best": []}, "history": [], "seconds": None, "notes": []},
    )
    assert not [tag for tag, _ in page.tags if tag in ("img", "h2", "aside")]


def test_nan_and_null_numbers(tmp_path):
    empty = {**summarize(np.zeros((7, 7), int)), "loss": None}
    _, page = report(
        tmp_path,
        results={"val": empty},
        confusion={"val": np.zeros((7, 7), int)},
        history=[{"step": 1, "split": "val", "miou": None}, {"step": 1, "split": "train"}],
        samples={"samples": [{**sample(), "miou": float("nan")}]},
    )
    assert "nan" not in page.text.lower()
    assert "best validation mIoU" not in page.text


def test_large_photographs_are_bounded(tmp_path):
    big = sample(height=1024, width=2048)
    source, page = report(tmp_path, samples={"best": [big]}, history=[], confusion={})
    assert page.pictures()["image of street 1"].size == (720, 360)
    assert len(source) < 3_000_000


def test_pictures_shrink_to_their_bound():
    group = {"best": [sample(height=240, width=320, name=str(i)) for i in range(3)]}
    large, small = (sample_figures.figures(group, IDD_LEVEL1, bound) for bound in (10**7, 300_000))
    assert len(small) <= 300_000 < len(large)
    sizes = {Page(body).pictures()["errors of 0"].size for body in (large, small)}
    assert (320, 240) in sizes
    assert len(sizes) == 2


def test_first_screen_says_how_good_on_what_and_how(tmp_path):
    numbers = {"val": {**summarize(CONFUSION), "images": 12}}
    numbers["test"] = {**summarize(np.eye(7, dtype=int)), "images": 1234}
    _, page = report(tmp_path, results=numbers, config={"data": {"name": "streets"}})
    text = " ".join(page.texts)
    lead = text[: text.index("Results")]
    assert "1.0000  mIoU on the test split of streets (1,234 images, 7 classes)" in lead
    assert DEFAULT_PROTOCOL.description in lead


def test_data_are_named(tmp_path):
    data = {"val": {"images": 1234, "fingerprint": "00ff"}}
    _, page = report(tmp_path, data=data)
    place = page.texts.index("fingerprint")
    assert page.texts[place + 1 : place + 4] == ["val", "1,234", "00ff"]


def test_curves_of_training_and_validation(tmp_path):
    history = [
        {"step": s, "split": "train", "loss": 2.0 / s, "learning_rate": 0.1, "accuracy": 0.5}
        for s in range(1, 31)
    ]
    history += [{"step": 30, "split": "val", "loss": 1.0, "miou": 0.4, "global_accuracy": 0.6}]
    _, page = report(tmp_path, history=history)
    labels = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg"]
    assert labels[:4] == ["Loss", "mIoU", "Accuracy", "Learning rate"]
    for point in ("val 30: 1", "val 30: 0.4", "val 30: 0.6", "train (smoothed) 30: 0.5"):
        assert point in page.texts
    assert any("best 0.4000 at step 30" in text for text in page.texts)


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
    assert 'class="many"' in source
