"""The training loop: steps, evaluations, checkpoints, and a resume that loses nothing."""

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from rich.console import Console

from segjax.training.batches import DeviceIterator
from segjax.training.checkpoint import CheckpointStore
from segjax.training.evaluation import eval_batch_size, evaluate
from segjax.training.interruption import Interrupted, Interruption
from segjax.training.metrics_log import MetricsLogger, NonFiniteLoss
from segjax.training.profiling import Profile
from segjax.training.progress import ProgressBar
from segjax.training.run_state import RunState
from segjax.training.setup import Setup
from segjax.training.state import TrainState
from segjax.training.writers import MetricsWriter

# Times that a run goes back to the same checkpoint before it gives up.
_ROLLBACKS = 8


def train(
    setup: Setup,
    workdir: pathlib.Path,
    console: Console,
    preview: Callable[[Any], dict[str, np.ndarray]] | None = None,
    profile: tuple[int, int] | None = None,
) -> RunState:
    """Trains to the last step, from the newest checkpoint in `workdir` if there is one.

    In many processes all call it alike; the first writes what is not a checkpoint.

    Args:
      setup: the run.
      workdir: an existing folder; gets checkpoints/, metrics.jsonl and TensorBoard events.
      console: for the progress bar.
      preview: called as `preview(variables) -> {name: uint8 [h, w, 3]}` after each evaluation;
        its pictures go to TensorBoard.
      profile: (first step, number of steps) to trace, see `profiling`.

    Returns:
      The host state at the end: best mIoU and step, why it stopped, seconds.

    Raises:
      NonFiniteLoss: naming the step; the checkpoints before it stay.
      Interrupted: the run was asked to stop, and has been saved.
      OSError: for data that cannot be read, or a last checkpoint that could not be written.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    with (
        Interruption() as interruption,
        CheckpointStore(workdir) as store,
        DeviceIterator(setup) as feed,
        Profile(workdir, profile, say) as trace,
    ):
        run = _Run(setup, workdir, console, say, preview, store, feed, interruption, trace)
        factor, stuck_at, rollbacks = setup.config["train"]["nonfinite_factor"], -1, 0
        while True:
            start = run.start(lr_factor=factor**rollbacks)
            try:
                progress = run.to_the_end(*start)
                break
            except NonFiniteLoss as error:
                back_to = store.latest_step() or 0
                rollbacks = rollbacks + 1 if back_to == stuck_at else 1
                stuck_at = back_to
                if setup.config["train"]["on_nonfinite"] != "rollback" or rollbacks > _ROLLBACKS:
                    raise
                say(f"{error}\nback to step {back_to}, learning rate times {factor**rollbacks:g}")
        if problem := store.finish():
            raise OSError(problem)
    return progress


@dataclasses.dataclass
class _Run:
    """What the steps of a run need; its state is handed from method to method."""

    setup: Setup
    workdir: pathlib.Path
    console: Console
    say: Callable[[str], None]
    preview: Callable[[Any], dict[str, np.ndarray]] | None
    store: CheckpointStore
    feed: DeviceIterator
    interruption: Interruption
    trace: Profile

    def __post_init__(self):
        self.train_step, self.eval_step = self.setup.train_step(), self.setup.eval_step()
        self.first_batch = self.feed.get_state()
        self.has_evaluated = False

    def start(self, lr_factor: float = 1.0) -> tuple[TrainState, RunState, int]:
        """The newest checkpoint's state, or a fresh one, with its learning rate times a factor."""
        total, step = self.setup.total_steps, self.store.latest_step()
        if step is None:
            self.feed.set_state(self.first_batch)
            state, progress, step = self.setup.init_state(), RunState(), 0
            if not total:  # nothing to train: what is evaluated are the weights of init_from
                self.save(state, progress, 0)
        else:
            state, host = self.store.restore(step, self.setup.abstract_state())
            self.feed.set_state(host["data"])
            progress = RunState.from_json(host["progress"])
            self.say(f"resumed at step {step} of {total}")
        progress.lr_scale *= lr_factor
        return self.with_rate(state, progress), progress, step

    def to_the_end(self, state: TrainState, progress: RunState, step: int) -> RunState:
        """The steps that are left, with their evaluations and checkpoints."""
        setup, train, total = self.setup, self.setup.config["train"], self.setup.total_steps
        with (
            MetricsWriter(self.workdir, step, progress.evaluated) as writer,
            ProgressBar(self.console, total, step, train["log_every"]) as bar,
        ):
            record = MetricsLogger(
                writer,
                bar,
                progress,
                batch_size=train["batch_size"],
                log_every=train["log_every"],
                epoch_images=len(setup.train),
            )
            while True:
                began = time.perf_counter()
                if setup.evaluates_at(step) and progress.evaluated < step:
                    state = self.evaluate(state, progress, step, record, writer)
                    progress.seconds += time.perf_counter() - began
                    self.save(state, progress, step, evaluated=True)
                    record.restart_clock()
                    began = time.perf_counter()
                if step >= total or progress.stopped:
                    return progress
                with self.trace.step(step + 1) as done:
                    state, metrics = self.train_step(state, next(self.feed))
                    done(metrics)
                step += 1
                self.interruption.unsaved = True
                self.name_skipped(progress)
                record.add(step, metrics)
                progress.seconds += time.perf_counter() - began
                asked = self.interruption.requested()
                every = train["save_every"]
                if asked or (every and step % every == 0 and not setup.evaluates_at(step)):
                    record.flush()  # nothing is saved that a non-finite loss has touched
                    self.save(state, progress, step)
                    record.restart_clock()
                if asked:
                    self.stop(asked, step)

    def name_skipped(self, progress: RunState) -> None:
        """Says which samples could not be read, each once."""
        for index, problem in self.feed.skipped.items():
            if index not in progress.unreadable:
                progress.unreadable.append(index)
                self.say(f"{problem}; skipped, {len(progress.unreadable)} file(s) so far")

    def evaluate(self, state, progress: RunState, step: int, record, writer) -> TrainState:
        """The evaluation of a step: its scores, what follows from them, and pictures."""
        record.flush()
        if not self.has_evaluated:  # the first one compiles for long, in which no signal is heard
            self.save(state, progress, step)
            self.store.wait()
            self.interruption.unsaved = self.store.latest_step() != step
        self.has_evaluated = True
        config, variables = self.setup.config, state.eval_variables()
        found = evaluate(
            self.eval_step,
            variables,
            self.setup.validation,
            eval_batch_size(config),
            self.setup.devices,
            stop=self.interruption.requested,
        )
        if found is None:  # the evaluation is done again after the resume
            self.save(state, progress, step)
            self.stop(self.interruption.asked, step)
        result = found.summary()
        miou = result["miou"] if np.isfinite(result["miou"]) else 0.0
        progress.update(step, miou, config["train"], config["optim"])
        record.validated(step, result, progress.best_step == step)
        if self.preview and jax.process_index() == 0:
            local = jax.tree.map(lambda x: x.addressable_data(0), variables)
            for name, picture in self.preview(local).items():
                writer.picture(step, name, picture)
        return self.with_rate(state, progress)

    def save(self, state, progress: RunState, step: int, evaluated: bool = False) -> None:
        """Starts writing a checkpoint, if there is none of this step; one from before the step's
        evaluation is replaced after it."""
        if not evaluated and self.store.latest_step() == step:
            return
        host = {"progress": progress.to_json(), "data": self.feed.get_state()}
        miou = progress.last_miou if evaluated else None
        self.store.save(step, state, host, miou, replace=evaluated)

    def stop(self, asked: str, step: int) -> None:
        """Ends the run, which is saved."""
        if problem := self.store.finish():
            raise OSError(f"{asked}: {problem}")
        raise Interrupted(f"{asked}: saved at step {step} of {self.setup.total_steps}")

    def with_rate(self, state: TrainState, progress: RunState) -> TrainState:
        """The state with the learning rate that the progress says."""
        scale = np.asarray(progress.lr_scale, np.float32)
        return state.replace(lr_scale=self.setup.devices.replicate(scale))
