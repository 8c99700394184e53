"""MLflow with its file store, without a server or a network; by a small twin where it is absent."""

import math
import sys
import types
from collections import namedtuple
from typing import ClassVar

import numpy as np
import pytest

from segjax.training.tracking.mlflow_run import MlflowRun

OPTIONS = {"optim.name": "sgd", "train.freeze": [], "data.root": "", "loss.terms": "a" * 9000}
Metric = namedtuple("Metric", "key value timestamp step")
Param = namedtuple("Param", "key value")


class Client:
    """What MlflowRun calls of MlflowClient, over dicts."""

    stores: ClassVar = {}

    def __init__(self, tracking_uri):
        self.runs = self.stores.setdefault(tracking_uri, {})

    def get_experiment_by_name(self, name):
        return types.SimpleNamespace(experiment_id=name) if name in self.runs else None

    def create_experiment(self, name):
        self.runs[name] = {}
        return name

    def create_run(self, experiment, run_name, tags):
        info = types.SimpleNamespace(run_id=f"id{len(self.runs[experiment])}", run_name=run_name)
        data = types.SimpleNamespace(params={}, tags=tags, history=[], pictures={})
        return self.runs[experiment].setdefault(
            info.run_id, types.SimpleNamespace(info=info, data=data)
        )

    def search_runs(self, experiments, query=""):
        runs = [run for name in experiments for run in self.runs[name].values()]
        return [run for run in runs if not query or f"'{run.info.run_id}'" in query]

    def get_run(self, run_id):
        (run,) = self.search_runs([*self.runs], f"'{run_id}'")
        return run

    def update_run(self, run_id, status):
        self.get_run(run_id).info.status = status

    set_terminated = update_run

    def log_batch(self, run_id, metrics=(), params=()):
        data = self.get_run(run_id).data
        assert len(metrics) <= 1000
        assert len(params) <= 100
        assert not any(len(param.value) > 6000 or param.key in data.params for param in params)
        data.params.update(params)
        data.history += metrics

    def get_metric_history(self, run_id, key):
        return [metric for metric in self.get_run(run_id).data.history if metric.key == key]

    def log_image(self, run_id, image, artifact_file):
        self.get_run(run_id).data.pictures[artifact_file] = image.shape

    def list_artifacts(self, run_id, path):
        names = self.get_run(run_id).data.pictures
        return [types.SimpleNamespace(path=name) for name in names if name.startswith(path)]


@pytest.fixture(params=["twin", "mlflow"])
def client(request, tmp_path, monkeypatch):
    """Opens the store of a workdir."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.delenv(name, raising=False)
    if request.param == "twin":
        module = types.ModuleType("mlflow")
        module.__file__, module.MlflowClient = "mlflow.py", Client
        module.entities = types.SimpleNamespace(Metric=Metric, Param=Param)
        monkeypatch.setitem(sys.modules, "mlflow", module)
        return Client
    return pytest.importorskip("mlflow").MlflowClient


def store(client, uri, experiment="segjax"):
    """The client, and the only run of the experiment."""
    opened = client(tracking_uri=uri)
    found = opened.get_experiment_by_name(experiment)
    (run,) = opened.search_runs([found.experiment_id])
    return opened, run


def steps(client, run, name):
    return [metric.step for metric in client.get_metric_history(run.info.run_id, name)]


def test_a_run_is_stored_and_a_resumed_one_goes_on_in_it(tmp_path, client):
    workdir, uri = tmp_path / "a run", (tmp_path / "a run" / "mlruns").as_uri()
    workdir.mkdir()
    MlflowRun.check()
    killed = MlflowRun(workdir, OPTIONS)
    killed.begin(1, [])
    for step in (1, 2, 3):
        killed.scalars(step, {"train/loss": 1 / step, "val/miou": math.nan})
    opened, run = store(client, uri)
    assert run.info.status == "RUNNING"
    # From the checkpoint of step 2 on, with an option that MLflow does not let change.
    resumed = MlflowRun(workdir, {**OPTIONS, "data.root": "elsewhere", "new": 1})
    resumed.begin(3, [(1, {"train/loss": 1.0}), (2, {"train/loss": 0.5, "train/new": 2.0})])
    for step in (3, 4):
        resumed.scalars(step, {"train/loss": 1 / step})
        resumed.picture(step, "val/a[0].png", np.zeros((4, 6, 3), np.uint8))
        resumed.picture(step, "val/a[0].png", np.zeros((4, 6, 3), np.uint8))
    resumed.results(4, {"test[:9]/miou": 0.25})
    resumed.close("finished")
    opened, run = store(client, uri)
    assert (run.info.run_name, run.info.status) == ("a run", "FINISHED")
    assert steps(opened, run, "train/loss") == [1, 2, 3, 4]
    assert steps(opened, run, "train/new") == [2]
    ((result, step),) = [
        (metric.value, metric.step)
        for metric in opened.get_metric_history(run.info.run_id, "results/test_:9_/miou")
    ]
    assert (result, step) == (0.25, 4)
    assert run.data.params["data.root"] == ""
    assert run.data.params["new"] == "1"
    assert run.data.params["loss.terms"] == "a" * 6000
    pictures = opened.list_artifacts(run.info.run_id, "pictures/val/a_0_.png")
    assert [p.path.rpartition("/")[2] for p in pictures] == ["00000003.png", "00000004.png"]


def test_an_attempt_after_a_rollback_is_stored_beside_the_first(tmp_path, client):
    run = MlflowRun(tmp_path, {})
    for loss in (1.0, 2.0):
        run.begin(2, [(1, {"train/loss": 3.0})])
        run.scalars(2, {"train/loss": loss})
    run.close("failed")
    opened, run = store(client, (tmp_path / "mlruns").as_uri())
    history = opened.get_metric_history(run.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(1, 3.0), (2, 1.0), (2, 2.0)]
    assert run.info.status == "FAILED"


def test_the_store_and_the_experiment_are_those_of_mlflows_variables(tmp_path, client, monkeypatch):
    """A run that is resumed with another store is a new one there."""
    MlflowRun(tmp_path, {}).close("stopped")
    uri = (tmp_path / "shared").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    for end in ("stopped", "finished"):
        MlflowRun(tmp_path, {}).close(end)
    assert store(client, uri, "mine")[1].info.status == "FINISHED"
    assert store(client, (tmp_path / "mlruns").as_uri())[1].info.status == "KILLED"


def test_a_damaged_note_is_named(tmp_path, client):
    (tmp_path / "mlflow.json").write_text('{"run": 3}')
    with pytest.raises(ValueError, match=r"mlflow\.json is not the note which run of MLflow"):
        MlflowRun(tmp_path, {})


def test_many_numbers_are_stored_in_several_requests(tmp_path, client):
    run = MlflowRun(tmp_path, {f"option{i}": i for i in range(250)})
    run.begin(401, [(step, {"train/a": 0.0, "train/b": 1.0}) for step in range(1, 1101)])
    opened, stored = store(client, (tmp_path / "mlruns").as_uri())
    assert steps(opened, stored, "train/b") == [*range(1, 1101)]
    assert len(stored.data.params) == 250
