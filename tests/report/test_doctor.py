"""The doctor's report: one file, ranked, with pictures of what is wrong."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from segjax.console import Console
from segjax.data.classes import from_names
from segjax.data.doctor import SEVERITIES, diagnose
from segjax.data.streets.dataset import Streets
from segjax.report.doctor import print_findings, summary, write_report
from segjax.report.doctor_samples import NO_CLASS, side_by_side
from tests.data.doctor import planted
from tests.data.drawn import Drawn
from tests.report.html import Page


@pytest.fixture(scope="module")
def planted_files(tmp_path_factory):
    root = tmp_path_factory.mktemp("planted")
    return root, planted.plant(root)


@pytest.fixture(scope="module")
def diagnosis(planted_files):
    return diagnose(planted.sources(planted_files[0]), title="<planted> & found")


@pytest.fixture(scope="module")
def page(diagnosis, tmp_path_factory):
    path = write_report(diagnosis, tmp_path_factory.mktemp("run") / "new")
    return path, Page(path.read_text(encoding="utf-8"))


def test_the_page_is_one_small_file_that_needs_no_network(page):
    path, parsed = page
    assert sorted(p.name for p in path.parent.iterdir()) == ["doctor.html", "doctor.json"]
    assert path.stat().st_size < 2_000_000
    assert not {"script", "link"} & {tag for tag, _ in parsed.tags}
    assert "Data doctor: <planted> & found" in parsed.text
    sources = [attrs["src"] for tag, attrs in parsed.tags if tag == "img"]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)


def test_findings_are_ranked_with_remedies(page, diagnosis):
    text = page[1].text
    places = [text.index(finding.title) for finding in diagnosis.findings]
    assert places == sorted(places)
    assert text.count("Remedy:") == len(diagnosis.findings)
    for finding in diagnosis.findings:
        assert finding.remedy in text
        assert all(line in text for line in finding.found)
    assert text.index("Findings") < text.index("Splits") < text.index("Options to paste")


def test_options_are_ready_to_paste(page, diagnosis):
    numbers = ",".join(f"{w:.4f}" for w in diagnosis.weights["median_present"])
    assert f"--config.loss.class_weights={numbers}" in page[1].texts
    mean = ",".join(f"{v:.4f}" for v in diagnosis.splits["train"].mean)
    assert f"'--config.data.mean=({mean},)'" in page[1].text


def test_pictures_of_offending_samples_and_of_every_split(page):
    pictures = page[1].pictures()
    for name in ("train: scene_03", "train: scene_00", "scene_01"):
        assert any(name in alt for alt in pictures), name
    assert all(min(picture.size) > 40 for picture in pictures.values())


def test_json_is_the_diagnosis(page, diagnosis):
    saved = json.loads((page[0].parent / "doctor.json").read_text())
    assert saved == json.loads(json.dumps(diagnosis.to_json()))


def test_a_page_with_many_pictures_stays_small(diagnosis, tmp_path):
    finding = diagnosis.findings[0]
    samples = tuple(("train", i) for i in range(1, 9))
    many = [dataclasses.replace(finding, samples=samples, files=("x.png",) * 5000)] * 60
    path = write_report(dataclasses.replace(diagnosis, findings=many), tmp_path)
    assert path.stat().st_size < 2_600_000
    text = path.read_text()
    assert "and 4800 more, in doctor.json" in text
    assert "Samples" in text


def test_a_sound_data_set(tmp_path):
    sound = diagnose({"train": Streets("train", (72, 144), length=16, seed=3)})
    sound = dataclasses.replace(sound, findings=[])
    text = Page(write_report(sound, tmp_path).read_text()).text
    assert "Nothing found." in text
    assert summary(sound) == "nothing found"


def test_findings_on_the_terminal(diagnosis):
    out = io.StringIO()
    print_findings(diagnosis, Console(file=out, width=400))
    lines = out.getvalue().splitlines()
    heads = [line for line in lines if line.startswith(SEVERITIES)]
    assert heads == [f"{f.severity}: {f.title}" for f in diagnosis.findings]
    remedies = [line for line in lines if line.startswith("  -> ")]
    assert remedies == [f"  -> {f.remedy}" for f in diagnosis.findings]
    assert lines[-1].startswith(f"{summary(diagnosis)} in 10 train, 4 val images")
    assert summary(diagnosis).startswith("13 findings (5 error, 4 warning, 4 info")


def test_a_sample_beside_its_mask(planted_files):
    sources, classes = planted.sources(planted_files[0]), planted.IDD_LEVEL1
    height, width = planted.SIZE
    good = side_by_side(sources["train"], 9, classes, height)
    assert good.shape == (height, 2 * width + 6, 3)
    np.testing.assert_array_equal(good[:, :width], sources["train"].image(9))
    bad = side_by_side(sources["train"], 1, classes, height)[:, width + 6 :]
    assert (bad == NO_CLASS).all(-1).sum() == 20, "pixels without a class stand out"
    only_mask = side_by_side(sources["train"], 0, classes, height)
    assert only_mask.shape == (height, width, 3)
    crop = side_by_side(sources["train"], 4, classes, 96, enlarged=True)
    assert crop.shape == (96, 192 + 6 + 96, 3), "48 pixels, each of them four"
    colours = side_by_side(sources["train"], 3, classes, height)[:, width + 6 :]
    np.testing.assert_array_equal(colours, Image.open(planted_files[1]["rgb-mask"]))


def test_samples_without_files_and_unreadable_ones():
    label = np.array([[0, 1], [7, 255]], np.uint8)
    image = np.full((2, 2, 1), 200, np.uint8)  # one channel
    source = Drawn([label], image=image)
    picture = side_by_side(source, 0, source.classes, 2)
    assert (picture[:, :2] == 200).all()
    np.testing.assert_array_equal(picture[1, 2 + 6 :], [NO_CLASS, (200, 200, 200)])

    class Refusing(Drawn):
        def __getitem__(self, index):
            raise ValueError("damaged")

    assert side_by_side(Refusing([label]), 0, source.classes) is None


def test_shares_of_the_classes(page, diagnosis):
    assert "Share of the labelled pixels (×: none)" in page[1].texts
    numbers = diagnosis.splits["train"]
    share = 100 * numbers.class_pixels[0] / numbers.class_pixels.sum()
    assert f"{share:.3g} %" in page[1].texts
    assert "×" in page[1].texts  # the class that never occurs


def test_many_classes_without_pixels(tmp_path):
    many = from_names([f"class {k}" for k in range(60)])
    empty = diagnose({"train": Drawn([np.full((2, 2), 255, np.uint8)], many)})
    parsed = Page(write_report(empty, tmp_path).read_text())
    place = parsed.texts.index("class", parsed.texts.index("Classes"))
    assert parsed.texts[place + 3 : place + 6] == ["class 0", "–", "0"]
