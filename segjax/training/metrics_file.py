"""metrics.jsonl: the rows of a run's log, one JSON object per line."""

import pathlib
import shutil
import warnings
from typing import Any

from segjax.data.files.json_file import need_form, parse_json
from segjax.data.files.regular import read_bytes
from segjax.training.distributed import is_first

METRICS_FILE = "metrics.jsonl"
_MOST_BYTES = 256 << 20  # a million rows
_REMEDY = "move it away, and the run goes on with a new one"


def read_metrics(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl: {"step": int, "split": str}, and numbers or None.

    A last line that a crash cut off is left out, and so are lines that are no such rows, with a
    warning.

    Raises:
      DataError: if it is no file, cannot be read, or is larger than 256 MiB.
    """
    return _rows(pathlib.Path(workdir) / METRICS_FILE)[0]


def rows_to_keep(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """`read_metrics` for a run that writes its file anew; a damaged one is copied to
    metrics.jsonl.damaged first."""
    path = workdir / METRICS_FILE
    rows, problem = _rows(path)
    if problem:
        shutil.copyfile(path, path.with_name(f"{METRICS_FILE}.damaged"))
    return rows


def _rows(path: pathlib.Path) -> tuple[list[dict[str, Any]], str]:
    """`read_log` with a warning of what is damaged."""
    rows, problem = read_log(path)
    if problem and is_first():
        warnings.warn(problem, stacklevel=3)
    return rows, problem


def read_log(path: pathlib.Path) -> tuple[list[dict[str, Any]], str]:
    """The rows of a log, none without the file, and which lines are no rows; "" if all are, but for
    a last one that a crash cut off.

    Raises:
      DataError: as `read_metrics`.
    """
    if not path.exists():
        return [], ""
    rows, problems = [], []
    # After a crash a file system may have zeros where the last line was to be.
    lines = read_bytes(path, _REMEDY, _MOST_BYTES).rstrip(b"\0").split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            need_form(row, {"step": int, "split": str}, "it")
            more = {name: value for name, value in row.items() if name not in ("step", "split")}
            need_form(more, {str: (int, float, type(None))}, "it")
            rows.append(row)
        except ValueError as error:
            if number < len(lines):
                problems.append(f"line {number}: {error}")
    if not problems:
        return rows, ""
    found = f"{len(problems)} of {len(lines)} lines are no rows of a log and left out"
    return rows, f"{path}: {found} ({problems[0]})"
