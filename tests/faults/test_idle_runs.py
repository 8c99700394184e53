"""A run that does no work does not end as if it had."""

import math

import numpy as np
import pytest
from PIL import Image

from segjax.data.splits import Splits
from segjax.report.provenance import save_run, save_skipped_steps
from segjax.training.metrics_log import MetricsLogger, NonFiniteLoss, NothingLearned
from segjax.training.run_record import load_record
from segjax.training.run_state import RunState
from segjax.training.setup import setup_run
from tests.data.drawn import pairs


class Nowhere:
    """Takes the place of what shows or writes metrics."""

    def __getattr__(self, name):
        return lambda *_, **__: None


def logger(run_state):
    return MetricsLogger(Nowhere(), Nowhere(), run_state, batch_size=2, log_every=1, epoch_images=8)


def steps(log, first, count, skipped=False, pixels=9):
    for step in range(first, first + count):
        log.add(
            step,
            {
                "confusion": np.full((1, 1), pixels),
                "skipped": float(skipped),
                "loss": math.nan if skipped else 1.0,
                "grad_norm": 1.0,
                "accuracy": 0.5,
                "learning_rate": 0.1,
            },
        )
    log.flush()


@pytest.mark.fault(
    "every step between two evaluations is skipped (train.on_nonfinite=skip), or of the whole run",
    "the run ends with an error; its checkpoints stay",
)
def test_a_run_whose_steps_are_all_skipped_ends():
    log = logger(RunState())
    steps(log, 1, 12, skipped=True)
    with pytest.raises(NothingLearned, match="all of the last 12 steps, to step 12, were skipped"):
        log.end_interval(12, 100)
    log = logger(RunState())  # evaluated after each step: ten of them
    for step in range(1, 10):
        steps(log, step, 1, skipped=True)
        assert log.end_interval(step, 100) == ""
    steps(log, 10, 1, skipped=True)
    with pytest.raises(NothingLearned, match="all of the last 10 steps, to step 10"):
        log.end_interval(10, 100)
    log = logger(RunState())  # a short run
    steps(log, 1, 4, skipped=True)
    with pytest.raises(NothingLearned, match="all of the last 4 steps, to step 4"):
        log.end_interval(4, 4)
    assert not issubclass(NothingLearned, NonFiniteLoss)  # no rollback


def test_some_skipped_steps_are_borne():
    log = logger(RunState())
    steps(log, 1, 1)
    steps(log, 2, 30, skipped=True)
    assert log.end_interval(31, 100) == ""
    steps(log, 32, 3, skipped=True)
    steps(log, 35, 1)
    assert log.end_interval(35, 35) == ""


@pytest.mark.fault(
    "all masks become void while a run trains",
    "a warning at the next evaluation, for the training split and for the val split",
)
def test_steps_without_labels_are_said():
    log = logger(RunState())
    steps(log, 1, 3, pixels=0)
    assert log.end_interval(3, 100).startswith("warning: none of the 3 steps to step 3 saw a label")
    steps(log, 4, 2, pixels=0)
    steps(log, 6, 1)
    assert log.end_interval(6, 100) == ""
    assert log.end_interval(6, 100) == ""  # no step


def test_nan_is_never_the_best():
    options = {"plateau_patience": 0}, {"early_stop_patience": 0}
    run_state = RunState()
    run_state.update(3, math.nan, options[1], options[0])
    assert (run_state.best_step, run_state.best_miou, run_state.evaluated) == (-1, -1.0, 3)
    run_state.update(6, 0.0, options[1], options[0])
    run_state.update(9, math.nan, options[1], options[0])
    assert (run_state.best_step, run_state.best_miou, run_state.evaluated) == (6, 0.0, 9)


@pytest.fixture
def folder(tiny_config, tmp_path):
    """A config of a folder data set whose val masks are void."""
    pairs(tmp_path, "abc", size=(40, 50), ids=np.tile([0, 1], (40, 25)))
    pairs(tmp_path, "uv", "val", size=(40, 50), ids=255)
    tiny_config.data.update(name="folder", root=str(tmp_path), classes="road,car,sky")
    return tiny_config


@pytest.mark.fault(
    "no pixel of the training split, or of the val split, has a label",
    "an error before anything is compiled",
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_labels_is_refused(folder, tmp_path, split):
    for other, ids in {"train": [0, 1], "val": [0, 1], split: [255, 255]}.items():
        for path in (tmp_path / "masks" / other).iterdir():
            Image.fromarray(np.tile(np.uint8(ids), (40, 25))).save(path)
    with pytest.raises(ValueError, match=f"{split}: no pixel has a class: .* are ignored"):
        setup_run(folder)


@pytest.mark.fault(
    "an evaluation is asked of a split without a labelled pixel",
    "an error before anything is compiled",
)
def test_an_evaluation_without_labels_is_refused(folder):
    splits = Splits(folder.data, folder.seed)
    splits.check_labels("train")
    with pytest.raises(ValueError, match="split 'val': no pixel has a label, so there is nothing"):
        splits.check_labels("val")


@pytest.mark.fault("a split of a data set has no images", "an error that names the split")
def test_an_empty_split_is_refused(folder, tmp_path):
    for path in (tmp_path / "images" / "val").iterdir():
        path.unlink()
    for path in (tmp_path / "masks" / "val").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="split 'val'"):
        setup_run(folder)


@pytest.mark.fault(
    "a run has no steps and no weights to start from", "an error that names both options"
)
def test_a_run_of_no_steps_needs_weights(tiny_config):
    tiny_config.train.steps = 0
    with pytest.raises(ValueError, match=r"train\.steps=0 and train\.epochs=0; set one of them"):
        setup_run(tiny_config)


@pytest.mark.fault(
    "some steps of a run were skipped",
    "a warning at the end, in run.json and in the report",
)
def test_skipped_steps_are_on_record(tiny_config, tmp_path):
    save_run(tmp_path, None, tiny_config, Splits(tiny_config.data))
    text = save_skipped_steps(tmp_path, 3, 1200)
    assert text.startswith("3 of 1,200 steps were skipped")
    assert load_record(tmp_path)["skipped_steps"] == text
