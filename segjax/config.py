"""Configs as plain data: saved with the run, read back, compared."""

import contextlib
import difflib
import functools
import hashlib
import inspect
import json
import pathlib
import shutil
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from segjax import config_files
from segjax.data.classes import ClassTable, from_rows
from segjax.data.datasets import class_table
from segjax.data.errors import DataError
from segjax.data.files.atomic import replacing
from segjax.data.files.json_file import need_form, need_type, read_json
from segjax.failures import of_flag
from segjax.models import model_defaults
from segjax.ranges import check_numbers

CONFIG_FILE = "config.json"
CLASSES_FILE = "classes.json"
# The files of a run, besides its checkpoints.
RUN_FILES = (CONFIG_FILE, CLASSES_FILE, "run.json", "metrics.jsonl", "class_statistics.json")
_WHAT = "the config of a run"
_IN_EVERY_RUN = {
    "seed": int,
    "dtype": str,
    "model": {"name": str},
    "data": {"name": str, "image_size": [int]},
    "train": {"batch_size": int},
}
_OF_ANY_TYPE = ("loss.class_weights",)
# These may change between the start of a run and its resume: none changes a result that the run had
# without it (a run that stopped at a bad loss or file may go on past it).
_FREE = (
    "data.root",
    "data.timeout_s",
    "data.on_unreadable",
    "data.on_changed",
    "data.workers",
    "data.cache_mb",
    "data.on_device",
    "data.eval_splits",
    "train.log_every",
    "train.save_every",
    "train.remat",
    "train.on_nonfinite",
    "train.nonfinite_factor",
)
_FREE_SECTIONS = ("parallel", "report")
# Left empty or auto, these have the values that the run chose when it started.
_DECIDED = ("data.mean", "data.std", "data.value_range", "data.exif")


Config = Mapping[str, Any] | ml_collections.ConfigDict  # a ConfigDict is no Mapping


class ByPart(ml_collections.FieldReference):
    """An option of factors by part of a network: the text "head=10,bias=2", which is what the
    command line gives and config.json holds. Set to {"head": 10, "bias": 2} it is that text.
    """

    def __init__(self, text: str):
        super().__init__(text, str)

    def set(self, value: Any, type_safe: bool = True) -> None:
        if isinstance(value, Mapping | ml_collections.ConfigDict):
            value = ",".join(f"{name}={factor}" for name, factor in value.items())
        super().set(value, type_safe)


def plain(config: Config) -> dict[str, Any]:
    """Nested dicts and lists, as JSON holds them; a function is the text of `_identity`."""
    values = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
    return json.loads(json.dumps(values, default=_identity))


def _identity(function: Any) -> str:
    """A config file's function as the run's JSON records it: the name, the start of the SHA-256 of
    its source, and what `functools.partial` binds, so that no run is resumed with another one. It
    is never read as code."""
    if isinstance(function, functools.partial):
        bound = json.dumps([function.args, function.keywords], default=_identity)
        return f"{_identity(function.func)}, with {bound}"
    if not callable(function):
        raise TypeError(f"{function!r} cannot be saved as JSON")
    name = getattr(function, "__name__", type(function).__name__)
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):  # typed in, or built in
        return name
    return f"{name}, source {hashlib.sha256(source.encode()).hexdigest()[:8]}"


def flatten(config: Config, prefix: str = "") -> dict[str, Any]:
    """{"optim.learning_rate": 0.01, ...}"""
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ml_collections.ConfigDict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def difference(ours: Config, theirs: Config) -> dict[str, tuple[Any, Any]]:
    """{option: (our value, their value)} where two configs differ; None where it is missing."""
    a, b = flatten(plain(ours)), flatten(plain(theirs))
    return {k: (a.get(k), b.get(k)) for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)}


def save(config: Config, workdir: pathlib.Path) -> None:
    """Writes the run's config.json, which other processes of the run never see incomplete."""
    with replacing(workdir / CONFIG_FILE) as partial:
        partial.write_text(json.dumps(plain(config), indent=2) + "\n")


def load(workdir: str | pathlib.Path, *, scores: bool = False) -> Any:
    """Reads a run's config.json, as a ConfigDict. Options of older runs have today's names.

    Args:
      workdir: of the run.
      scores: whether it may also be what --mode=score wrote, which has no network.

    Raises:
      ValueError: if the folder holds no run, or its config is damaged: no JSON, without an option
        that every run has, or with a value of another type.
    """
    path = pathlib.Path(workdir) / CONFIG_FILE
    if not path.exists():
        raise ValueError(
            f"workdir {workdir} holds no run (there is no {CONFIG_FILE}); give the --workdir of "
            "a training run"
        )
    remedy = "restore the file that training wrote, or use another --workdir"
    values = read_json(path, _WHAT, remedy)
    if "weights_sha256" in values:
        raise ValueError(
            f"workdir {workdir} holds an exported model, which --mode=predict takes, "
            "segjax.load_pretrained, and init_from; give the --workdir of a training run"
        )
    if "scored" in values and not scores:
        raise ValueError(
            f"workdir {workdir} holds the scores of label maps, which --mode=compare takes; give "
            "the --workdir of a training run"
        )
    try:
        need_form(values, {"data": dict, "model": dict}, "")
        if "scored" not in values:
            need_form(values, _IN_EVERY_RUN, "")
        need_type(values.get("optim", {}), dict, "optim")
        everywhere = values.get("optim", {}).pop("decay_biases_and_norms", None)
        if everywhere is not None:
            values["optim"]["decay_scale"] = "" if everywhere else "bias=0,norm=0"
        data = values["data"]
        if "mask_format" not in data and "masks" in data:  # its name before
            data["mask_format"] = data.pop("masks")
        return checked(values)
    except ValueError as error:
        raise DataError(f"{path} is not {_WHAT}: {error}", remedy) from error


def checked(values: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The values of a run's config.json, today's defaults beside them.

    Raises:
      ValueError: for a known option with a value of another type than its default's.
    """
    _check_types(values)
    return ml_collections.ConfigDict(values if "scored" in values else _filled(values))


def _check_types(values: Mapping[str, Any]) -> None:
    """Raises ValueError for a known option with a value of another type than its default's."""
    known = plain(config_files.base())
    with contextlib.suppress(ValueError):  # of a name that is unknown, which `build` reports
        if isinstance(name := values["model"].get("name"), str):  # scores have no network
            known["model"] = plain(model_defaults(name))
    pairs = [(name, default, values[name]) for name, default in known.items() if name in values]
    while pairs:
        name, default, value = pairs.pop()
        if default is None or name in _OF_ANY_TYPE:  # None: a function's text, or of a model
            continue
        need_type(value, type(default), name)
        if isinstance(default, dict):
            pairs += [(f"{name}.{k}", default[k], value[k]) for k in default if k in value]
        for each in value if isinstance(value, list) else ():
            need_form(each, [float] if isinstance(each, list) else (float, str, bool), name)


def check_set(config: Config, base: Config) -> None:
    """Raises ValueError for an option that is None, and not by default."""
    values = flatten(config)
    for name, default in flatten(base).items():
        if default is not None and values.get(name, default) is None:
            raise ValueError(f"{name}=None; use a value such as {default!r}")


def with_overrides(config: Config, overrides: Mapping[str, Any]) -> Any:
    """A copy of a run's config with other values, read as --config.OPTION=VALUE is.

    Args:
      overrides: {"data.root": "data/camvid"} and the like; values of the option's type, or text.

    Raises:
      ValueError: for an option that the config lacks, or a value of another type.
    """
    if not overrides:
        return config
    arguments = ["", *(f"--config.{name}={value}" for name, value in overrides.items())]
    known = flatten(config)
    for name in overrides:
        if name not in known:
            raise ValueError(unknown_option(name, known))
    parsed = flags.FlagValues()
    config_flags.DEFINE_config_dict(
        "config", _with_tuples(config), flag_values=parsed, sys_argv=arguments
    )
    try:
        parsed(arguments)
    except flags.Error as error:
        raise ValueError(of_flag(str(error))) from error
    check_numbers({name: flatten(parsed.config)[name] for name in overrides})
    return parsed.config


def unknown_option(name: str, known: Iterable[str]) -> str:
    """What to say of an option that is none of the known ones, which `flatten` names."""
    place, known = f"--config.{name}", list(known)
    inside = [option for option in known if option.startswith(f"{name.rstrip('.')}.")]
    if inside:
        return f"{place} is a section; give one of its options, such as --config.{inside[0]}"
    section = name
    while section and not (beside := [o for o in known if o.startswith(f"{section}.")]):
        section = section.rpartition(".")[0]
    if not section:
        beside = sorted({option.partition(".")[0] for option in known})
    names = ", ".join(option.removeprefix(f"{section}.") for option in beside)
    near = difflib.get_close_matches(name, known, 1) or difflib.get_close_matches(
        name.rpartition(".")[2], [option.rpartition(".")[2] for option in known], 1
    )
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{place} is unknown; known are {names}{hint}"


def _with_tuples(values: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The config with tuples where JSON has lists: config_flags reads only these."""
    result = ml_collections.ConfigDict()
    for name, value in values.items():
        if isinstance(value, Mapping | ml_collections.ConfigDict):
            value = _with_tuples(value)
        result[name] = tuple(value) if isinstance(value, list) else value
    return result


def copy_run(workdir: pathlib.Path, output: pathlib.Path) -> None:
    """Copies a run, its checkpoints apart, into another folder, which is made."""
    output.mkdir(parents=True, exist_ok=True)
    for name in RUN_FILES:
        if (workdir / name).is_file():
            with replacing(output / name) as partial:
                shutil.copy2(workdir / name, partial)


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config with the defaults of options that its version lacked, but the model's."""
    known = plain(config_files.base())
    own = {k: v for k, v in known.items() if k != "model"}
    sections = {k: v | values.get(k, {}) for k, v in own.items() if isinstance(v, dict)}
    return {**own, **values, **sections}


def is_free(name: str) -> bool:
    """Whether an option changes no result, so that a run may be resumed with another value."""
    return name in _FREE or name.split(".")[0] in _FREE_SECTIONS


def check_same_run(
    config: Config,
    workdir: pathlib.Path,
    base: Config | None = None,
    except_for: Collection[str] = (),
) -> None:
    """Refuses to resume in a workdir that was started with another config.

    An option that one of the two lacks, as runs of older versions do, has its default there.

    Args:
      config: of the run that is to start.
      workdir: that it is to start in.
      base: the defaults of all options but the model's, which it knows.
      except_for: options that may differ.

    Raises:
      ValueError: listing the options that differ.
    """
    if not (workdir / CONFIG_FILE).is_file():
        return
    theirs, ours = (_with_defaults(each, base or {}) for each in (load(workdir), config))
    different = {
        name: values
        for name, values in difference(theirs, ours).items()
        if not is_free(name)
        and name not in except_for
        and not (name in _DECIDED and (not values[1] or "auto" in values[1]))
    }
    if different:
        lines = [f"  {name}: {old!r} there, {new!r} now" for name, (old, new) in different.items()]
        raise ValueError(
            f"workdir {workdir} holds a run with another config:\n"
            + "\n".join(lines)
            + f"\nuse another --workdir (with init_from={workdir} to train on from its weights), "
            "the same options, or remove the folder to start afresh"
        )


def _with_defaults(config: Config, base: Config) -> dict[str, Any]:
    config = plain(config)
    defaults = {**plain(base), "model": plain(model_defaults(config["model"]["name"]))}
    sections = {k: v | config.get(k, {}) for k, v in defaults.items() if isinstance(v, dict)}
    return {**defaults, **config, **sections}


def load_classes(config: Mapping[str, Any], workdir: str | pathlib.Path) -> ClassTable:
    """The classes of a run, as saved with it."""
    path = pathlib.Path(workdir) / CLASSES_FILE
    if not path.exists():
        return class_table(config["data"])
    what, remedy = "the classes.json of a run", "use the file that training wrote"
    rows = read_json(path, what, remedy, kind=list)
    try:
        return from_rows(rows, config["model"].get("head") == "sigmoid")
    except ValueError as error:
        raise DataError(f"{path} is not {what}: {error}", remedy) from error


def save_classes(classes: ClassTable, workdir: pathlib.Path) -> None:
    """Writes classes.json of a run or of predictions, which is a class list too."""
    text = json.dumps(classes.to_rows(), indent=1) + "\n"
    with replacing(workdir / CLASSES_FILE) as partial:
        partial.write_text(text, encoding="utf-8")
