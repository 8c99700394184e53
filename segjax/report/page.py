"""HTML pages from the templates in templates/, and text files written atomically.

A page is one file without scripts and needs no network. It follows the reader's light or dark
theme, fits a phone (only parts marked `scroll` may be wider than the window) and prints unfolded on
white. Every value is escaped.
"""

import functools
import json
import os
import pathlib
from collections.abc import Iterable

import jinja2

from segjax.data.files.atomic import replacing
from segjax.report.figures import to_svg
from segjax.report.numbers import format_number
from segjax.terminal import printable
from segjax.training.progress import duration


def write_page(path: str | os.PathLike, template: str, **context: object) -> None:
    """Writes a page as UTF-8; its folder is made.

    Args:
      path: the file.
      template: name of a file in templates/.
      context: values of the template; an unknown name in a template raises.
    """
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _environment().get_template(template).render(context))


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file that no reader sees incomplete."""
    with replacing(pathlib.Path(path)) as partial:
        partial.write_text(printable(text), encoding="utf-8")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("segjax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = {"number": format_number, "duration": duration, "svg": to_svg}
    environment.filters |= {**filters, "text": _text, "rgb": _rgb}
    return environment


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _rgb(color: Iterable[int]) -> str:
    return f"rgb{tuple(int(c) for c in color)}"
