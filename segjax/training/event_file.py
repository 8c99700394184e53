"""TensorBoard events: an optional record that a run never waits for."""

import pathlib
import queue
import socket
import struct
import threading
import time
import uuid
import warnings

import numpy as np
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from segjax.data.files.atomic import append

_MOST = 1000  # events that may wait for the disk
_GRACE_S = 5.0  # for the last ones, at the end


class EventFile:
    """A new file of events, written by a thread of its own.

    If writing fails, or the disk does not answer, a warning says so once, and the events after that
    are dropped. tensorboardX's own writer lets the run wait for its thread, which may have died.

    Args:
      folder: made if it does not exist.
      step: TensorBoard hides what earlier files hold from this step on.
    """

    def __init__(self, folder: pathlib.Path, step: int):
        self._folder, self._problem, self._warned = folder, "", False
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._add(file_version="brain.Event:2")
        self._add(step=step, session_log=SessionLog(status=SessionLog.START))
        self._thread = threading.Thread(target=self._write, name="events", daemon=True)
        self._thread.start()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        parts = [summary.scalar(name, value).value for name, value in values.items()]
        self._add(step=step, summary=Summary(value=[value for part in parts for value in part]))

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Adds a uint8 [h, w, 3] picture."""
        self._add(step=step, summary=summary.image(name, image, dataformats="HWC"))

    def close(self) -> None:
        """Waits a few seconds for the events that are left."""
        self._events.put(None)
        self._thread.join(_GRACE_S)
        if self._thread.is_alive():
            self._problem = self._problem or "the disk does not answer"
        self._warn()

    def _add(self, **parts) -> None:
        if self._events.qsize() >= _MOST:
            self._problem = self._problem or "the disk does not answer"
        if self._problem:
            self._warn()
        else:
            self._events.put(Event(wall_time=time.time(), **parts))

    def _warn(self) -> None:
        if self._problem and not self._warned:
            self._warned = True
            warnings.warn(
                f"TensorBoard events end here, as {self._folder} cannot be written: "
                f"{self._problem}; the run goes on without them",
                stacklevel=4,
            )

    def _write(self) -> None:
        """The thread."""
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{uuid.uuid4().hex}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / name).open("xb", buffering=0) as file:
                while event := self._events.get():
                    append(file, _record(event.SerializeToString()))
        except Exception as error:  # the run goes on, whatever it is
            self._problem = getattr(error, "strerror", None) or repr(error)


def _record(data: bytes) -> bytes:
    """A record of TFRecord: length and data, each with its checksum."""
    size = struct.pack("<Q", len(data))
    sums = (struct.pack("<I", masked_crc32c(part)) for part in (size, data))
    return b"".join((size, next(sums), data, next(sums)))
