"""The command score: label maps that any program predicted, measured as those of a run."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segjax import config as configs
from segjax.console import Console
from segjax.data.files.images import some
from segjax.data.files.predictions import find_predictions, label_of_ids
from segjax.data.scored import OWN, label_size
from segjax.data.source import Source, files_of
from segjax.data.splits import Splits
from segjax.inference.label_maps import LabelMaps, describe_label_maps, score_label_maps
from segjax.report import run as run_report
from segjax.report import tables
from segjax.report.places import check_places
from segjax.training.evaluation import evaluation_path
from segjax.training.head import SOFTMAX
from segjax.training.progress import print_line, progress_bar

# Options of the data that say what a network sees.
_OF_NETWORKS = ("image_size", "mean", "std", "local_contrast")


def score(
    predictions: str | pathlib.Path,
    config: Mapping[str, Any] | None = None,
    workdir: str | pathlib.Path | None = None,
    split: str | None = None,
    protocol: str = "segjax",
    ids: str = "raw",
    size: tuple[int, int] | str | None = None,
    void: str = "error",
    output: str | pathlib.Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Scores label maps against a split of a data set; prints the tables, writes the report.

    The output folder holds what evaluate leaves of a run, so --mode=compare takes it beside runs.

    Args:
      predictions: a folder with a label map for each image of the split, see
        `data.files.predictions`.
      config: names the data set, see configs/base.py; or else `workdir` does.
      workdir: of a run, whose data set it is.
      split: `data.val_split` by default.
      protocol: of the headline numbers, see `segjax.metrics.protocols`.
      ids: what label maps hold: "raw", the data set's own ids, or "train", 0..K-1.
      size: that label maps are compared at: "own" (the default), the labels' own; (H, W), to which
        both are resized by nearest neighbour; "server", that of the benchmark's own scorer.
      void: "error": a predicted id of no class on a labelled pixel is an error; "wrong": it counts
        as a wrong prediction, and as one of no class.
      output: a folder; runs/scored_DATA_FOLDER by default, after `data.name` and `predictions`.
      overrides: of the run's config, see `config.with_overrides`.

    Returns:
      What `FullEvaluation.summary`, or `LabelEvaluation.summary` of a data set with several classes
      a pixel, gives, without what only probabilities tell.

    Raises:
      ValueError: for neither or both of `config` and `workdir`, an unknown protocol, split or size,
        a missing label map, or one that cannot be compared.
    """
    console, predictions = console or Console(), pathlib.Path(predictions)
    if (config is None) == (workdir is None):
        raise ValueError("--mode=score needs --config or --workdir, to know the data")
    if workdir is not None:
        config = configs.with_overrides(configs.load(workdir), overrides or {})
        opened = Splits.of_run(config)
    else:
        assert config is not None
        opened = Splits(config["data"], config["seed"])
    data = config["data"]
    split = split or data["val_split"]
    size = label_size({**data, "label_size": size or OWN})
    opened.check(split)
    source, classes = opened.source(split), opened.classes
    files, masks = find_predictions(predictions, _names(source)), files_of(source)
    known = label_of_ids(classes, ids, masks.id_map.labels if masks else None)
    maps = LabelMaps(files, classes, known, size if isinstance(size, tuple) else None, void)
    output = pathlib.Path(output or _default_output(data["name"], predictions))
    check_places(output, "--output")
    with progress_bar(console, "scoring") as progress:
        evaluation, resized = score_label_maps(
            source, maps, protocol, timeout_s=data["timeout_s"], progress=progress
        )
    saved = {
        "data": {
            **{
                name: value
                for name, value in configs.plain(data).items()
                if name not in _OF_NETWORKS
            },
            "label_size": maps.size or [OWN],
        },
        "model": {"head": "sigmoid" if classes.multilabel else SOFTMAX.name},
        "scored": {"predictions": str(predictions), "ids": ids, "void": void},
    }
    output.mkdir(parents=True, exist_ok=True)
    configs.save(saved, output)
    configs.save_classes(classes, output)
    evaluation.save(evaluation_path(output, split))
    summary, words = evaluation.summary(), describe_label_maps(saved, protocol)
    remarks = _remarks(split, len(source), maps, predictions, resized)
    for remark in remarks:
        print_line(console, remark)
    console.print(tables.results_table({split: summary}, classes, words))
    if classes.multilabel:
        console.print(tables.labels_table({split: summary}, classes))
    else:
        console.print(tables.protocols_table({split: summary}))

    def predict(index: int, sample: Mapping[str, Any]) -> np.ndarray:
        own_size = dataclasses.replace(maps, size=None)
        return own_size.compared(index, sample["label"])[1]

    report = run_report.write_scores_report(
        output, saved, classes, {split: evaluation}, words, opened, predict, remarks
    )
    print_line(console, f"report: {report}")
    return summary


def _names(source: Source) -> Sequence[str]:
    """The names of a split's samples; decodes them where they have no files."""
    files = files_of(source)
    if files is not None:
        return files.names
    return [str(source[i].get("name", i)) for i in range(len(source))]


def _default_output(data_name: str, predictions: pathlib.Path) -> pathlib.Path:
    name = f"scored_{data_name}_{predictions.resolve().name}"
    return pathlib.Path("runs") / re.sub(r"[^\w.-]+", "_", name)


def _remarks(
    split: str, images: int, maps: LabelMaps, folder: pathlib.Path, resized: int
) -> list[str]:
    """What was compared with what, in sentences."""
    files = maps.files
    remarks = [f"{images} label maps of {split}, named {files.rule} after the images"]
    if files.extra:
        listed = some([path.relative_to(folder) for path in files.extra])
        remarks.append(f"{len(files.extra)} files belong to no image of {split}: {listed}")
    if resized and maps.size is None:
        remarks.append(
            f"{resized} of {images} label maps have another size than the label, to which they are "
            "resized by nearest neighbour"
        )
    return remarks
