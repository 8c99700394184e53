"""TensorBoard events, written without TensorFlow."""

import pathlib
import socket
import struct
import time
import uuid
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from segjax.data.files.atomic import append
from segjax.training.tracking.writer import End, Rows

FOLDER = "tensorboard"  # in the workdir


class EventFile:
    """A `Writer` of TensorBoard events into WORKDIR/tensorboard.

    A run that is resumed, or goes back to a checkpoint, begins a new file; TensorBoard then hides
    what earlier files hold from that step on, so no step is shown twice. The first file of a run
    that has trained without this writer has all earlier numbers. The options of a run are shown as
    text, and its results as scalars named results/SPLIT/NAME.
    """

    place = ""

    def __init__(self, workdir: pathlib.Path, options: Mapping[str, Any]):
        self._folder, self._options = workdir / FOLDER, options
        self._file: BinaryIO | None = None

    @staticmethod
    def check() -> None:
        """Nothing is missing: what it needs, segjax needs."""

    def begin(self, step: int, earlier: Rows) -> None:
        """Begins a new file. Raises OSError, as all methods, if the disk refuses."""
        self.close("finished")
        missing = () if any(self._folder.glob("events.*")) else earlier
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{uuid.uuid4().hex}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = (self._folder / name).open("xb", buffering=0)
        self._add(file_version="brain.Event:2")
        self._add(step=step, session_log=SessionLog(status=SessionLog.START))
        if self._options:
            rows = (f"| {name} | {value} |" for name, value in self._options.items())
            text = "\n".join(("| option | value |", "|---|---|", *rows))
            self._add(step=step, summary=summary.text("options", text))
        for earlier_step, values in missing:
            self.scalars(earlier_step, values)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, as one event."""
        parts = [summary.scalar(name, value).value for name, value in values.items()]
        self._add(step=step, summary=Summary(value=[value for part in parts for value in part]))

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """A uint8 [h, w, 3] picture."""
        self._add(step=step, summary=summary.image(name, image, dataformats="HWC"))

    def results(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers at the end of a run, as one event."""
        self.scalars(step, {f"results/{name}": value for name, value in values.items()})

    def close(self, end: End) -> None:
        """Closes the file; an end leaves no mark in it."""
        if self._file:
            self._file.close()

    def _add(self, **parts: Any) -> None:
        assert self._file, "begin comes first"
        append(self._file, _record(Event(wall_time=time.time(), **parts).SerializeToString()))


def _record(data: bytes) -> bytes:
    """A record of TFRecord: length and data, each with its checksum."""
    size = struct.pack("<Q", len(data))
    sums = (struct.pack("<I", masked_crc32c(part)) for part in (size, data))
    return b"".join((size, next(sums), data, next(sums)))
