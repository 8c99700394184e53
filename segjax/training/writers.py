"""The record of a run: metrics.jsonl and TensorBoard events."""

import json
import math
import os
import pathlib
import warnings

import numpy as np

from segjax.data.files.atomic import append, replacing
from segjax.terminal import one_line
from segjax.training.distributed import is_first
from segjax.training.event_file import EventFile
from segjax.training.metrics_file import METRICS_FILE, rows_to_keep


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
            for row in rows_to_keep(workdir)
            if row["step"] <= last.get(row["split"], start_step)
        ]
        path = workdir / METRICS_FILE
        with replacing(path) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self._file, self._waiting, self._warned = path.open("ab", buffering=0), b"", False
        self._events = EventFile(workdir / "tensorboard", start_step + 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._writes:
            self._flush()
            self._file.close()
            self._events.close()

    def scalars(self, step: int, split: str, values: dict[str, float]) -> None:
        """Appends a row of step, split and values; NaN and infinity become null."""
        if not self._writes:
            return
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._waiting += json.dumps({"step": step, "split": split, **finite}).encode() + b"\n"
        self._flush()
        self._events.scalars(step, {f"{split}/{name}": v for name, v in values.items()})

    def _flush(self) -> None:
        """Writes the rows out. On a full disk, or without the folder, the run goes on and they
        wait."""
        path = self._file.name
        try:
            if not os.fstat(self._file.fileno()).st_nlink:
                self._warn(f"{path} was removed, with its rows; it begins anew")
                with open(path, "xb", buffering=0) as anew:
                    os.dup2(anew.fileno(), self._file.fileno())
            append(self._file, self._waiting)
            self._waiting, self._warned = b"", False
        except OSError as error:
            self._warn(f"{path}: {error.strerror}; rows wait")

    def _warn(self, text: str) -> None:
        if not self._warned:
            warnings.warn(text, stacklevel=4)
        self._warned = True

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Adds a uint8 [h, w, 3] picture to the TensorBoard events."""
        if self._writes:
            self._events.picture(step, one_line(name), image)
