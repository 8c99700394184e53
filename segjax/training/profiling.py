"""A trace of some steps of a run, for TensorBoard's profile plugin and XProf."""

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

    The trace holds what runs on the devices and on the host (JAX and XLA, not each Python function:
    tracing those would slow the steps that are looked at), with one annotation per step, which
    XProf's step views need. It goes to WORKDIR/profile/plugins/profile/steps_10_to_14/, one
    HOST.xplane.pb per process; where there are several, HOST_processN. Open it with
    `tensorboard --logdir WORKDIR/profile`. The devices are waited for at the ends of the window
    only, so that it holds these steps whole and no others.

    Args:
      workdir: an existing folder.
      window: (first step, number of steps), steps counted from 1; None: nothing is traced. A run
        that ends, or begins, within the window traces what it does of it.
      say: gets a line about where the trace is, or why there is none.
    """

    def __init__(
        self,
        workdir: str | pathlib.Path,
        window: tuple[int, int] | None = None,
        say: Callable[[str], None] = print,
    ):
        self._folder = pathlib.Path(workdir) / "profile"
        self._wanted = range(window[0], window[0] + window[1]) if window else range(0)
        self._name = f"steps_{self._wanted.start}_to_{self._wanted.stop - 1}"
        self._say = say
        self._running = False
        self._before: Any = None  # what the step before the window gave

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._running:
            self._stop()
        elif self._wanted:
            self._say(
                f"{_FLAG}: no trace, as this process did none of the steps "
                f"{self._wanted.start} to {self._wanted.stop - 1}"
            )

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[Callable[[Any], None]]:
        """A context around a step, counted from 1. What it yields takes the step's outputs, arrays
        that are still being computed."""
        outputs: list[Any] = []
        if step in self._wanted and not self._running:
            self._start()
        if not self._running:
            yield outputs.append
            self._before = outputs if step + 1 in self._wanted else None
            return
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield outputs.append
        if step + 1 not in self._wanted:
            jax.block_until_ready(outputs)
            self._stop()

    def _start(self) -> None:
        jax.block_until_ready(self._before)
        self._before = None
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        options.session_id = self._name
        # Of processes on one host, each in a folder of its own first: the files are named after
        # the host.
        self._parts = self._folder / f"process_{jax.process_index()}.part"
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._fail(error)
            return
        jax.profiler.start_trace(self._parts, profiler_options=options)
        self._running = True

    def _stop(self) -> None:
        self._running, self._wanted = False, range(0)
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
        """Goes on without a trace, which is no reason to end a run."""
        self._wanted = range(0)
        self._say(f"{_FLAG}: the trace could not be written: {error}")
