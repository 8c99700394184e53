"""Modes that train and evaluate a run."""

import contextlib
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
from segjax.training.lock import WorkdirLock
from segjax.training.parallel import devices_here
from segjax.training.setup import Setup, make_canvas, prepare
from segjax.training.setup import protocol as protocol_of


def train(
    config: Mapping[str, Any],
    workdir: str | pathlib.Path,
    base: Mapping[str, Any] | None = None,
    console: Console | None = None,
    profile: tuple[int, int] | None = None,
) -> dict[str, dict]:
    """Trains (or resumes) the run in `workdir`, evaluates its best checkpoint, writes its report.

    Args:
      config: see configs/base.py.
      workdir: made if it does not exist.
      base: the config that the report lists differences from.
      profile: (first step, number of steps) to trace into the workdir.

    Returns:
      The results of `evaluate`.

    Raises:
      ValueError: for a config, data set or workdir that does not fit, or a workdir that another
        run is using, before any compilation.
      Interrupted: if a signal asked the run to stop; it is saved.
    """
    console, workdir = console or Console(), pathlib.Path(workdir)
    first = jax.process_index() == 0
    with WorkdirLock(workdir) if first else contextlib.nullcontext() as lock:
        configs.check_same_run(config, workdir)
        setup = prepare(config, workdir)
        if first:
            configs.save(setup.config, workdir)
            configs.save_classes(setup.classes, workdir)
            run_report.save_run(workdir, base, setup.config)
            _announce(setup, workdir, console, lock.taken_over)
        progress = loop.train(setup, workdir, console, preview=_preview(setup), profile=profile)
        if progress.stopped:
            console.print(f"stopped early: {progress.stopped}", highlight=False)
        return evaluate(workdir, console=console, seconds=progress.seconds)


def _announce(setup: Setup, workdir: pathlib.Path, console: Console, taken_over: str) -> None:
    """Says what is about to run, and where."""
    config, devices = setup.config, setup.devices.mesh
    size, rows = config["train"]["batch_size"], setup.padded_batch_size
    shape = " x ".join(f"{n} {axis}" for axis, n in devices.shape.items() if n > 1)
    lines = [
        f"{config['model']['name']} on {config['data']['name']}: {len(setup.train)} images, "
        f"{len(setup.classes)} classes, {setup.total_steps} steps of {size}, {devices.size} "
        f"{jax.devices()[0].platform} device(s){f' ({shape})' if shape else ''}"
        f"{f' of {jax.process_count()} processes' if jax.process_count() > 1 else ''}, workdir "
        f"{workdir}"
    ]
    if rows > size:
        lines.append(
            f"{size} images do not divide over the devices: {rows - size} of {rows} rows of each "
            "batch are padding, which costs their share of the time"
        )
    lines += [taken_over] if taken_over else []
    lines += [str(setup.initial.report)] if setup.initial else []
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


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
            step, variables, canvas, batch_size, devices, len(classes), rule.name
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
