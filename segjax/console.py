"""The console that commands print to: names are text, whatever they hold and wherever it goes."""

import sys
from collections.abc import Iterable
from typing import Any

import rich.console
from rich.console import ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment

from segjax.terminal import printable

_WIDTHS = 40, 400  # between which tables are legible, and small


class Console(rich.console.Console):
    """rich's, on which text is text: no markup, no emoji codes, no escape sequences of a name's.

    Args:
      stderr: prints to stderr rather than stdout.
      options: rich's others.
    """

    def __init__(self, *, stderr: bool = False, **options: Any):
        stream = sys.stderr if stderr else sys.stdout
        text = {"markup": False, "emoji": False, "highlight": False}
        file = getattr(stream, "styled", None)
        super().__init__(**{"file": file, "stderr": stderr, **text, **options})

    @property
    def size(self) -> ConsoleDimensions:
        """Of the terminal, as far as rich can draw in it and we want to."""
        width, height = super().size
        return ConsoleDimensions(min(max(width, _WIDTHS[0]), _WIDTHS[1]), max(height, 2))

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n" or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
