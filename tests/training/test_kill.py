"""A real process, killed with SIGKILL in the middle of its run and started again."""

import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from segjax import config as configs
from segjax.training.checkpoint import CheckpointStore
from segjax.training.setup import prepare
from segjax.training.writers import read_metrics

ROOT = pathlib.Path(__file__).parents[2]
COMMAND = (
    sys.executable,
    "launch.py",
    "--config=configs/segnet_basic.py",
    "--config.model.features=4",
    "--config.data.image_size=(32, 48)",
    "--config.data.train_images=12",
    "--config.data.eval_images=3",
    "--config.train.steps=60",
    "--config.train.batch_size=2",
    "--config.train.eval_every=10",
    "--config.train.log_every=1",
    "--config.optim.warmup_steps=3",
)


def final_state(workdir):
    with CheckpointStore(workdir, read_only=True) as store:
        state, host = store.restore(60, prepare(configs.load(workdir)).abstract_state())
    host["progress"].pop("seconds")
    return state, host


@pytest.mark.slow
def test_killed_run_ends_bit_equal(tmp_path):
    """kill -9 twice, once before the first checkpoint; the third start finishes the run."""
    subprocess.run([*COMMAND, f"--workdir={tmp_path / 'whole'}"], cwd=ROOT, check=True)
    killed = tmp_path / "killed"
    for at_step in (5, 34):
        process = subprocess.Popen([*COMMAND, f"--workdir={killed}"], cwd=ROOT)
        deadline = time.monotonic() + 240
        while not any(row["step"] >= at_step for row in read_metrics(killed)):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run([*COMMAND, f"--workdir={killed}"], cwd=ROOT, check=True)

    whole, whole_host = final_state(tmp_path / "whole")
    parts, parts_host = final_state(killed)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    assert whole_host == parts_host
    steps = [row["step"] for row in read_metrics(killed) if row["split"] == "train"]
    assert steps == list(range(1, 61))
    assert (killed / "report.html").is_file()
