"""The runs of a folder, from files that the tests write: nothing is trained."""

import io
import json
import os

import jax
import pytest

from segjax import config as configs
from segjax.console import Console
from segjax.data.files.folder_lock import FolderLock
from segjax.report.run_list import (
    ListedRun,
    best_first,
    differing_options,
    find_runs,
    read_run,
)
from segjax.report.run_list_tables import print_runs
from segjax.training.run_state import RunState


@pytest.fixture(autouse=True)
def no_devices(monkeypatch):
    """JAX is not asked for devices, which takes a GPU seconds and memory."""

    def refuse(*_):
        raise AssertionError("looked for devices")

    for name in ("devices", "local_devices", "process_index", "process_count"):
        monkeypatch.setattr(jax, name, refuse)


@pytest.fixture
def make_run(tmp_path, tiny_config):
    """Writes what a run leaves: of 6 steps, of which `step` are done."""

    def make(name, step=None, best=None, miou=None, split="test", **options):
        workdir = tmp_path / name
        workdir.mkdir(parents=True)
        config = tiny_config.copy_and_resolve_references()
        state = RunState(seconds=9.0, stopped=options.pop("stopped", ""))
        for option, value in options.items():
            section, _, key = option.partition("_")
            config[section][key] = value
        configs.save(config, workdir)
        (workdir / "metrics.jsonl").write_text("")
        record = {"environment": {"started": "2026-12-01T15:28:02+00:00"}}
        (workdir / "run.json").write_text(json.dumps(record))
        if step is not None:
            write_host(workdir / "checkpoints/latest", step, {"run_state": state.to_json()})
        if best is not None:
            write_host(workdir / "checkpoints/best", best[1], {"val_miou": best[0]})
        if miou is not None:
            results = {"results": {"val": {"miou": 0.5}, split: {"miou": miou}}}
            (workdir / "results.json").write_text(json.dumps(results))
        return workdir

    return make


def write_host(folder, step, values):
    (folder / str(step) / "host").mkdir(parents=True)
    (folder / str(step) / "host" / "metadata").write_text(json.dumps(values))


def listed(workdir):
    return read_run(workdir, workdir.name)


def test_runs_are_found_at_any_depth_but_not_inside_runs(tmp_path, make_run):
    for name in ("b/table/runs/row/seed0", "a", "a/crf", ".hidden"):
        make_run(name)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "config.json").write_text("{}")  # of a hub's folder, no run
    (tmp_path / "other").symlink_to(tmp_path / "b")
    found = [str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)]
    assert found == ["a", "b/table/runs/row/seed0"]
    assert [*find_runs(tmp_path / "a")] == [tmp_path / "a"]


@pytest.mark.parametrize(
    "options, state, step",
    [
        ({}, "unfinished", None),
        ({"step": 3}, "unfinished", 3),
        ({"step": 3, "miou": 0.2}, "unfinished", 3),  # of a run that was given more steps
        ({"step": 6}, "not evaluated", 6),
        ({"step": 6, "miou": 0.2}, "finished", 6),
        ({"miou": 0.2}, "finished", None),  # its checkpoints were removed
        ({"step": 3, "miou": 0.2, "stopped": "no better val mIoU"}, "stopped early", 3),
        ({"step": 3, "stopped": "no better val mIoU"}, "not evaluated", 3),
    ],
)
def test_the_state_of_a_run(make_run, options, state, step):
    run = listed(make_run("a", **options))
    assert (run.state, run.step, run.steps, run.problems) == (state, step, 6, [])


def test_the_numbers_of_a_run(make_run):
    run = listed(make_run("a", step=6, best=(0.25, 3), miou=0.125))
    assert (run.best_val_miou, run.best_step, run.split, run.miou) == (0.25, 3, "test", 0.125)
    assert (run.seconds, run.started) == (9.0, "2026-12-01T15:28:02+00:00")
    run = listed(make_run("b", miou=0.125, split="val_of_another"))
    assert (run.split, run.miou) == ("val_of_another", 0.125)
    assert run.seconds is None


def test_steps_of_a_run_that_counts_epochs(make_run):
    workdir = make_run("a", train_steps=0, train_epochs=2.5)
    assert listed(workdir).steps is None
    record = {"data": {"train": {"images": 8, "fingerprint": ""}}}
    (workdir / "run.json").write_text(json.dumps(record))
    assert listed(workdir).steps == 10


def test_the_log_tells_what_checkpoints_do_not(make_run):
    workdir = make_run("a")
    rows = [("val", 3, 0.5), ("val", 6, 0.25), ("train", 6, 0.75), ("val", 9, None)]
    rows = [{"step": step, "split": split, "miou": miou} for split, step, miou in rows]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = listed(workdir)
    assert (run.step, run.best_val_miou, run.best_step) == (9, 0.5, 3)


def test_a_run_that_trains_is_running_and_its_lock_is_left_alone(make_run):
    workdir = make_run("a", step=3)
    row = '{"step": 5, "split": "train"}\n'
    (workdir / "metrics.jsonl").write_text(row * 1000 + '{"step": 6, "spl')
    with FolderLock(workdir, "workdir", "use another"):
        assert (listed(workdir).state, listed(workdir).step) == ("running", 5)
        locked = (workdir / "lock").read_text()
    (workdir / "lock").write_text(locked)  # as after kill -9
    assert (listed(workdir).state, listed(workdir).step) == ("unfinished", 3)
    assert (workdir / "lock").read_text() == locked


@pytest.mark.parametrize(
    "file, content, problem",
    [
        ("config.json", "{", "config.json is not the config of a run: "),
        ("config.json", None, "holds no run"),
        ("run.json", '{"data": 3}', "run.json is not the record of a run: data is"),
        ("results.json", "[]", "results.json is not the results of a run"),
        ("metrics.jsonl", "a\nb\n", "lines are no rows of a log"),
        ("checkpoints/latest/6/host/metadata", "{}", "latest/6: 'run_state'"),
        ("checkpoints/best/3/host/metadata", '{"val_miou": "a"}', "best/3: its val_miou is 'a'"),
    ],
)
def test_a_damaged_run_is_listed_with_the_reason(make_run, file, content, problem):
    workdir = make_run("a", step=6, best=(0.25, 3), miou=0.125)
    if file == "metrics.jsonl":  # which is read where there are no checkpoints
        os.rename(workdir / "checkpoints", workdir / "evaluations")
    if content is None:
        (workdir / file).unlink()
    else:
        (workdir / file).write_text(content)
    assert [*find_runs(workdir)] == [workdir]
    run = listed(workdir)
    assert run.state == "damaged"
    assert problem in run.problems[0]
    assert len(run.problems[0].splitlines()) == 1


def test_scores_of_label_maps_are_listed(make_run, tiny_config):
    workdir = make_run("a", miou=0.25)
    (workdir / "evaluations").mkdir()
    (workdir / "run.json").unlink()
    saved = {"data": {"name": "streets"}, "model": {"head": "softmax"}, "scored": {"ids": "raw"}}
    (workdir / "config.json").write_text(json.dumps(saved))
    run = listed(workdir)
    assert (run.state, run.miou, run.started) == ("only scores", 0.25, None)
    assert differing_options([run, listed(make_run("b"))]) == []


def test_options_that_differ(make_run):
    """Not those that change no result, nor those of another network."""
    runs = [
        listed(make_run("a", model_name="segnet_basic")),
        listed(make_run("b", optim_name="adam", report_samples=3, data_workers=2)),
        listed(make_run("c", data_root="elsewhere")),
    ]
    del runs[0].options["model.features"]
    assert differing_options(runs) == ["data.root", "optim.name"]
    assert differing_options([]) == []


def test_the_best_run_comes_first():
    scores = {"a": 0.25, "b": None, "c": 0.5, "d": None}
    runs = [ListedRun(None, name, best_val_miou=score) for name, score in scores.items()]
    assert [run.name for run in sorted(runs, key=best_first)] == ["c", "a", "b", "d"]


def printed(runs, options, **console):
    console = Console(file=io.StringIO(), **console)
    print_runs(runs, options, console)
    return console.file.getvalue()


def test_few_options_are_columns_and_many_a_second_table(make_run):
    common = {"step": 6, "best": (0.25, 1200), "miou": 0.125}
    rates = (0.5, 0.25, 0.25)
    runs = [
        listed(make_run(name, optim_learning_rate=rate, **common))
        for name, rate in zip("abc", rates, strict=True)
    ]
    name = "optim.learning_rate"
    text = printed(runs, [name], width=40)  # a file, which is as wide as its lines
    words = [line.split() for line in text.splitlines()]
    line = ["a", "finished", "0.2500", "1,200", "0.1250", "9", "s", "2026-12-01", "15:28", "0.5"]
    assert line in words
    assert "Options that differ" not in text
    text = printed(runs, [name], width=80, force_terminal=True, color_system=None)
    assert "most runs" in text
    words = [line.split() for line in text.splitlines()]
    assert ["a", f"{name}=0.5"] in words
    assert ["b"] in words
    assert max(map(len, text.splitlines())) <= 80


def test_what_is_damaged_is_said_under_the_table(make_run):
    workdir = make_run("a", step=3)
    (workdir / "run.json").write_text("")
    run = listed(workdir)
    text = printed([run, listed(make_run("b", step=3))], [], width=200)
    assert "step 3 of 6" in text
    assert f"a is damaged: {run.problems[0]}" in text
