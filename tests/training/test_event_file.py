"""TensorBoard events; tests/faults/test_waits.py has the disks that do not take them."""

import struct

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
