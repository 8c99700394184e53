"""The command evaluate: the numbers, pictures and report of a finished run."""

import pathlib
from collections.abc import Sequence

import jax
from rich.console import Console

from segjax.data.datasets import evaluation_splits
from segjax.inference.predictor import Predictor
from segjax.inference.scoring import evaluate_fully, make_scoring_step
from segjax.metrics.protocols import find_protocol
from segjax.report import run as run_report
from segjax.report import tables
from segjax.training.evaluation import evaluation_path
from segjax.training.mesh import devices_here
from segjax.training.setup import describe_protocol, make_canvas


def evaluate(
    workdir: str | pathlib.Path,
    splits: Sequence[str] = (),
    console: Console | None = None,
    seconds: float | None = None,
    protocol: str = "segjax",
) -> dict[str, dict]:
    """Evaluates the best checkpoint of a run; prints the tables, writes pictures and report.

    The counts of each split are kept in evaluations/SPLIT.npz, from which `compare` reads.

    Args:
      workdir: of a training run; nothing else is needed.
      splits: `data.eval_splits` by default.
      seconds: that training took, for the report.
      protocol: name of the protocol that divides the counts, see `segjax.metrics.protocols`; the
        mIoU by all others is printed too.

    Returns:
      Per split what `FullEvaluation.summary` gives; also in results.json.

    Raises:
      ValueError: for an unknown protocol or split, or a workdir without a checkpoint.
    """
    chosen = find_protocol(protocol)
    console, workdir = console or Console(), pathlib.Path(workdir)
    predictor = Predictor.from_workdir(workdir)
    config, classes = predictor.config, predictor.classes
    batch_size = config["train"]["eval_batch_size"] or config["train"]["batch_size"]
    devices = devices_here(config["parallel"])
    data = config["data"]
    local_contrast = data.get("local_contrast", 0)  # older runs have no such option
    step = devices.compile_eval(
        make_scoring_step(predictor.model, tuple(data["mean"]), tuple(data["std"]), local_contrast)
    )
    variables = devices.replicate(predictor.variables)
    splits = splits or evaluation_splits(data, config["seed"])
    canvases = {split: make_canvas(config, split) for split in splits}  # all are checked first
    evaluations = {}
    for split, canvas in canvases.items():
        evaluations[split] = evaluate_fully(
            step, variables, canvas, batch_size, devices, len(classes), protocol
        )
        if jax.process_index() == 0:
            evaluations[split].save(evaluation_path(workdir, split))
    results = {split: evaluation.summary() for split, evaluation in evaluations.items()}
    if jax.process_index() > 0:
        return results
    description = describe_protocol(config, chosen)
    tables.print_results(results, classes, console, description)
    tables.print_protocols(results, console)
    report = run_report.write(workdir, predictor, evaluations, description, seconds)
    console.print(f"report: {report}", highlight=False, soft_wrap=True)
    return results
