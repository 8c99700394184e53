"""TensorBoard events, and disks that do not take them."""

import errno
import struct
import threading
import time

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from segjax.training import event_file
from segjax.training.event_file import EventFile


def events_in(folder):
    (path,) = folder.glob("events.out.tfevents.*")
    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[12 + length + 4 :]
    return events


def test_events_are_those_that_tensorboard_reads(tmp_path):
    """A version, a start that hides later steps of earlier files, then values."""
    file = EventFile(tmp_path / "events", 3)
    file.scalars(3, {"train/loss": 0.5, "train/miou": float("nan")})
    file.picture(4, "samples", np.zeros((4, 6, 3), np.uint8))
    file.close()
    version, start, scalars, picture = events_in(tmp_path / "events")
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (3, 1)
    values = [(value.tag, value.simple_value) for value in scalars.summary.value]
    assert (scalars.step, values[0], values[1][0]) == (3, ("train/loss", 0.5), "train/miou")
    (value,) = picture.summary.value
    assert (picture.step, value.tag, value.image.height, value.image.width) == (4, "samples", 4, 6)


@pytest.mark.versions
def test_a_record_is_that_of_tensorboardx(tmp_path):
    from tensorboardX.record_writer import RecordWriter

    theirs = RecordWriter(str(tmp_path / "record"))
    theirs.write(b"an event")
    theirs.close()
    assert event_file._record(b"an event") == (tmp_path / "record").read_bytes()


def test_a_disk_that_refuses_ends_the_events_with_one_warning(tmp_path, monkeypatch):
    def full(file, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(event_file, "append", full)
    file = EventFile(tmp_path, 0)
    file._thread.join(5)
    with pytest.warns(UserWarning, match="events end here.*: No space left on device; the run"):
        file.scalars(1, {"loss": 0.5})
    for step in range(10_000):  # without another word, and without waiting
        file.scalars(step, {"loss": 0.5})
    file.close()


def write_more(file):
    for step in range(100):
        file.scalars(step, {"loss": 0.5})


@pytest.mark.parametrize("why", ["hangs", "is dead"])
def test_a_thread_that_does_not_write_is_never_awaited(tmp_path, monkeypatch, why):
    released = threading.Event()
    if why == "is dead":  # as of an error that no one thought of
        monkeypatch.setattr(event_file.EventFile, "_write", lambda self: None)
    monkeypatch.setattr(event_file, "append", lambda file, data: released.wait())
    monkeypatch.setattr(event_file, "_MOST", 20)
    monkeypatch.setattr(event_file, "_GRACE_S", 0.1)
    file, began = EventFile(tmp_path, 0), time.monotonic()
    with pytest.warns(UserWarning, match="events end here.*: the disk does not answer"):
        write_more(file)
    file.close()
    assert time.monotonic() - began < 5
    released.set()


@pytest.mark.parametrize("now", [0.0, 1e11, -1e9])
def test_the_clock_does_not_matter(tmp_path, monkeypatch, now):
    monkeypatch.setattr(event_file.time, "time", lambda: now)
    file = EventFile(tmp_path, 0)
    file.scalars(1, {"loss": 0.5})
    file.close()
    assert [event.wall_time for event in events_in(tmp_path)] == [now] * 3
