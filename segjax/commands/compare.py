"""The command compare: finished runs side by side: options, metrics, classes, paired images."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segjax import config as configs
from segjax.console import Console
from segjax.data.classes import ClassTable
from segjax.inference.crf import DenseCRF
from segjax.inference.label_maps import describe_label_maps
from segjax.metrics.paired import paired_test
from segjax.report import tables
from segjax.report.results_file import read_results
from segjax.training.evaluation import Evaluation, evaluated_splits, evaluation_path
from segjax.training.head import make_head
from segjax.training.setup import describe_protocol

_METRICS = (
    *("miou", "mean_dice", "mean_precision", "mean_recall", "global_accuracy"),
    *("class_average_accuracy", "fw_iou", "loss", "images"),
)  # those that the runs have: not all heads have all
# Metrics that only results.json holds; left out where no run has them.
_MORE_METRICS = ("boundary_f1", "boundary_iou", "ece", "brier")


@dataclasses.dataclass(frozen=True)
class _Run:
    name: str
    config: Mapping[str, Any]
    classes: ClassTable
    evaluation: Evaluation


def compare(
    runs: Sequence[str | pathlib.Path], split: str | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Compares finished runs with the first of them, from the files that --mode=evaluate wrote.

    Args:
      runs: workdirs of two or more runs with the same classes.
      split: "test" by default, or else the first that all of them have evaluated.

    Returns:
      `split`; `runs`; `config` (option -> a value per run, where they differ); `protocols` (how
      each run's numbers are made); `metrics` (name -> a value per run, absent classes left out);
      `iou` (class -> a value per run); `paired` (for each run but the first: `run`, `against`,
      `PairedTest`'s numbers on the images' own mIoU, run minus first, and `notes` on what does not
      match). All values are of plain types.

    Raises:
      ValueError: for fewer than two runs, a folder that holds none, a missing evaluation, or other
        classes.
    """
    console = console or Console()
    if len(runs) < 2:
        raise ValueError(
            f"--runs has {len(runs)} workdir(s); give two or more, with commas; "
            "--mode=runs lists those of a folder"
        )
    split = split or _common_split(runs)
    opened = [_open(workdir, split) for workdir in runs]
    first, *others = opened
    for run in others:
        if run.classes.names != first.classes.names:
            raise ValueError(
                f"--runs: {first.name} has classes {', '.join(first.classes.names)}, but "
                f"{run.name} has {', '.join(run.classes.names)}; compare runs of one class table"
            )
        if run.classes.multilabel != first.classes.multilabel:
            raise ValueError(
                f"--runs: one of {first.name} and {run.name} has model.head='sigmoid'; compare "
                "runs of one head"
            )
    summaries = [run.evaluation.summary() for run in opened]
    result = {
        "split": split,
        "runs": [run.name for run in opened],
        "config": _config_differences(opened),
        "protocols": [_protocol(run.config, run.classes) for run in opened],
        "metrics": {
            key: [summary[key] for summary in summaries] for key in _METRICS if key in summaries[0]
        }
        | _more_metrics(opened, split),
        "iou": {
            name: [summary["iou"][k] for summary in summaries]
            for k, name in enumerate(first.classes.names)
        },
        "paired": [_paired(first, run) for run in others],
    }
    tables.print_comparison(result, console)
    return result


def _protocol(config: Mapping[str, Any], classes: ClassTable) -> str:
    """How a run's numbers are made; evaluate keeps the options of a CRF in their config."""
    if "scored" in config:
        return describe_label_maps(config)
    crf = f"; {DenseCRF(**config['crf'])}" if "crf" in config else ""
    return describe_protocol(config, head=make_head(config, classes)) + crf


def _common_split(runs: Sequence[str | pathlib.Path]) -> str:
    for workdir in runs:
        configs.load(workdir, scores=True)  # raises if the folder holds no run
    evaluated = [evaluated_splits(workdir) for workdir in runs]
    common = [split for split in evaluated[0] if all(split in splits for splits in evaluated)]
    if not common:
        listed = "; ".join(
            f"{workdir}: {', '.join(splits) or 'none'}"
            for workdir, splits in zip(runs, evaluated, strict=True)
        )
        raise ValueError(
            f"--runs have no evaluated split in common ({listed}); evaluate them first: python "
            "launch.py --mode=evaluate --workdir=RUN --splits=test"
        )
    return "test" if "test" in common else common[0]


def _open(workdir: str | pathlib.Path, split: str) -> _Run:
    config, path = configs.load(workdir, scores=True), evaluation_path(workdir, split)
    if not path.is_file():
        splits = ", ".join(evaluated_splits(workdir)) or "none"
        raise ValueError(
            f"run {workdir} has no evaluation of {split!r} (it has: {splits}); make it first: "
            f"python launch.py --mode=evaluate --workdir={workdir} --splits={split}"
        )
    return _Run(str(workdir), config, configs.load_classes(config, workdir), Evaluation.load(path))


def _more_metrics(opened: Sequence[_Run], split: str) -> dict[str, list[float]]:
    saved = []
    for run in opened:
        saved.append(read_results(run.name, _MORE_METRICS).get(split, {}))
    rows = {key: [numbers.get(key) for numbers in saved] for key in _MORE_METRICS}
    return {
        key: [math.nan if value is None else value for value in row]
        for key, row in rows.items()
        if any(value is not None for value in row)
    }


def _config_differences(opened: Sequence[_Run]) -> dict[str, list[Any]]:
    """The options that differ; beside scored label maps, which have no network, those that all
    have, and theirs."""
    flat = [configs.flatten(configs.plain(run.config)) for run in opened]
    different = set()
    for run in opened[1:]:
        different |= configs.difference(opened[0].config, run.config).keys()
    if any("scored" in run.config for run in opened):
        shared = set.intersection(*({*options} for options in flat))
        different = {n for n in different if n in shared or n.startswith("scored.")}
    return {name: [options.get(name) for options in flat] for name in sorted(different)}


def _paired(first: _Run, run: _Run) -> dict[str, Any]:
    """The paired test of a run against the first, over the images that both have scored."""
    a, b = first.evaluation, run.evaluation
    places, notes = _same_images(a.names, b.names)
    miou = a.image_miou[places[0]], b.image_miou[places[1]]
    # Pixels per class differ where the scored size or the labels do.
    labels = [e.class_pixels[p] for e, p in zip((a, b), places, strict=True)]
    differing = int(np.sum(np.any(labels[0] != labels[1], axis=1)))
    if differing:
        notes.append(
            f"the label pixels of {differing} images differ: scored at another size, or "
            "other labels"
        )
    test = paired_test(miou[1] - miou[0])
    if test.images < len(places[0]):
        notes.append(f"{len(places[0]) - test.images} images have nothing labelled")
    return {"run": run.name, "against": first.name, **dataclasses.asdict(test), "notes": notes}


def _same_images(a: Sequence[str], b: Sequence[str]) -> tuple[tuple[list, list], list[str]]:
    """Positions of the images that both lists hold, by name, and notes on what did not match."""
    if list(a) == list(b):
        return (list(range(len(a))), list(range(len(b)))), []
    places = [{name: place for place, name in enumerate(names)} for names in (a, b)]
    if any(len(p) < len(names) for p, names in zip(places, (a, b), strict=True)):
        return ([], []), ["image names repeat and the runs' splits differ: no image is paired"]
    shared = [name for name in a if name in places[1]]
    note = (
        f"the runs' splits differ: of {len(a)} and {len(b)} images {len(shared)} have the same "
        "name; only these are paired, while all count in the metrics"
        if len(shared) < max(len(a), len(b))
        else "the runs' splits hold the same images in another order"
    )
    return ([places[0][name] for name in shared], [places[1][name] for name in shared]), [note]
