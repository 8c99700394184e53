"""The writers of a run, as threads; tests/faults/test_waits.py has disks that do not answer."""

import math
import threading

import numpy as np
import pytest

from segjax.training.interruption import Interrupted
from segjax.training.tracking import followers, writer
from segjax.training.tracking.followers import Followers
from segjax.training.writers import MetricsWriter
from tests.training.processes import wait_for
from tests.training.test_writers import rows_of

made = []


class Notes:
    """A writer that keeps what it is told, and fails at the step 13."""

    place = "in a list"

    def __init__(self, workdir, options):
        if options.get("fails"):
            raise RuntimeError("no server\nat all")
        self.calls, self.thread = [("options", options)], threading.current_thread()
        made.append(self)

    @staticmethod
    def check():
        """Nothing is missing."""

    def begin(self, step, earlier):
        self.calls.append(("begin", step, earlier))

    def scalars(self, step, values):
        if step == 13:
            raise ConnectionError("the server is gone")
        self.calls.append((step, values))

    def picture(self, step, name, image):
        self.calls.append((step, name, image.shape))

    def results(self, step, values):
        self.calls.append(("results", step, values))

    def close(self, end):
        self.calls.append(end)


@pytest.fixture(autouse=True)
def notes(monkeypatch):
    made.clear()
    monkeypatch.setattr(writer, "WRITERS", {"notes": f"{__name__}.Notes"})
    monkeypatch.setattr(followers, "writer_class", lambda name: Notes)
    return made


def test_a_writer_is_told_of_all_in_order_and_in_its_own_thread(tmp_path, notes):
    said = []
    with (
        Followers(["notes"], tmp_path, {"seed": 0}, said.append) as shown,
        MetricsWriter(tmp_path, followers=shown) as record,
    ):
        record.scalars(1, "train", {"loss": 0.5, "miou": math.nan})
        record.picture(1, "val/a\nb", np.zeros((2, 3, 3), np.uint8))
        shown.results(1, {"test/miou": 0.25})
    (told,) = notes
    values = told.calls.pop(2)[1]
    assert values["train/loss"] == 0.5
    assert math.isnan(values["train/miou"])
    assert told.calls == [
        ("options", {"seed": 0}),
        ("begin", 1, []),
        (1, "val/a\\nb", (2, 3, 3)),
        ("results", 1, {"test/miou": 0.25}),
        "finished",
    ]
    assert told.thread is not threading.current_thread()
    assert said == ["notes: in a list"]


def test_a_resumed_run_gives_the_rows_that_it_keeps(tmp_path, notes):
    with MetricsWriter(tmp_path) as record:
        for step in (1, 2, 3):
            record.scalars(step, "train", {"loss": 1 / step})
        record.scalars(2, "val", {"miou": math.nan})
    with (
        Followers(["notes"], tmp_path, {}) as shown,
        MetricsWriter(tmp_path, 2, followers=shown),
    ):
        pass
    (told,) = notes
    name, step, earlier = told.calls[1]
    assert (name, step) == ("begin", 3)
    assert earlier[:2] == [(1, {"train/loss": 1.0}), (2, {"train/loss": 0.5})]
    ((step, values),) = earlier[2:]
    assert step == 2
    assert math.isnan(values["val/miou"])


@pytest.mark.fault(
    "a writer of report.writers fails: its server is gone, its disk is full, it has a bug",
    "one warning; the run goes on without it",
)
@pytest.mark.parametrize(
    "options, words", [({"fails": 1}, "no server at all"), ({}, "the server is gone")]
)
def test_a_writer_that_fails_is_dropped_with_one_warning(tmp_path, notes, options, words):

    def run():
        with (
            Followers(["notes"], tmp_path, options) as shown,
            MetricsWriter(tmp_path, followers=shown) as record,
        ):
            record.scalars(13, "train", {"loss": 0.5})
            wait_for(lambda: not shown._all[0]._thread.is_alive())
            for step in range(14, 30):
                record.scalars(step, "train", {"loss": 0.5})

    with pytest.warns(UserWarning, match=r"report\.writers") as warned:
        run()
    (warning,) = warned
    text = f"report.writers: notes ends here ({words}); the run goes on without it"
    assert text in str(warning.message)
    assert [row["step"] for row in rows_of(tmp_path)] == [*range(13, 30)]
    assert not any("finished" in told.calls for told in notes)


@pytest.mark.parametrize(
    "error, end", [(Interrupted, "stopped"), (KeyboardInterrupt, "stopped"), (ValueError, "failed")]
)
def test_a_writer_is_told_how_the_run_ended(tmp_path, notes, error, end):
    with pytest.raises(error), Followers(["notes"], tmp_path, {}):
        raise error
    assert notes[0].calls[-1] == end


def test_a_writer_that_does_not_end_is_left_behind(tmp_path, monkeypatch, notes):
    released = threading.Event()
    monkeypatch.setattr(Notes, "close", lambda self, end: released.wait(20))
    monkeypatch.setattr(followers, "_GRACE_S", {"finished": 0.1})
    message = "notes ends here .it does not answer"
    with pytest.warns(UserWarning, match=message), Followers(["notes"], tmp_path, {}):
        pass
    released.set()
