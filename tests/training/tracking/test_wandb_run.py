"""Weights & Biases: by a twin as it is online, and itself offline where it is installed."""

import json
import math
import sys
import types

import numpy as np
import pytest

from segjax.training.tracking.wandb_run import WandbRun

VARIABLES = ("MODE", "PROJECT", "DIR", "NAME", "RUN_ID", "RESUME", "CONSOLE", "SILENT", "API_KEY")


class Run:
    """What WandbRun calls of a run of W&B's; `step` is the first that it takes."""

    def __init__(self, options):
        self.options, self.step, self.history, self.summary = options, 0, [], {}
        self.id, self.url, self.offline = options.get("id", "?"), "https://wandb.ai/x", False
        self.settings = types.SimpleNamespace(mode="online", sync_dir="")

    def log(self, values, step):
        assert step >= self.step, "W&B drops it"
        self.step = step
        self.history.append((step, values))

    def finish(self, exit_code):
        self.exit_code = exit_code


@pytest.fixture(autouse=True)
def no_variables(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))  # in which nobody is logged in


@pytest.fixture
def twin(monkeypatch):
    """A module that makes `Run`s, which it keeps in `runs`."""
    module = types.ModuleType("wandb")
    module.__file__, module.runs, module.logged_in, module.mode = "wandb.py", [], True, "online"

    def init(**options):
        module.runs.append(Run(options))
        return module.runs[-1]

    def setup():
        return types.SimpleNamespace(settings=types.SimpleNamespace(mode=module.mode))

    module.init, module.Settings, module.Image, module.setup = init, dict, lambda image: "i", setup
    module.login = lambda prompt, verify: module.logged_in
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_a_resumed_run_has_the_same_id_and_sends_what_wandb_lacks(tmp_path, twin):
    for history in (0, 3):
        run = WandbRun(tmp_path, {"optim.name": "sgd"})
        twin.runs[-1].step = history
        run.begin(3, [(step, {"train/loss": 1.0}) for step in (1, 2)])
        for step in (2, 3, 4):
            run.scalars(step, {"train/loss": 0.5})
            run.picture(step, "val/a", np.zeros((4, 6, 3), np.uint8))
        run.results(4, {"test/miou": 0.25})
        run.close("finished")
    first, second = twin.runs
    name = tmp_path.name
    assert first.options["id"] == second.options["id"]
    assert first.options["config"] == {"optim.name": "sgd"}
    chosen = {key: first.options[key] for key in ("project", "dir", "name", "resume")}
    assert chosen == {"project": "segjax", "dir": str(tmp_path), "name": name, "resume": "allow"}
    assert first.options["settings"] == {"console": "off", "silent": True}
    assert [step for step, _ in first.history] == [1, 2, 2, 2, 3, 3, 4, 4]
    assert [step for step, _ in second.history] == [3, 3, 4, 4]
    assert second.summary == {"results/test/miou": 0.25, "results/step": 4}
    assert second.exit_code == 0
    assert run.place == f"run {second.id}, https://wandb.ai/x"


@pytest.mark.parametrize("end, code", [("finished", 0), ("stopped", 75), ("failed", 1)])
def test_the_exit_code_says_how_a_run_ended(tmp_path, twin, end, code):
    WandbRun(tmp_path, {}).close(end)
    assert twin.runs[0].exit_code == code


def test_the_variables_of_wandb_come_first(tmp_path, twin, monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(f"WANDB_{name}", "mine")
    WandbRun(tmp_path, {})
    assert {*twin.runs[0].options} == {"config", "allow_val_change", "settings"}
    assert not twin.runs[0].options["settings"]


@pytest.mark.parametrize("mode, logged_in", [("online", True), ("offline", False)])
def test_who_is_logged_in_or_offline_passes(twin, mode, logged_in):
    twin.mode, twin.logged_in = mode, logged_in
    WandbRun.check()


def test_who_is_not_logged_in_is_told_what_to_do(twin):
    twin.logged_in = False
    with pytest.raises(ValueError, match=r"report\.writers has 'wandb'.*WANDB_MODE=offline"):
        WandbRun.check()


@pytest.mark.slow
def test_wandb_itself_keeps_a_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    WandbRun.check()
    places = []
    for end in ("stopped", "finished"):
        run = WandbRun(tmp_path, {"optim.name": "sgd", "train.freeze": []})
        run.begin(1, [])
        run.scalars(1, {"train/loss": 0.5, "train/miou": math.nan})
        run.picture(1, "val/a", np.zeros((4, 6, 3), np.uint8))
        run.scalars(2, {"train/loss": 0.25})
        run.scalars(1, {"train/loss": 7.0})  # which it has
        run.results(2, {"test/miou": 0.25})
        run.close(end)
        places.append(run.place)
    ident = json.loads((tmp_path / "wandb.json").read_text())["run"]
    folders = sorted((tmp_path / "wandb").glob(f"offline-run-*-{ident}"))
    assert folders
    assert all(f"run {ident}, offline, in {tmp_path}/wandb/" in place for place in places)
    assert [*folders[-1].glob("files/media/images/val/a_1_*.png")]
    assert (folders[-1] / f"run-{ident}.wandb").stat().st_size > 1000
