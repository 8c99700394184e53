"""What a run writes down, and what it prints."""

import errno
import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from segjax.training import progress
from segjax.training.progress import ProgressBar, duration
from segjax.training.writers import METRICS_FILE, MetricsWriter, read_metrics


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / METRICS_FILE).read_text().splitlines()]


def write(workdir, steps, start_step=0):
    with MetricsWriter(workdir, start_step) as writer:
        for step in steps:
            writer.scalars(step, "train", {"loss": 1 / step})


def test_rows_are_there_as_soon_as_they_are_written(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.scalars(20, "train", {"loss": 0.5, "accuracy": 0.75})
        writer.scalars(20, "val", {"miou": 0.25})
        assert rows_of(tmp_path) == [
            {"step": 20, "split": "train", "loss": 0.5, "accuracy": 0.75},
            {"step": 20, "split": "val", "miou": 0.25},
        ]
    assert read_metrics(tmp_path) == read_metrics(str(tmp_path)) == rows_of(tmp_path)


def test_a_resumed_run_drops_the_rows_after_its_checkpoint(tmp_path):
    write(tmp_path, [10, 20, 30])
    write(tmp_path, [30, 40], start_step=20)
    assert [row["step"] for row in rows_of(tmp_path)] == [10, 20, 30, 40]


def test_a_new_run_starts_an_empty_record(tmp_path):
    write(tmp_path, [10, 20])
    write(tmp_path, [5])
    assert [row["step"] for row in rows_of(tmp_path)] == [5]


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path):
    write(tmp_path, [10, 20])
    path = tmp_path / METRICS_FILE
    path.write_text(path.read_text() + '{"step": 30, "split": "tra')
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20]
    write(tmp_path, [30], start_step=20)
    assert [row["step"] for row in rows_of(tmp_path)] == [10, 20, 30]


def test_no_record_is_no_rows(tmp_path):
    assert read_metrics(tmp_path) == []


def test_what_is_not_finite_is_null(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.scalars(1, "val", {"a": math.nan, "b": math.inf, "c": 0.5, "d": 2})
    assert rows_of(tmp_path) == [
        {"step": 1, "split": "val", "a": None, "b": None, "c": 0.5, "d": 2}
    ]


@pytest.mark.versions
def test_tensorboard_events_hold_scalars_and_pictures(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.scalars(3, "train", {"loss": 0.5})
        writer.picture(3, "samples", np.zeros((4, 6, 3), np.uint8))
    (events,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    content = events.read_bytes()
    assert b"train/loss" in content
    assert b"samples" in content
    assert b"\x89PNG" in content


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.7, "1 m 00 s"),
        (123, "2 m 03 s"),
        (3599.6, "1 h 00 m"),
        (3723, "1 h 02 m"),
        (36000, "10 h 00 m"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text
    assert duration(math.nan) == duration(math.inf) == "-"


METRICS = {"loss": 1.2345, "learning_rate": 0.00912, "images_per_second": 12.345}


def printed(monkeypatch, run, *, width=80):
    """The lines of `run(bar)` on a console that is no terminal, with 2 s between two readings."""
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    out = io.StringIO()
    with ProgressBar(Console(file=out, width=width), total=720, start=0, line_every=20) as bar:
        run(bar)
    return out.getvalue().splitlines()


def test_lines_on_a_console_that_is_no_terminal(monkeypatch):
    def run(bar):
        for step in range(1, 41):
            bar.update(step, METRICS)
            if step == 30:
                bar.validated(30, 0.51234, 0.4567, True)

    lines = printed(monkeypatch, run)
    assert lines == [
        "step 1/720  loss 1.234  lr 0.0091  12.3 img/s  left -  val mIoU -",
        "step 20/720  loss 1.234  lr 0.0091  12.3 img/s  left 23 m 20 s  val mIoU -",
        "step 30  val mIoU 0.5123  val loss 0.457  best so far",
        "step 40/720  loss 1.234  lr 0.0091  12.3 img/s  left 22 m 40 s  val mIoU 0.5123",
    ]


def test_long_lines_are_not_wrapped(monkeypatch):
    def run(bar):
        bar.update(700, METRICS | {"loss": math.nan})
        bar.validated(700, math.nan, math.nan, False)

    lines = printed(monkeypatch, run, width=40)
    assert lines == [
        "step 700/720  loss nan  lr 0.0091  12.3 img/s  left -  val mIoU -",
        "step 700  val mIoU nan  val loss nan",
    ]


def test_a_resumed_run_measures_its_own_steps_only(monkeypatch):
    def run(bar):
        for step in (501, 502, 520):
            bar.update(step, METRICS)

    # The first update starts the clock; 4 s for 19 steps leave 200 of them 42 s.
    assert "left 42 s" in printed(monkeypatch, run)[-1]


def test_the_bar_on_a_terminal_shows_the_same(monkeypatch):
    clock = iter(range(0, 10_000, 2))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True, color_system=None)
    with ProgressBar(console, total=720, start=0, line_every=20) as bar:
        bar.update(1, METRICS)
        bar.update(2, METRICS)
    text = out.getvalue()
    assert "loss 1.234" in text
    assert "2/720" in text
    assert "12.3 img/s" in text
    assert "step 1/720" not in text


class Disk(io.RawIOBase):
    """A file on a disk that may be full."""

    full, name = True, "metrics.jsonl"

    def __init__(self):
        self.written = b""

    def writable(self):
        return True

    def write(self, data):
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.written += bytes(data)
        return len(data)


def test_a_full_disk_is_said_once_and_the_rows_wait(tmp_path):
    disk = Disk()
    with MetricsWriter(tmp_path) as writer:
        writer._file.close()
        writer._file = io.TextIOWrapper(io.BufferedWriter(disk))
        with pytest.warns(UserWarning, match="metrics.jsonl: No space left"):
            writer.scalars(1, "train", {"loss": 0.5})
        for step in (2, 3):  # without another word: warnings are errors here
            writer.scalars(step, "train", {"loss": 0.5})
        disk.full = False
        writer.scalars(4, "train", {"loss": 0.5})
    rows = [json.loads(line) for line in disk.written.splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
