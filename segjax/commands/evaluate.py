"""The command evaluate: the numbers, pictures and report of a finished run."""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from rich.console import Console

from segjax import config as configs
from segjax.data.classes import ClassTable
from segjax.data.splits import Splits
from segjax.inference.predictor import Predictor
from segjax.inference.scoring import evaluate_fully, make_scoring_step
from segjax.metrics.protocols import find_protocol
from segjax.report import run as run_report
from segjax.report import tables
from segjax.training.evaluation import eval_batch_size, evaluation_path
from segjax.training.mesh import evaluation_devices
from segjax.training.progress import print_line
from segjax.training.setup import describe_protocol

# Options of config.data that change how samples are read, but not which.
_READING = ("data.workers", "data.cache_mb", "data.timeout_s", "data.on_device")


def evaluate(
    workdir: str | pathlib.Path,
    splits: Sequence[str] = (),
    protocol: str = "segjax",
    output: str | pathlib.Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    console: Console | None = None,
    seconds: float | None = None,
    opened: Splits | None = None,
) -> dict[str, dict]:
    """Evaluates the best checkpoint of a run; prints the tables, writes pictures and report.

    The counts of each split are kept in evaluations/SPLIT.npz, from which `compare` reads.

    Args:
      workdir: of a training run; nothing else is needed.
      splits: `data.eval_splits` by default.
      protocol: of the headline numbers, see `segjax.metrics.protocols`; what the others would say
        is printed with it.
      output: where the results are written. The workdir by default, or with other data
        WORKDIR/on_NAME_FOLDER, after `data.name` and the folder `data.root`: the results on the
        run's own data stay.
      overrides: of the run's config, see `config.with_overrides`; {"data.root": FOLDER} evaluates
        on other data with the same classes.
      seconds: that training took, for the report.
      opened: the splits of the run's data set, where they are open and checked already.

    Returns:
      Per split what `FullEvaluation.summary` gives; also in results.json.

    Raises:
      ValueError: for an unknown protocol or split, a workdir without a checkpoint, or data of other
        classes.
    """
    chosen = find_protocol(protocol)
    console, workdir = console or Console(), pathlib.Path(workdir)
    predictor = Predictor.from_workdir(workdir)
    config = configs.with_overrides(predictor.config, overrides or {})
    classes, data = predictor.classes, config["data"]
    predictor = Predictor(predictor.model, predictor.variables, classes, config)
    other_data = {
        name for name in overrides or {} if name.startswith("data.") and name not in _READING
    }
    opened = opened or Splits(data, config["seed"])
    if other_data:
        _check_classes(classes, opened.classes, workdir)
    output = pathlib.Path(output or (_folder_on(workdir, data) if other_data else workdir))
    devices = evaluation_devices(config["parallel"])
    step = devices.compile_eval(make_scoring_step(predictor.model, predictor.normalization))
    variables = devices.replicate(predictor.variables)
    splits = splits or opened.evaluated
    opened.check(*splits)  # all of them before the first is evaluated
    first = jax.process_index() == 0
    if first and output.resolve() != workdir.resolve():
        configs.copy_run(workdir, output)
        configs.save(config, output)
    batch_size = eval_batch_size(config)
    evaluations = {}
    for split in splits:
        evaluations[split] = evaluate_fully(
            step, variables, opened.fitted(split), batch_size, devices, len(classes), chosen.name
        )
        if first:
            evaluations[split].save(evaluation_path(output, split))
    results = {split: evaluation.summary() for split, evaluation in evaluations.items()}
    if not first:
        return results
    words = describe_protocol(config, chosen)
    if other_data:
        words = f"{words}; on {_described(data)}, not the data of the run"
    images = ", ".join(f"{split} {len(opened.source(split))}" for split in splits)
    print_line(console, f"evaluated on {_described(data)}; images: {images}")
    console.print(tables.results_table(results, classes, words))
    console.print(tables.protocols_table(results))
    report = run_report.write_report(output, predictor, evaluations, words, opened, seconds)
    print_line(console, f"report: {report}")
    return results


def _check_classes(ours: ClassTable, theirs: ClassTable, workdir: pathlib.Path) -> None:
    """Raises ValueError unless data have the classes that the network predicts."""
    if theirs.names != ours.names:
        raise ValueError(
            f"the data have the classes {', '.join(theirs.names)}, but the run {workdir} "
            f"{', '.join(ours.names)}; use data with the run's classes in its order, or map them "
            "with --config.data.class_map"
        )


def _folder_on(workdir: pathlib.Path, data: Mapping[str, Any]) -> pathlib.Path:
    """Where the results on other data are written."""
    parts = [data["name"], pathlib.Path(data["root"]).name] if data["root"] else [data["name"]]
    return workdir / re.sub(r"[^\w.-]+", "_", "_".join(["on", *parts]))


def _described(data: Mapping[str, Any]) -> str:
    """The data set in the user's words: its name and folder."""
    return data["name"] + (f" in {data['root']}" if data["root"] else "")
