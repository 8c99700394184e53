"""The record of a run: metrics.jsonl and TensorBoard events."""

import contextlib
import json
import math
import pathlib
import warnings
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

from segjax.data.files.atomic import replacing
from segjax.terminal import one_line
from segjax.training.distributed import is_first

METRICS_FILE = "metrics.jsonl"


def read_metrics(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl; a line cut off by a crash is left out."""
    path = pathlib.Path(workdir) / METRICS_FILE
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


class MetricsWriter:
    """Appends rows to metrics.jsonl, and scalars and pictures to TensorBoard events.

    A killed run may have written rows beyond its last checkpoint. Training rows after `start_step`
    and evaluations after the step `evaluated` are removed, so that the record of a resumed run is
    that of an uninterrupted one. Only process 0 writes.
    """

    def __init__(self, workdir: pathlib.Path, start_step: int = 0, evaluated: int | None = None):
        self._writes = is_first()
        if not self._writes:
            return
        last = {"val": start_step if evaluated is None else evaluated}
        rows = [
            row
            for row in read_metrics(workdir)
            if row["step"] <= last.get(row["split"], start_step)
        ]
        path = workdir / METRICS_FILE
        with replacing(path) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self._file, self._warned = path.open("a"), False
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=start_step + 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._writes:
            self._flush()
            with contextlib.suppress(OSError):  # there was a warning
                self._file.close()
            self._events.close()

    def scalars(self, step: int, split: str, values: dict[str, float]) -> None:
        """Appends a row of step, split and values; NaN and infinity become null."""
        if not self._writes:
            return
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._file.write(json.dumps({"step": step, "split": split, **finite}) + "\n")
        self._flush()
        for name, value in values.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def _flush(self) -> None:
        """Writes the rows out. On a full disk the run goes on, and they stay in the buffer."""
        try:
            self._file.flush()
            self._warned = False
        except OSError as error:
            if not self._warned:
                warnings.warn(f"{self._file.name}: {error.strerror}; rows wait", stacklevel=3)
            self._warned = True

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Adds a uint8 [h, w, 3] picture to the TensorBoard events."""
        if self._writes:
            self._events.add_image(one_line(name), image, step, dataformats="HWC")
