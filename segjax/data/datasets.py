"""The data sets by name: from `config.data` to a source of samples.

A new data set is one file in `sets/`, with a `SPEC`, and one row in `DATASETS`.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from segjax.data import class_lists
from segjax.data.class_map import ClassMap, map_classes, read_class_map
from segjax.data.classes import ClassTable, in_words
from segjax.data.errors import DataError
from segjax.data.files.mask_formats import MASK_FORMATS
from segjax.data.sets import (
    ade20k,
    camvid,
    cityscapes,
    folder,
    idd,
    idd_lite,
    prepared,
    sunrgbd,
    tfds,
    voc,
)
from segjax.data.source import DatasetSpec, Source
from segjax.data.streets import dataset as streets

DATASETS: Mapping[str, DatasetSpec] = {
    "streets": streets.SPEC,
    "camvid": camvid.SPEC,
    "cityscapes": cityscapes.SPEC,
    "voc": voc.SPEC,
    "ade20k": ade20k.SPEC,
    "sunrgbd": sunrgbd.SPEC,
    "folder": folder.SPEC,
    "prepared": prepared.SPEC,
    "idd": idd.SPEC,
    "idd_lite": idd_lite.SPEC,
}

_ANY_CHANNELS = _MULTILABEL = ("folder", "prepared")
_LISTED = ("folder", "tfds:")  # have their classes from `data.classes`


def spec_of(config: Mapping[str, Any]) -> DatasetSpec:
    """The row of the data set that `config.data` names; DataError for an unknown name or variant,
    listing the known ones."""
    name, variant = config["name"], config["variant"]
    if name not in DATASETS and not name.startswith("tfds:"):
        found = f"data.name={name!r} is unknown; known data sets: {', '.join(DATASETS)}, tfds:NAME"
        raise DataError(found, "use one of them")
    spec = DATASETS[name] if name in DATASETS else tfds.spec_of(name)
    if variant and variant not in spec.variants:
        known = f"use {', '.join(spec.variants)}" if spec.variants else "leave it empty"
        raise DataError(f"data.variant={variant!r} is unknown to {name}", known)
    return spec


def make_source(config: Mapping[str, Any], split: str, seed: int = 0) -> Source:
    """Opens a split of the data set that `config.data` names; decodes nothing yet.

    Args:
      config: `config.data`.
      split: "train", "val", "test", or another that the data set has.
      seed: of the procedural scenes, and of splits that are drawn.

    Raises:
      DataError: naming the option or folder, what is wrong with it and what to do.
    """
    spec, channels = spec_of(config), config["channels"]
    if channels != 3 and (channels < 1 or config["name"] not in _ANY_CHANNELS):
        raise DataError(
            f"data.channels={channels}, but images of {config['name']} have 3",
            f"use 3, or 1 or more with data.name={' or '.join(_ANY_CHANNELS)}",
        )
    class_map = _class_map(config, spec)
    if spec.reads_files and not config["root"]:
        raise DataError(
            f"data.root is empty, but {config['name']} reads files",
            f"use --config.data.root=FOLDER with {spec.layout}",
        )
    source = spec.open(_resolved(config, spec, seed), split)
    return map_classes(source, class_map) if class_map else source


def class_table(config: Mapping[str, Any]) -> ClassTable:
    """The classes of the data set that `config.data` names, after `data.class_map`.

    Raises:
      DataError: for an unknown data set, a missing class list, one whose length is not
        `data.num_classes` (which counts the classes before the map), or a bad class map.
    """
    spec = spec_of(config)
    class_map = _class_map(config, spec)
    return class_map.classes if class_map else _own_classes(config, spec)


def classes_in_words(config: Mapping[str, Any]) -> str:
    """One line: how many classes, of which file or data set, and their ids; raises as
    `class_table`."""
    own, of, further = _own_classes(config, spec_of(config)), config["name"], []
    if config["classes"] and config["name"].startswith(_LISTED) and not own.multilabel:
        listed = class_lists.given_list(config["classes"])
        of, further = pathlib.Path(listed.source).name or "data.classes", listed.further()
    names = ", ".join((*own.names[:8], *(["..."] if len(own) > 8 else [])))
    line = f"classes: {len(own)} of {of} ({names}), ids {in_words(own.raw_ids)}"
    line = ", ".join([line, *further])
    if not config["class_map"]:
        return line
    mapped = class_table(config)
    return f"{line}; data.class_map makes {len(mapped)}, ids {in_words(mapped.raw_ids)}"


def _class_map(config: Mapping[str, Any], spec: DatasetSpec) -> ClassMap | None:
    own, path = _own_classes(config, spec), config["class_map"]
    if path and own.multilabel:
        raise DataError(
            f"data.class_map={path} with a bit for each class (data.mask_format)",
            "leave it empty: a class map merges and drops class ids",
        )
    return read_class_map(path, own) if path else None


def _own_classes(config: Mapping[str, Any], spec: DatasetSpec) -> ClassTable:
    """The data set's classes before the map."""
    masks = config.get("mask_format", "ids")  # runs of earlier versions have no such options
    if masks not in MASK_FORMATS:
        raise DataError(f"data.mask_format={masks!r} is unknown", f"use {', '.join(MASK_FORMATS)}")
    if masks != "ids" and config["name"] not in _MULTILABEL:
        found = f"data.mask_format={masks!r}, but masks of {config['name']} hold class ids"
        raise DataError(found, f"use data.mask_format=ids, or data.name={' or '.join(_MULTILABEL)}")
    for option in ("mask_threshold", "color_distance", "missing_is_empty"):
        if config.get(option) and config["name"] != "folder":
            found = f"data.{option}={config[option]}, but only masks of data.name=folder have it"
            raise DataError(found, "leave it as it is by default")
    expected, table = config["num_classes"], spec.classes(_resolved(config, spec))
    if expected and expected != len(table):
        raise DataError(
            f"data.num_classes={expected} but {config['name']} has {len(table)} classes "
            f"({', '.join(table.names)})",
            "leave it 0 to take them as they are",
        )
    return table


def _resolved(config: Mapping[str, Any], spec: DatasetSpec, seed: int = 0) -> dict[str, Any]:
    """`config.data` with the seed, and with the first variant where none is chosen."""
    variant = config["variant"] or next(iter(spec.variants), "")
    return {**config, "variant": variant, "seed": seed}
