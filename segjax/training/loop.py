"""The training loop: steps, evaluations, checkpoints, and a resume that loses nothing."""

import collections
import pathlib
import time
from typing import Any

import jax
import numpy as np
from rich.console import Console

from segjax.metrics import mean_iou
from segjax.training.checkpoint import CheckpointStore
from segjax.training.evaluation import evaluate
from segjax.training.feed import training_feed
from segjax.training.plateau import Progress
from segjax.training.progress import ProgressBar
from segjax.training.setup import Setup
from segjax.training.writers import MetricsWriter


class NonFiniteLoss(ArithmeticError):
    """The loss of a step was NaN or infinite."""


def train(setup: Setup, workdir: pathlib.Path, console: Console, preview=None) -> Progress:
    """Trains to the last step, from the newest checkpoint in `workdir` if there is one.

    Args:
      setup: the run.
      workdir: an existing folder; gets checkpoints/, metrics.jsonl and TensorBoard events.
      console: for the progress bar.
      preview: called as `preview(variables) -> {name: uint8 [h, w, 3]}` after each evaluation;
        its pictures go to TensorBoard.

    Returns:
      The host state at the end: best mIoU and step, why it stopped, seconds.

    Raises:
      NonFiniteLoss: naming the step; the checkpoints before it stay.
    """
    config, total = setup.config, setup.total_steps
    batch_size, log_every = config["train"]["batch_size"], config["train"]["log_every"]
    eval_batch_size = config["train"]["eval_batch_size"] or batch_size
    save_every = config["train"]["save_every"]
    train_step, eval_step = setup.train_step(), setup.eval_step()
    batches, to_devices = training_feed(setup)

    with CheckpointStore(workdir) as store:
        state, progress, step = _start(setup, store, batches)
        if step:
            console.print(f"resumed at step {step} of {total}", highlight=False)
        elif (
            not total and store.latest_step() is None
        ):  # nothing to train: what is evaluated are the weights of init_from
            host = {"progress": progress.to_json(), "data": batches.get_state()}
            store.save(0, state, host, None)
        with (
            MetricsWriter(workdir, step) as writer,
            ProgressBar(console, total, step, log_every) as bar,
        ):
            record = _Record(writer, bar, batch_size, log_every, len(setup.train))
            while step < total and not progress.stopped:
                began = time.perf_counter()
                state, metrics = train_step(state, to_devices(next(batches)))
                step += 1
                record.add(step, metrics)
                evaluating = step % setup.eval_every == 0 or step == total
                saving = evaluating or (save_every and step % save_every == 0)
                if saving:
                    record.flush()  # nothing is saved that a non-finite loss has touched
                miou = None
                if evaluating:
                    variables = state.eval_variables()
                    result = evaluate(
                        eval_step, variables, setup.validation, eval_batch_size, setup.mesh
                    ).summary()
                    miou = result["miou"] if np.isfinite(result["miou"]) else 0.0
                    progress.update(step, miou, config["train"], config["optim"])
                    state = state.replace(lr_scale=_like(state.lr_scale, progress.lr_scale))
                    record.validated(step, result, progress.best_step == step)
                    for name, picture in preview(variables).items() if preview else ():
                        writer.picture(step, name, picture)
                progress.seconds += time.perf_counter() - began
                if saving:
                    host = {"progress": progress.to_json(), "data": batches.get_state()}
                    store.save(step, state, host, miou)
                    record.restart_clock()
            record.flush()
    return progress


def _start(setup: Setup, store: CheckpointStore, batches) -> tuple[Any, Progress, int]:
    """The state to start from: the newest checkpoint's, or a fresh one."""
    latest = store.latest_step()
    if latest is None:
        return setup.init_state(), Progress(), 0
    state, host = store.restore(latest, setup.abstract_state())
    batches.set_state(host["data"])
    return state, Progress.from_json(host["progress"]), latest


def _like(array: jax.Array, value: float) -> jax.Array:
    """`value` as an array of the same dtype and sharding."""
    return jax.device_put(np.asarray(value, array.dtype), array.sharding)


class _Record:
    """Takes each step's metrics and writes them down two steps late.

    Reading a number waits for the step that makes it; by then two more are queued, so the device
    is never idle, and no more than two batches are ever in flight.
    """

    _LAG = 2

    def __init__(self, writer, bar, batch_size, log_every, epoch_images):
        self._writer, self._bar = writer, bar
        self._batch_size, self._log_every, self._epoch_images = batch_size, log_every, epoch_images
        self._pending = collections.deque()
        self._window, self._confusion = [], 0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves the time since the last step (an evaluation, say) out of images/s."""
        self._since, self._images = time.perf_counter(), 0

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        self._pending.append((step, metrics))
        if len(self._pending) > self._LAG:
            self._read()

    def flush(self) -> None:
        while self._pending:
            self._read()

    def validated(self, step: int, result: dict[str, Any], best: bool) -> None:
        self._bar.validated(step, result["miou"], result["loss"], best)
        values = {k: v for k, v in result.items() if isinstance(v, float)}
        self._writer.scalars(step, "val", {"epoch": self._epoch(step), **values})

    def _epoch(self, step: int) -> float:
        return round(step * self._batch_size / self._epoch_images, 3)

    def _read(self) -> None:
        step, metrics = self._pending.popleft()
        metrics = jax.device_get(metrics)
        self._confusion += metrics.pop("confusion").astype(np.int64)
        values = {name: float(value) for name, value in metrics.items()}
        if not np.isfinite(values["loss"]):
            raise NonFiniteLoss(
                f"the loss of step {step} is {values['loss']}; the run stops here, its checkpoints "
                "before this step stay. Lower optim.learning_rate, set optim.clip_norm=1, or look "
                "at the data, and start again with another --workdir"
            )
        self._window.append(values)
        self._images += self._batch_size
        rate = self._images / (time.perf_counter() - self._since)
        self._bar.update(step, {**values, "images_per_second": rate})
        if step % self._log_every == 0:
            mean = {k: float(np.mean([row[k] for row in self._window])) for k in values}
            mean["learning_rate"] = values["learning_rate"]
            mean["miou"] = mean_iou(self._confusion)[0]
            row = {"epoch": self._epoch(step), **mean, "images_per_second": rate}
            self._writer.scalars(step, "train", row)
            self._window, self._confusion = [], 0
