"""The command evaluate: the numbers, pictures and report of a finished run."""

import dataclasses
import itertools
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segjax import config as configs
from segjax.console import Console
from segjax.data.classes import ClassTable
from segjax.data.splits import Splits
from segjax.inference.crf import DenseCRF
from segjax.inference.options import InferenceOptions
from segjax.inference.predictor import Predictor
from segjax.inference.scoring import (
    FullEvaluation,
    LabelEvaluation,
    evaluate_fully,
    make_logits_step,
    make_scoring_step,
)
from segjax.metrics.protocols import find_protocol
from segjax.report import run as run_report
from segjax.report import tables
from segjax.report.places import check_places
from segjax.training.agreement import agree_on_run
from segjax.training.distributed import is_first
from segjax.training.evaluation import eval_batch_size, evaluation_path
from segjax.training.mesh import evaluation_devices
from segjax.training.metrics_file import read_metrics
from segjax.training.options import check_memory, measures_of
from segjax.training.progress import print_line
from segjax.training.run_record import load_record
from segjax.training.setup import describe_protocol

# Options that change how samples are read, or which splits, but not the samples.
_READING = (
    "data.workers",
    "data.cache_mb",
    "data.timeout_s",
    "data.on_device",
    "data.on_unreadable",
    "data.on_changed",
    "data.eval_splits",
)


def evaluate(
    workdir: str | pathlib.Path,
    splits: Sequence[str] = (),
    protocol: str = "segjax",
    output: str | pathlib.Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    console: Console | None = None,
    seconds: float | None = None,
    opened: Splits | None = None,
    crf: Mapping[str, float] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> dict[str, dict]:
    """Evaluates the best checkpoint of a run; prints the tables, writes pictures and report.

    The counts of each split are kept in evaluations/SPLIT.npz, from which `compare` reads.

    Args:
      workdir: of a training run; nothing else is needed.
      splits: `data.eval_splits` by default.
      protocol: of the headline numbers, see `segjax.metrics.protocols`; what the others would say
        is printed with it.
      output: where the results are written. The workdir by default, or with other data
        WORKDIR/on_NAME_FOLDER, after `data.name` and the folder `data.root`; with further views,
        a CRF or both the folder views, crf or views_crf in it: the results on the run's own data,
        with one view and without a CRF, stay.
      overrides: of the run's config, see `config.with_overrides`; {"data.root": FOLDER} evaluates
        on other data with the same classes.
      seconds: that training took, for the report.
      opened: the splits of the run's data set, where they are open and checked already.
      crf: options of `segjax.inference.crf.DenseCRF`, by which probabilities are refined before
        they are measured; {} for its defaults, None for no CRF.
      scales, flip: test-time augmentation, see `segjax.inference.tta.view_scores`: what is measured
        are the mean probabilities over the canvas at these scales and, with `flip`, mirrored too.

    Returns:
      Per split what `FullEvaluation.summary`, or `LabelEvaluation.summary` of a sigmoid head,
      gives; also in results.json.

    Raises:
      ValueError: for an unknown protocol or split, a scale out of range, a workdir without a
        checkpoint, or data of other classes.
    """
    chosen = find_protocol(protocol)
    refined = None if crf is None else DenseCRF.from_options(crf)
    options = InferenceOptions(scales=tuple(scales), flip=flip, crf=refined)
    console, workdir = console or Console(), pathlib.Path(workdir)
    if opened is None:
        asked = {"splits": list(splits), "protocol": protocol, "overrides": overrides, "crf": crf}
        asked |= {"scales": options.scales, "flip": flip}
        agree_on_run(configs.load(workdir), workdir, **asked)
    load_record(workdir), read_metrics(workdir)  # which are needed in the end
    predictor = Predictor.from_workdir(workdir, options=options, overrides=overrides)
    config = predictor.config
    kept = _with_options(config, options)
    check_memory(config)
    said = opened is not None  # by the training before
    opened = opened or Splits.of_run(config)
    changed = _changed_data(configs.load(workdir), config)
    if changed:
        _check_classes(predictor.classes, opened.classes, workdir)
    splits = splits or opened.evaluated
    opened.check(*splits)  # all of them before the first is evaluated
    opened.check_labels(*splits)
    default = _folder_on(workdir, config) if changed else workdir
    output = pathlib.Path(output or default / _folder_of(options))
    first = is_first()
    if first:
        check_places(output, "--output" if output != workdir else "--workdir")
    if first and output.resolve() != workdir.resolve():
        configs.copy_run(workdir, output)
        configs.save(kept, output)
    evaluations = {}
    for split, evaluation in _evaluate_splits(predictor, opened, splits, chosen.name):
        evaluations[split] = evaluation
        if first:
            evaluation.save(evaluation_path(output, split))
    results = {split: evaluation.summary() for split, evaluation in evaluations.items()}
    if not first:
        return results
    words = describe_protocol(kept, chosen, predictor.head)
    if options.crf:
        words = f"{words}; {options.crf}"
    if changed:
        words = f"{words}; on {_described(config)} (changed: {', '.join(changed)})"
    for note in () if said else opened.notes:
        print_line(console, note)
    images = ", ".join(f"{split} {len(opened.source(split))}" for split in splits)
    print_line(console, f"evaluated on {_described(config)}; images: {images}")
    console.print(tables.results_table(results, predictor.classes, words))
    if predictor.classes.multilabel:
        console.print(tables.labels_table(results, predictor.classes))
    else:
        console.print(tables.protocols_table(results))
    report = run_report.write_report(
        output, predictor, evaluations, words, opened, seconds, other_data=bool(changed)
    )
    print_line(console, f"report: {report}")
    return results


def _changed_data(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The options by which a config describes other data, or other labels, than the run's."""
    names = configs.difference(ours, theirs)
    return [name for name in names if name.startswith("data.") and name not in _READING]


def _evaluate_splits(
    predictor: Predictor, opened: Splits, splits: Sequence[str], protocol: str
) -> Iterator[tuple[str, FullEvaluation | LabelEvaluation]]:
    """Compiles the scoring step and yields (split, its evaluation)."""
    config = predictor.config
    devices = evaluation_devices(config["parallel"])
    model, normalization = predictor.model, predictor.normalization
    options, head, measures = predictor.options, predictor.head, measures_of(config["report"])
    if options.crf:
        step = make_logits_step(model, normalization, options)
    else:
        step = make_scoring_step(model, normalization, head, measures, options)
    step = devices.compile_eval(step)
    variables, classes = devices.replicate(predictor.variables), len(predictor.classes)
    size = eval_batch_size(config)
    for split in splits:
        canvas = opened.fitted(split)
        yield (
            split,
            evaluate_fully(
                step,
                variables,
                canvas,
                size,
                devices,
                classes,
                protocol,
                crf=options.crf,
                head=head,
                measures=measures,
            ),
        )


def _with_options(config: Mapping[str, Any], options: InferenceOptions) -> Mapping[str, Any]:
    """The config that is kept with the results, from which `compare` tells what was measured."""
    more: dict[str, Any] = {}
    if options.augmented:
        more["views"] = {"scales": list(options.scales), "flip": options.flip}
    if options.crf:
        more["crf"] = dataclasses.asdict(options.crf)
    return {**configs.plain(config), **more} if more else config


def _folder_of(options: InferenceOptions) -> str:
    """The folder for the results of these options; "" for those of a plain evaluation."""
    return "_".join(["views"] * options.augmented + ["crf"] * (options.crf is not None))


def _check_classes(ours: ClassTable, theirs: ClassTable, workdir: pathlib.Path) -> None:
    """Raises ValueError unless the data have the classes that the network predicts."""
    if theirs.names != ours.names:
        pairs = enumerate(itertools.zip_longest(theirs.names, ours.names, fillvalue="no class"))
        other = [f"{k} is {a}, not {b}" for k, (a, b) in pairs if a != b]
        raise ValueError(
            f"the data have the classes {', '.join(theirs.names)}, but the run {workdir} has "
            f"{', '.join(ours.names)} (class {'; '.join(other[:5])}{'; ...' * (len(other) > 5)}); "
            "use data with the run's classes in its order, or map them with "
            "--config.data.class_map"
        )
    if theirs.multilabel != ours.multilabel:
        raise ValueError(
            f"the run {workdir} has {'any number of classes' if ours.multilabel else 'one class'} "
            "per pixel, unlike the data; see --config.data.mask_format"
        )


def _folder_on(workdir: pathlib.Path, config: Mapping[str, Any]) -> pathlib.Path:
    """The folder for the results on other data."""
    data = config["data"]
    parts = [data["name"], pathlib.Path(data["root"]).name] if data["root"] else [data["name"]]
    return workdir / re.sub(r"[^\w.-]+", "_", "_".join(["on", *parts]))


def _described(config: Mapping[str, Any]) -> str:
    """The name and the folder of the data set."""
    data = config["data"]
    return data["name"] + (f" in {data['root']}" if data["root"] else "")
