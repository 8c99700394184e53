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
from rich.console import Console
from rich.table import Table

from segjax import config as configs
from segjax.data.batches import eval_batches
from segjax.data.files.images import rgb_view
from segjax.data.fitted import FittedDataset
from segjax.data.splits import Splits
from segjax.inference.predictor import Predictor
from segjax.inference.uncertainty import MEASURES, check_dropout
from segjax.inference.uncertainty_scores import score_split
from segjax.report.numbers import evenly_spaced, no_nan
from segjax.report.pictures import plot_uncertainty
from segjax.training.evaluation import eval_batch_size
from segjax.training.mesh import evaluation_devices
from segjax.training.progress import print_line, track

RESULTS_FILE = "uncertainty.json"
_DEFINITIONS = {
    "entropy": "of the mean prediction, in nats",
    "mutual_information": "that less the mean entropy of the samples, in nats",
    "variance": "of each class's probability over the samples, mean over classes (Kendall et al.)",
    "risk": "per measure: share of wrong pixels among the most certain ones, by share kept",
}


def uncertainty(
    workdir: str | pathlib.Path | None = None,
    runs: Sequence[str | pathlib.Path] = (),
    split: str | None = None,
    samples: int = 50,
    seed: int = 0,
    output: str | pathlib.Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Evaluates a split by Monte Carlo dropout (of one run) or as an ensemble (of several).

    Prints the mean prediction beside each network alone and without dropout, and how well each
    measure of uncertainty points at the errors; writes uncertainty.json and, for `report.samples`
    images, a picture of their maps.

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
      ValueError: for a network without dropout, runs that do not go together, or options that no
        samples can have.
    """
    console = console or Console()
    if bool(workdir) == bool(runs):
        raise ValueError(
            "--mode=uncertainty needs either --workdir, for dropout, or --runs, for an ensemble"
        )
    workdirs = [pathlib.Path(run) for run in (runs or [workdir])]
    if len(workdirs) == 1 and samples < 2:
        raise ValueError(f"samples={samples}; use 2 or more, one alone does not vary")
    predictors = [Predictor.from_workdir(workdir) for workdir in workdirs]
    config = configs.with_overrides(predictors[0].config, overrides or {})
    classes = predictors[0].classes
    if len(workdirs) > 1:
        _check_members(workdirs, predictors)
    else:
        model, variables = predictors[0].model, predictors[0].variables
        check_dropout(model, variables, config["data"]["channels"])
    split = split or config["data"]["val_split"]
    batch_size = eval_batch_size(config)
    devices = evaluation_devices({**config["parallel"], "mode": "jit"})
    canvas = Splits(config["data"], config["seed"]).fitted(split)
    shown = evenly_spaced(len(canvas), config["report"]["samples"])
    began = time.perf_counter()
    batches = track(
        console,
        "evaluating",
        eval_batches(canvas, batch_size, rows=devices.local_rows(batch_size)),
        math.ceil(len(canvas) / batch_size),
    )
    scores, maps = score_split(
        predictors, batches, devices, samples=samples, seed=seed, shown=shown
    )
    seconds = time.perf_counter() - began
    method = f"{samples} dropout samples" if len(predictors) == 1 else f"{len(predictors)} networks"
    results = {
        "method": "dropout" if len(predictors) == 1 else "ensemble",
        "samples": samples if len(predictors) == 1 else len(predictors),
        "seed": seed if len(predictors) == 1 else None,
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
    folder = "uncertainty" if len(predictors) == 1 else "ensemble"
    output = pathlib.Path(output or workdirs[0] / folder)
    output.mkdir(parents=True, exist_ok=True)
    (output / RESULTS_FILE).write_text(json.dumps(no_nan(results), indent=1) + "\n")
    _print(results, method, console)
    pictures = _draw(maps, canvas, classes, output)
    print_line(
        console,
        f"{output / RESULTS_FILE}; {len(pictures)} picture(s) beside it",
    )
    return results


def _check_members(workdirs: Sequence[pathlib.Path], predictors: Sequence[Predictor]) -> None:
    """Raises ValueError unless the runs' predictions can be averaged pixel by pixel."""
    resolved = [workdir.resolve() for workdir in workdirs]
    twice = {str(workdir) for workdir in resolved if resolved.count(workdir) > 1}
    if twice:
        raise ValueError(f"{', '.join(sorted(twice))} is given twice; use different runs")
    first = predictors[0]
    for workdir, other in zip(workdirs[1:], predictors[1:], strict=True):
        if other.classes.names != first.classes.names:
            raise ValueError(
                f"classes of {workdir}: {', '.join(other.classes.names)}; those of {workdirs[0]}: "
                f"{', '.join(first.classes.names)}; use runs with the same classes"
            )
        for option in ("image_size", "label_size", "channels"):
            ours, theirs = (p.config["data"][option] for p in (first, other))
            ours, theirs = (tuple(v) if isinstance(v, list | tuple) else v for v in (ours, theirs))
            if ours != theirs:
                raise ValueError(
                    f"data.{option}={theirs} of {workdir}, but {ours} of {workdirs[0]}; use runs "
                    "with the same canvas"
                )


def _print(results: Mapping[str, Any], method: str, console: Console) -> None:
    mean, alone = results["mean"], results["alone"]
    table = Table(title=f"{results['split']}: {results['images']} images, {method}")
    for column in ("prediction", "mIoU", "global acc.", "ECE", "Brier", "NLL"):
        table.add_column(column, justify="left" if column == "prediction" else "right")
    names = ["without dropout"] if len(alone) == 1 else results["workdirs"]
    for name, row in (("mean", mean), *zip(names, alone, strict=True)):
        calibration = row["calibration"]
        values = (row["miou"], row["global_accuracy"])
        values += tuple(calibration[key] for key in ("ece", "brier", "nll"))
        table.add_row(name, *(f"{value:.4f}" for value in values))
    console.print(table)
    table = Table(title="Does it point at the errors?")
    for column in (
        "pixels ranked by",
        "AURC",
        "above the best",
        "accuracy of the most certain 90 %",
    ):
        table.add_column(column, justify="left" if column == "pixels ranked by" else "right")
    rows = [(f"{name.replace('_', ' ')} of the mean", mean["risk"][name]) for name in MEASURES]
    rows += [(f"entropy, {n}", r["risk"]["entropy"]) for n, r in zip(names, alone, strict=True)]
    for name, risk in rows:
        values = (risk["aurc"], risk["excess_aurc"], risk["accuracy_most_certain_90"])
        table.add_row(name, *(f"{value:.4f}" for value in values))
    console.print(table)
    print_line(console, f"{results['protocol']}; {results['seconds']:.1f} s")


def _draw(maps, canvas: FittedDataset, classes, output: pathlib.Path) -> list[pathlib.Path]:
    """A picture per image whose maps are given, all with the same scales."""
    ends = {name: max(float(m[name].max()) for m in maps.values()) for name in MEASURES[1:]}
    pictures = []
    for index in sorted(maps):
        sample = canvas[index]
        size = sample["label"].shape
        image = Image.fromarray(rgb_view(sample["image"])).resize(size[::-1])
        name = canvas.names.get(index, str(index))
        drawn = {**maps[index], "name": name, "image": np.asarray(image), "label": sample["label"]}
        file = re.sub(r"[^\w.-]+", "_", name)
        path = output / f"{index:05d}_{file}.png"
        plot_uncertainty(drawn, classes, path, limits=ends)
        pictures.append(path)
    return pictures
