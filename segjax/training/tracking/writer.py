"""What a program that shows runs is told of one, and the table of those programs."""

import importlib
import pathlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np

from segjax.data.files.atomic import replacing
from segjax.data.files.reading import words_of

# A new writer is a file here, a row in this table, and an extra in pyproject.toml.
WRITERS: Mapping[str, str] = {
    "tensorboard": "segjax.training.tracking.event_file.EventFile",
    "mlflow": "segjax.training.tracking.mlflow_run.MlflowRun",
    "wandb": "segjax.training.tracking.wandb_run.WandbRun",
}
OPTION = "report.writers"
# stopped: by a signal; the run is going to be resumed.
Rows = Sequence[tuple[int, Mapping[str, float]]]  # steps and their numbers
End = Literal["finished", "stopped", "failed"]


class Writer(Protocol):
    """Shows a run to others, beside metrics.jsonl, which is the record that counts.

    `Followers` makes it and calls its methods in one thread, one after the other. They may wait and
    may raise anything: the run does not notice, but for a warning. A resumed run makes it anew for
    the same workdir, and is to be shown as one run.

    Args:
      workdir: of the run, an existing folder; a writer keeps there what a resume needs to know.
      options: of the run, by name: {"optim.learning_rate": 0.01, ...}, of plain types.

    Attributes:
      place: where others find the run, in words; "" if the workdir says it.
    """

    place: str

    def __init__(self, workdir: pathlib.Path, options: Mapping[str, Any]): ...

    @staticmethod
    def check() -> None:
        """Raises ValueError if what the writer needs is missing, before the run starts."""
        ...

    def begin(self, step: int, earlier: Rows) -> None:
        """Called before the first values, and again where a run goes back to a checkpoint.

        Args:
          step: the first one to come. What is shown from this step on was left by a run that was
            killed, or by the attempt that the run goes back from.
          earlier: what `scalars` was called with before this step, by this process or others. Some
            may be missing where a process was killed, and all in a writer that is new to the run.
        """
        ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step by SPLIT/NAME, perhaps NaN."""
        ...

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """A uint8 [h, w, 3] picture."""
        ...

    def results(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers at the end of a run by SPLIT/NAME, of the checkpoint of a step."""
        ...

    def close(self, end: End) -> None:
        """Called once, whatever ended the run but a kill."""
        ...


def writer_class(name: str) -> type[Any]:
    """The class of a writer of WRITERS, a `Writer`."""
    module, _, name = WRITERS[name].rpartition(".")
    return getattr(importlib.import_module(module), name)


def need_package(writer: str, package: str) -> ModuleType:
    """Imports the package of a writer.

    Raises:
      ValueError: if it is not installed or cannot be imported, with what was found and what to do.
    """
    try:
        module = importlib.import_module(package)
        # A folder of that name, such as the one that W&B leaves, is a package to Python.
        found = "" if module.__file__ else f"there is only a folder {next(iter(module.__path__))}"
    except Exception as error:  # of a package that is damaged, anything
        found = words_of(error)
    if found:
        raise ValueError(
            f"{OPTION} has {writer!r}, and the package {package} cannot be imported ({found}); "
            f"pip install 'segjax[{writer}]', or leave {writer!r} out"
        )
    return module


def write_note(path: pathlib.Path, text: str) -> None:
    """Writes a file that a resumed run reads, completely or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
