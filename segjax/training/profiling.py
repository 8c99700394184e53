"""Profiles a window of training steps, for TensorBoard's profile plugin and XProf."""

import contextlib
import pathlib
import shutil
import socket
from collections.abc import Callable, Iterator
from typing import Any

import jax

_FLAG = "--profile"


class Profile:
    """Traces a window of steps, as a context around the loop.

        with Profile(workdir, (10, 5)) as profile:
            for step in ...:
                with profile.step(step) as done:
                    state, metrics = train_step(state, batch)
                    done(metrics)

    The trace shows the devices and the host: JAX and XLA, but not each Python function, whose
    tracing would slow the steps. Each step has an annotation, which XProf's step views need. The
    devices are synchronised only at both ends of the window, so the trace holds exactly its steps.

    The trace goes to WORKDIR/profile/plugins/profile/steps_10_to_14/HOST.xplane.pb, or
    HOST_processN.xplane.pb in a run of several processes. Open it with
    `tensorboard --logdir WORKDIR/profile`.

    Args:
      workdir: an existing folder.
      window: (first step, number of steps), with steps counted from 1; None traces nothing. A run
        that starts or ends within the window traces its part.
      say: receives a line about where the trace is, or why there is none.
    """

    def __init__(
        self,
        workdir: str | pathlib.Path,
        window: tuple[int, int] | None = None,
        say: Callable[[str], None] = print,
    ):
        self._folder = pathlib.Path(workdir) / "profile"
        self._window = range(window[0], window[0] + window[1]) if window else range(0)
        self._name = f"steps_{self._window.start}_to_{self._window.stop - 1}"
        self._say = say
        self._running = False
        self._before: Any = None  # outputs of the step before the window

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._running:
            self._stop()
        elif self._window:
            self._say(
                f"{_FLAG}: no trace, as this process ran none of the steps "
                f"{self._window.start} to {self._window.stop - 1}"
            )

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[Callable[[Any], None]]:
        """A context around a step, counted from 1. It yields a function that takes the step's
        outputs: arrays that may still be computing."""
        outputs: list[Any] = []
        if step in self._window and not self._running:
            self._start()
        if not self._running:
            yield outputs.append
            self._before = outputs if step + 1 in self._window else None
            return
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield outputs.append
        if step + 1 not in self._window:
            jax.block_until_ready(outputs)
            self._stop()

    def _start(self) -> None:
        jax.block_until_ready(self._before)
        self._before = None
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        options.session_id = self._name
        # JAX names the files after the host, so each process of a host writes to its own folder.
        self._parts = self._folder / f"process_{jax.process_index()}.part"
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._fail(error)
            return
        jax.profiler.start_trace(self._parts, profiler_options=options)
        self._running = True

    def _stop(self) -> None:
        self._running, self._window = False, range(0)
        target = self._folder / "plugins" / "profile" / self._name
        host = socket.gethostname()
        own = f"{host}_process{jax.process_index()}" if jax.process_count() > 1 else host
        try:
            jax.profiler.stop_trace()
            target.mkdir(parents=True, exist_ok=True)
            for file in (self._parts / "plugins" / "profile" / self._name).iterdir():
                file.replace(target / f"{own}{file.name.removeprefix(host)}")
            shutil.rmtree(self._parts)
        except (OSError, jax.errors.JaxRuntimeError) as error:
            self._fail(error)
        else:
            self._say(f"trace: {target}; tensorboard --logdir {self._folder}")

    def _fail(self, error: Exception) -> None:
        """Gives up the trace; the run goes on without it."""
        self._window = range(0)
        self._say(f"{_FLAG}: the trace could not be written: {error}")
