"""The config files of segjax, by their names and from any folder."""

import functools
import importlib
import importlib.machinery
import importlib.util
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any


def folder() -> pathlib.Path:
    """The folder of segjax's own configs: beside the package, or inside it once installed."""
    package = pathlib.Path(__file__).parent
    beside = package.parent / "configs"
    in_checkout = (beside / "base.py").is_file() and (package.parent / "launch.py").is_file()
    return beside if in_checkout else package / "configs"


def base(model: str = "") -> Any:
    """The defaults of all options, with those of a model if there is one: a ConfigDict."""
    return _base().get_config(model)


@functools.cache
def _base() -> Any:
    """The module base.py, by its file: a project may have a `configs.base` of its own."""
    spec = importlib.util.spec_from_file_location("segjax_base_config", folder() / "base.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names() -> list[str]:
    """The names that --config takes for segjax's own configs."""
    from_files = {path.stem for path in folder().glob("*.py")}
    return sorted(from_files - {"__init__", "base", "presets", "recipes"})


def get(name: str) -> Any:
    """The config of one of segjax's own names, such as "pspnet:camvid": a ConfigDict.

    Raises:
      ValueError: for an unknown name or preset.
    """
    stem, _, preset = name.partition(":")
    if stem not in names():
        raise ValueError(f"config {name!r} is unknown; use one of {', '.join(names())}")
    _find_configs()
    module = importlib.import_module(f"configs.{stem}")
    return module.get_config(preset) if preset else module.get_config()


def _find_configs() -> None:
    """Makes `configs` importable: config files say `from configs import base`. That finds segjax's
    own from any folder, then those of the working folder."""
    if "configs" not in sys.modules:
        spec = importlib.machinery.ModuleSpec("configs", None, is_package=True)
        spec.submodule_search_locations = [str(folder()), str(pathlib.Path.cwd() / "configs")]
        sys.modules["configs"] = importlib.util.module_from_spec(spec)


def with_paths(arguments: Sequence[str]) -> list[str]:
    """The arguments with the path of the file in place of a config's name."""
    own = folder()
    _find_configs()
    result, is_value = [], False
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if is_value:
            argument = _path(argument, own)
        elif equals and flag in ("--config", "-config"):
            argument = f"{flag}={_path(value, own)}"
        is_value = argument in ("--config", "-config")
        result.append(argument)
    return result


def _path(value: str, own: pathlib.Path) -> str:
    """The path of a config file, with the preset.

    If there is no such file, configs/pspnet.py, pspnet.py and pspnet all name segjax's own.
    """
    name, colon, preset = value.partition(":")
    given, known = pathlib.Path(name), own / f"{pathlib.Path(name).stem}.py"
    if (
        not os.path.isfile(given)
        and os.path.isfile(known)
        and str(given.parent) in (".", "configs")
    ):
        name = str(known)
    return name + colon + preset
