"""The loop: a stopped run continues as if nothing had happened, and a broken one says so."""

import dataclasses
import io
import itertools
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from segjax.training import loop
from segjax.training.checkpoint import CheckpointStore
from segjax.training.interruption import Interrupted
from segjax.training.setup import Setup, setup_run
from segjax.training.writers import read_metrics
from tests.conftest import make_tiny_config


def run(config, workdir, setup=None):
    workdir.mkdir(exist_ok=True)
    console = Console(file=io.StringIO(), width=120)
    run_state = loop.train(setup or setup_run(config), workdir, console)
    return run_state, console.file.getvalue()


def saved(workdir, step, config):
    with CheckpointStore(workdir, read_only=True) as store:
        return store.restore(step, setup_run(config).abstract_state())


class Killed(Exception):
    """Stands for the process ending at a step."""


def stepping(setup: Setup, **methods) -> Setup:
    """The same run with other steps: `train_step` or `eval_step`, each made of the real one."""
    steps = {name: make(getattr(setup, name)()) for name, make in methods.items()}
    other = dataclasses.replace(setup)
    replaced = {name: lambda self, step=step: step for name, step in steps.items()}
    object.__setattr__(other, "__class__", type("Other", (type(setup),), replaced))
    return other


def killed_after(setup: Setup, steps: int) -> Setup:
    """The same run, whose process dies when it asks for step `steps` + 1."""

    def make(real):
        def train_step(state, batch):
            if int(state.step) == steps:
                raise Killed
            return real(state, batch)

        return train_step

    return stepping(setup, train_step=make)


def eventful_config():
    """A running average and a rate that falls, so that all of the state is in use."""
    config = make_tiny_config()
    config.train.ema_decay = 0.9
    config.optim.plateau_patience = 1
    return config


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 6 steps that was never stopped, and its run state."""
    workdir = tmp_path_factory.mktemp("whole")
    run_state, _ = run(eventful_config(), workdir)
    return workdir, run_state


@pytest.mark.parametrize("died_at", [pytest.param(3, marks=pytest.mark.slow), 5])
def test_resume_is_bit_equal(whole, tmp_path, died_at):
    """6 steps at once equal 3 or 5 steps, a kill, and the rest: every array of the state, the
    data position, the record. At 5 the steps after the last checkpoint (3) are done again."""
    config = eventful_config()
    with pytest.raises(Killed):
        run(config, tmp_path, killed_after(setup_run(config), died_at))
    _, printed = run(config, tmp_path)
    assert "resumed at step 3 of 6" in printed
    assert_same_run(whole[0], tmp_path)


def assert_same_run(whole, workdir):
    """Bit for bit: state, data position, run state and record; but for clocks."""
    config = eventful_config()
    wanted, wanted_host = saved(whole, 6, config)
    parts, parts_host = saved(workdir, 6, config)
    jax.tree.map(np.testing.assert_array_equal, wanted, parts)
    assert int(parts.step) == 6
    for host in (wanted_host, parts_host):
        host["run_state"].pop("seconds")
    assert wanted_host == parts_host

    clocks = ("images_per_second",)
    rows = [
        [{k: v for k, v in row.items() if k not in clocks} for row in read_metrics(folder)]
        for folder in (whole, workdir)
    ]
    assert rows[0] == rows[1]
    assert [row["step"] for row in rows[0] if row["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows[0] if row["split"] == "val"] == [3, 6]
    assert all(0 < row["miou"] < 1 for row in rows[0])
    with CheckpointStore(whole, read_only=True) as a, CheckpointStore(workdir, read_only=True) as b:
        assert a.best_step() == b.best_step()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_saves_after_the_step_and_the_resume_is_bit_equal(whole, tmp_path, number):
    config = eventful_config()

    def make(real):
        def train_step(state, batch):
            if int(state.step) == 3:
                os.kill(os.getpid(), number)
            return real(state, batch)

        return train_step

    with pytest.raises(Interrupted, match=rf"{number.name}: saved at step 4 of 6"):
        run(config, tmp_path, stepping(setup_run(config), train_step=make))
    _, printed = run(config, tmp_path)
    assert "resumed at step 4 of 6" in printed
    assert_same_run(whole[0], tmp_path)


def signal_at_evaluation(setup: Setup) -> Setup:
    """The same run, which is asked to stop in its first evaluation: after the two batches at the
    start that compile the program."""

    def make(real):
        batches = itertools.count()

        def eval_step(variables, batch):
            if next(batches) >= 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return real(variables, batch)

        return eval_step

    return stepping(setup, eval_step=make)


def test_a_signal_during_evaluation_puts_it_off_to_the_resume(whole, tmp_path):
    config = eventful_config()

    with pytest.raises(Interrupted, match="SIGTERM: saved at step 3 of 6"):
        run(config, tmp_path, signal_at_evaluation(setup_run(config)))
    assert not [row for row in read_metrics(tmp_path) if row["split"] == "val"]
    run(config, tmp_path)
    assert_same_run(whole[0], tmp_path)


def test_a_kill_between_best_and_latest_loses_neither(whole, tmp_path, monkeypatch):
    """The best checkpoint of step 3 is written, the latest is not: the run begins anew."""
    config = eventful_config()

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", die)
        with pytest.raises(Killed):
            run(config, tmp_path)
    with CheckpointStore(tmp_path, read_only=True) as store:
        assert (store.best_step(), store.latest_step()) == (3, None)
    run(config, tmp_path)
    assert_same_run(whole[0], tmp_path)


def test_each_step_is_evaluated_once(whole, tmp_path):
    """One evaluation before a kill, the other after the resume; none in a finished run."""
    config, batches = eventful_config(), []

    def make(real):
        return lambda *arguments: batches.append(1) or real(*arguments)

    with pytest.raises(Killed):
        run(config, tmp_path, killed_after(stepping(setup_run(config), eval_step=make), 5))
    before = len(batches)
    run(config, tmp_path, stepping(setup_run(config), eval_step=make))
    assert len(batches) == 2 * before
    run(config, tmp_path, stepping(setup_run(config), eval_step=make))
    assert len(batches) == 2 * before


def test_finished_run_does_nothing_more(whole, tmp_path):
    workdir = shutil.copytree(whole[0], tmp_path / "again")
    again, printed = run(eventful_config(), workdir)
    assert "resumed at step 6 of 6" in printed
    assert (again.best_miou, again.best_step) == (whole[1].best_miou, whole[1].best_step)


def test_a_split_on_the_device_gives_the_same_run(whole, tmp_path):
    config = eventful_config()
    config.data.on_device = True
    run(config, tmp_path)
    states = [saved(workdir, 6, config)[0] for workdir in (whole[0], tmp_path)]
    jax.tree.map(np.testing.assert_array_equal, *states)


def assert_variables_alone_are_the_states(workdir, state):
    """What evaluation reads; the running average if there is one."""
    with CheckpointStore(workdir, read_only=True) as store:
        variables = store.restore_variables(int(state.step))
    jax.tree.map(np.testing.assert_array_equal, variables, state.eval_variables())


def test_evaluation_reads_the_running_average(whole):
    state, _ = saved(whole[0], 6, eventful_config())
    assert state.ema is not None
    assert_variables_alone_are_the_states(whole[0], state)


def test_non_finite_loss_stops_and_keeps_the_checkpoints(tmp_path):
    config = eventful_config()
    with pytest.raises(loop.NonFiniteLoss, match="loss of step 5 is nan"):
        run(config, tmp_path, bad_at(setup_run(config), 5))
    with CheckpointStore(tmp_path, read_only=True) as store:
        assert store.steps() == [3]


def bad_at(setup: Setup, step: int, above: float = 0.0, name: str = "loss") -> Setup:
    """The same run, whose loss is NaN at a step while the learning rate's factor is `above`."""

    def make(real):
        def train_step(state, batch):
            bad = (state.step == step - 1) & (state.lr_scale > above)
            state, metrics = real(state, batch)
            return state, {**metrics, name: jnp.where(bad, jnp.nan, metrics[name])}

        return train_step

    return stepping(setup, train_step=make)


def test_a_rollback_goes_on_from_the_last_checkpoint_at_a_lower_rate(tmp_path):
    config = make_tiny_config()
    config.train.on_nonfinite = "rollback"
    config.optim.schedule = "constant"
    setup = bad_at(setup_run(config), 5, above=0.3, name="grad_norm")
    run_state, printed = run(config, tmp_path, setup)
    assert "gradient's norm of step 5 is nan" in printed
    assert "back to step 3, learning rate times 0.5" in printed
    assert "back to step 3, learning rate times 0.25" in printed
    rows = [row for row in read_metrics(tmp_path) if row["split"] == "train"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    rate = config.optim.learning_rate
    wanted = [rate] * 3 + [rate / 4] * 3
    assert [row["learning_rate"] for row in rows] == pytest.approx(wanted)
    assert run_state.lr_scale == 0.25


@pytest.mark.slow
def test_a_rollback_before_the_first_checkpoint_begins_anew(tmp_path):
    config = make_tiny_config()
    config.train.on_nonfinite = "rollback"
    _, printed = run(config, tmp_path, bad_at(setup_run(config), 2, above=0.5))
    assert "back to step 0, learning rate times 0.5" in printed


@pytest.mark.slow
def test_a_rollback_that_never_helps_gives_up(tmp_path):
    config = make_tiny_config()
    config.train.on_nonfinite = "rollback"
    with pytest.raises(loop.NonFiniteLoss, match="loss of step 1 is nan"):
        run(config, tmp_path, bad_at(setup_run(config), 1))


@pytest.mark.slow
def test_skipped_steps_are_counted(tmp_path):
    config = make_tiny_config()
    config.train.on_nonfinite = "skip"

    def make(real):
        def train_step(state, batch):
            state, metrics = real(state, batch)
            bad = jnp.where(state.step == 2, jnp.nan, metrics["loss"])
            return state, {**metrics, "loss": bad, "skipped": jnp.where(jnp.isnan(bad), 1.0, 0.0)}

        return train_step

    run_state, _ = run(config, tmp_path, stepping(setup_run(config), train_step=make))
    assert run_state.skipped_steps == 1
    rows = [row for row in read_metrics(tmp_path) if row["split"] == "train"]
    assert [row["loss"] is None for row in rows] == [False, True, False, False, False, False]
    assert [row.get("skipped_steps") for row in rows] == [None] + [1.0] * 5


def test_a_standstill_lowers_the_rate_then_stops_and_stays_so(tiny_config, tmp_path):
    """A learning rate of nearly nothing never improves: the first of 4 evaluations stays the best,
    the second lowers the rate, the third stops the run."""
    tiny_config.train.steps = 12
    tiny_config.train.early_stop_patience = 2
    tiny_config.optim.plateau_patience = 1
    tiny_config.optim.schedule = "constant"
    tiny_config.optim.learning_rate = 1e-30
    tiny_config.model.momentum = 1.0  # frozen statistics: evaluations are equal
    run_state, _ = run(tiny_config, tmp_path)
    assert run_state.stopped == "no better val mIoU in 2 evaluations"
    rates = [row["learning_rate"] for row in read_metrics(tmp_path) if row["split"] == "train"]
    assert rates == pytest.approx([1e-30] * 6 + [0.2e-30] * 3)
    again, _ = run(tiny_config, tmp_path)
    assert again.stopped
    with CheckpointStore(tmp_path, read_only=True) as store:
        assert store.latest_step() == 9
    state, _ = saved(tmp_path, 9, tiny_config)
    assert state.ema is None
    assert_variables_alone_are_the_states(tmp_path, state)
