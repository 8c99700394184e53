"""From a row of a published table to the config of its run."""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from segjax import config as configs
from segjax import config_files
from segjax.published.table import PAPER, PublishedTable, Row
from segjax.training.options import check_options

# They change nothing in what is learned.
_NOT_OF_THE_RUN = ("seed", "data.root", "report", "parallel", "data.workers", "train.log_every")


def config_of(
    table: PublishedTable, row: Row, scale: str, seed: int = 0, data_dir: str = "data"
) -> ml_collections.ConfigDict:
    """The config that a row is trained with.

    A warm-up given in steps keeps its share of the run; schedules span the run by themselves.

    Args:
      table: holds the row.
      row: one with a config.
      scale: of `table.scales`.
      seed: of the run.
      data_dir: the folder in place of `data` in `data.root`, such as data/camvid.

    Raises:
      ValueError: naming the row, for an unknown config or option, or a value of another type.
    """
    try:
        published = configs.with_overrides(config_files.get(row.config), row.options)
        options = table.options_of(row, scale)
        config = configs.with_overrides(config_files.get(row.config), options)
        if "optim.warmup_steps" not in options:
            config.optim.warmup_steps = _warmup(published, config)
        config.seed = seed
        root = pathlib.PurePath(config.data.root)
        if root.parts[:1] == ("data",):
            config.data.root = str(pathlib.Path(data_dir, *root.parts[1:]))
        configs.check_set(config, config_files.base(config.model.name))
        check_options(config)
    except ValueError as error:
        raise ValueError(f"row {row.name!r} of table {table.name} at scale {scale}: {error}") from (
            error
        )
    return config


def _warmup(published: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    before, now = (each["train"]["steps"] for each in (published, config))
    warmup = config["optim"]["warmup_steps"]
    return round(warmup * now / before) if before and now else warmup


def options_changed(table: PublishedTable, row: Row, scale: str) -> dict[str, tuple[Any, Any]]:
    """Option -> (as published, at the scale), where they differ."""
    if scale == PAPER:
        return {}
    at = {each: config_of(table, row, each) for each in (PAPER, scale)}
    found = configs.difference(at[PAPER], at[scale])
    return {name: values for name, values in found.items() if _is_of_the_run(name)}


def config_hash(config: Mapping[str, Any]) -> str:
    """The start of the SHA-256 of what a run learns from: the same for every seed and folder."""
    flat = configs.flatten(configs.plain(config))
    learned = {name: value for name, value in sorted(flat.items()) if _is_of_the_run(name)}
    return hashlib.sha256(json.dumps(learned).encode()).hexdigest()[:12]


def _is_of_the_run(name: str) -> bool:
    return not any(name == each or name.startswith(f"{each}.") for each in _NOT_OF_THE_RUN)
