"""The record of a run: metrics.jsonl, and the writers that show it to others."""

import json
import math
import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from segjax.data.files.atomic import append, replacing
from segjax.terminal import one_line
from segjax.training.distributed import is_first
from segjax.training.metrics_file import METRICS_FILE, rows_to_keep
from segjax.training.tracking.followers import Followers


class MetricsWriter:
    """Appends rows to metrics.jsonl, and passes scalars and pictures on to `followers`.

    A killed run may have written rows beyond its last checkpoint. Training rows after `start_step`
    and evaluations after the step `evaluated` are removed, so that the record of a resumed run is
    that of an uninterrupted one; each writer says what it does. Only process 0 writes.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        start_step: int = 0,
        evaluated: int | None = None,
        followers: Followers | None = None,
    ):
        self._writes, self._followers = is_first(), followers
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
        if followers:
            followers.begin(start_step + 1, [(row["step"], _numbers(row)) for row in rows])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._writes:
            self._flush()
            self._file.close()

    def scalars(self, step: int, split: str, values: dict[str, float]) -> None:
        """Appends a row of step, split and values; NaN and infinity become null."""
        if not self._writes:
            return
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._waiting += json.dumps({"step": step, "split": split, **finite}).encode() + b"\n"
        self._flush()
        if self._followers:
            self._followers.scalars(step, _numbers({"split": split, **values}))

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
        """Passes a uint8 [h, w, 3] picture on."""
        if self._writes and self._followers:
            self._followers.picture(step, one_line(name), image)


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row by SPLIT/NAME; what is null in it is NaN."""
    return {
        f"{row['split']}/{name}": math.nan if value is None else value
        for name, value in row.items()
        if name not in ("step", "split")
    }
