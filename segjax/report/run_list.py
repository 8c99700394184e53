"""The runs that lie in a folder: where they are, how far they have come, and their best numbers."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from segjax import config as configs
from segjax.data.errors import DataError, in_a_line
from segjax.data.files.folder_lock import owner_of
from segjax.data.files.json_file import need_form, parse_json
from segjax.report.results_file import read_results
from segjax.training.metrics_file import METRICS_FILE, read_log
from segjax.training.run_record import load_record
from segjax.training.run_state import RunState, steps_of
from segjax.training.stored_checkpoint import read_host, read_miou, steps_in

Value = TypeVar("Value")

# One of these beside config.json tells a run from another project's folder, and is a damaged run
# without it.
_LEFT_BY_A_RUN = ("checkpoints", "evaluations", METRICS_FILE)
_END = 1 << 14  # bytes of a log that hold its last row
_LONGEST = 300  # characters of a problem
RUNNING, FINISHED, STOPPED_EARLY = "running", "finished", "stopped early"
NOT_EVALUATED, UNFINISHED, SCORES, DAMAGED = "not evaluated", "unfinished", "only scores", "damaged"


@dataclasses.dataclass
class ListedRun:
    """A run as a table shows it; what is not known is None.

    Attributes:
      workdir: of the run.
      name: the workdir from the folder that was searched.
      state: "running" (a live process holds its lock), "finished" (with results), "stopped early"
        (by train.early_stop_patience, with results), "not evaluated" (all steps are taken, and the
        results are missing), "unfinished" (the same command would resume it), "only scores" (what
        --mode=score wrote) or "damaged".
      problems: what is damaged.
      step, steps: of the newest checkpoint or, while it runs, of the newest row of its log; and of
        the whole run.
      best_val_miou, best_step: of the best checkpoint.
      split, miou: of results.json: "test" if it has it, else the last one.
      seconds: of training.
      started: when its newest start was, as ISO 8601.
      options: all options by name, of plain types; of scores those that a run has too.
    """

    workdir: pathlib.Path
    name: str
    state: str = DAMAGED
    problems: list[str] = dataclasses.field(default_factory=list)
    step: int | None = None
    steps: int | None = None
    best_val_miou: float | None = None
    best_step: int | None = None
    split: str | None = None
    miou: float | None = None
    seconds: float | None = None
    started: str | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


def find_runs(folder: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """The workdirs in a folder at any depth, or the folder itself; nothing inside a workdir.

    Links to folders are followed, each folder is entered once; hidden folders, and those that
    cannot be read, are passed over.
    """
    waiting, seen = [pathlib.Path(folder)], set()
    while waiting:
        path = waiting.pop()
        try:
            entries = {entry.name: entry for entry in os.scandir(path)}
            status = path.stat()
        except OSError:
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        left = [name for name in _LEFT_BY_A_RUN if name in entries]
        if left and (configs.CONFIG_FILE in entries or len(left) > 1):
            yield path
            continue
        names = sorted((name for name in entries if not name.startswith(".")), reverse=True)
        waiting += [path / name for name in names if _is_folder(entries[name])]


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def read_run(workdir: pathlib.Path, name: str) -> ListedRun:
    """Reads a run without touching it; what is damaged is in its `problems`.

    The log is read only of a run without checkpoints, so that runs with long logs are listed fast.
    """
    run = ListedRun(workdir, name)
    owner = owner_of(workdir)
    config = _read_config(run)
    record, results = _read_record(run), _read_results(run)
    run.started = str(record["environment"].get("started", "")) or None
    if config is not None and "scored" in config:
        run.state = DAMAGED if run.problems else SCORES
        return run
    if config is not None:
        run.steps = _steps(config, record)
    state = _read_state(run)
    _read_best(run)
    run.seconds = record.get("seconds") or (state.seconds if state else None)
    if run.step is None or run.best_val_miou is None:
        _read_log(run)
    if owner:
        run.step = _newest_logged(workdir) or run.step
    run.state = _state(run, owner, state, evaluated=bool(results))
    return run


def _state(run: ListedRun, owner: str, state: RunState | None, evaluated: bool) -> str:
    if run.problems:
        return DAMAGED
    if owner:
        return RUNNING
    stopped = bool(state and state.stopped)
    # A run that was given more steps after its end has results, and is not finished.
    done = stopped or (run.steps is not None and (run.step or 0) >= run.steps)
    if evaluated and (done or not state):  # without checkpoints nothing goes on
        return STOPPED_EARLY if stopped else FINISHED
    return NOT_EVALUATED if done else UNFINISHED


def _read_config(run: ListedRun) -> Mapping[str, Any] | None:
    try:
        config = configs.load(run.workdir, scores=True)
    except (ValueError, OSError) as error:
        run.problems.append(_short(error))
        return None
    run.options = configs.flatten(configs.plain(config))
    return config


def _read_record(run: ListedRun) -> dict[str, Any]:
    try:
        return load_record(run.workdir)
    except (ValueError, OSError) as error:
        run.problems.append(_short(error))
        return {"environment": {}, "data": {}}


def _read_results(run: ListedRun) -> Mapping[str, Any]:
    try:
        results = read_results(run.workdir, ("miou",))
    except (ValueError, OSError) as error:
        run.problems.append(_short(error))
        return {}
    if results:
        run.split = "test" if "test" in results else [*results][-1]
        run.miou = results[run.split].get("miou")
    return results


def _steps(config: Mapping[str, Any], record: Mapping[str, Any]) -> int | None:
    """The steps of the whole run; None where only the data say it, and no record is left."""
    form = {"steps": int, "epochs": float, "batch_size": int}
    try:
        train = configs.plain(config["train"])
        need_form(train, form, "train")
        images = record["data"].get(config["data"].get("train_split", "train"), {}).get("images")
        return steps_of(train, images or 0) if train["steps"] or images is not None else None
    except (ValueError, ArithmeticError):
        return None


def _read_state(run: ListedRun) -> RunState | None:
    """The run state of the newest checkpoint; sets `step`."""
    run.step, state = _newest(
        run, "latest", lambda folder: RunState.from_json(read_host(folder)["run_state"])
    )
    return state


def _read_best(run: ListedRun) -> None:
    """Sets `best_step` and `best_val_miou` by the best checkpoint."""
    run.best_step, run.best_val_miou = _newest(run, "best", read_miou)


def _newest(
    run: ListedRun, part: str, read: Callable[[pathlib.Path], Value]
) -> tuple[int | None, Value | None]:
    """Step and content of the newest checkpoint in a part of `checkpoints`; None of what is not
    there or damaged, which becomes a problem."""
    folder = run.workdir / "checkpoints" / part
    while steps := steps_in(folder):
        try:
            return steps[-1], read(folder / str(steps[-1]))
        except (ValueError, LookupError, OSError) as error:
            if steps == steps_in(folder):  # a run that trains has not replaced it meanwhile
                run.problems.append(f"{folder}/{steps[-1]}: {_short(error)}")
                return steps[-1], None
    return None, None


def _read_log(run: ListedRun) -> None:
    """Sets what checkpoints have not told: they may have been removed, or be of an old version."""
    try:
        rows, problem = read_log(run.workdir / METRICS_FILE)
    except (ValueError, OSError) as error:
        rows, problem = [], _short(error)
    run.problems += [problem] if problem else []
    if run.step is None and rows:
        run.step = max(row["step"] for row in rows)
    scores = [
        (row["miou"], row["step"])
        for row in rows
        if row["split"] == "val" and row.get("miou") is not None
    ]
    if run.best_val_miou is None and scores:
        run.best_val_miou, run.best_step = max(scores)


def _newest_logged(workdir: pathlib.Path) -> int | None:
    """The step of the last row of the log, of which only the end is read."""
    try:
        with (workdir / METRICS_FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            row = parse_json(line)
            need_form(row, {"step": int}, "it")
            return row["step"]
        except ValueError:  # the row that is being written, or a part of one
            continue
    return None


def _short(error: Exception) -> str:
    """What was found, without the remedy, in one line."""
    return in_a_line(error.found if isinstance(error, DataError) else str(error), _LONGEST)


def differing_options(runs: Sequence[ListedRun]) -> list[str]:
    """The options that have several values among the runs, by name.

    Left out are options that change no result (`config.is_free`), but `data.root`, which tells
    folder data sets apart. An option that some runs lack, as other networks and scores do, differs
    if it does among those that have it.
    """
    trained = [run for run in runs if run.options and "scored.ids" not in run.options]
    values: dict[str, set[str]] = {}
    for run in trained or runs:
        for name, value in run.options.items():
            if name == "data.root" or not configs.is_free(name):
                values.setdefault(name, set()).add(repr(value))
    return sorted(name for name, found in values.items() if len(found) > 1)


def best_first(run: ListedRun) -> tuple:
    """A key to sort by: the highest best val mIoU first, then runs without one, by name."""
    score = run.best_val_miou
    return (score is None, -(score or 0.0), run.name)
