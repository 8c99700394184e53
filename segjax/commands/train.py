"""The command train: trains or resumes a run, then evaluates its best checkpoint."""

import contextlib
import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from segjax import config as configs
from segjax.console import Console
from segjax.data.files.folder_lock import FolderLock
from segjax.report.harm import print_harm
from segjax.report.numbers import evenly_spaced
from segjax.report.places import check_places
from segjax.report.plan_tables import parts_table
from segjax.report.provenance import known_findings, save_run, save_skipped_steps
from segjax.training import loop
from segjax.training.agreement import agree_on_data, agree_on_run, arrays_hash
from segjax.training.distributed import is_first
from segjax.training.interruption import Interruption
from segjax.training.length import LENGTH, check_length
from segjax.training.options import writers_of
from segjax.training.progress import print_line
from segjax.training.resources import check_resources
from segjax.training.setup import Setup, setup_run
from segjax.training.tracking.followers import Followers
from segjax.training.tracking.writer import writer_class

_UNFINISHED = "the training is complete, its evaluation and report are not"


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
      base: the defaults, of options that an older run lacks, and for the report's differences.
      profile: (first step, number of steps) to trace into the workdir.

    Returns:
      The results of `evaluate`.

    Raises:
      ValueError: for a config, data set or workdir that does not fit, or a workdir that another
        run is using, before any compilation.
      Interrupted: if a signal asked the run to stop; it is saved.
    """
    console, workdir = console or Console(), pathlib.Path(workdir)
    first = is_first()
    if first:
        check_places(workdir, "--workdir")
        for name in writers_of(config["report"]):
            writer_class(name).check()
    with workdir_lock(workdir) if first else contextlib.nullcontext() as lock:
        agree_on_run(config, workdir)
        configs.check_same_run(config, workdir, base, except_for=LENGTH)
        setup = setup_run(config, workdir)
        check_length(setup, workdir)
        check_resources(setup, workdir)
        agree_on_data(_facts(setup))
        if first:
            known = known_findings(workdir)
            configs.save(setup.config, workdir)
            configs.save_classes(setup.classes, workdir)
            changed = setup.inputs.record() if setup.inputs.changes else None
            save_run(workdir, base, setup.config, setup.data, setup.findings, changed)
            setup.inputs.save(workdir)  # last: a start that is killed before it compares again
            _announce(setup, workdir, console, lock.notice)
            print_harm(setup.findings, console, known)
        with _followers(setup, workdir, console) as followers:
            run_state = loop.train(
                setup,
                workdir,
                console,
                _preview(setup),
                profile,
                meanwhile=_import_the_rest,
                followers=followers,
            )
            if run_state.stopped:
                print_line(console, f"stopped early: {run_state.stopped}")
            if first and run_state.skipped_steps:
                note = save_skipped_steps(workdir, run_state.skipped_steps, setup.total_steps)
                print_line(console, f"warning: {note}")
            with Interruption(_UNFINISHED):
                evaluate, seconds = _import_the_rest(), run_state.seconds
                results = evaluate(workdir, console=console, seconds=seconds, opened=setup.data)
            numbers = _numbers(results, setup.classes.names)
            followers.results(max(run_state.best_step, 0), numbers)
        return results


def _followers(setup: Setup, workdir: pathlib.Path, console: Console) -> Followers:
    """The writers of a run, in process 0."""
    names = writers_of(setup.config["report"]) if is_first() else ()
    options = configs.flatten(configs.plain(setup.config))
    return Followers(names, workdir, options, functools.partial(print_line, console))


def _numbers(results: Mapping[str, Mapping[str, Any]], classes: Sequence[str]) -> dict[str, float]:
    """Results as {"test/miou": 0.5, "test/iou/road": 0.9, ...}, without what is NaN."""
    numbers = {}
    for split, values in results.items():
        single = {name: v for name, v in values.items() if isinstance(v, int | float)}
        by_class = dict(zip(classes, values["iou"], strict=True))
        single |= {f"iou/{name}": value for name, value in by_class.items()}
        numbers |= {f"{split}/{name}": float(v) for name, v in single.items() if math.isfinite(v)}
    return numbers


def _import_the_rest() -> Callable[..., dict[str, dict]]:
    """Imports what a run needs after its first step, and returns `evaluate`. Matplotlib and SciPy
    take a second, which the start need not wait for."""
    from segjax.commands.evaluate import evaluate

    return evaluate


def workdir_lock(workdir: str | pathlib.Path) -> FolderLock:
    """The lock of a workdir while a run trains in it."""
    return FolderLock(workdir, "workdir", "use another --workdir")


def _facts(setup: Setup) -> dict[str, Any]:
    """What must be equal where processes share a run, of what each has read for itself."""
    if jax.process_count() == 1:
        return {}
    inputs, found = setup.inputs, configs.flatten(configs.plain(setup.config["data"]))
    facts: dict[str, Any] = {
        f"data of {name}": s for name, s in inputs.contents.fingerprints.items()
    }
    facts |= {f"data.{name}": found[name] for name in ("mean", "std", "value_range", "exif")}
    facts["classes"] = setup.classes.to_rows()
    facts["ids of masks"] = inputs.contents.ids
    facts["weights of init_from"] = arrays_hash(setup.initial.arrays) if setup.initial else ""
    facts["loss.class_weights"] = setup.objective.class_weights
    return facts


def _announce(setup: Setup, workdir: pathlib.Path, console: Console, notice: str) -> None:
    """Prints what is about to run, and where."""
    config, devices = setup.config, setup.devices.mesh
    size, rows = config["train"]["batch_size"], setup.padded_batch_size
    shape = " x ".join(f"{n} {axis}" for axis, n in devices.shape.items() if n > 1)
    lines = [
        f"{config['model']['name']} on {config['data']['name']}: {len(setup.train)} images, "
        f"{len(setup.classes)} classes, {setup.total_steps} steps of {size}, {devices.size} "
        f"{jax.devices()[0].platform} device(s){f' ({shape})' if shape else ''}"
        f"{f' of {jax.process_count()} processes' if jax.process_count() > 1 else ''}, workdir "
        f"{workdir}",
        setup.data.classes_in_words,
        *setup.data.notes,
    ]
    if rows > size:
        lines.append(
            f"{size} images do not divide over the devices: {rows - size} of {rows} rows of each "
            "batch are padding, which costs their share of the time"
        )
    lines += [line for line in (notice, setup.inputs.note) if line]
    lines += [f"the data have changed: {change}" for change in setup.inputs.changes]
    lines += [str(setup.initial.report)] if setup.initial else []
    if warning := setup.warning():
        lines.append(warning)
    for line in lines:
        print_line(console, line)
    if not setup.parts.plain:
        console.print(parts_table(setup.parts.rows(config["optim"])))


def _preview(setup: Setup):
    """The function that draws a few validation images for TensorBoard after each evaluation."""
    source, timeout_s = setup.validation.source, setup.config["data"]["timeout_s"]
    chosen = evenly_spaced(len(source), setup.config["report"]["samples"])

    @functools.cache
    def predictor():
        from segjax.inference.predictor import Predictor  # as `_import_the_rest` says

        return Predictor(setup.model, None, setup.classes, setup.config)

    def preview(variables) -> dict[str, np.ndarray]:
        from segjax.report import run as run_report

        predictor().variables = variables
        return {
            f"val/{sample['name']}": run_report.panels(sample, setup.classes)
            for sample in run_report.predicted_samples(
                lambda _, sample: predictor().predict(sample["image"]), source, chosen, timeout_s
            )
        }

    return preview
