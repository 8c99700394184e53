"""The programs of a run's start, compiled in threads while the start goes on."""

import concurrent.futures
from collections.abc import Callable
from typing import Any

import jax

from segjax.data.parallel import in_thread
from segjax.training.setup import Setup
from segjax.training.state import TrainState


class Programs:
    """The programs that need no batch to be compiled: the first state, and the training step.

    A thread compiles each from `begin` on, and its first use waits for that. The end of the context
    waits too: a compiler that still runs when the process ends would crash it. Where programs
    cannot be compiled ahead, they are compiled at their first use.
    """

    def __init__(self, setup: Setup):
        self._setup = setup
        self._init, self._step = setup.init_program(), setup.train_step()
        self._ahead = _can_be_ahead(setup, self._step)
        self._compiling: dict[Callable, concurrent.futures.Future] = {}

    def begin(self, from_the_start: bool) -> None:
        """Starts to compile, where that has not begun.

        Args:
          from_the_start: whether the first state is needed, and not that of a checkpoint.
        """
        if not self._ahead or self._step in self._compiling:
            return
        if from_the_start:
            self._compile(self._init, self._setup.first_key())
        self._compile(self._step, self._setup.abstract_state(), self._setup.abstract_batch())

    def _compile(self, program: Callable, *form: Any) -> None:
        # Traced here, as Python runs one thread at a time. XLA, which takes longest, is in none.
        self._compiling[program] = in_thread(program.lower(*form).compile)

    def first_state(self) -> TrainState:
        """The state at step 0, see `Setup.init_state`."""
        return self._setup.init_state(self._compiled(self._init))

    def train_step(self, state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        """The state after a step, which takes the memory of the one before, and the metrics."""
        return self._compiled(self._step)(state, batch)

    def _compiled(self, program: Callable) -> Callable:
        return self._compiling[program].result() if program in self._compiling else program

    def __enter__(self) -> "Programs":
        return self

    def __exit__(self, *_) -> None:
        concurrent.futures.wait(self._compiling.values())


def _can_be_ahead(setup: Setup, step: Callable) -> bool:
    """Processes that share a run compile together, in one order; a GPU's compiler tries kernels on
    the device, which must be idle; batches that are gathered on a device tell their place then."""
    devices = setup.devices
    alone = jax.process_count() == 1 and devices.mode == "jit" and hasattr(step, "lower")
    return alone and devices.platform != "gpu" and not setup.config["data"]["on_device"]
