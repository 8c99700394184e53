"""Output for the user: plain lines, durations, progress bars."""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from segjax.console import Console

T = TypeVar("T")


def print_line(console: Console, text: object) -> None:
    """Prints text as it is: no markup, no colours of numbers, no wrapping of long lines."""
    console.print(text, highlight=False, soft_wrap=True, markup=False, emoji=False)


def duration(seconds: float) -> str:
    """ "3 s", "2 m 03 s" or "1 h 02 m"; "-" if it is not finite."""
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} m"
    return f"{minutes} m {rest:02} s" if minutes else f"{rest} s"


def _bar(console: Console, title: str, last: ProgressColumn, transient: bool) -> Progress:
    """A bar over the width of a terminal; hidden if the console is not a terminal."""
    columns = (
        TextColumn(title, "bold", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        last,
    )
    hidden = not console.is_terminal
    return Progress(*columns, console=console, disable=hidden, expand=True, transient=transient)


@contextlib.contextmanager
def progress_bar(console: Console, title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on a terminal, nothing elsewhere; yields a function of (done, total)."""
    with _bar(console, title, TimeRemainingColumn(), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def track(console: Console, title: str, items: Iterable[T], total: int) -> Iterator[T]:
    """The items, with a bar of how many are done."""
    with progress_bar(console, title) as progress:
        for done, item in enumerate(items):
            progress(done, total)
            yield item


class ProgressBar:
    """Step, loss, learning rate, images/s, time left and the best val mIoU of a training run.

    The time left includes evaluations: it is the wall time per step of this process so far,
    without the first (compiling) step.

    Args:
      console: a bar is drawn on a terminal; elsewhere every `line_every`-th step prints a line.
      total: steps of the run.
      start: steps done before this process.
      best: the best val mIoU before this process, negative where there is none.
    """

    def __init__(
        self, console: Console, total: int, start: int, line_every: int, best: float = -1.0
    ):
        self._console, self._total, self._every = console, total, line_every
        self._first_step, self._first_time = start, math.nan  # until the first update
        self._best = best
        self._bar = _bar(console, "train", TextColumn("{task.fields[text]}"), transient=False)
        self._task = self._bar.add_task("train", total=total, completed=start, text="compiling")

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *_):
        self._bar.stop()

    def update(self, step: int, metrics: dict[str, float]) -> None:
        """Shows the metrics of a finished step (`loss`, `learning_rate`, `images_per_second`)."""
        now = time.perf_counter()
        if math.isnan(self._first_time):
            self._first_time, self._first_step = now, step
        done = step - self._first_step
        left = (now - self._first_time) / done * (self._total - step) if done else math.nan
        text = (
            f"loss {metrics['loss']:.3f}  lr {metrics['learning_rate']:.2g}  "
            f"{metrics['images_per_second']:.1f} img/s  left {duration(left)}  "
            f"best val mIoU {'-' if self._best < 0 else f'{self._best:.4f}'}"
        )
        self._bar.update(self._task, completed=step, text=text)
        if not self._console.is_terminal and (step % self._every == 0 or done == 0):
            print_line(self._console, f"step {step}/{self._total}  {text}")

    def validated(self, step: int, miou: float, loss: float, best: bool) -> None:
        """Prints one line per evaluation, and keeps the best mIoU on the bar."""
        if best:
            self._best = miou
        mark = "  best so far" if best else ""
        print_line(self._console, f"step {step}  val mIoU {miou:.4f}  val loss {loss:.3f}{mark}")
