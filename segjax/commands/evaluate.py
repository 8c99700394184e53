"""The command evaluate: the numbers, pictures and report of a finished run."""

import pathlib
from collections.abc import Sequence

import jax
from rich.console import Console

from segjax.data.datasets import evaluation_splits
from segjax.inference.predictor import Predictor
from segjax.inference.scoring import evaluate_fully, make_scoring_step
from segjax.metrics import protocols
from segjax.report import run as run_report
from segjax.report import tables
from segjax.training.evaluation import eval_batch_size, evaluation_path
from segjax.training.mesh import evaluation_devices
from segjax.training.setup import make_canvas
from segjax.training.setup import protocol as protocol_of


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
      protocol: the rule that divides the counts, see `segjax.metrics.protocols`; what the
        others would have said is printed with it.

    Returns:
      Per split what `FullEvaluation.summary` gives; also in results.json.

    Raises:
      ValueError: for an unknown protocol or split, or a workdir without a checkpoint.
    """
    rule = protocols.find_rule(protocol)
    console, workdir = console or Console(), pathlib.Path(workdir)
    predictor = Predictor.from_workdir(workdir)
    config, classes = predictor.config, predictor.classes
    devices = evaluation_devices(config["parallel"])
    step = devices.compile_eval(make_scoring_step(predictor.model, predictor.normalization))
    variables = devices.replicate(predictor.variables)
    splits = splits or evaluation_splits(config["data"], config["seed"])
    canvases = {split: make_canvas(config, split) for split in splits}  # all are checked first
    evaluations = {}
    for split, canvas in canvases.items():
        evaluations[split] = evaluate_fully(
            step, variables, canvas, eval_batch_size(config), devices, len(classes), rule.name
        )
        if jax.process_index() == 0:
            evaluations[split].save(evaluation_path(workdir, split))
    results = {split: evaluation.summary() for split, evaluation in evaluations.items()}
    if jax.process_index() > 0:
        return results
    words = protocol_of(config, rule.description)
    tables.print_results(results, classes, console, words)
    tables.print_protocols(results, console)
    report = run_report.write(workdir, predictor, evaluations, words, seconds)
    console.print(f"report: {report}", highlight=False, soft_wrap=True)
    return results
