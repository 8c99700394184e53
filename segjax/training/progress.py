"""The progress bar of a training run: rich on a terminal, plain lines elsewhere."""

import math
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


class ProgressBar:
    """Step, loss, learning rate, images/s, time left and the last val mIoU.

    The time left counts what evaluations cost: it is the wall time per step so far, over the
    whole of this process's part of the run, the first (compiling) step left out.

    Args:
      console: where to write; if it is no terminal, a line is printed at every `line_every`-th
        step instead of a bar.
      total: steps of the run.
      start: steps that are done already.
    """

    def __init__(self, console: Console, total: int, start: int, line_every: int):
        self._console, self._total, self._start, self._every = console, total, start, line_every
        self._first_time = self._first_step = None
        self._val = math.nan
        self._bar = Progress(
            TextColumn("[bold]train"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not console.is_terminal,
            expand=True,
        )
        self._task = self._bar.add_task("train", total=total, completed=start, text="compiling")

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *_):
        self._bar.stop()

    def update(self, step: int, metrics: dict[str, float]) -> None:
        """Shows the metrics of a finished step (`loss`, `learning_rate`, `images_per_second`)."""
        now = time.perf_counter()
        if self._first_time is None:
            self._first_time, self._first_step = now, step
        done = step - self._first_step
        left = (now - self._first_time) / done * (self._total - step) if done else math.nan
        text = (
            f"loss {metrics['loss']:.3f}  lr {metrics['learning_rate']:.2g}  "
            f"{metrics['images_per_second']:.1f} img/s  left {duration(left)}  "
            f"val mIoU {'-' if math.isnan(self._val) else f'{self._val:.4f}'}"
        )
        self._bar.update(self._task, completed=step, text=text)
        if not self._console.is_terminal and (step % self._every == 0 or done == 0):
            line = f"step {step}/{self._total}  {text}"
            self._console.print(line, highlight=False, soft_wrap=True)

    def validated(self, step: int, miou: float, loss: float, best: bool) -> None:
        """Prints one line per evaluation, and keeps its mIoU on the bar."""
        self._val = miou
        mark = "  best so far" if best else ""
        self._console.print(
            f"step {step}  val mIoU {miou:.4f}  val loss {loss:.3f}{mark}",
            highlight=False,
            soft_wrap=True,
        )


def duration(seconds: float) -> str:
    """1:02:03 or 2:03; "-" for what is not known."""
    if not math.isfinite(seconds):
        return "-"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
