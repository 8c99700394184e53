"""The training loop: steps, evaluations, checkpoints, and a resume that loses nothing."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax
import numpy as np

from segjax.console import Console
from segjax.training.batches import DeviceIterator
from segjax.training.checkpoint import CheckpointStore
from segjax.training.distributed import is_first
from segjax.training.evaluation import Evaluation, eval_batch_size, evaluate
from segjax.training.interruption import LIMIT_S, Interrupted, Interruption
from segjax.training.metrics_log import MetricsLogger, NonFiniteLoss
from segjax.training.profiling import Profile
from segjax.training.programs import Programs
from segjax.training.progress import ProgressBar, print_line
from segjax.training.run_state import RunState
from segjax.training.setup import Setup
from segjax.training.state import TrainState
from segjax.training.tracking.followers import Followers
from segjax.training.writers import MetricsWriter

# Times that a run goes back to the same checkpoint before it gives up.
_ROLLBACKS = 8


def train(
    setup: Setup,
    workdir: pathlib.Path,
    console: Console,
    preview: Callable[[Any], dict[str, np.ndarray]] | None = None,
    profile: tuple[int, int] | None = None,
    meanwhile: Callable[[], object] = lambda: None,
    followers: Followers | None = None,
) -> RunState:
    """Trains to the last step, from the newest checkpoint in `workdir` if there is one.

    All processes of a run call it alike. All write their parts of checkpoints; the first one writes
    everything else.

    Args:
      setup: the run.
      workdir: an existing folder; gets checkpoints/ and metrics.jsonl.
      console: for the progress bar.
      preview: called as `preview(variables) -> {name: uint8 [h, w, 3]}` after each evaluation;
        its pictures go to the followers.
      profile: (first step, number of steps) to trace, see `profiling`.
      meanwhile: called once, while the devices work on the first step of this process.
      followers: are shown the rows of metrics.jsonl and the pictures, in process 0.

    Returns:
      The run state at the end: best mIoU and step, why it stopped, seconds.

    Raises:
      NonFiniteLoss: naming the step; the checkpoints before it stay.
      NothingLearned: if all steps were skipped.
      Interrupted: the run was asked to stop, and has been saved.
      OSError: for data that cannot be read, or a last checkpoint that could not be written.
    """

    say = functools.partial(print_line, console)
    with (
        Interruption() as interruption,
        CheckpointStore(workdir) as store,
        DeviceIterator(setup, interruption.look) as batches,
        Profile(workdir, profile, say) as trace,
        Programs(setup) as programs,
    ):
        run = _Run(
            setup,
            workdir,
            console,
            say,
            preview,
            store,
            batches,
            interruption,
            trace,
            programs,
            meanwhile,
            followers,
        )
        run_state = run.train()
        store.finish()
        if signal := interruption.requested():  # since the last step
            raise Interrupted(f"{signal}: all steps are taken and saved")
    return run_state


@dataclasses.dataclass
class _Run:
    """The parts of a run that do not change; its state is passed from method to method."""

    setup: Setup
    workdir: pathlib.Path
    console: Console
    say: Callable[[str], None]
    preview: Callable[[Any], dict[str, np.ndarray]] | None
    store: CheckpointStore
    batches: DeviceIterator
    interruption: Interruption
    trace: Profile
    programs: Programs
    meanwhile: Callable[[], object]
    followers: Followers | None

    def __post_init__(self):
        self.eval_step = self.setup.eval_step()
        self.first_batch = self.batches.get_state()

    def train(self) -> RunState:
        """Takes all steps that are left; after a rollback, again from the last checkpoint."""
        config = self.setup.config["train"]
        factor, rollbacks, last_start = config["nonfinite_factor"], 0, -1
        while True:
            start = self.start(lr_factor=factor**rollbacks)
            try:
                return self.to_the_end(*start)
            except NonFiniteLoss as error:
                saved = self.store.latest_step() or 0
                rollbacks = rollbacks + 1 if saved == last_start else 1
                last_start = saved
                if config["on_nonfinite"] != "rollback" or rollbacks > _ROLLBACKS:
                    raise
                rate = f"learning rate times {factor**rollbacks:g}"
                self.say(f"{error}\nback to step {saved}, {rate}")

    def start(self, lr_factor: float = 1.0) -> tuple[TrainState, RunState, int]:
        """State, run state and step of the newest checkpoint, or fresh ones.

        Args:
          lr_factor: further factor on the learning rate.
        """
        saved = self.store.restore_latest(self.setup.abstract_state(), self.go_to)
        if saved:
            step, state, host = saved
            run_state = RunState.from_json(host["run_state"])
            self.say(f"resumed at step {step} of {self.setup.total_steps}")
        else:
            if self.setup.total_steps:
                self.programs.begin(from_the_start=True)
            step, state, run_state = 0, self.programs.first_state(), RunState()
            self.batches.set_state(self.first_batch)
        self.began = time.perf_counter() - run_state.seconds
        if not self.setup.total_steps:  # the weights of init_from are evaluated as they are
            self.save(state, run_state, step)
        run_state.lr_scale *= lr_factor
        return self.with_rate(state, run_state), run_state, step

    def go_to(self, step: int, state: TrainState, host: Mapping[str, Any]) -> None:
        """Goes to a checkpoint's position in the data, if training can go on from it.

        Raises:
          ValueError, TypeError, LookupError: if it cannot.
        """
        if int(state.step) != step:
            raise ValueError(f"it holds step {int(state.step)}")
        RunState.from_json(host["run_state"])
        self.batches.set_state(host["data"])

    def to_the_end(self, state: TrainState, run_state: RunState, step: int) -> RunState:
        """Takes the steps that are left, with their evaluations and checkpoints."""
        setup, config, total = self.setup, self.setup.config["train"], self.setup.total_steps
        every = config["save_every"]
        if step < total and not run_state.stopped:
            self.programs.begin(from_the_start=False)
            # Compiles the evaluation before there is work to lose: a signal waits for the end of a
            # compilation, which may take longer than a scheduler does.
            self.evaluate(state, stop=lambda: "after one batch")
        with (
            MetricsWriter(self.workdir, step, run_state.evaluated, self.followers) as writer,
            ProgressBar(self.console, total, step, config["log_every"], run_state.best_miou) as bar,
        ):
            log = MetricsLogger(
                writer,
                bar,
                run_state,
                batch_size=config["batch_size"],
                log_every=config["log_every"],
                epoch_images=len(setup.train),
                head=setup.objective.head,
            )
            while True:
                if setup.evaluates_at(step) and run_state.evaluated < step:
                    log.flush()
                    state = self.validate(state, run_state, step, log, writer)
                    log.restart_clock()
                    if signal := self.interruption.requested():
                        self.stop(signal, step)
                if step >= total or run_state.stopped:
                    return run_state
                began = time.perf_counter()
                with self.trace.step(step + 1) as done:
                    try:
                        batch = next(self.batches)
                    except Interrupted:  # while it was awaited
                        log.flush()
                        self.save(state, run_state, step)
                        self.stop(self.interruption.requested(), step)
                    state, metrics = self.programs.train_step(state, batch)
                    done(metrics)
                step += 1
                self.meanwhile()
                self.meanwhile = lambda: None
                self.interruption.unsaved = True
                self.name_skipped(run_state)
                log.add(step, metrics)
                # Up to three steps may be under way when a signal comes.
                took = time.perf_counter() - began
                self.interruption.limit_s = max(LIMIT_S, 4 * took)
                signal = self.interruption.requested()
                if signal or (every and step % every == 0 and not setup.evaluates_at(step)):
                    log.flush()  # raises before a non-finite loss reaches a checkpoint
                    self.save(state, run_state, step)
                    log.restart_clock()
                if signal:
                    self.stop(signal, step)

    def name_skipped(self, run_state: RunState) -> None:
        """Reports each sample that could not be read, once."""
        for index, problem in self.batches.skipped.items():
            if index not in run_state.unreadable:
                run_state.unreadable.append(index)
                self.say(f"{problem}; skipped, {len(run_state.unreadable)} file(s) so far")

    def evaluate(self, state: TrainState, stop: Callable[[], str]) -> Evaluation | None:
        """The evaluation of a state; None if it was interrupted."""
        try:
            return evaluate(
                self.eval_step,
                state.eval_variables(),
                self.setup.validation,
                eval_batch_size(self.setup.config),
                self.setup.devices,
                stop=stop,
                head=self.setup.objective.head,
                look=self.interruption.look,
            )
        except Interrupted:
            return None

    def validate(self, state, run_state: RunState, step: int, log, writer) -> TrainState:
        """Evaluates a step, writes its scores, pictures and checkpoints, and adapts the rate."""
        if line := log.end_interval(step, self.setup.total_steps):
            self.say(line)
        evaluation = self.evaluate(state, stop=self.interruption.requested)
        if evaluation is None:  # interrupted; the resumed run evaluates this step again
            self.save(state, run_state, step)
            self.stop(self.interruption.asked or self.interruption.requested(), step)
        summary, config = evaluation.summary(), self.setup.config
        miou = summary["miou"]
        if not np.isfinite(miou):
            self.say(
                f"warning: step {step} has no val mIoU: no pixel of the split "
                f"{config['data']['val_split']} has a label; --mode=doctor looks at its masks"
            )
        lost = self.store.best_miou < 0
        run_state.update(step, miou, config["train"], config["optim"], best_lost=lost)
        log.validated(step, summary, run_state.best_step == step)
        variables = state.eval_variables()
        state = self.with_rate(state, run_state)
        if np.isfinite(miou):
            self.store.save_best(step, variables, miou)
        self.save(state, run_state, step)
        # While the checkpoint is written, and not if somebody waits for the end.
        if self.preview and is_first() and not self.interruption.pending:
            local = jax.tree.map(lambda x: x.addressable_data(0), variables)
            for name, picture in self.preview(local).items():
                writer.picture(step, name, picture)
        return state

    def save(self, state: TrainState, run_state: RunState, step: int) -> None:
        """Starts to write a checkpoint, unless there is one of this step."""
        if self.store.latest_step() == step:
            return
        run_state.seconds = time.perf_counter() - self.began
        host = {"run_state": run_state.to_json(), "data": self.batches.get_state()}
        self.store.save(step, state, host)

    def stop(self, signal: str, step: int) -> NoReturn:
        """Waits for the checkpoint of this step, then ends the run."""
        self.store.finish()
        raise Interrupted(f"{signal}: saved at step {step} of {self.setup.total_steps}")

    def with_rate(self, state: TrainState, run_state: RunState) -> TrainState:
        """The state with the run state's factor on its learning rate."""
        scale = np.asarray(run_state.lr_scale, np.float32)
        return state.replace(lr_scale=self.setup.devices.replicate(scale))
