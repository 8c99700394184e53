"""The `folder` data set: anyone's images and masks, paired by folder and name."""

import pathlib
from collections.abc import Mapping
from typing import Any

from segjax.data import classes as class_tables
from segjax.data.classes import IGNORE, ClassTable
from segjax.data.ids import class_ids
from segjax.data.images import some
from segjax.data.pairs import PairedFiles, existing_root, pair_files
from segjax.data.spec import DatasetSpec

_LAYOUTS = "images/<split> with masks/<split>, or <split>/images with <split>/masks"


def open_folder(root, split: str, classes: ClassTable, *, ignore_ids=(IGNORE,)) -> PairedFiles:
    """One split's image and mask files, in `images/<split>` and `masks/<split>`, or in
    `<split>/images` and `<split>/masks`; subfolders are searched and count in the name.

    How images and masks pair: see `pair_files`; `pairing` says it in words.

    Args:
      root: the data set's folder.
      split: the split's folder name, such as "train".
      classes: the K classes.
      ignore_ids: ids in the mask files that become 255. A class id listed here is ignored too.

    Raises:
      ValueError: if a folder is missing or empty, or files do not pair one to one.
    """
    images, masks = _split_folders(existing_root(root, _LAYOUTS), split)
    names, image_paths, mask_paths, pairing = pair_files(images, masks)
    return PairedFiles(
        "Folder",
        split,
        classes,
        names,
        image_paths,
        mask_paths,
        class_ids(len(classes), ignore_ids),
        pairing=pairing,
    )


def _split_folders(root: pathlib.Path, split: str) -> tuple[pathlib.Path, pathlib.Path]:
    layouts = (
        (root / "images" / split, root / "masks" / split),
        (root / split / "images", root / split / "masks"),
    )
    complete = [pair for pair in layouts if pair[0].is_dir() and pair[1].is_dir()]
    if len(complete) == 1:
        return complete[0]
    found = [d.relative_to(root).as_posix() for pair in layouts for d in pair if d.is_dir()]
    splits = {p.name for p in (root / "images").glob("*/")}
    splits |= {p.parent.name for p in root.glob("*/images/")}
    raise ValueError(
        f"data split {split!r}: data.root={root} needs {_LAYOUTS}, one of the two; found of these: "
        f"{some(found)}; splits found: {some(splits)}; data.root holds: "
        f"{some([p.name for p in root.iterdir()])}; use one of the splits or add the folders"
    )


def _classes(data: Mapping[str, Any]) -> ClassTable:
    """`data.classes`, a file or names separated by commas; else `data.num_classes` of them."""
    listed, count = data["classes"], data["num_classes"]
    if not listed and not count:
        raise ValueError(
            "data.classes is empty: the folder data set wants a class list, a file or names "
            '("road,car,sky"), or at least data.num_classes'
        )
    if not listed:
        return class_tables.from_names([f"class {k}" for k in range(count)])
    path = pathlib.Path(listed)
    if path.suffix in (".txt", ".csv", ".json") or path.is_file():
        return class_tables.from_file(path)
    return class_tables.from_names([name.strip() for name in listed.split(",") if name.strip()])


SPEC = DatasetSpec(
    title="folder: your own images and masks",
    licence="yours",
    url="",
    layout=_LAYOUTS,
    splits=("train", "val", "test"),
    classes=_classes,
    open=lambda data, split: open_folder(
        data["root"], split, _classes(data), ignore_ids=tuple(data["ignore_ids"])
    ),
)
