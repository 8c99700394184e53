"""The commands that look at the data alone, from their config to what they leave and print."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from configs import base
from segjax.commands.benchmark import benchmark
from segjax.commands.doctor import doctor
from segjax.commands.prepare import prepare
from segjax.console import Console
from segjax.data.datasets import make_source
from segjax.data.doctor import WARNING
from segjax.data.splits import Splits
from segjax.data.streets.dataset import render
from segjax.data.throughput import Rate
from segjax.report.harm import print_harm
from segjax.report.provenance import known_findings, save_run
from segjax.training.setup import setup_run


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def config(tmp_path):
    """A folder data set of streets: 4 + 2 images without a test split."""
    for split, count in (("train", 4), ("val", 2)):
        for index in range(count):
            image, label = render(0, index, (48, 64), split=split)
            for kind, array in (("images", image), ("masks", label)):
                folder = tmp_path / "data" / kind / split
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(folder / f"{index}.png")
    config = base.get_config()
    config.data.name, config.data.root = "folder", str(tmp_path / "data")
    config.data.classes = "a,b,c,d,e,f,g"
    config.data.image_size = (48, 64)
    config.data.workers = 1
    config.train.batch_size = 2
    return config


def test_doctor_writes_what_it_prints(config, tmp_path, console):
    diagnosis = doctor(config, tmp_path / "run", console=console)
    assert list(diagnosis.splits) == ["train", "val"]
    written = json.loads((tmp_path / "run" / "doctor.json").read_text())
    assert [f["code"] for f in written["findings"]] == [f.code for f in diagnosis.findings]
    assert "4 train, 2 val images" in console.file.getvalue()
    assert "classes: 7 of data.classes (a, b, c, d, e, f, g), ids 0..6" in console.file.getvalue()
    assert "doctor.html" in console.file.getvalue()


def test_doctor_ends_in_an_error_where_training_would(config, tmp_path, console):
    bad = tmp_path / "data" / "masks" / "train" / "1.png"
    Image.fromarray(np.full((48, 64), 9, np.uint8)).save(bad)
    with pytest.raises(ValueError, match=r"1 finding\(s\) stop training; see above, or .*html"):
        doctor(config, tmp_path / "run", ["train"], console)
    assert "error: train" in console.file.getvalue()
    assert (tmp_path / "run" / "doctor.html").exists()


@pytest.mark.parametrize("format", ["decoded", "encoded", "jpeg"])
def test_prepared_data_are_the_folders(config, tmp_path, console, format):
    config.data.workers = 1
    made = prepare(config, tmp_path / "out", ["val"], format, (24, 32), console)
    assert made.folder == tmp_path / "out" / "folder" / "1.0.0"
    printed = console.file.getvalue()
    assert f"--config.data.name=prepared --config.data.root={made.folder}" in printed
    whole = make_source(config.data, "val")
    config.data.name, config.data.root = "prepared", str(made.folder)
    small = make_source(config.data, "val")
    assert [small[i]["name"] for i in range(2)] == [whole[i]["name"] for i in range(2)]
    assert small[0]["image"].shape == (24, 32, 3)
    assert small.classes == whole.classes


def test_wrong_formats_of_prepare(config):
    with pytest.raises(ValueError, match="decoded, encoded, jpeg, masks"):
        prepare(config, format="zip")
    with pytest.raises(ValueError, match=r"--format=masks is for data\.name=idd, not folder"):
        prepare(config, format="masks")


def test_benchmark_prints_a_row_for_each_loader(config, console, monkeypatch):
    rates = [Rate(0, 100, 2.0), Rate(2, 180, 2.0)]
    seen = {}

    def measure(canvas, batch_size, **options):
        seen.update(options, images=len(canvas), batch=batch_size)
        return rates

    monkeypatch.setattr("segjax.data.throughput.measure", measure)
    assert benchmark(config, 0.5, console) == rates
    assert (seen["images"], seen["batch"], seen["seconds"]) == (4, 2, 0.5)
    printed = console.file.getvalue()
    assert "4 images at 48x64" in printed
    assert "batch 2" in printed
    assert "50" in printed
    assert "90" in printed
    config.train.batch_size = 5
    with pytest.raises(ValueError, match=r"train\.batch_size=5, but the split has 4 images"):
        benchmark(config, 0.5, console)


def test_training_says_what_would_harm_it_once(config, tmp_path, console):
    """A class list that is one too long, found in the sample that is looked at before training."""
    config.data.classes = "header,a,b,c,d,e,f,g"
    config.model.name, config.model.features, config.train.steps = "segnet_basic", 4, 2
    findings = setup_run(config).findings
    titles = [f.title for f in findings if f.severity == WARNING]
    (unseen,) = (title for title in titles if "never occur" in title)
    assert unseen.endswith(": g")
    print_harm(findings, console)
    lines = console.file.getvalue().splitlines()
    assert lines[0].startswith(f"this would harm the run ({len(titles)} finding")
    assert lines[1::2] == [f"  {title}" for title in titles]
    assert all(line.startswith("    -> ") for line in lines[2::2])
    # A resumed run says no more of what was said at its start.
    (tmp_path / "run").mkdir()
    assert known_findings(tmp_path / "run") == []
    save_run(tmp_path / "run", None, config, Splits(config.data), findings)
    known = known_findings(tmp_path / "run")
    console.file.truncate(0)
    print_harm(findings, console, known)
    assert console.file.getvalue().strip("\0").splitlines() == [
        f"{len(titles)} findings that may harm are those of the start"
    ]
    print_harm([f for f in findings if f.severity != WARNING], clean := Console(file=io.StringIO()))
    assert clean.file.getvalue() == ""


def test_training_refuses_what_teaches_nothing(config, tmp_path):
    """Everything is ignored after a class map; no program is compiled."""
    for path in (tmp_path / "data/masks").rglob("*.png"):
        Image.fromarray(np.zeros((48, 64), np.uint8)).save(path)
    config.train.steps = 2
    with pytest.raises(ValueError, match="train: all labelled pixels are of one class, a: a: "):
        setup_run(config)
    (tmp_path / "map.yaml").write_text("{b: b, c: c}")
    config.data.class_map = str(tmp_path / "map.yaml")
    with pytest.raises(ValueError, match=r"train: no pixel has a class: 12,288 of 12,288 pixels"):
        setup_run(config)
    config.train.steps, config.init_from = 0, ""
    with pytest.raises(ValueError, match=r"train\.steps=0"):
        setup_run(config)
