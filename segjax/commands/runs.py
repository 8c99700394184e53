"""The command runs: all runs of a folder in one table."""

import pathlib
from typing import Any

from segjax.console import Console
from segjax.report.run_list import ListedRun, best_first, differing_options, find_runs, read_run
from segjax.report.run_list_tables import print_runs
from segjax.training.progress import print_line

_FOLDER = "runs"  # where training makes workdirs by default


def runs(
    workdir: str | pathlib.Path | None = None, console: Console | None = None
) -> list[dict[str, Any]]:
    """Lists the runs in a folder: state, best numbers, time, and the options that differ.

    The run with the highest best val mIoU comes first: that is what who compares runs looks for.
    Runs without one (not evaluated yet, only scores) follow by name. Nothing is locked and no
    device is looked for, so runs that are training are listed as they are.

    Args:
      workdir: searched at any depth, but not inside a run; "runs" by default.

    Returns:
      A dict of plain types for each run, in the order of the table: the attributes of `ListedRun`,
      with `options` as `differing_options` names them.

    Raises:
      ValueError: if there is no such folder.
    """
    console, folder = console or Console(), pathlib.Path(workdir or _FOLDER)
    if not folder.is_dir():
        raise ValueError(
            f"--workdir={folder} is no folder; give one with runs in it, such as that of --workdir "
            "in training (by default runs)"
        )
    found = sorted(
        (read_run(path, _name(path, folder)) for path in find_runs(folder)), key=best_first
    )
    options = differing_options(found)
    if found:
        print_runs(found, options, console)
    else:
        print_line(console, f"{folder} holds no run")
    return [_plain(run, options) for run in found]


def _name(workdir: pathlib.Path, folder: pathlib.Path) -> str:
    """The workdir from the folder; the folder's own name where that is a run."""
    return workdir.resolve().name if workdir == folder else str(workdir.relative_to(folder))


def _plain(run: ListedRun, options: list[str]) -> dict[str, Any]:
    own = {name: run.options[name] for name in options if name in run.options}
    return {**vars(run), "workdir": str(run.workdir), "options": own}
