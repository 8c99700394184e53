"""The writers of a run, each in a thread that the run never waits for."""

import functools
import pathlib
import queue
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from segjax.data.files.reading import words_of
from segjax.training.interruption import Interrupted
from segjax.training.tracking.writer import OPTION, End, Rows, Writer, writer_class

_MOST = 1000  # calls that may wait for a writer
# For the last ones. Who stops a run soon kills it.
_GRACE_S: Mapping[End, float] = {"finished": 30.0, "stopped": 5.0, "failed": 5.0}


class Followers:
    """Passes what a run has to show on to the writers of `report.writers`, as a context.

    A writer that fails, or does not keep up, is dropped with one warning, and the run goes on. At
    the end of the context all together get a few seconds for what is left.

    Args:
      names: of WRITERS; none in all processes but the first.
      workdir: of the run.
      options: of the run, by name.
      say: prints a line; it may be called from a thread.
    """

    def __init__(
        self,
        names: Sequence[str],
        workdir: pathlib.Path,
        options: Mapping[str, Any],
        say: Callable[[str], object] = lambda _: None,
    ):
        makers = {name: functools.partial(writer_class(name), workdir, options) for name in names}
        self._all = [Follower(name, make, say) for name, make in makers.items()]

    def __enter__(self) -> "Followers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        stopped = kind and issubclass(kind, Interrupted | KeyboardInterrupt)
        end: End = "stopped" if stopped else "failed" if kind else "finished"
        for follower in self._all:
            follower.end(end)
        until = time.monotonic() + _GRACE_S[end]
        for follower in self._all:
            follower.wait(until - time.monotonic())

    def begin(self, step: int, earlier: Rows) -> None:
        """See `Writer.begin`."""
        self._call("begin", step, earlier)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step by SPLIT/NAME."""
        self._call("scalars", step, values)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """A uint8 [h, w, 3] picture, which nobody changes later."""
        self._call("picture", step, name, image)

    def results(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers at the end of the run by SPLIT/NAME, of the checkpoint of a step."""
        self._call("results", step, values)

    def _call(self, method: str, *arguments: Any) -> None:
        for follower in self._all:
            follower.call(method, *arguments)


class Follower:
    """A writer and its thread.

    Args:
      name: for messages.
      make: makes the writer, in the thread.
      say: gets a line with the writer's place.
    """

    def __init__(
        self, name: str, make: Callable[[], Writer], say: Callable[[str], object] = lambda _: None
    ):
        self._name, self._make, self._say = name, make, say
        self._problem, self._warned = "", False
        self._calls: queue.SimpleQueue[tuple[str, tuple] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def call(self, method: str, *arguments: Any) -> None:
        """Has a method of the writer called, some time; warns if the writer has failed."""
        if self._calls.qsize() >= _MOST:
            self._problem = self._problem or "it does not keep up"
        if self._problem:
            self._warn()
        else:
            self._calls.put((method, arguments))

    def end(self, end: End) -> None:
        """Has the writer closed after all calls; none may follow."""
        self._calls.put(("close", (end,)))
        self._calls.put(None)

    def wait(self, seconds: float) -> None:
        """Waits for the thread after `end`."""
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self._problem = self._problem or "it does not answer"
        self._warn()

    def _warn(self) -> None:
        if self._problem and not self._warned:
            self._warned = True
            warnings.warn(
                f"{OPTION}: {self._name} ends here ({self._problem}); the run goes on without it, "
                "and metrics.jsonl has everything",
                stacklevel=4,
            )

    def _work(self) -> None:
        """The thread."""
        try:
            writer = self._make()
            if writer.place:
                self._say(f"{self._name}: {writer.place}")
            while call := self._calls.get():
                method, arguments = call
                if not self._problem:
                    getattr(writer, method)(*arguments)
        except Exception as error:  # the run goes on, whatever it is
            self._problem = words_of(error)
