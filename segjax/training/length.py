"""More steps after the end of a run, in the same workdir."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from segjax import config as configs
from segjax.training.checkpoint import CheckpointStore, has_checkpoint
from segjax.training.run_state import steps_of
from segjax.training.schedules import make_schedule
from segjax.training.setup import Setup

# The options that set the number of steps, which a run that goes on may raise.
LENGTH = ("train.steps", "train.epochs")


def check_length(setup: Setup, workdir: str | pathlib.Path) -> None:
    """Refuses to go on with a run for another number of steps unless it would have come as far in
    the same way: the learning rate of each step that is done must be that of the longer run.

    Raises:
      ValueError: naming the steps, the schedule, and `init_from` as the way to train on.
    """
    if not has_checkpoint(workdir):
        return
    config = setup.config["optim"]
    before, now = steps_of(configs.load(workdir)["train"], len(setup.train)), setup.total_steps
    with CheckpointStore(workdir, read_only=True) as store:
        done = store.latest_step() or 0
    if before == now or not done:
        return
    if now < done:
        raise ValueError(
            f"train.steps={now}, but the run in workdir {workdir} has done {done}; use {done} or "
            "more, or another --workdir"
        )
    steps = jnp.arange(done)
    of_both = (make_schedule(config, before), setup.schedule)
    rates = [np.asarray(jax.vmap(schedule)(steps)) for schedule in of_both]
    if not np.array_equal(*rates):
        raise ValueError(
            f"workdir {workdir} holds {done} steps of a run of {before}; in a run of {now} (train."
            f"steps) optim.schedule={config['schedule']} would have given them other learning "
            f"rates. To train on from its weights, start another run: init_from={workdir} with "
            "another --workdir"
        )
