"""The metrics of training steps: read from the device two steps late, then averaged and written."""

import collections
import time
from typing import Any

import jax
import numpy as np

from segjax.training.head import SOFTMAX, Head
from segjax.training.progress import ProgressBar
from segjax.training.run_state import RunState
from segjax.training.writers import MetricsWriter


class NonFiniteLoss(ArithmeticError):
    """The loss or the gradient of a step was NaN or infinite."""


class NothingLearned(ArithmeticError):
    """All steps were skipped."""


class MetricsLogger:
    """Takes each step's metrics and writes them two steps late.

    Reading a number waits for the step that computes it. Two more steps are queued by then, so the
    device is never idle, and at most two batches are in flight.

    Args:
      writer, bar: receive the metrics.
      run_state: counts the steps that were skipped.
      batch_size: images a step.
      log_every: steps a row.
      epoch_images: images an epoch.
      head: of the confusion matrices.
    """

    _LAG = 2
    # Skipped steps in a row after which a run that evaluates more often goes on.
    _FEW = 10

    def __init__(
        self,
        writer: MetricsWriter,
        bar: ProgressBar,
        run_state: RunState,
        *,
        batch_size: int,
        log_every: int,
        epoch_images: int,
        head: Head = SOFTMAX,
    ):
        self._writer, self._bar, self._run_state = writer, bar, run_state
        self._batch_size, self._log_every, self._epoch_images = batch_size, log_every, epoch_images
        self._head, self._pending = head, collections.deque()
        self._window, self._confusion = [], 0
        self._taken = self._labelled = self._skipped_in_a_row = 0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves the time since the last step, such as an evaluation, out of images/s."""
        self._since, self._images = time.perf_counter(), 0

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of a step that may still be running.

        Raises:
          NonFiniteLoss: if the loss or gradient of an earlier step is not finite and the step was
            not skipped.
        """
        self._pending.append((step, metrics))
        if len(self._pending) > self._LAG:
            self._read()

    def flush(self) -> None:
        """Waits for all steps and writes their metrics; raises as `add`."""
        while self._pending:
            self._read()

    def end_interval(self, step: int, total: int) -> str:
        """A line for the user if no step since the last evaluation had a labelled pixel, else "".

        Raises:
          NothingLearned: if all of them were skipped, and ten in a row or all of the run.
        """
        taken, labelled = self._taken, self._labelled
        self._taken = self._labelled = 0
        skipped, all_of_run = self._skipped_in_a_row, self._run_state.skipped_steps >= step == total
        if taken and (skipped >= max(taken, self._FEW) or all_of_run):
            raise NothingLearned(
                f"all of the last {skipped} steps, to step {step}, were skipped "
                "(train.on_nonfinite=skip): their loss or gradient was not finite, and the network "
                "learns nothing. Lower optim.learning_rate, set optim.clip_norm=1, or look at the "
                "data; checkpoints before these steps stay"
            )
        if labelled or taken == 0 or skipped >= taken:
            return ""
        return (
            f"warning: none of the {taken} steps to step {step} saw a labelled pixel: have the "
            "masks changed during the run? --mode=doctor looks at them"
        )

    def validated(self, step: int, result: dict[str, Any], best: bool) -> None:
        """Writes the scores of an evaluation."""
        self._bar.validated(step, result["miou"], result["loss"], best)
        values = {k: v for k, v in result.items() if isinstance(v, float)}
        self._writer.scalars(step, "val", {"epoch": self._epoch(step), **values})

    def _epoch(self, step: int) -> float:
        return round(step * self._batch_size / self._epoch_images, 3)

    def _read(self) -> None:
        step, metrics = self._pending.popleft()
        metrics = jax.device_get(metrics)
        confusion = metrics.pop("confusion").astype(np.int64)
        skipped = bool(metrics.pop("skipped"))
        values = {name: float(value) for name, value in metrics.items()}
        self._images += self._batch_size
        rate = self._images / (time.perf_counter() - self._since)
        self._taken += 1
        if skipped:
            self._run_state.skipped_steps += 1
            self._skipped_in_a_row += 1
        else:
            _check_finite(step, values)
            self._skipped_in_a_row = 0
            self._labelled += int(confusion.sum())
            self._window.append(values)
            self._confusion += confusion
        self._bar.update(step, {**values, "images_per_second": rate})
        if step % self._log_every == 0:
            self._write(step, values, rate)

    def _write(self, step: int, last: dict[str, float], rate: float) -> None:
        """Writes one row: means over the steps since the last row, without skipped ones."""
        row = {"epoch": self._epoch(step)}
        terms = [name for name in last if name.startswith("loss_")]
        for name in ("loss", *terms, "accuracy", "grad_norm"):
            values = [row[name] for row in self._window]
            row[name] = float(np.mean(values)) if values else float("nan")
        row |= {"learning_rate": last["learning_rate"], "images_per_second": rate}
        counts = np.asarray(self._confusion)
        row["miou"] = self._head.mean_iou(counts) if self._window else float("nan")
        if self._run_state.skipped_steps:
            row["skipped_steps"] = float(self._run_state.skipped_steps)
        self._writer.scalars(step, "train", row)
        self._window, self._confusion = [], 0


def _check_finite(step: int, values: dict[str, float]) -> None:
    for name, words in (("loss", "loss"), ("grad_norm", "gradient's norm")):
        if not np.isfinite(values[name]):
            raise NonFiniteLoss(
                f"the {words} of step {step} is {values[name]}. Lower optim.learning_rate, set "
                "optim.clip_norm=1, look at the data, or have train.on_nonfinite skip such steps "
                "or go back (rollback); checkpoints before this step stay"
            )
