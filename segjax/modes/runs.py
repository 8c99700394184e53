"""Modes that train and evaluate a run."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console

from segjax import config as configs
from segjax import protocols
from segjax.data.datasets import evaluation_splits
from segjax.inference.predictor import Predictor
from segjax.inference.scoring import evaluate_fully, make_scoring_step
from segjax.reporting import run_report, tables
from segjax.training import loop
from segjax.training.evaluation import evaluation_path
from segjax.training.parallel import make_mesh
from segjax.training.setup import Setup, make_canvas, prepare
from segjax.training.setup import protocol as protocol_of


def train(
    config: Mapping[str, Any],
    workdir: str | pathlib.Path,
    base: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> dict[str, dict]:
    """Trains (or resumes) the run in `workdir`, evaluates its best checkpoint, writes its report.

    Args:
      config: see configs/base.py.
      workdir: made if it does not exist.
      base: the config that the report lists differences from.

    Returns:
      The results of `evaluate`.

    Raises:
      ValueError: for a config, data set or workdir that does not fit, before any compilation.
    """
    console, workdir = console or Console(), pathlib.Path(workdir)
    configs.check_same_run(config, workdir)
    setup = prepare(config, workdir)
    config = setup.config
    workdir.mkdir(parents=True, exist_ok=True)
    configs.save(config, workdir)
    configs.save_classes(setup.classes, workdir)
    run_report.save_run(workdir, base, config)
    console.print(
        f"{config['model']['name']} on {config['data']['name']}: {len(setup.train)} images, "
        f"{len(setup.classes)} classes, {setup.total_steps} steps of "
        f"{config['train']['batch_size']}, {setup.mesh.size} {jax.devices()[0].platform} "
        f"device(s), workdir {workdir}",
        highlight=False,
    )
    if setup.initial:
        console.print(str(setup.initial.report), highlight=False, soft_wrap=True, markup=False)
    progress = loop.train(setup, workdir, console, preview=_preview(setup))
    if progress.stopped:
        console.print(f"stopped early: {progress.stopped}", highlight=False)
    return evaluate(workdir, console=console, seconds=progress.seconds)


def _preview(setup: Setup):
    """Pictures of a few validation images, as TensorBoard shows them after each evaluation."""
    source = setup.validation.source
    chosen = run_report.evenly_spaced(len(source), setup.config["report"]["samples"])
    predictor = Predictor(setup.model, None, setup.classes, setup.config)

    def preview(variables) -> dict[str, np.ndarray]:
        predictor.variables = variables
        return {
            f"val/{sample['name']}": run_report.panels(sample, setup.classes)
            for sample in run_report.predicted_samples(predictor, source, chosen)
        }

    return preview


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
      protocol: the rule that divides the counts, see `segjax.protocols`; what the others would have
        said is printed with it.

    Returns:
      Per split what `FullEvaluation.summary` gives; also in results.json.

    Raises:
      ValueError: for an unknown protocol or split, or a workdir without a checkpoint.
    """
    rule = protocols.find_rule(protocol)
    console, workdir = console or Console(), pathlib.Path(workdir)
    predictor = Predictor.from_workdir(workdir)
    config, classes = predictor.config, predictor.classes
    batch_size = config["train"]["eval_batch_size"] or config["train"]["batch_size"]
    mesh = make_mesh(config["parallel"], batch_size)
    data = config["data"]
    local_contrast = data.get("local_contrast", 0)  # older runs have no such option
    step = jax.jit(
        make_scoring_step(predictor.model, tuple(data["mean"]), tuple(data["std"]), local_contrast)
    )
    splits = splits or evaluation_splits(data, config["seed"])
    canvases = {split: make_canvas(config, split) for split in splits}  # all are checked first
    evaluations = {}
    for split, canvas in canvases.items():
        evaluations[split] = evaluate_fully(
            step, predictor.variables, canvas, batch_size, mesh, len(classes), rule.name
        )
        evaluations[split].save(evaluation_path(workdir, split))
    results = {split: evaluation.summary() for split, evaluation in evaluations.items()}
    words = protocol_of(config, rule.description)
    tables.print_results(results, classes, console, words)
    tables.print_protocols(results, console)
    report = run_report.write(workdir, predictor, evaluations, words, seconds)
    console.print(f"report: {report}", highlight=False, soft_wrap=True)
    return results
