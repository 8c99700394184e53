"""The benchmark of what surrounds the steps, on a toy; and what it makes of its numbers."""

import argparse

import pytest

from benchmarks.loop import __main__ as loop
from benchmarks.loop import evaluation, files, prediction, waits
from benchmarks.peers import machine
from tests.conftest import make_tiny_config


@pytest.fixture
def options(monkeypatch):
    def config_of(tiny, full=False):
        config = make_tiny_config()
        config.data.cache_mb = 0.0
        config.train.steps = 100
        return config

    for module in (files, evaluation, prediction, waits):
        monkeypatch.setattr(module, "config_of", config_of)
    monkeypatch.setattr(prediction, "_ROUNDS", 1)
    monkeypatch.setattr(evaluation, "_ROUNDS", 1)
    monkeypatch.setattr(evaluation, "MEASURES", ())
    return argparse.Namespace(tiny=True, full=False, steps=1, images=2, workers="0")


def test_waits(tmp_path, options):
    rows = waits.measure(tmp_path, options)
    assert [row["data"] for row in rows] == ["PNG", "JPEG", "prepared"]
    assert all(0 <= row["device waits"] < 1 and row["seconds a step"] > 0 for row in rows)
    text = loop.table(rows)
    assert text.startswith("| data | workers | seconds a step |")
    assert len(text.splitlines()) == 5


def test_evaluation_and_prediction(tmp_path, options):
    first, *others = evaluation.measure(tmp_path, options)
    assert (first["pass"], first["ratio"]) == ("network and argmax", 1)
    assert all(row["seconds an image"] > 0 for row in others)
    (png, jpeg) = prediction.measure(tmp_path, options)
    assert (png["files"], jpeg["files"]) == ("PNG", "JPEG")
    assert png["the command"] > 0


def test_a_busy_machine_is_refused(monkeypatch):
    def busy():
        raise machine.BusyError("others use 2 cores")

    monkeypatch.setattr(machine, "check_free", busy)
    with pytest.raises(SystemExit, match="others use 2 cores"):
        loop.main(["evaluation"])
