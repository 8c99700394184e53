"""The row of a table that an option names, or a config file's own function in its place."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any


def chosen(
    config: Mapping[str, Any], named: str, own: str, table: Mapping[str, Callable]
) -> functools.partial:
    """A row of the table with its options: the keyword parameters without a default.

    Args:
      config: `config.optim`.
      named: the option with the name of the row.
      own: the option that is None, or a function to be used instead.
      table: the rows.

    Raises:
      ValueError: naming the option, for an unknown name, or a function that is none or that reads
        an option that the config lacks.
    """
    function = config[own]
    if function is None:
        if config[named] not in table:
            known = ", ".join(table)
            raise ValueError(f"optim.{named}={config[named]!r} is unknown; known: {known}")
        function = table[config[named]]
    if not callable(function):  # as a workdir's JSON has it
        raise ValueError(
            f"optim.{own}={function!r} is no function; only a config file can set it: start the "
            "run with --config=FILE of the one that has it"
        )
    options = options_of(function)
    missing = [name for name in options if name not in config]
    if missing:
        raise ValueError(
            f"optim.{own} reads optim.{missing[0]}, which the config lacks; set it in the config "
            "file, or give the parameter a default"
        )
    return functools.partial(function, **{name: config[name] for name in options})


def options_of(function: Callable) -> tuple[str, ...]:
    """The options that a row reads: its keyword parameters without a default."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty)
