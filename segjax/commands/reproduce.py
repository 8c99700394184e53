"""The command reproduce: the rows of a published table, trained and set beside the paper."""

import contextlib
import dataclasses
import fnmatch
import json
import os
import pathlib
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from segjax import config as configs
from segjax import config_files
from segjax.commands.evaluate import evaluate
from segjax.commands.recalibrate import recalibrate
from segjax.commands.train import train
from segjax.commands.uncertainty import RESULTS_FILE as UNCERTAINTY_FILE
from segjax.commands.uncertainty import uncertainty
from segjax.console import Console
from segjax.data.files.folder_lock import FolderInUse, FolderLock
from segjax.data.files.json_file import read_json
from segjax.destinations import check_folder
from segjax.failures import explained
from segjax.inference.crf import DenseCRF
from segjax.metrics.paired import PairedTest
from segjax.models import build
from segjax.published.cost import measure_cost
from segjax.published.gains import gain
from segjax.published.runs import config_of
from segjax.published.table import PAPER, PublishedTable, Row, read_table
from segjax.report.page import write_text
from segjax.report.places import RESULTS_FILE
from segjax.report.published import (
    Measured,
    Outcome,
    Reproduction,
    print_reproduction,
    write_reproduction,
)
from segjax.training.checkpoint import has_checkpoint
from segjax.training.evaluation import Evaluation, evaluation_path
from segjax.training.interruption import Interrupted, ask_to_stop
from segjax.training.progress import print_line

COST_FILE = "cost.json"
_PARTIAL = ".partial"  # ends the name of a copy that is being made


class _BudgetOver(BaseException):
    """The time is over; like KeyboardInterrupt, no `except Exception` keeps it."""


def reproduce(
    table: str,
    scale: str = PAPER,
    seeds: int = 1,
    rows: Sequence[str] = (),
    budget: float | None = None,
    data_dir: str = "data",
    workdir: str | pathlib.Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Runs the rows of a published table, or goes on with them, and writes both side by side.

    Every row and seed is a run in WORKDIR/runs/ROW/seedN, as `train` leaves it, and what follows
    from it (`then`) a folder in that. What is finished is used as it is; what was stopped goes on;
    a row that fails says why in the table, and the next one is run. The table is written after
    every run. Several processes may work in one folder: each takes what no other is at.

    Args:
      table: of `published.table.names()`, or the path of a YAML file.
      scale: "paper" as published, or a smaller one of the table.
      seeds: runs of each row; all rows have one before the first has two.
      rows: names, or patterns such as "FCN-*"; () = all.
      budget: minutes after which it stops; None = until it is done.
      data_dir: the folder that holds the data sets, such as data/camvid.
      workdir: by default runs/reproduce/TABLE_SCALE.

    Returns:
      What table.json holds, see `report.published.write_reproduction`.

    Raises:
      ValueError: for an unknown table, scale or row, before anything runs; in the end, if a row
        failed.
      Interrupted: if a signal asked it to stop; the run at hand is saved.
    """
    console = console or Console()
    published = read_table(table)
    chosen = _chosen(published, scale, rows)
    published = published.at(scale)
    if seeds < 1:
        raise ValueError(f"--seeds={seeds}; use 1 or more")
    if budget is not None and budget <= 0:
        raise ValueError(f"--budget={budget}; use minutes above 0")
    name = f"{published.name.replace('/', '_')}_{scale}"
    workdir = pathlib.Path(workdir or pathlib.Path("runs", "reproduce", name))
    check_folder(workdir, "--workdir")
    work = _Work(published, scale, seeds, data_dir, workdir, console)
    for row in chosen:  # all of them before the first is run
        if row.is_run:
            _check_then(row, work.config(row, 0))
    _announce(published, scale, chosen, seeds, workdir, console)
    tasks = _tasks(chosen, seeds)
    failures: dict[str, str] = {}
    try:
        with _deadline(budget):
            _run_all(work, chosen, tasks, failures)
    except _BudgetOver:
        line = f"the budget of {budget:g} min is over; the same command goes on"
        print_line(console, line)
    finally:
        result = work.write(chosen, failures)
    print_reproduction(result, console)
    for file in ("table.md", "table.html", "table.json"):
        print_line(console, str(workdir / file))
    if failures:
        raise ValueError(f"{len(failures)} of {len(tasks)} runs failed; the table says why")
    return result.as_dict()


@dataclasses.dataclass(frozen=True)
class _Task:
    row: Row
    seed: int

    def __str__(self) -> str:
        return f"{self.row.name}, seed {self.seed}"


def _chosen(table: PublishedTable, scale: str, patterns: Sequence[str]) -> list[Row]:
    """The rows to run: those that a pattern fits, and those that they need."""
    rows = table.rows_at(scale)
    names = [row.name for row in rows]
    wanted = set() if patterns else {*names}
    for pattern in patterns:
        found = {name for name in names if fnmatch.fnmatchcase(name.lower(), pattern.lower())}
        if not found:
            raise ValueError(f"--rows={pattern} fits no row; {table.name} has {', '.join(names)}")
        wanted |= found
    by_name = {row.name: row for row in rows}
    for row in reversed(rows):  # a row stands after the one that it needs
        if row.name in wanted:
            wanted |= {name for name in (row.of, row.continues) if name in by_name}
    return [row for row in rows if row.name in wanted]


def _tasks(rows: Sequence[Row], seeds: int) -> list[_Task]:
    """All rows of the first seed, then of the next; ensembles, of all seeds, in the end."""
    alone = [row for row in rows if row.is_run and "ensemble" not in row.then]
    together = [row for row in rows if "ensemble" in row.then] if seeds > 1 else []
    every = [_Task(row, seed) for seed in range(seeds) for row in alone]
    return [*every, *(_Task(row, 0) for row in together)]


def _announce(
    table: PublishedTable,
    scale: str,
    rows: Sequence[Row],
    seeds: int,
    workdir: pathlib.Path,
    console: Console,
) -> None:
    about = f" ({table.scales[scale].about})" if table.scales[scale].about else ""
    number = sum(row.is_run for row in rows)
    print_line(console, f"{table.title}: {table.source}")
    print_line(
        console,
        f"{number} rows, {seeds} seed{'s' * (seeds > 1)}, scale {scale}{about}, in {workdir}",
    )


@contextlib.contextmanager
def _deadline(minutes: float | None) -> Iterator[None]:
    """A context that raises `_BudgetOver` after so many minutes; a training saves first."""

    def over(*_: Any) -> None:
        nonlocal is_over
        is_over = True
        if not ask_to_stop():
            raise _BudgetOver

    is_over, before = False, signal.getsignal(signal.SIGALRM)
    if minutes is not None:
        signal.signal(signal.SIGALRM, over)
        signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    except Interrupted:
        if is_over:
            raise _BudgetOver from None
        raise
    finally:
        if minutes is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _run_all(
    work: "_Work", rows: Sequence[Row], tasks: Sequence[_Task], failures: dict[str, str]
) -> None:
    """Runs the tasks in turn; those that another process is at come once more in the end."""
    waiting = [*tasks]
    for last in (False, True):
        in_use = []
        for task in waiting:
            done = work.is_done(task)
            if not done:
                print_line(work.console, f"== {task}")
            try:
                if done:
                    work.check_same(task)
                    continue
                work.run(task)
                failures.pop(str(task), None)
            except FolderInUse as error:
                in_use.append(task)
                if last:
                    print_line(work.console, f"{task}: {error}")
            except Interrupted:
                raise
            except Exception as error:
                text = explained(error) or f"{type(error).__name__}: {error}"
                failures[str(task)] = text
                print_line(work.console, f"{task} failed: {text}")
            jax.clear_caches()  # the next row has programs of its own
            work.write(rows, failures)
        waiting = in_use


class _Work:
    """The runs of a table at a scale in a folder."""

    def __init__(
        self,
        table: PublishedTable,
        scale: str,
        seeds: int,
        data_dir: str,
        workdir: pathlib.Path,
        console: Console,
    ):
        self.table, self.scale, self.seeds = table, scale, seeds
        self.workdir, self.console = workdir, console
        self._data_dir, self._rows = data_dir, {row.name: row for row in table.rows}

    def config(self, row: Row, seed: int):
        """The config of the training of a row, or of the row that it measures otherwise."""
        trained = self._rows[row.of] if row.of else row
        return config_of(self.table, trained, self.scale, seed, self._data_dir)

    def run_folder(self, row: Row, seed: int) -> pathlib.Path:
        """The workdir of the training."""
        return (
            self.workdir / "runs" / (self._rows[row.of] if row.of else row).folder / f"seed{seed}"
        )

    def result_file(self, task: _Task) -> pathlib.Path:
        """The file that says that a task is done, and holds its numbers."""
        row, folder = task.row, self.run_folder(task.row, task.seed)
        if "cost" in row.then:
            return folder / COST_FILE
        if not row.then:
            return folder / RESULTS_FILE
        if "ensemble" in row.then:
            return folder / f"{row.folder}_{self.seeds}" / UNCERTAINTY_FILE
        return folder / row.folder / (UNCERTAINTY_FILE if "dropout" in row.then else RESULTS_FILE)

    def is_done(self, task: _Task) -> bool:
        """Whether the result of a task is there, and its report, which is written last."""
        file = self.result_file(task)
        reported = file.name != RESULTS_FILE or (file.parent / "report.html").is_file()
        return file.is_file() and reported

    def check_same(self, task: _Task) -> None:
        """Raises ValueError if the folder of a task holds a run with another config."""
        config = self.config(task.row, task.seed)
        base = config_files.base(config.model.name)
        configs.check_same_run(config, self.run_folder(task.row, task.seed), base)

    def run(self, task: _Task) -> None:
        """Trains what is not trained, and measures it."""
        row, run = task.row, self.run_folder(task.row, task.seed)
        config = self.config(row, task.seed)
        if "cost" in row.then:
            with FolderLock(run, "folder", "use another --workdir"):
                _save(run / COST_FILE, {"cost": measure_cost(config)})
            return
        if not self.is_done(_trained(task)):
            if row.continues and not has_checkpoint(run):
                self._copy_of_shorter(row, task.seed)
            base = config_files.base(config.model.name)
            train(config, run, base, self.console)
        if row.then:
            output = self.result_file(task).parent
            with FolderLock(output, "folder", "use another --workdir"):
                self._measure(row, run, output)

    def _copy_of_shorter(self, row: Row, seed: int) -> None:
        """Copies the run that this one goes on with; trains it first, if it is not finished."""
        before = _trained(_Task(self._rows[row.continues], seed))
        if not self.is_done(before):
            self.run(before)
        run, shorter = self.run_folder(row, seed), self.run_folder(before.row, seed)
        with FolderLock(run.with_name(f"{run.name}.lock"), "folder", "use another --workdir"):
            partial = run.with_name(run.name + _PARTIAL)
            shutil.rmtree(partial, ignore_errors=True)
            results = shutil.ignore_patterns(RESULTS_FILE, "results.md", "report.html", "lock")
            shutil.copytree(shorter, partial, ignore=results)
            shutil.rmtree(run, ignore_errors=True)
            os.replace(partial, run)

    def _measure(self, row: Row, run: pathlib.Path, output: pathlib.Path) -> None:
        """Does what a row has in `then`."""
        then, split = row.then, self.table.columns[0].split
        if "recalibrate" in then:
            recalibrated = output / "recalibrated"
            if not has_checkpoint(recalibrated):
                shutil.rmtree(recalibrated, ignore_errors=True)
                recalibrate(run, recalibrated, console=self.console)
            run = recalibrated
        if "dropout" in then:
            samples = int(then["dropout"].get("samples", 50))
            uncertainty(run, split=split, samples=samples, output=output, console=self.console)
        elif "ensemble" in then:
            members = [self.run_folder(row, seed) for seed in range(self.seeds)]
            uncertainty(runs=members, split=split, output=output, console=self.console)
        else:
            options = then.get("options")
            evaluate(run, output=output, overrides=options, console=self.console, **_views(then))

    def outcome(self, row: Row, failures: Mapping[str, str]) -> Outcome:
        """What is known of a row so far."""
        tasks = _tasks([row], self.seeds)
        measured = []
        for task in tasks:
            file = self.result_file(task)
            if file.is_file():
                record = self.run_folder(row, task.seed) / "run.json"
                measured.append(
                    Measured(
                        self._results(file),
                        read_json(record, "the record of a run", "restore it")
                        if record.is_file()
                        else {},
                    )
                )
        errors = [
            f"seed {task.seed}: {failures[str(task)]}" for task in tasks if str(task) in failures
        ]
        return Outcome(row, measured, errors, self._gain(row, tasks))

    def _gain(self, row: Row, tasks: Sequence[_Task]) -> PairedTest | None:
        """What a row gains over the row whose networks it measures otherwise."""
        if not row.of or "cost" in row.then:
            return None
        split = self.table.columns[0].split
        done = [task for task in tasks if self.result_file(task).is_file()]
        seeds = range(self.seeds) if "ensemble" in row.then else [task.seed for task in done]
        plain = [_Task(self._rows[row.of], seed) for seed in seeds]
        paths = [
            [evaluation_path(self.result_file(task).parent, split) for task in group]
            for group in (plain, done)
        ]
        if not all(path.is_file() for path in (*paths[0], *paths[1])):
            return None
        return gain(*([Evaluation.load(path) for path in group] for group in paths))

    def _results(self, file: pathlib.Path) -> dict[str, Any]:
        """Split -> numbers, of a file that says that a task is done."""
        values = read_json(file, "the results of a row", "remove it, and start again")
        if file.name == COST_FILE:
            return {column.split: values["cost"] for column in self.table.columns}
        if file.name == UNCERTAINTY_FILE:
            return {values["split"]: {**values["mean"]["calibration"], **values["mean"]}}
        return values["results"]

    def write(self, rows: Sequence[Row], failures: Mapping[str, str]) -> Reproduction:
        """Writes the table with what is there."""
        outcomes = [self.outcome(row, failures) for row in self.table.rows if row in rows]
        result = Reproduction(self.table, self.scale, self.seeds, outcomes)
        write_reproduction(result, self.workdir)
        return result


def _trained(task: _Task) -> _Task:
    """The task without what is done after the training."""
    return dataclasses.replace(task, row=dataclasses.replace(task.row, then={}))


def _check_then(row: Row, config: Mapping[str, Any]) -> None:
    """Raises ValueError for options of `then` that are wrong for the network that is trained."""
    try:
        if options := row.then.get("options"):
            if {"dropout", "ensemble", "cost"} & {*row.then}:
                raise ValueError("options go with recalibrate, crf and views only")
            if not all(name.startswith("model.") for name in options):
                raise ValueError(f"options {', '.join(options)}; use those of model. only")
            build(configs.with_overrides(config, options).model, num_classes=1)
        DenseCRF.from_options(_views(row.then).get("crf", {}))
        int(row.then.get("dropout", {}).get("samples", 2))
    except (TypeError, ValueError) as error:
        raise ValueError(f"then of row {row.name!r}: {error}") from error


def _views(then: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The arguments of `evaluate` for a CRF and for views."""
    arguments: dict[str, Any] = {}
    if "crf" in then:
        arguments["crf"] = {name: float(value) for name, value in then["crf"].items()}
    if "views" in then:
        views = then["views"]
        scales = views.get("scales", "1").strip("(), ")
        arguments["scales"] = tuple(float(each) for each in scales.split(","))
        arguments["flip"] = views.get("flip", "false").lower() == "true"
    return arguments


def _save(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=1) + "\n")
