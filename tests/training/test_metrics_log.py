"""Rows of metrics."""

import jax.numpy as jnp
import numpy as np
import pytest

from segjax.training.metrics_log import MetricsLogger
from segjax.training.run_state import RunState


class Record:
    """A writer and a bar that keep what they are given."""

    def __init__(self):
        self.rows = []

    def scalars(self, step, split, values):
        self.rows.append((step, split, values))

    def update(self, step, metrics):
        pass


@pytest.mark.usefixtures("unchecked")
def test_a_row_has_the_means_of_all_losses():
    record = Record()
    log = MetricsLogger(record, record, RunState(), batch_size=4, log_every=2, epoch_images=16)
    for step, value in ((1, 1.0), (2, 2.0)):
        metrics = {
            "loss": 3 * value,
            "loss_dice": value,
            "loss_ohem": 2 * value,
            "accuracy": 0.5,
            "grad_norm": 7.0,
            "learning_rate": 0.1 / step,
            "skipped": 0.0,
        }
        metrics = {name: jnp.float32(number) for name, number in metrics.items()}
        log.add(step, {**metrics, "confusion": np.eye(2, dtype=np.int32)})
    log.flush()
    ((step, split, row),) = record.rows
    assert (step, split) == (2, "train")
    assert list(row)[:6] == ["epoch", "loss", "loss_dice", "loss_ohem", "accuracy", "grad_norm"]
    assert [row[name] for name in ("loss", "loss_dice", "loss_ohem")] == [4.5, 1.5, 3.0]
    assert row["learning_rate"] == pytest.approx(0.05)
