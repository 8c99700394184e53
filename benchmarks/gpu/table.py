"""A published table, by `--mode=reproduce`, in the time that there is for it."""

import pathlib
import shutil
import time
from typing import Any

from benchmarks.gpu.launch import launch

MARGIN_SECONDS = 45  # at most, to save and to write in the end
PAGE = "table.md"
INTERRUPTED = 75  # the exit code of a command that is to be started again


def run(
    folder: pathlib.Path, seconds: float, table: str, scale: str, data_dir: str, out: str
) -> dict[str, Any]:
    workdir, began = folder / "table", time.monotonic()
    budget = seconds - min(MARGIN_SECONDS, seconds / 4)
    flags = (f"--table={table}", f"--scale={scale}", f"--data_dir={data_dir}")
    where = (f"--workdir={workdir}", f"--budget={budget / 60:.2f}")
    try:
        code = launch("--mode=reproduce", *flags, *where, codes=(0, INTERRUPTED))
    finally:  # it is written after every row
        if (page := workdir / PAGE).exists():
            shutil.copy(page, pathlib.Path(out) / f"table_{PAGE}")
    # Its budget ends it with code 0 too.
    goes_on = code == INTERRUPTED or time.monotonic() - began >= budget
    text = f"{'stopped in time' if goes_on else 'complete'}; see table_{PAGE}"
    return {"good": None, "text": text, "goes_on": goes_on}
