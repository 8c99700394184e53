"""The command uncertainty: Monte Carlo dropout or an ensemble, and how well it points at errors."""

import json
import math
import pathlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from rich.table import Table

from segjax.console import Console
from segjax.data.batches import eval_batches
from segjax.data.classes import ClassTable
from segjax.data.files.images import rgb_view
from segjax.data.fitted import FittedDataset
from segjax.data.splits import Splits
from segjax.destinations import check_folder
from segjax.inference.predictor import Predictor
from segjax.inference.uncertainty import MEASURES, check_dropout
from segjax.inference.uncertainty_scores import score_split
from segjax.report.numbers import evenly_spaced, no_nan
from segjax.report.page import write_text
from segjax.report.pictures import plot_uncertainty
from segjax.training.evaluation import Evaluation, eval_batch_size, evaluation_path
from segjax.training.mesh import evaluation_devices
from segjax.training.progress import print_line, track
from segjax.training.setup import describe_protocol

RESULTS_FILE = "uncertainty.json"
SAMPLES = 50  # of dropout
_DEFINITIONS = {
    "entropy": "of the mean prediction, in nats",
    "mutual_information": "that less the mean entropy of the samples, in nats",
    "variance": "of each class's probability over the samples, mean over classes (Kendall et al.)",
    "risk": "per measure: share of wrong pixels among the most certain ones, by share kept",
}
_ERRORS = ("ece", "brier", "nll")
# Keys of a measure's risk and the titles of their columns.
_RISKS = {
    "aurc": "AURC",
    "excess_aurc": "above the best",
    "accuracy_most_certain_90": "accuracy of the most certain 90 %",
}


def uncertainty(
    workdir: str | pathlib.Path | None = None,
    runs: Sequence[str | pathlib.Path] = (),
    split: str | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    output: str | pathlib.Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Evaluates a split by Monte Carlo dropout (of one run) or as an ensemble (of several).

    Prints the mean prediction beside each network alone and without dropout, and how well each
    measure of uncertainty points at the errors; writes uncertainty.json, the mean prediction's
    counts in evaluations/SPLIT.npz and, for `report.samples` images, a picture of their maps.

    Args:
      workdir: of a training run, for dropout.
      runs: workdirs of training runs on the same classes and canvas, for an ensemble; the data are
        those of the first.
      split: `data.val_split` by default.
      samples, seed: of dropout.
      output: a folder; by default WORKDIR/uncertainty, for several the first one's
        WORKDIR/ensemble.
      overrides: of the first run's config, see `config.with_overrides`.

    Returns:
      What uncertainty.json holds: `mean` and `alone` (a list), each with `metrics.summarize`,
      `calibration` and `risk`; and how they were made.

    Raises:
      ValueError: for a network without dropout, runs that do not go together, fewer than two
        samples, or neither or both of `workdir` and `runs`.
    """
    console, workdirs = console or Console(), _workdirs(workdir, runs, samples)
    default = workdirs[0] / ("ensemble" if len(workdirs) > 1 else "uncertainty")
    output = pathlib.Path(output or default)
    check_folder(output, "--output", files=[RESULTS_FILE])
    predictors = [Predictor.from_workdir(workdirs[0], overrides=overrides)]
    predictors += [Predictor.from_workdir(workdir) for workdir in workdirs[1:]]
    first, is_ensemble = predictors[0], len(predictors) > 1
    config, classes = first.config, first.classes
    if any(predictor.head.name != "softmax" for predictor in predictors):
        raise ValueError(
            "uncertainty is measured of classes that exclude one another, but the run has "
            "model.head='sigmoid'; use evaluate, which finds its best thresholds"
        )
    if is_ensemble:
        _check_members(workdirs, predictors)
    else:
        check_dropout(first.model, first.variables, config["data"]["channels"])
    split = split or config["data"]["val_split"]
    canvas = Splits.of_run(config).fitted(split)
    began = time.perf_counter()
    scores, evaluation, maps = _score(predictors, canvas, samples, seed, console)
    seconds = time.perf_counter() - began
    results = {
        "method": "ensemble" if is_ensemble else "dropout",
        "samples": len(predictors) if is_ensemble else samples,
        "seed": None if is_ensemble else seed,
        "workdirs": [str(workdir) for workdir in workdirs],
        "split": split,
        "images": len(canvas),
        "protocol": describe_protocol(config),
        "classes": list(classes.names),
        "definitions": _DEFINITIONS,
        "seconds": round(seconds, 1),
        "mean": scores["mean"],
        "alone": [scores[f"alone{i}"] for i in range(len(predictors))],
    }
    output.mkdir(parents=True, exist_ok=True)
    evaluation.save(evaluation_path(output, split))
    path = output / RESULTS_FILE
    write_text(path, json.dumps(no_nan(results), indent=1) + "\n")
    _print(results, console)
    pictures = _draw(maps, canvas, classes, output)
    print_line(console, f"{path}; {len(pictures)} picture(s) beside it")
    return results


def _workdirs(
    workdir: str | pathlib.Path | None, runs: Sequence[str | pathlib.Path], samples: int
) -> list[pathlib.Path]:
    """The runs that `uncertainty` is asked about."""
    if bool(workdir) == bool(runs):
        raise ValueError(
            "--mode=uncertainty needs either --workdir, for dropout, or --runs, for an ensemble"
        )
    workdirs = [pathlib.Path(run) for run in runs or [workdir]]
    if len(workdirs) == 1 and samples < 2:
        raise ValueError(f"samples={samples}; use 2 or more, one alone does not vary")
    if len(workdirs) > 1 and samples != SAMPLES:
        raise ValueError(
            f"--samples={samples} with an ensemble, of which each network is a sample; leave it out"
        )
    resolved = [path.resolve() for path in workdirs]
    twice = {str(path) for path in resolved if resolved.count(path) > 1}
    if twice:
        raise ValueError(f"{', '.join(sorted(twice))} is given twice; use different runs")
    return workdirs


def _check_members(workdirs: Sequence[pathlib.Path], predictors: Sequence[Predictor]) -> None:
    """Raises ValueError unless the runs' predictions can be averaged pixel by pixel."""
    first = predictors[0]
    for workdir, other in zip(workdirs[1:], predictors[1:], strict=True):
        if other.classes.names != first.classes.names:
            raise ValueError(
                f"classes of {workdir}: {', '.join(other.classes.names)}; those of {workdirs[0]}: "
                f"{', '.join(first.classes.names)}; use runs with the same classes"
            )
        for option in ("image_size", "label_size", "channels"):
            ours, theirs = (_tuple(p.config["data"][option]) for p in (first, other))
            if ours != theirs:
                raise ValueError(
                    f"data.{option}={theirs} of {workdir}, but {ours} of {workdirs[0]}; use runs "
                    "with the same canvas"
                )


def _tuple(value: Any) -> Any:
    """Lists, as JSON has them, as tuples."""
    return tuple(value) if isinstance(value, list | tuple) else value


def _score(
    predictors: Sequence[Predictor],
    canvas: FittedDataset,
    samples: int,
    seed: int,
    console: Console,
) -> tuple[dict[str, dict[str, Any]], Evaluation, dict[int, dict[str, np.ndarray]]]:
    """Runs `score_split` over a split, with a progress bar."""
    config = predictors[0].config
    size = eval_batch_size(config)
    devices = evaluation_devices({**config["parallel"], "mode": "jit"})
    batches = eval_batches(canvas, size, rows=devices.local_rows(size))
    batches = track(console, "evaluating", batches, math.ceil(len(canvas) / size))
    shown = evenly_spaced(len(canvas), config["report"]["samples"])
    return score_split(
        predictors, batches, devices, canvas.names, samples=samples, seed=seed, shown=shown
    )


def _print(results: Mapping[str, Any], console: Console) -> None:
    """Prints the scores of each prediction, and how well each measure points at its errors."""
    mean, alone = results["mean"], results["alone"]
    names = ["without dropout"] if len(alone) == 1 else results["workdirs"]
    scores = [
        (name, (row["miou"], row["global_accuracy"], *(row["calibration"][k] for k in _ERRORS)))
        for name, row in (("mean", mean), *zip(names, alone, strict=True))
    ]
    risks = [(f"{name.replace('_', ' ')} of the mean", mean["risk"][name]) for name in MEASURES]
    risks += [(f"entropy, {n}", r["risk"]["entropy"]) for n, r in zip(names, alone, strict=True)]
    ranked = [(name, [risk[key] for key in _RISKS]) for name, risk in risks]
    kind = "dropout samples" if results["method"] == "dropout" else "networks"
    title = f"{results['split']}: {results['images']} images, {results['samples']} {kind}"
    columns = ("prediction", "mIoU", "global acc.", *(key.upper() for key in _ERRORS))
    console.print(_table(title, columns, scores))
    columns = ("pixels ranked by", *_RISKS.values())
    console.print(_table("Does it point at the errors?", columns, ranked))
    print_line(console, f"{results['protocol']}; {results['seconds']:.1f} s")


def _table(
    title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[float]]]
) -> Table:
    """A table of a name and numbers in each row."""
    first, *others = columns
    table = Table(title=title)
    table.add_column(first)
    for column in others:
        table.add_column(column, justify="right")
    for name, values in rows:
        table.add_row(name, *(f"{value:.4f}" for value in values))
    return table


def _draw(
    maps: Mapping[int, Mapping[str, np.ndarray]],
    canvas: FittedDataset,
    classes: ClassTable,
    output: pathlib.Path,
) -> list[pathlib.Path]:
    """Draws each image whose maps are given, all with the same scales; returns the files."""
    ends = {name: max(float(m[name].max()) for m in maps.values()) for name in MEASURES[1:]}
    pictures = []
    for index, image_maps in sorted(maps.items()):
        sample = canvas[index]
        label = sample["label"]
        image = Image.fromarray(rgb_view(sample["image"])).resize(label.shape[::-1])
        name = canvas.names.get(index, str(index))
        drawn = {**image_maps, "name": name, "image": np.asarray(image), "label": label}
        file_name = re.sub(r"[^\w.-]+", "_", name)[-60:]
        path = output / f"{index:05d}_{file_name}.png"
        plot_uncertainty(drawn, classes, path, limits=ends)
        pictures.append(path)
    return pictures
