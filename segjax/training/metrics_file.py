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
    path = pathlib.Path(workdir) / METRICS_FILE
    return _read(path)[0] if path.exists() else []


def rows_to_keep(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """`read_metrics` for a run that writes its file anew; a damaged one is copied to
    metrics.jsonl.damaged first."""
    path = workdir / METRICS_FILE
    rows, intact = _read(path) if path.exists() else ([], True)
    if not intact:
        shutil.copyfile(path, path.with_name(f"{METRICS_FILE}.damaged"))
    return rows


def _read(path: pathlib.Path) -> tuple[list[dict[str, Any]], bool]:
    """The rows, and whether all lines but a last, cut one are rows."""
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
    if problems and is_first():
        warnings.warn(
            f"{path}: {len(problems)} of {len(lines)} lines are no rows of a log and left out "
            f"({problems[0]})",
            stacklevel=3,
        )
    return rows, not problems
