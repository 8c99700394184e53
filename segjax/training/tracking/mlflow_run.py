"""MLflow: a run as one of its runs, on a server or in files of the workdir."""

import json
import os
import pathlib
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from segjax.data.files.json_file import read_json
from segjax.training.tracking.writer import End, Rows, need_package, write_note

NOTE = "mlflow.json"  # in the workdir: which run it is, in which store
FOLDER = "mlruns"  # in the workdir: MLflow's file store
_STATUS: Mapping[End, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
# What a request may hold, by MLflow's documentation.
_METRICS, _PARAMS, _LONGEST = 1000, 100, 6000
# What names may hold.
_OTHER = re.compile(r"[^\w .:/-]", re.ASCII)


class MlflowRun:
    """A `Writer` of MLflow: options are its params, numbers its metrics, pictures its artifacts.

    The run is in the store of MLFLOW_TRACKING_URI, or by default in WORKDIR/mlruns: the file store,
    which needs no server, no network and no database. Its experiment is MLFLOW_EXPERIMENT_NAME, or
    "segjax"; its name is that of the workdir. It is MLflow's client alone that is used, so a run
    that other code has active in this process is left as it is.

    A resumed run goes on in the same run of MLflow. It repeats the steps since its last checkpoint;
    numbers of a step that are stored already are not stored twice, and those of later steps are,
    also of earlier starts, as where this writer is new to the run. Where a run goes back to a
    checkpoint with a lower rate (train.on_nonfinite=rollback) the numbers are others: they are
    stored beside those of the attempt before, with a later time. Params are those of the start, as
    MLflow changes none; pictures replace those of the same step.
    """

    def __init__(self, workdir: pathlib.Path, options: Mapping[str, Any]):
        mlflow = need_package("mlflow", "mlflow")
        self._entities = mlflow.entities
        # MLflow 3.7 and later refuse their file store without it, and keep it for who asks.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        given = os.environ.get("MLFLOW_TRACKING_URI", "")
        store = given or (workdir / FOLDER).resolve().as_uri()
        self._client = mlflow.MlflowClient(tracking_uri=store)
        self._last: dict[str, int] = {}  # step by metric, of what the store holds
        self._begun = False
        run = self._stored(workdir, given)
        self._resumed = run is not None
        if run is None:
            tags = {"segjax.workdir": str(workdir.resolve())}
            name = workdir.resolve().name
            run = self._client.create_run(self._experiment(), run_name=name, tags=tags)
            note = {"run": run.info.run_id, "store": given}
            write_note(workdir / NOTE, json.dumps(note) + "\n")
        self._id = run.info.run_id
        self._client.update_run(self._id, status="RUNNING")
        self._store_params(options, run.data.params)
        self.place = f"run {self._id} in {store}"

    @staticmethod
    def check() -> None:
        """Raises ValueError without MLflow, or mlflow-skinny, which is enough."""
        need_package("mlflow", "mlflow")

    def begin(self, step: int, earlier: Rows) -> None:
        """Stores earlier numbers that the store does not have. From a second call on, what it has
        of later steps is of another attempt."""
        if self._begun:
            self._resumed = False
        else:
            self._store(earlier)
        self._begun = True

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Stores the numbers that the store does not have yet."""
        self._store([(step, values)])

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Stores pictures/NAME/STEP.png, which is written again if it is there."""
        path = f"pictures/{_OTHER.sub('_', name)}/{step:08d}.png"
        self._client.log_image(self._id, image, artifact_file=path)

    def results(self, step: int, values: Mapping[str, float]) -> None:
        """Stores the numbers as metrics results/SPLIT/NAME."""
        self.scalars(step, {f"results/{name}": value for name, value in values.items()})

    def close(self, end: End) -> None:
        """Says how the run ended; one that was stopped is KILLED to MLflow until it is resumed."""
        self._client.set_terminated(self._id, _STATUS[end])

    def _stored(self, workdir: pathlib.Path, given: str) -> Any:
        """MLflow's run of an earlier start in the same store, None if there is none."""
        path, what = workdir / NOTE, "the note which run of MLflow this is"
        if not path.exists():
            return None
        form = {"run": str, "store": str}
        note = read_json(path, what, "remove it, and a new run is begun there", fields=form)
        if note["store"] != given:
            return None
        found = self._client.search_runs([self._experiment()], f"run_id = '{note['run']}'")
        return found[0] if found else None  # its users may have removed it

    def _experiment(self) -> str:
        """The id of the experiment, which is made if there is none of its name."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "segjax")
        found = self._client.get_experiment_by_name(name)
        if not found:
            try:
                return self._client.create_experiment(name)
            except Exception:  # another run has made it meanwhile
                if not (found := self._client.get_experiment_by_name(name)):
                    raise
        return found.experiment_id

    def _store_params(self, options: Mapping[str, Any], stored: Mapping[str, str]) -> None:
        new = [
            self._entities.Param(name, str(value)[:_LONGEST])
            for name, value in _named(options).items()
            if name not in stored
        ]
        for some in _pieces(new, _PARAMS):
            self._client.log_batch(self._id, params=some)

    def _store(self, rows: Rows) -> None:
        now, metric = int(1000 * time.time()), self._entities.Metric
        new = [
            metric(name, float(value), now, step)
            for step, values in rows
            for name, value in _named(values).items()
            if self._last_step(name) < step
        ]
        for some in _pieces(new, _METRICS):
            self._client.log_batch(self._id, metrics=some)

    def _last_step(self, name: str) -> int:
        """The last step of a metric that an earlier start has stored, -1 if there is none."""
        if not self._resumed:
            return -1
        if name not in self._last:
            stored = self._client.get_metric_history(self._id, name)
            self._last[name] = max((metric.step for metric in stored), default=-1)
        return self._last[name]


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values by names that MLflow takes."""
    return {_OTHER.sub("_", name): value for name, value in values.items()}


def _pieces(values: list, most: int) -> Iterable[list]:
    return (values[i : i + most] for i in range(0, len(values), most))
