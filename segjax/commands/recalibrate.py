"""The command recalibrate: batch normalisation statistics, recomputed over the training images."""

import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from segjax import config as configs
from segjax.console import Console
from segjax.data.fitted import FittedDataset
from segjax.data.splits import Splits
from segjax.destinations import check_folder
from segjax.inference.predictor import Predictor
from segjax.inference.recalibrate import even_batches, recomputed_statistics
from segjax.training.checkpoint import CheckpointStore
from segjax.training.progress import print_line, track
from segjax.training.run_record import load_record, save_record


def recalibrate(
    workdir: str | pathlib.Path,
    output: str | pathlib.Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> pathlib.Path:
    """Recomputes the batch normalisation statistics of a run's best checkpoint.

    The pass over all training images uses neither augmentation nor dropout, as SegNet's authors do
    before testing.

    The result is a run of its own, whose only checkpoint is that one with the new statistics:
    evaluate, predict and export take it. The old run is left as it was.

    Args:
      workdir: of a training run.
      output: a folder that does not exist yet; WORKDIR_recalibrated by default.
      overrides: of the run's config, see `config.with_overrides`.

    Returns:
      The new workdir.

    Raises:
      ValueError: if `output` exists, or the network has no batch normalisation.
      OSError: if the new checkpoint could not be written.
    """
    console, workdir = console or Console(), pathlib.Path(workdir)
    output = pathlib.Path(output or f"{workdir.resolve()}_recalibrated")
    check_folder(output, "--output")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} exists; give another folder (--output), or remove it")
    configs.load(workdir)  # says so if it holds no run
    with CheckpointStore(workdir, read_only=True) as store:
        step = store.best_step()
    predictor = Predictor.from_workdir(workdir, overrides=overrides)
    config, data = predictor.config, predictor.config["data"]
    source = Splits.of_run(config).source(data["train_split"])
    canvas = FittedDataset(source, tuple(data["image_size"]))
    batches = even_batches(len(canvas), config["train"]["batch_size"])
    images = (
        np.stack([canvas[i]["image"] for i in batch])
        for batch in track(console, "recomputing", batches, len(batches))
    )
    began = time.perf_counter()
    statistics = recomputed_statistics(
        predictor.model, predictor.normalization, predictor.variables, images
    )
    seconds = time.perf_counter() - began
    configs.copy_run(workdir, output)
    note = (
        f"recomputed over {len(canvas)} images of {data['train_split']} in {len(batches)} batches, "
        f"from step {step} of {workdir}"
    )
    _note(output, note)
    with CheckpointStore(output) as store:
        variables = {"params": predictor.variables["params"], "batch_stats": statistics}
        store.save_best(step, variables, val_miou=-1.0)  # not evaluated yet
        if store.best_step() != step:
            raise OSError(f"{output}: the checkpoint with the new statistics was not written")
    print_line(
        console,
        f"batch normalisation statistics {note}, {seconds:.1f} s: {output}\n"
        f"evaluate it with --mode=evaluate --workdir={output}",
    )
    return output


def _note(workdir: pathlib.Path, note: str) -> None:
    """Writes the origin of the statistics where the report lists what numbers depend on."""
    run = load_record(workdir)
    run["environment"]["batch_stats"] = note
    save_record(workdir, run)
