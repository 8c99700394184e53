"""What a run writes down, and what it prints."""

import errno
import io
import json
import math
import shutil

import numpy as np
import pytest

from segjax.console import Console
from segjax.data.files.atomic import append
from segjax.training import progress, writers
from segjax.training.metrics_file import METRICS_FILE, read_metrics
from segjax.training.progress import ProgressBar, duration
from segjax.training.tracking.followers import Followers
from segjax.training.writers import MetricsWriter


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / METRICS_FILE).read_text().splitlines()]


def write(workdir, steps, start_step=0):
    with MetricsWriter(workdir, start_step) as writer:
        for step in steps:
            writer.scalars(step, "train", {"loss": 1 / step})


def test_rows_are_there_as_soon_as_they_are_written(tmp_path):
    """What is not finite is null."""
    assert read_metrics(tmp_path) == []
    with MetricsWriter(tmp_path) as writer:
        writer.scalars(20, "train", {"loss": 0.5, "accuracy": 2})
        writer.scalars(20, "val", {"miou": math.nan, "loss": math.inf})
        rows = rows_of(tmp_path)
    assert rows == [
        {"step": 20, "split": "train", "loss": 0.5, "accuracy": 2},
        {"step": 20, "split": "val", "miou": None, "loss": None},
    ]
    assert read_metrics(tmp_path) == read_metrics(str(tmp_path)) == rows


@pytest.mark.parametrize(
    "start_step, cut_off, steps",
    [
        (20, "", [10, 20, 40]),  # a resumed run drops the rows after its checkpoint
        (20, '{"step": 20, "split": "tra', [10, 20, 40]),  # a crash cut a line off
        (0, "", [40]),  # a new run starts an empty record
    ],
)
def test_a_record_goes_on_after_the_checkpoint(tmp_path, start_step, cut_off, steps):
    write(tmp_path, [10, 20, 30])
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write(cut_off)
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20, 30]
    write(tmp_path, [40], start_step)
    assert [row["step"] for row in rows_of(tmp_path)] == steps


@pytest.mark.versions
def test_tensorboard_events_hold_scalars_and_pictures(tmp_path):
    with (
        Followers(["tensorboard"], tmp_path, {"seed": 0}) as followers,
        MetricsWriter(tmp_path, followers=followers) as writer,
    ):
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


LINE = "loss 1.234  lr 0.0091  12.3 img/s"


@pytest.fixture
def console(monkeypatch):
    """A console that is no terminal, with 2 s between two readings of the clock."""
    clock = iter(range(0, 10_000, 2))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    return Console(file=io.StringIO(), width=40)


def bar_on(console):
    return ProgressBar(console, total=720, start=0, line_every=20)


def test_lines_on_a_console_that_is_no_terminal(console):
    """They are longer than it is wide."""
    with bar_on(console) as bar:
        for step in range(1, 41):
            bar.update(step, METRICS)
            if step == 30:
                bar.validated(30, 0.51234, 0.4567, True)
        bar.validated(40, math.nan, math.nan, False)
    assert console.file.getvalue().splitlines() == [
        f"step 1/720  {LINE}  left -  best val mIoU -",
        f"step 20/720  {LINE}  left 23 m 20 s  best val mIoU -",
        "step 30  val mIoU 0.5123  val loss 0.457  best so far",
        f"step 40/720  {LINE}  left 22 m 40 s  best val mIoU 0.5123",
        "step 40  val mIoU nan  val loss nan",
    ]


def test_a_resumed_run_measures_its_own_steps_only(console):
    with ProgressBar(console, total=720, start=500, line_every=20, best=0.61) as bar:
        for step in (501, 502, 520):
            bar.update(step, METRICS)
    # The first update starts the clock; 4 s for 19 steps leave 200 of them 42 s.
    assert "left 42 s  best val mIoU 0.6100" in console.file.getvalue().splitlines()[-1]


def test_the_bar_on_a_terminal_shows_the_same(console):
    terminal = Console(file=console.file, width=120, force_terminal=True, color_system=None)
    with bar_on(terminal) as bar:
        bar.update(1, METRICS)
        bar.update(2, METRICS)
    text = terminal.file.getvalue()
    assert LINE in text
    assert "2/720" in text
    assert "step 1/720" not in text


@pytest.fixture
def disk(monkeypatch):
    """The error with which the disk refuses to write, None for none."""
    refuses = [OSError(errno.ENOSPC, "No space left on device")]

    def on_disk(file, data):
        if refuses[0]:
            raise refuses[0]
        append(file, data)

    monkeypatch.setattr(writers, "append", on_disk)
    return refuses


def test_a_full_disk_is_said_once_and_the_rows_wait(tmp_path, disk):
    with MetricsWriter(tmp_path) as writer:
        with pytest.warns(UserWarning, match="metrics.jsonl: No space left"):
            writer.scalars(1, "train", {"loss": 0.5})
        for step in range(2, 1000):  # without another word: warnings are errors here
            writer.scalars(step, "train", {"loss": 0.5})
        disk[0] = None
        writer.scalars(1000, "train", {"loss": 0.5})
    assert [row["step"] for row in rows_of(tmp_path)] == [*range(1, 1001)]


def test_a_record_that_is_removed_begins_anew_once_its_folder_is_back(tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    with MetricsWriter(workdir) as writer:
        writer.scalars(1, "train", {"loss": 0.5})
        shutil.rmtree(workdir)
        with pytest.warns(UserWarning, match="metrics.jsonl was removed, with its rows"):
            writer.scalars(2, "train", {"loss": 0.5})
        writer.scalars(3, "train", {"loss": 0.5})
        workdir.mkdir()
        writer.scalars(4, "train", {"loss": 0.5})
    assert [row["step"] for row in rows_of(workdir)] == [2, 3, 4]
