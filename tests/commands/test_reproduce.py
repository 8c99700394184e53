"""The rows of a small table on streets: trained, reused, resumed, shared, stopped in time."""

import io
import json
import re
import signal
import time

import pytest

from segjax import config as configs
from segjax.commands import reproduce as module
from segjax.commands.compare import compare
from segjax.commands.reproduce import reproduce
from segjax.console import Console
from segjax.data.files.folder_lock import FolderLock
from segjax.training.interruption import Interrupted
from tests.training.processes import assert_end_well, start

TABLE = """
title: two decoders
source: nobody, table 1
columns:
  mIoU: {measure: miou}
  "mIoU, notebooks": {measure: miou, protocol: notebooks}
scales:
  small:
    about: two steps
    options: {data.image_size: [32, 48], model.features: 2, train.steps: STEPS, train.batch_size: 2,
              train.eval_every: 2, train.save_every: 1, data.train_images: 6, data.eval_images: 2,
              report.samples: 1, data.eval_splits: [test], optim.schedule: constant}
rows:
  - {name: SegNet-Basic, config: "segnet_basic:streets", paper: {mIoU: 47.7}}
  - {name: Addition, config: "segnet_basic:streets", paper: {mIoU: 44.1},
     options: {model.addition: true}}
"""
RECALIBRATED = """
  - {name: "SegNet-Basic, recalibrated", of: SegNet-Basic, paper: {mIoU: 48}, then: {recalibrate: }}
"""
# Options that change what a network computes of the parameters that it has.
OTHERWISE = """
  - {name: "SegNet-Basic, LRN", of: SegNet-Basic, paper: {},
     then: {options: {model.input_lrn: true}}}
"""
MORE = """
  - {name: "SegNet-Basic, CRF", of: SegNet-Basic, paper: {}, then: {crf: {iterations: 1}}}
  - {name: longer, config: "segnet_basic:streets", continues: SegNet-Basic, paper: {mIoU: 49},
     scales: {small: {train.steps: 3}}}
  - {name: both, of: SegNet-Basic, paper: {}, then: {ensemble: }}
"""
COST = """
  - {name: cost, config: "segnet_basic:streets", paper: {mIoU: 1}, then: {cost: }}
"""


@pytest.fixture
def table(tmp_path):
    def write(more="", steps=2):
        path = tmp_path / "two.yaml"
        path.write_text(TABLE.replace("STEPS", str(steps)) + more)
        return str(path)

    return write


def run(table, workdir, **options):
    console = Console(file=io.StringIO(), width=120)
    try:
        return reproduce(table, "small", workdir=workdir, console=console, **options)
    finally:
        run.printed = console.file.getvalue()


def cells(result, column="mIoU"):
    return {row["name"]: row["cells"][column] for row in result["rows"]}


def test_rows_are_run_once_and_set_beside_the_paper(table, tmp_path, monkeypatch):
    workdir, text = tmp_path / "work", table(OTHERWISE)
    result = run(text, workdir, rows=["SegNet-Basic*"])
    found = cells(result)
    assert [len(cell["values"]) for cell in found.values()] == [1, 1]
    first = json.loads((workdir / "runs/SegNet-Basic/seed0/results.json").read_text())
    numbers = first["results"]["test"]
    assert found["SegNet-Basic"]["mean"] == pytest.approx(100 * numbers["miou"])
    assert found["SegNet-Basic"]["difference"] == pytest.approx(100 * numbers["miou"] - 47.7)
    assert found["SegNet-Basic"]["verdict"] == "another size"
    folders = [workdir / "runs/SegNet-Basic/seed0" / each for each in ("", "SegNet-Basic_LRN")]
    assert [configs.load(each).model.input_lrn for each in folders] == [False, True]
    plain, other = (json.loads((each / "results.json").read_text()) for each in folders)
    assert "with model.input_lrn=True" in other["protocol"]
    assert "with model" not in plain["protocol"]
    assert plain["results"]["test"]["loss"] != other["results"]["test"]["loss"]
    gain = result["rows"][1]["gain"]
    paired = compare(folders, console=Console(file=io.StringIO()))["paired"][0]
    assert gain["against"] == "SegNet-Basic"
    assert gain["images"] == 2
    assert {name: gain[name] for name in gain if name != "against"}.items() <= paired.items()
    notebooks = next(r for r in numbers["protocols"] if r["protocol"] == "notebooks")
    other = cells(result, "mIoU, notebooks")["SegNet-Basic"]
    assert other["mean"] == pytest.approx(100 * notebooks["miou"])
    assert (other["paper"], other["difference"], other["verdict"]) == (None, None, "")
    made = result["rows"][0]["made"]
    assert made["changed"]["train.steps"] == (900, 2)
    assert made["data"].keys() >= {"train", "val"}
    assert made["hours"] > 0
    for name in ("table.md", "table.html"):
        written = (workdir / name).read_text()
        assert "47.7" in written
        cell = found["SegNet-Basic"]
        assert f"{cell['mean']:.1f} ({cell['difference']:+.1f})" in written
    stored = json.loads((workdir / "table.json").read_text())
    assert stored["rows"][0]["cells"] == result["rows"][0]["cells"]
    # All is there: nothing is run again, and the numbers stay.
    for name in ("train", "evaluate"):
        monkeypatch.setattr(module, name, None)
    again = run(text, workdir, rows=["SegNet-Basic*"])
    assert again["rows"] == result["rows"]


@pytest.mark.slow
def test_seeds_ensembles_longer_runs_and_a_crf(table, tmp_path):
    workdir = tmp_path / "work"
    result = run(table(RECALIBRATED + MORE), workdir, seeds=2)
    found = cells(result)
    assert [len(cell["values"]) for cell in found.values()] == [2, 2, 2, 2, 2, 1]
    basic = found["SegNet-Basic"]
    assert basic["values"] != found["SegNet-Basic, recalibrated"]["values"]
    assert basic["difference"] == pytest.approx(sum(basic["values"]) / 2 - 47.7)
    assert f"{basic['mean']:.1f} ± {basic['deviation']:.1f}" in (workdir / "table.md").read_text()
    log = (workdir / "runs/longer/seed0/metrics.jsonl").read_text()
    assert [json.loads(line)["step"] for line in log.splitlines() if '"val"' in line] == [2, 3]
    gains = {row["name"]: row["gain"] for row in result["rows"] if row["gain"]}
    assert [*gains] == ["SegNet-Basic, recalibrated", "SegNet-Basic, CRF", "both"]
    assert all(each["images"] == 2 for each in gains.values())
    assert "rank correlation" in (workdir / "table.md").read_text()
    # With one seed there is no ensemble.
    assert cells(run(table(RECALIBRATED + MORE), workdir))["both"]["values"] == []


def test_costs_are_measured_and_nothing_is_trained(table, tmp_path):
    text = table(COST)
    path = tmp_path / "two.yaml"
    path.write_text(path.read_text().replace("measure: miou}", "measure: parameters_m, factor: 1}"))
    result = run(text, tmp_path / "work", rows=["cost"])
    assert cells(result)["cost"]["mean"] == pytest.approx(0.0022, rel=0.5)
    assert not (tmp_path / "work/runs/cost/seed0/checkpoints").exists()


def leave_results(config, folder, *_):
    """What `train` leaves, without the training."""
    with FolderLock(folder, "workdir", "use another"):
        configs.save(config, folder)
        (folder / "report.html").touch()
        results = {"test": {"miou": 0.5, "protocols": []}}
        (folder / "results.json").write_text(json.dumps({"results": results}))


def test_a_row_that_fails_says_why_and_the_next_is_run(table, tmp_path, monkeypatch):
    def failing(config, workdir, *_):
        if "SegNet-Basic" in str(workdir):
            raise ValueError("no luck")
        leave_results(config, workdir)

    monkeypatch.setattr(module, "train", failing)
    path = table()
    with pytest.raises(ValueError, match="1 of 2 runs failed"):
        run(path, tmp_path / "work")
    written = json.loads((tmp_path / "work/table.json").read_text())
    assert written["rows"][0]["errors"] == ["seed 0: no luck"]
    assert cells(written)["Addition"]["mean"] == 50
    assert "SegNet-Basic failed, seed 0: no luck" in run.printed
    monkeypatch.setattr(module, "train", leave_results)
    result = run(path, tmp_path / "work")
    assert [row["errors"] for row in result["rows"]] == [[], []]


def test_two_processes_share_a_folder(table, tmp_path, monkeypatch):
    workdir, trained = tmp_path / "work", []

    def train(config, folder, *_):
        trained.append(folder)
        leave_results(config, folder)

    monkeypatch.setattr(module, "train", train)
    with FolderLock(workdir / "runs/SegNet-Basic/seed0", "workdir", "use another"):
        result = run(table(), workdir)
    names = [folder.parent.name for folder in trained]
    assert names == ["SegNet-Basic", "Addition", "SegNet-Basic"]  # the locked one twice
    assert [cell["mean"] for cell in cells(result).values()] == [None, 50.0]
    assert "is in use by process" in run.printed
    assert run(table(), workdir)["rows"][0]["cells"]["mIoU"]["mean"] == 50.0


@pytest.mark.parametrize(
    "then, message",
    [
        ("{options: {model.lrn: true}}", "model.lrn"),
        ("{options: {train.steps: 3}}", "options train.steps; use those of model. only"),
        ("{options: {model.features: 0}}", "model.features=0; use 1 or more"),
        ("{options: {model.input_lrn: true}, ensemble: }", "options go with recalibrate, crf and"),
    ],
)
def test_options_of_a_measurement_are_checked_before_anything_runs(table, tmp_path, then, message):
    text = table(f"  - {{name: other, of: SegNet-Basic, paper: {{}}, then: {then}}}\n")
    with pytest.raises(ValueError, match=f"then of row 'other': .*{message}"):
        run(text, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_it_stops_when_its_minutes_are_over(table, tmp_path):
    began = time.monotonic()
    result = run(table(steps=100_000), tmp_path / "work", budget=0.1)
    assert time.monotonic() - began < 60
    assert [cell["mean"] for cell in cells(result).values()] == [None, None]
    assert "the budget of 0.1 min is over; the same command goes on" in run.printed
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_signal_of_the_user_is_no_budget(table, tmp_path, monkeypatch):
    def interrupted(*_):
        raise Interrupted("SIGTERM: the run is saved")

    monkeypatch.setattr(module, "train", interrupted)
    with pytest.raises(Interrupted):
        run(table(), tmp_path / "work", budget=5)
    assert (tmp_path / "work/table.md").exists()


def test_a_run_of_another_config_is_refused(table, tmp_path, monkeypatch):
    workdir = tmp_path / "work"
    monkeypatch.setattr(module, "train", leave_results)
    run(table(), workdir, rows=["SegNet*"])
    with pytest.raises(ValueError, match="1 of 1 runs failed"):
        run(table(steps=3), workdir, rows=["SegNet*"])
    assert re.search(r"train.steps: 2 there, 3 now", run.printed)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rows": ["nothing"]}, r"--rows=nothing fits no row; two has SegNet-Basic, Addition"),
        ({"seeds": 0}, r"--seeds=0; use 1 or more"),
        ({"budget": -1.0}, r"--budget=-1.0; use minutes above 0"),
    ],
)
def test_flags_are_checked_before_anything_runs(table, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(table(), tmp_path / "work", **options)
    assert not (tmp_path / "work").exists()


def test_an_unknown_table_lists_the_known(tmp_path):
    with pytest.raises(ValueError, match=r"--table=segnet/9 is unknown; use .*segnet/1"):
        reproduce("segnet/9", workdir=tmp_path / "work")


@pytest.mark.slow
def test_killed_and_started_again_it_gives_the_same_numbers(table, tmp_path):
    """kill -9 in the first row; the numbers are those of a table that was never stopped."""
    path = table(steps=12)
    words = ("launch.py", "--mode=reproduce", f"--table={path}", "--scale=small")
    whole = start(*words, f"--workdir={tmp_path / 'whole'}")
    killed = start(*words, f"--workdir={tmp_path / 'killed'}")
    latest = tmp_path / "killed/runs/SegNet-Basic/seed0/checkpoints/latest"
    while killed.poll() is None and not (latest.is_dir() and any(latest.glob("[1-9]*"))):
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/runs/SegNet-Basic/seed0/results.json").exists()
    assert_end_well([whole, start(*words, f"--workdir={tmp_path / 'killed'}")])
    tables = [
        json.loads((tmp_path / each / "table.json").read_text()) for each in ("whole", "killed")
    ]
    assert cells(tables[0]) == cells(tables[1])
    assert cells(tables[0])["Addition"]["mean"] is not None
