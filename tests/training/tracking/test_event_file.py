"""TensorBoard events; tests/faults/test_waits.py has the disks that do not take them."""

import struct

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from segjax.training.tracking import event_file
from segjax.training.tracking.event_file import EventFile


def events_in(folder):
    (path,) = folder.glob("events.out.tfevents.*")
    return events_of(path)


def events_of(path):
    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[12 + length + 4 :]
    return events


def test_events_are_those_that_tensorboard_reads(tmp_path):
    """A version, a start that hides later steps of earlier files, then values."""
    file = EventFile(tmp_path, {})
    file.begin(3, [])
    file.scalars(3, {"train/loss": 0.5, "train/miou": float("nan")})
    file.picture(4, "samples", np.zeros((4, 6, 3), np.uint8))
    file.results(3, {"test/miou": 0.25})
    file.close("finished")
    version, start, scalars, picture, results = events_in(tmp_path / "tensorboard")
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (3, 1)
    values = [(value.tag, value.simple_value) for value in scalars.summary.value]
    assert (scalars.step, values[0], values[1][0]) == (3, ("train/loss", 0.5), "train/miou")
    (value,) = picture.summary.value
    assert (picture.step, value.tag, value.image.height, value.image.width) == (4, "samples", 4, 6)
    (value,) = results.summary.value
    assert (results.step, value.tag, value.simple_value) == (3, "results/test/miou", 0.25)


def test_each_start_has_a_file_and_the_first_one_what_came_before(tmp_path):
    """Of a run that has trained without it."""
    earlier, folder = [(1, {"train/loss": 2.0}), (2, {"train/loss": 1.0})], tmp_path / "tensorboard"
    for step in (3, 2):
        file = EventFile(tmp_path, {"optim.name": "sgd"})
        file.begin(step, earlier)
        file.close("stopped")
    files = sorted(map(events_of, folder.iterdir()), key=len)
    assert [[event.step for event in events] for events in files] == [[0, 2, 2], [0, 3, 3, 1, 2]]
    (text,) = files[0][2].summary.value
    assert text.tag.startswith("options")
    assert b"| optim.name | sgd |" in text.tensor.string_val[0]


@pytest.mark.versions
def test_a_record_is_that_of_tensorboardx(tmp_path):
    from tensorboardX.record_writer import RecordWriter

    theirs = RecordWriter(str(tmp_path / "record"))
    theirs.write(b"an event")
    theirs.close()
    assert event_file._record(b"an event") == (tmp_path / "record").read_bytes()
