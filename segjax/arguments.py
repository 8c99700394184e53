"""The words of a command line, and one line for what is wrong with them."""

import collections
import os
import re
import sys
import traceback
from collections.abc import Sequence

from absl import flags

from segjax import config_files
from segjax.failures import of_flag


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """The value of --FLAG=VALUE or --FLAG VALUE; None where the flag is not given."""
    given = re.search(rf"^--?{flag}(?:=|\n)(.*)$", "\n".join(arguments), re.MULTILINE)
    return given[1] if given else None


def is_override(argument: str) -> bool:
    """Whether an argument is --config.OPTION=VALUE."""
    return argument.startswith(("--config.", "-config.", "--noconfig.", "-noconfig."))


def overrides(arguments: Sequence[str]) -> dict[str, str]:
    """{option: text} of --config.OPTION=VALUE."""
    given = [a.lstrip("-").removeprefix("config.") for a in arguments if is_override(a)]
    return {name: value for name, _, value in (text.partition("=") for text in given)}


def parse(values: flags.FlagValues, arguments: Sequence[str], config: bool) -> list[str]:
    """Reads the flags, and the config that --config names.

    Args:
      values: where they go.
      arguments: those of the process, of which the first is the program.
      config: whether --config.OPTION=VALUE changes that config; else they are left.

    Returns:
      The arguments that are no flags, after the program.

    Raises:
      ValueError: for a flag or option that is unknown, is given twice, or has a wrong value, and
        for a config file that cannot be read.
    """
    arguments = list(arguments)
    if file := _missing_config(arguments):
        raise ValueError(f"--config={file} is no file; known names are {_names()}")
    if name := _twice(arguments, values):
        raise ValueError(f"--{name} is given more than once; give it once")
    plain = [a for a in arguments if not is_override(a)]
    try:
        return values(arguments if config else plain)
    except flags.UnrecognizedFlagError as error:
        raise ValueError(f"{error}; see --help".replace("\n", " ")) from error
    except Exception as error:  # config_flags raises all kinds
        problem = _wrong_option(values, arguments, plain) if len(plain) < len(arguments) else ""
        raise ValueError(problem or _in_words(error, arguments)) from error


def _names() -> str:
    return ", ".join(config_files.names())


def _missing_config(arguments: Sequence[str]) -> str:
    """What --config names if it is no file; "" if there is nothing to complain about."""
    given = value_of("config", arguments)
    file = given.partition(":")[0] if given is not None else None
    return "" if file is None or os.path.isfile(file) else file


def _twice(arguments: Sequence[str], values: flags.FlagValues) -> str:
    """The first flag that is given more than once; "" without one."""
    names = []
    for argument in arguments[1:]:
        name = argument.partition("=")[0].lstrip("-")
        if not argument.startswith("-"):
            continue
        if name.startswith("noconfig.") or (name not in values and name[2:] in values):
            name = name.removeprefix("no")
        if name in values or name.startswith("config."):
            names.append(name)
    return next((name for name, n in collections.Counter(names).items() if n > 1), "")


def _wrong_option(values: flags.FlagValues, arguments: Sequence[str], plain: Sequence[str]) -> str:
    """What is wrong with the name of a --config.OPTION; "" if it is the value, or the file."""
    from segjax.config import flatten, unknown_option  # takes a second

    sys.argv[:] = plain  # where config_flags looks for overrides
    try:
        values(plain)
    except Exception:
        return ""
    known = flatten(values["config"].value)
    for argument in filter(is_override, arguments):
        name = argument.partition("=")[0].partition("config.")[2]
        if name not in known:
            return unknown_option(name, known)
    return ""


def _in_words(error: Exception, arguments: Sequence[str]) -> str:
    """A flag's error in one line; of a config file, with its line."""
    file = (value_of("config", arguments) or "").partition(":")[0]
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ValueError):  # which a config explains itself
        if line := _line_in(file, cause):
            text = " ".join(str(cause).split())
            return f"{file}, line {line}: {type(cause).__name__}: {text}; mend the config file"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, flags.Error):
        return of_flag(str(error))
    return " ".join(str(error).split()) or type(error).__name__


def _line_in(file: str, error: BaseException) -> int | None:
    """The line of a file that an error comes from."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return lines[-1] if lines else None
