"""The data sets by name: from `config.data` to a source of samples.

A source has a length, `[i] -> {"image": uint8 [h, w, 3], "label": uint8 [h, w], "name": str}`, and
`classes`.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from segjax.data import classes as class_tables
from segjax.data.classes import CAMVID, IDD_LEVEL1, ClassTable
from segjax.data.folders import CamVid, Folder
from segjax.data.streets import Streets

DATASETS = ("streets", "camvid", "folder")


def make_source(config: Mapping[str, Any], split: str, seed: int = 0) -> Any:
    """Opens a split of the data set that `config.data` names; decodes nothing yet.

    Args:
      config: `config.data`.
      split: "train", "val", "test", or what the folder has.
      seed: of the procedural scenes.

    Raises:
      ValueError: naming the option or folder, what was found and what to do.
    """
    name = config["name"]
    if name == "streets":
        length = config["train_images" if split == config["train_split"] else "eval_images"]
        return Streets(split, tuple(config["image_size"]), length=length, seed=seed)
    classes = class_table(config)
    if not config["root"]:
        raise ValueError(
            f"data.root is empty; {name} reads images from a folder: --config.data.root=FOLDER"
        )
    if name == "camvid":
        return CamVid(config["root"], split)
    return Folder(config["root"], split, classes, ignore_ids=tuple(config["ignore_ids"]))


def class_table(config: Mapping[str, Any]) -> ClassTable:
    """The classes of the data set that `config.data` names.

    Raises:
      ValueError: for an unknown data set, a missing class list, or one whose length is not
        `data.num_classes`.
    """
    name, wanted = config["name"], config["num_classes"]
    if name not in DATASETS:
        raise ValueError(f"data.name={name!r} is unknown; known data sets: {', '.join(DATASETS)}")
    if name == "streets":
        table = IDD_LEVEL1
    elif name == "camvid":
        table = CAMVID
    elif config["classes"]:
        table = _listed(config["classes"])
    elif wanted:
        table = class_tables.from_names([f"class {k}" for k in range(wanted)])
    else:
        raise ValueError(
            "data.classes is empty: the folder data set wants a class list, a file or names "
            '("road,car,sky"), or at least data.num_classes'
        )
    if wanted and wanted != len(table):
        raise ValueError(
            f"data.num_classes={wanted} but {name} has {len(table)} classes "
            f"({', '.join(table.names)}); leave it 0 to take them as they are"
        )
    return table


def _listed(classes: str) -> ClassTable:
    """A class list: a file, or names separated by commas."""
    path = pathlib.Path(classes)
    if path.suffix in (".txt", ".csv", ".json") or path.is_file():
        return class_tables.from_file(path)
    return class_tables.from_names([name.strip() for name in classes.split(",") if name.strip()])
