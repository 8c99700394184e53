"""The command runs; tests/report/test_run_list.py has what it reads."""

import io
import json

import pytest

from segjax import config as configs
from segjax.commands.runs import runs
from segjax.console import Console


@pytest.fixture
def folder(tmp_path, tiny_config, monkeypatch):
    """Three runs, of which one is damaged, in runs/ of the working folder."""
    for name, rate, miou in (("a", 0.5, 0.25), ("table/runs/b", 0.1, 0.5), ("c", 0.1, None)):
        workdir = tmp_path / "runs" / name
        (workdir / "evaluations").mkdir(parents=True)
        tiny_config.optim.learning_rate = rate
        configs.save(tiny_config, workdir)
        rows = [{"step": 6, "split": "val", "miou": miou}]
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (workdir / "config.json").write_text("no config")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_runs_are_listed_best_first_and_a_damaged_one_stops_nothing(folder):
    console = Console(file=io.StringIO(), width=200)
    found = runs(console=console)
    assert [run["name"] for run in found] == ["table/runs/b", "a", "c"]
    assert [run["state"] for run in found] == ["not evaluated", "not evaluated", "damaged"]
    assert [run["best_val_miou"] for run in found] == [0.5, 0.25, None]
    assert found[0]["options"] == {"optim.learning_rate": 0.1}
    assert found[2]["options"] == {}
    assert found[0]["workdir"] == "runs/table/runs/b"
    assert json.loads(json.dumps(found)) == found
    assert "c is damaged: " in console.file.getvalue()


def test_a_run_itself_is_listed_by_its_name(folder):
    (found,) = runs(folder / "a", Console(file=io.StringIO()))
    assert (found["name"], found["options"]) == ("a", {})


def test_a_folder_without_runs_says_so(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    assert runs(tmp_path, console) == []
    assert "holds no run" in console.file.getvalue()


def test_a_folder_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"--workdir=.*nowhere is no folder"):
        runs(tmp_path / "nowhere")
