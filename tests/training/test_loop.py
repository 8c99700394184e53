"""The loop: a stopped run continues as if nothing had happened, and a broken one says so."""

import dataclasses
import functools
import io
import itertools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.console import Console
from segjax.training import loop
from segjax.training.checkpoint import CheckpointStore
from segjax.training.interruption import Interrupted
from segjax.training.metrics_file import read_metrics
from segjax.training.setup import Setup, setup_run
from tests.conftest import make_tiny_config
from tests.training.runs import eventful_config, left_by

pytestmark = pytest.mark.usefixtures("toy")


def run(config, workdir, setup=None):
    workdir.mkdir(exist_ok=True)
    console = Console(file=io.StringIO(), width=120)
    run_state = loop.train(setup or setup_run(config), workdir, console)
    return run_state, console.file.getvalue()


def stepping(setup: Setup, **methods) -> Setup:
    """The same run with other steps: `train_step` or `eval_step`, each made of the real one."""
    steps = {name: make(getattr(setup, name)()) for name, make in methods.items()}
    other = dataclasses.replace(setup)
    replaced = {name: lambda self, step=step: step for name, step in steps.items()}
    object.__setattr__(other, "__class__", type("Other", (type(setup),), replaced))
    return other


def acting_at(setup: Setup, step: int, act) -> Setup:
    """The same run, in which `act()` is called before step `step` + 1."""

    def make(real):
        def train_step(state, batch):
            if int(state.step) == step:
                act()
            return real(state, batch)

        return train_step

    return stepping(setup, train_step=make)


class Killed(Exception):
    """Stands for the end of the process."""


def die(*_):
    raise Killed


@pytest.fixture(scope="module")
def complete(tmp_path_factory, toy):
    """What a run of 6 steps has left that was never stopped."""
    workdir = tmp_path_factory.mktemp("complete")
    run(eventful_config("toy"), workdir)
    left = left_by(workdir, 6, eventful_config("toy"))
    assert int(left.state.step) == 6
    assert (left.steps("train"), left.steps("val")) == ([1, 2, 3, 4, 5, 6], [3, 6])
    assert all(0 < row["miou"] < 1 for row in left.rows)
    return left


@pytest.mark.parametrize("died_at", [pytest.param(3, marks=pytest.mark.slow), 5])
def test_resume_is_bit_equal(complete, tmp_path, died_at):
    """A kill after step 5 repeats the steps after the last checkpoint, which is of step 3. Each
    evaluation comes once; a finished run does nothing more."""
    config, evaluated = eventful_config("toy"), []

    def counting(real):
        return lambda *arguments: evaluated.append(1) or real(*arguments)

    setup = stepping(setup_run(config), eval_step=counting)
    with pytest.raises(Killed):
        run(config, tmp_path, acting_at(setup, died_at, die))
    before = len(evaluated)
    run_state, printed = run(config, tmp_path, setup)
    assert "resumed at step 3 of 6" in printed
    left_by(tmp_path, 6, config).assert_equals(complete)
    again, printed = run(config, tmp_path, setup)
    assert "resumed at step 6 of 6" in printed
    assert (again.best_miou, again.best_step) == (run_state.best_miou, run_state.best_step)
    assert len(evaluated) == 2 * before


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow)])
def test_a_signal_saves_after_the_step_and_the_resume_is_bit_equal(complete, tmp_path, name):
    config = eventful_config("toy")
    ask = functools.partial(os.kill, os.getpid(), signal.Signals[name])
    with pytest.raises(Interrupted, match=rf"{name}: saved at step 4 of 6"):
        run(config, tmp_path, acting_at(setup_run(config), 3, ask))
    _, printed = run(config, tmp_path)
    assert "resumed at step 4 of 6" in printed
    left_by(tmp_path, 6, config).assert_equals(complete)


def test_a_signal_during_evaluation_puts_it_off_to_the_resume(complete, tmp_path):
    config = eventful_config("toy")

    def make(real):
        batches = itertools.count()

        def eval_step(variables, batch):
            if next(batches) >= 2:  # the first two compile the program at the start
                os.kill(os.getpid(), signal.SIGTERM)
            return real(variables, batch)

        return eval_step

    with pytest.raises(Interrupted, match="SIGTERM: saved at step 3 of 6"):
        run(config, tmp_path, stepping(setup_run(config), eval_step=make))
    assert not [row for row in read_metrics(tmp_path) if row["split"] == "val"]
    run(config, tmp_path)
    left_by(tmp_path, 6, config).assert_equals(complete)


def test_a_kill_between_best_and_latest_loses_neither(complete, tmp_path, monkeypatch):
    """The best checkpoint of step 3 is written, the latest is not: the run begins anew."""
    config = eventful_config("toy")
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", die)
        with pytest.raises(Killed):
            run(config, tmp_path)
    with CheckpointStore(tmp_path, read_only=True) as store:
        assert (store.best_step(), store.latest_step()) == (3, None)
    run(config, tmp_path)
    left_by(tmp_path, 6, config).assert_equals(complete)


def assert_variables_alone_are_the_states(workdir, state):
    """What evaluation reads; the running average if there is one."""
    with CheckpointStore(workdir, read_only=True) as store:
        variables = store.restore_variables(int(state.step))
    jax.tree.map(np.testing.assert_array_equal, variables, state.eval_variables())


def test_a_split_on_the_device_gives_the_same_run(complete, tmp_path):
    config = eventful_config("toy")
    config.data.on_device = True
    run(config, tmp_path)
    left_by(tmp_path, 6, config).assert_equals(complete)
    assert complete.state.ema is not None
    assert_variables_alone_are_the_states(tmp_path, complete.state)


def bad_at(config, step: int, above: float = 0.0, name: str = "loss") -> Setup:
    """A run whose loss is NaN at a step while the learning rate's factor is more than `above`."""

    def make(real):
        def train_step(state, batch):
            bad = (state.step == step - 1) & (state.lr_scale > above)
            state, metrics = real(state, batch)
            metrics[name] = jnp.where(bad, jnp.nan, metrics[name])
            if config.train.on_nonfinite == "skip":
                metrics["skipped"] = jnp.where(bad, 1.0, 0.0)
            return state, metrics

        return train_step

    return stepping(setup_run(config), train_step=make)


def nonfinite_config(action):
    config = make_tiny_config("toy")
    config.train.on_nonfinite, config.optim.schedule = action, "constant"
    return config


def train_rows(workdir, key):
    return [row.get(key) for row in read_metrics(workdir) if row["split"] == "train"]


def test_non_finite_loss_stops_and_keeps_the_checkpoints(tmp_path):
    config = nonfinite_config("stop")
    with pytest.raises(loop.NonFiniteLoss, match="loss of step 5 is nan"):
        run(config, tmp_path, bad_at(config, 5))
    with CheckpointStore(tmp_path, read_only=True) as store:
        assert store.steps() == [3]


def test_a_rollback_goes_on_from_the_last_checkpoint_at_a_lower_rate(tmp_path):
    config = nonfinite_config("rollback")
    run_state, printed = run(config, tmp_path, bad_at(config, 5, above=0.3, name="grad_norm"))
    assert "gradient's norm of step 5 is nan" in printed
    assert "back to step 3, learning rate times 0.5" in printed
    assert "back to step 3, learning rate times 0.25" in printed
    assert train_rows(tmp_path, "step") == [1, 2, 3, 4, 5, 6]
    rate = config.optim.learning_rate
    expected = [rate] * 3 + [rate / 4] * 3
    assert train_rows(tmp_path, "learning_rate") == pytest.approx(expected)
    assert run_state.lr_scale == 0.25


@pytest.mark.slow
def test_rollbacks_before_the_first_checkpoint_begin_anew_and_give_up_in_the_end(tmp_path):
    config = nonfinite_config("rollback")
    _, printed = run(config, tmp_path / "once", bad_at(config, 2, above=0.5))
    assert "back to step 0, learning rate times 0.5" in printed
    with pytest.raises(loop.NonFiniteLoss, match="loss of step 1 is nan"):
        run(config, tmp_path / "always", bad_at(config, 1))


@pytest.mark.slow
def test_skipped_steps_are_counted(tmp_path):
    config = nonfinite_config("skip")
    run_state, _ = run(config, tmp_path, bad_at(config, 2))
    assert run_state.skipped_steps == 1
    assert [loss is None for loss in train_rows(tmp_path, "loss")] == [False, True] + [False] * 4
    assert train_rows(tmp_path, "skipped_steps") == [None] + [1.0] * 5


def test_a_standstill_lowers_the_rate_then_stops_and_stays_so(tmp_path):
    """A learning rate of nearly nothing never improves: the first of 4 evaluations stays the best,
    the second lowers the rate, the third stops the run."""
    config = make_tiny_config("toy")
    config.train.steps = 12
    config.train.early_stop_patience = 2
    config.optim.plateau_patience = 1
    config.optim.schedule = "constant"
    config.optim.learning_rate = 1e-30
    config.model.momentum = 1.0  # frozen statistics: evaluations are equal
    run_state, _ = run(config, tmp_path)
    assert run_state.stopped == "no better val mIoU in 2 evaluations"
    expected = [1e-30] * 6 + [0.2e-30] * 3
    assert train_rows(tmp_path, "learning_rate") == pytest.approx(expected)
    again, _ = run(config, tmp_path)
    assert again.stopped
    state = left_by(tmp_path, 9, config).state  # the last step
    assert state.ema is None
    assert_variables_alone_are_the_states(tmp_path, state)
