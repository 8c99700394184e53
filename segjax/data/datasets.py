"""The data sets by name: from `config.data` to a source of samples.

A source has a length, `[i] -> {"image": uint8 [h, w, 3], "label": uint8 [h, w], "name": str}`, and
`classes`. One of files has `image(i)` and `ids(i)` too; see `pairs.PairedFiles`.
"""

from collections.abc import Mapping
from typing import Any

from segjax.data.class_map import ClassMap, map_classes, read_class_map
from segjax.data.classes import IDD_LEVEL1, ClassTable
from segjax.data.sets import ade20k, camvid, cityscapes, folder, idd, prepared, sunrgbd, tfds, voc
from segjax.data.spec import DatasetSpec
from segjax.data.streets.dataset import Streets

STREETS = DatasetSpec(
    title="streets: procedural street scenes, drawn from (seed, index)",
    licence="none is needed: there are no files",
    url="",
    layout="no files",
    splits=("train", "val", "test"),
    classes=lambda data: IDD_LEVEL1,
    open=lambda data, split: Streets(
        split,
        tuple(data["image_size"]),
        length=data["train_images" if split == data["train_split"] else "eval_images"],
        seed=data["seed"],
    ),
    reads_files=False,
)

DATASETS: Mapping[str, DatasetSpec] = {
    "streets": STREETS,
    "camvid": camvid.SPEC,
    "cityscapes": cityscapes.SPEC,
    "voc": voc.SPEC,
    "ade20k": ade20k.SPEC,
    "sunrgbd": sunrgbd.SPEC,
    "folder": folder.SPEC,
    "prepared": prepared.SPEC,
    "idd": idd.SPEC,
}

_ANY_CHANNELS = ("folder", "prepared")


def spec_of(config: Mapping[str, Any]) -> DatasetSpec:
    """What is known of the data set that `config.data` names.

    Raises:
      ValueError: for an unknown name or variant, listing the known ones.
    """
    name, variant = config["name"], config["variant"]
    if name.startswith("tfds:"):
        spec = tfds.spec_of(name)
    elif name in DATASETS:
        spec = DATASETS[name]
    else:
        known = ", ".join(DATASETS)
        raise ValueError(f"data.name={name!r} is unknown; known data sets: {known}, tfds:NAME")
    if variant and variant not in spec.variants:
        known = ", ".join(spec.variants) or "none: leave it empty"
        raise ValueError(f"data.variant={variant!r} is unknown; {name} has {known}")
    return spec


def make_source(config: Mapping[str, Any], split: str, seed: int = 0) -> Any:
    """Opens a split of the data set that `config.data` names; decodes nothing yet.

    Args:
      config: `config.data`.
      split: "train", "val", "test", or what the data set has.
      seed: of the procedural scenes, and of splits that are drawn.

    Raises:
      ValueError: naming the option or folder, what was found and what to do.
    """
    spec = spec_of(config)
    class_map = _class_map(config, spec)
    if config["channels"] != 3 and (config["channels"] < 1 or config["name"] not in _ANY_CHANNELS):
        raise ValueError(
            f"data.channels={config['channels']}, but images of {config['name']} have 3; use 3, or "
            f"1 or more with data.name={' or '.join(_ANY_CHANNELS)}"
        )
    if spec.reads_files and not config["root"]:
        raise ValueError(
            f"data.root is empty; {config['name']} reads files: --config.data.root=FOLDER with "
            f"{spec.layout}"
        )
    source = spec.open(_resolved(config, spec, seed), split)
    return map_classes(source, class_map) if class_map else source


def evaluation_splits(config: Mapping[str, Any], seed: int = 0) -> tuple[str, ...]:
    """The splits to evaluate on: `data.eval_splits`, or where these are left open `data.val_split`
    and, if there is such a split with labels, "test"."""
    if config["eval_splits"]:
        return tuple(config["eval_splits"])
    splits = [config["val_split"]]
    if "test" not in (*splits, *spec_of(config).unlabelled):
        try:
            make_source(config, "test", seed)
            splits.append("test")
        except ValueError:
            pass  # there is none
    return tuple(splits)


def used_splits(config: Mapping[str, Any], seed: int = 0) -> tuple[str, ...]:
    """All splits that a run reads: for training, for its best checkpoint, for evaluation."""
    wanted = config["train_split"], config["val_split"], *evaluation_splits(config, seed)
    return tuple(dict.fromkeys(wanted))


def class_table(config: Mapping[str, Any]) -> ClassTable:
    """The classes of the data set that `config.data` names, as `data.class_map` leaves them.

    Raises:
      ValueError: for an unknown data set, a missing class list, one whose length is not
        `data.num_classes` (which counts the classes before the map), or a bad class map.
    """
    spec = spec_of(config)
    class_map = _class_map(config, spec)
    return class_map.classes if class_map else _own_classes(config, spec)


def _class_map(config: Mapping[str, Any], spec: DatasetSpec) -> ClassMap | None:
    own, path = _own_classes(config, spec), config["class_map"]
    return read_class_map(path, own) if path else None


def _own_classes(config: Mapping[str, Any], spec: DatasetSpec) -> ClassTable:
    wanted, table = config["num_classes"], spec.classes(_resolved(config, spec))
    if wanted and wanted != len(table):
        raise ValueError(
            f"data.num_classes={wanted} but {config['name']} has {len(table)} classes "
            f"({', '.join(table.names)}); leave it 0 to take them as they are"
        )
    return table


def _resolved(config: Mapping[str, Any], spec: DatasetSpec, seed: int = 0) -> dict[str, Any]:
    """`config.data` with a variant where there are some, and the seed."""
    variant = config["variant"] or next(iter(spec.variants), "")
    return {**config, "variant": variant, "seed": seed}
