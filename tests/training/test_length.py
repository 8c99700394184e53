"""More steps after the end of a run: the same as a longer run, or refused."""

import contextlib
import io

import numpy as np
import pytest

from segjax import config as configs
from segjax.commands.train import train
from segjax.console import Console
from segjax.training.checkpoint import CheckpointStore
from segjax.training.length import check_length
from segjax.training.run_state import steps_of
from segjax.training.setup import setup_run
from tests.conftest import make_tiny_config
from tests.training.runs import left_by


def config_of(steps, **options):
    """Parts at their own rates, a frozen encoder and all state in use."""
    config = make_tiny_config()
    config.optim.update(name="adamw", schedule="constant", lr_scale={"classifier": 3, "bias": 2})
    config.train.update(steps=steps, freeze=("encoder[12]", "norm"), ema_decay=0.9)
    config.update_from_flattened_dict(options)
    return config


def run(config, workdir):
    console = Console(file=io.StringIO(), width=200)
    train(config, workdir, console=console)
    return console.file.getvalue()


def as_if_done(workdir, config):
    """The workdir of a run that did its steps, as far as the next start looks before training."""
    configs.save(config, workdir)
    setup = setup_run(config, workdir)
    configs.save_classes(setup.classes, workdir)
    with CheckpointStore(workdir) as store:
        store.save(config.train.steps, {"x": np.zeros(1)}, {})
    return workdir


@pytest.mark.slow
def test_a_run_that_goes_on_is_the_longer_run_bit_for_bit(tmp_path):
    """The state of each part, and what is frozen, are saved and resumed whole."""
    short, long = tmp_path / "short", tmp_path / "long"
    run(config_of(3), short)
    printed = run(config_of(6), long)
    expected = left_by(long, 6, config_of(6))
    assert "resumed at step 3 of 6" in run(config_of(6), short)
    left_by(short, 6, config_of(6)).assert_equals(expected)
    start = left_by(long, 3, config_of(6)).state
    for part in ("encoder1", "encoder2"):
        kernel = expected.state.params[part]["conv"]["kernel"]
        np.testing.assert_array_equal(kernel, start.params[part]["conv"]["kernel"])
        np.testing.assert_array_equal(kernel, expected.state.ema["params"][part]["conv"]["kernel"])
    for module in ("encoder3", "decoder1"):
        assert np.any(
            expected.state.params[module]["conv"]["kernel"]
            != start.params[module]["conv"]["kernel"]
        )
    for module, statistics in expected.state.batch_stats.items():
        np.testing.assert_array_equal(statistics["norm"]["mean"], 0, err_msg=module)
    # The table at the start.
    assert "frozen" in printed
    assert "0.15" in printed


def test_more_steps_of_another_schedule_are_refused(tmp_path):
    as_if_done(tmp_path, config_of(2, **{"optim.schedule": "poly"}))
    message = (
        r"holds 2 steps of a run of 2; in a run of 4 \(train\.steps\) optim\.schedule=poly would "
        r"have given .* start another run: init_from=.* with another --workdir"
    )
    with pytest.raises(ValueError, match=message):
        run(config_of(4, **{"optim.schedule": "poly"}), tmp_path)
    with pytest.raises(ValueError, match=r"optim\.schedule: 'poly' there, 'step' now"):
        run(config_of(4, **{"optim.schedule": "step"}), tmp_path)
    with pytest.raises(ValueError, match=r"train\.steps=1, but the run in workdir .* has done 2"):
        run(config_of(1, **{"optim.schedule": "poly"}), tmp_path)


@pytest.mark.parametrize(
    "options, steps, refused",
    [
        # The rate falls after step 6 of 6 (0.95 * 6 is nearly 6), and after step 11 of 12.
        ({"schedule": "step", "step_at": (0.95,)}, 12, False),
        ({"schedule": "step", "step_at": (0.5, 0.95)}, 12, True),
        ({"schedule": "constant", "warmup_steps": 4}, 12, False),
        ({"schedule": "cosine"}, 12, True),
        ({"schedule": "cosine"}, 6, False),
    ],
    ids=str,
)
def test_schedules_must_agree_over_the_steps_that_are_done(tmp_path, options, steps, refused):
    """6 steps of a run of 6. (Other options than those of its length are checked elsewhere.)"""
    workdir = as_if_done(tmp_path, config_of(6))
    setup = setup_run(
        config_of(steps, **{f"optim.{name}": value for name, value in options.items()}), workdir
    )
    with pytest.raises(ValueError, match="init_from") if refused else contextlib.nullcontext():
        check_length(setup, workdir)


def test_steps_of_a_run():
    assert steps_of({"steps": 7, "epochs": 0.0, "batch_size": 4}, 0) == 7
    assert steps_of({"steps": 0, "epochs": 2.5, "batch_size": 4}, 10) == 7
