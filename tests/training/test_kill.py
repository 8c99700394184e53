"""Real processes, killed with SIGKILL at random moments of a run and started again."""

import multiprocessing
import pathlib
import random
import re
import signal
import time

import pytest

from segjax import config as configs
from segjax.commands.train import workdir_lock
from segjax.console import Console
from segjax.training import loop, runtime
from segjax.training.metrics_file import read_metrics
from segjax.training.setup import setup_run
from tests.training.runs import eventful_config, left_by

STEPS = 24


def killable_config():
    """With saves between the evaluations."""
    config = eventful_config()
    config.train.update({"steps": STEPS, "eval_every": 6, "save_every": 2})
    config.data.train_images = 12
    return config


def run(workdir: pathlib.Path) -> None:
    """One process: trains, or goes on, in `workdir`."""
    runtime.use_compilation_cache()
    with workdir_lock(workdir), log_of(workdir).open("w", buffering=1) as log:
        setup = setup_run(killable_config(), workdir)
        configs.save(setup.config, workdir)
        loop.train(setup, workdir, Console(file=log))


def log_of(workdir: pathlib.Path) -> pathlib.Path:
    return workdir.with_suffix(".log")


def start(workdir: pathlib.Path, until: int = 1) -> multiprocessing.Process:
    """`run` in a process of its own, forked from one that has imported all there is to import;
    returns when a step of that number, or a later one, is done."""
    log_of(workdir).unlink(missing_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=run, args=(workdir,))
    process.start()
    while process.is_alive():
        log = log_of(workdir).read_text() if log_of(workdir).exists() else ""
        if max(map(int, re.findall(r"step (\d+)/", log)), default=0) >= until:
            break
        time.sleep(0.01)
    return process


def finished(workdir):
    """What a run has left that goes on to its end."""
    process = start(workdir)
    process.join(120)
    assert process.exitcode == 0
    return left_by(workdir, STEPS, killable_config())


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("complete"))


@pytest.mark.parametrize(
    "kills", [pytest.param(1, id="1 kill"), pytest.param(20, id="20", marks=pytest.mark.slow)]
)
def test_a_run_killed_at_random_moments_ends_bit_equal(complete, tmp_path, kills):
    """In steps, in evaluations, in saves, before the first of each: one in each part of the run,
    after a random step and a time in which it does one or two things more."""
    moments, done_at = random.Random(kills), []
    workdir = tmp_path / "run"
    for kill in range(kills):
        process = start(workdir, until=int((kill + moments.random()) * STEPS / kills))
        process.join(moments.uniform(0, 0.15))
        if not process.is_alive():
            break
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        done_at.append(max((row["step"] for row in read_metrics(workdir)), default=0))
    print("killed at steps", done_at)
    assert done_at
    left = finished(workdir)
    left.assert_equals(complete)
    assert left.steps("train") == list(range(1, STEPS + 1))
