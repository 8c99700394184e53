"""The files at the end of a run: results.json, results.md, pictures, report.html."""

import json
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from segjax import config as configs
from segjax.data.classes import ClassTable
from segjax.data.doctor.findings import WARNING
from segjax.data.files.images import rgb_view
from segjax.data.parallel import within
from segjax.data.source import file_names
from segjax.data.splits import Splits
from segjax.inference.predictor import Predictor
from segjax.report import figures, pictures, tables
from segjax.report.numbers import choose_samples, no_nan
from segjax.report.page import write_text
from segjax.report.places import RESULTS_FILE
from segjax.report.provenance import data_state, environment, load_run
from segjax.report.run_page import Run, Scores, write_run_page
from segjax.training.evaluation import Evaluation
from segjax.training.metrics_file import read_metrics

_SAMPLES = 8  # pictures of scored label maps
Predict = Callable[[int, Mapping[str, Any]], np.ndarray]  # of (index, sample), at its own size


def write_report(
    workdir: pathlib.Path,
    predictor: Predictor,
    evaluations: Mapping[str, Evaluation],
    protocol: str,
    data: Splits,
    seconds: float | None = None,
    other_data: bool = False,
) -> pathlib.Path:
    """Writes results.json, results.md, curves.png, class_iou.png, samples/grid.png, report.html,
    and confusion_matrix.png, which a sigmoid head has not.

    Args:
      workdir: of a training run.
      predictor: of its best checkpoint.
      evaluations: per split; results.json holds their `summary()`. Pictures are of
        `data.val_split`, or of the first one.
      protocol: how the numbers were measured, printed with them.
      data: the splits that were evaluated.
      seconds: of the training; by default as an earlier call set them.
      other_data: whether the splits are not those of the run's own data set.

    Returns:
      The path of the report.
    """
    config, classes = predictor.config, predictor.classes
    scores = _scores(classes, evaluations, protocol)
    split = config["data"]["val_split"]
    split = split if split in evaluations else next(iter(evaluations))
    samples = _chosen_samples(
        lambda _, sample: predictor.predict(sample["image"]),
        data,
        split,
        evaluations[split],
        config["report"]["samples"],
    )
    history, record = read_metrics(workdir), load_run(workdir, seconds)
    _write_results(workdir, scores)
    _write_pictures(workdir, split, scores, samples, history)

    trained_on, state = record.get("data", {}), data_state(data, evaluations)
    remarks = [f"Best checkpoint by val mIoU; pictures of images from the {split} split."]
    remarks += [
        f"The {name} split has changed since the training: {trained_on[name]['images']:,} images "
        f"then, {now['images']:,} now, and another fingerprint."
        for name, now in state.items()
        if trained_on.get(name, now) != now and not other_data
    ]
    remarks += [
        f"At step {change['step']} the run went on with changed data (data.on_changed=accept): "
        f"{'; '.join(change['found'])}."
        for change in record["data_changes"]
    ]
    remarks += [f"{record['skipped_steps']}."] if record.get("skipped_steps") else []
    remarks += [
        f"No pixel of the {name} split was scored: there are no numbers."
        for name, numbers in scores.results.items()
        if not numbers["pixels"]
    ]
    remarks += [
        f"{finding['title']}. To mend it: {finding['remedy']}."
        for finding in record.get("findings", ())  # runs of earlier versions have none
        if finding["severity"] == WARNING
    ]
    parameters = sum(p.size for p in jax.tree.leaves(predictor.variables["params"]))
    record["environment"]["parameters"] = parameters
    record["data"] = {**trained_on, **state}
    title = f"{config['model']['name']} on {config['data']['name']}"
    run = Run(title, configs.plain(config), record, history)
    path = workdir / "report.html"
    write_run_page(path, run, scores, samples, remarks)
    return path


def write_scores_report(
    output: pathlib.Path,
    config: Mapping[str, Any],
    classes: ClassTable,
    evaluations: Mapping[str, Evaluation],
    protocol: str,
    data: Splits,
    predict: Predict,
    remarks: Sequence[str] = (),
) -> pathlib.Path:
    """Writes what `write_report` does, of label maps that some program predicted.

    Args:
      output: an existing folder.
      config: saved with the scores.
      classes, data: of the data set.
      evaluations: per split; pictures are of the first one.
      protocol: how the numbers were measured.
      predict: gives the label map of a sample at the label's own size.
      remarks: sentences at the top of the page.

    Returns:
      The path of the report.
    """
    scores, split = _scores(classes, evaluations, protocol), next(iter(evaluations))
    samples = _chosen_samples(predict, data, split, evaluations[split], _SAMPLES)
    _write_results(output, scores)
    _write_pictures(output, split, scores, samples, ())
    state = data_state(data, evaluations)
    record = {"environment": environment(devices=False), "changes": {}, "data": state}
    title = f"{config['scored']['predictions']} on {config['data']['name']}"
    path = output / "report.html"
    remarks = [*(f"{remark}." for remark in remarks), f"Pictures of images from {split}."]
    write_run_page(path, Run(title, configs.plain(config), record, ()), scores, samples, remarks)
    return path


def _scores(classes: ClassTable, evaluations: Mapping[str, Evaluation], protocol: str) -> Scores:
    count = len(classes)  # without the column of pixels where no class is predicted
    matrices = {split: e.confusion[:, :count] for split, e in evaluations.items()}
    return Scores(
        classes,
        results={split: evaluation.summary() for split, evaluation in evaluations.items()},
        confusion={} if classes.multilabel else matrices,
        protocol=protocol,
    )


def _write_results(workdir: pathlib.Path, scores: Scores) -> None:
    """Writes results.json and results.md."""
    results, classes, protocol = scores.results, scores.classes, scores.protocol
    saved = {"protocol": protocol, "classes": list(classes.names), "results": no_nan(results)}
    write_text(workdir / RESULTS_FILE, json.dumps(saved, indent=2, allow_nan=False) + "\n")
    write_text(workdir / "results.md", tables.results_markdown(results, classes, protocol))


def _write_pictures(
    workdir: pathlib.Path,
    split: str,
    scores: Scores,
    samples: Mapping[str, Sequence[Mapping]],
    history: Sequence[Mapping],
) -> None:
    """Writes the PNG files: curves of the run, the matrix, bars and samples of a split."""
    panels = {
        "curves": figures.curves(history),
        "class_iou": [figures.class_iou(split, scores.results[split], scores.classes)],
    }
    if split in scores.confusion:
        matrix = figures.confusion(split, scores.confusion[split], scores.classes)
        panels["confusion_matrix"] = [matrix]
    for name, row in panels.items():
        if not row:  # label maps have no curves
            continue
        figures.save_png(row, workdir / f"{name}.png", columns=2 if name == "curves" else 1)
    everything = [sample for group in samples.values() for sample in group]
    if everything:
        (workdir / "samples").mkdir(exist_ok=True)
        pictures.sample_grid(everything, scores.classes, workdir / "samples" / "grid.png")


def _chosen_samples(
    predict: Predict, data: Splits, split: str, evaluation: Evaluation, count: int
) -> dict[str, list[dict[str, Any]]]:
    """{"best", "median", "worst": samples with their predictions}, without empty groups."""
    chosen = choose_samples(evaluation.image_miou, count)
    samples = {}
    for kind, indices in chosen.items():
        group = predicted_samples(predict, data.source(split), indices, data.data["timeout_s"])
        for sample, index in zip(group, indices, strict=True):
            sample["miou"] = float(evaluation.image_miou[index])
        samples |= {kind: group} if group else {}
    return samples


def predicted_samples(
    predict: Predict, source: Any, indices: Iterable[int], timeout_s: float
) -> list[dict[str, Any]]:
    """Samples with their prediction at the image's own size, as sample pictures need them;
    TimeoutError for one that is not read in time."""
    samples = []
    for index in map(int, indices):
        names = " with ".join(file_names(source, index))
        sample = within(timeout_s, names, source.__getitem__, index)
        prediction, image = predict(index, sample), rgb_view(sample["image"])
        samples.append({**sample, "image": image, "prediction": prediction, "miou": math.nan})
    return samples


def panels(sample: Mapping[str, Any], classes: ClassTable) -> np.ndarray:
    """Image, truth, prediction and errors of a sample side by side, uint8 [h, 4w, 3]."""
    return np.concatenate(pictures.sample_panels(sample, classes), axis=1)
