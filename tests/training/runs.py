"""Runs of a tiny network, and what they leave in their workdirs."""

from typing import NamedTuple

import jax
import numpy as np

from segjax.training.checkpoint import CheckpointStore
from segjax.training.metrics_file import read_metrics
from segjax.training.setup import setup_run
from segjax.training.state import TrainState
from tests.conftest import make_tiny_config


def eventful_config(model="segnet_basic"):
    """A running average and a rate that falls, so that all of the state is in use."""
    config = make_tiny_config(model)
    config.train.ema_decay = 0.9
    config.optim.plateau_patience = 1
    return config


class Left(NamedTuple):
    """What a run has left, apart from measured times."""

    state: TrainState
    host: dict
    best: int
    rows: list[dict]

    def steps(self, split: str) -> list[int]:
        return [row["step"] for row in self.rows if row["split"] == split]

    def assert_equals(self, other: "Left") -> None:
        """Bit for bit: state, data position, run state, best checkpoint, record."""
        jax.tree.map(np.testing.assert_array_equal, self.state, other.state)
        assert self[1:] == other[1:]


def left_by(workdir, step, config) -> Left:
    with CheckpointStore(workdir, read_only=True) as store:
        state, host = store.restore(step, setup_run(config).abstract_state())
        best = store.best_step()
    host["run_state"].pop("seconds")
    rows = read_metrics(workdir)
    for row in rows:
        row.pop("images_per_second", None)
    return Left(state, host, best, rows)
