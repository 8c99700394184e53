"""The `folder` data set: your own images and masks, paired by a list or by folder and name."""

import dataclasses
import functools
import os
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from segjax.data import class_lists, image_options
from segjax.data.class_lists import ClassList
from segjax.data.classes import IGNORE, ClassTable, from_names
from segjax.data.errors import DataError
from segjax.data.files.archive import existing_root
from segjax.data.files.ids import IdMap, class_ids
from segjax.data.files.images import IMAGE_SUFFIXES, read_image, some
from segjax.data.files.masks import read_listed_mask
from segjax.data.files.multilabel import pair_label_files, read_bits, read_label_files
from segjax.data.files.paired import (
    PairedFiles,
    listed_pair,
    pair_files,
    read_listing,
)
from segjax.data.files.pixels import ARRAY_SUFFIX
from segjax.data.files.values import Range
from segjax.data.source import DatasetSpec

MASK_FORMATS = ("ids", "bits", "per_class")  # values of data.mask_format
_LISTS = ("{}.txt", "{}.csv", "list/{}.txt", "list/{}.csv")
_LAYOUTS = (
    "images/<split> with masks/<split>, or <split>/images with <split>/masks, or a list of "
    "`image mask` lines: <split>.txt or .csv, or either in list/"
)


def open_folder(
    root,
    split: str,
    classes: ClassTable | ClassList,
    *,
    ignore_ids: Sequence[int] = (IGNORE,),
    channels: int = 3,
    value_range: Sequence[Range] = (),
    exif: str = "auto",
    mask_format: str = "ids",
) -> PairedFiles:
    """The image and mask files of a split.

    They are those of the list `<split>.txt` (or .csv, or either in `list/`), if there is one; else
    those in `images/<split>` and `masks/<split>`, or in `<split>/images` and `<split>/masks`.
    Subfolders are searched, and are part of the names.

    `read_listing` and `pair_files` describe the pairing, `read_listed_mask` the masks.

    Args:
      root: the data set's folder.
      split: the split's name, such as "train".
      classes: the K classes, or the class list with the ids and colours in the masks.
      ignore_ids: ids in the mask files that become 255, also class ids.
      channels, value_range, exif: of the images; see `read_image`.
      masks: what they hold. "ids": one class per pixel. "bits" (see `read_bits`) and "per_class"
        (a file for each class, see `pair_label_files` and `read_label_files`): any number of
        classes per pixel; the labels are those of `ClassTable.multilabel`.

    Raises:
      DataError: if there are several lists, or neither a list nor both folders; a list names a
        missing file, or an image twice; or files do not pair one to one.
    """
    listed = classes if isinstance(classes, ClassList) else class_lists.listed(classes)
    if mask_format != "ids":
        listed = _multilabel(listed)
    root, ignore_ids = existing_root(root, _LAYOUTS), tuple(int(i) for i in ignore_ids)
    listing, more_masks = _listing(root, split), []
    if listing and mask_format == "per_class":
        raise DataError(
            f"data.mask_format='per_class' with the list {listing}, which names one mask an image",
            "use folders of images and of masks, or data.mask_format=bits",
        )
    if listing:
        image_paths, mask_paths = read_listing(root, listing)
        names = _names(image_paths, listing)
        pairing = f"as listed in {listing.relative_to(root).as_posix()}"
    else:
        suffixes = (*IMAGE_SUFFIXES, ARRAY_SUFFIX)
        folders = _split_folders(root, split)
        if mask_format == "per_class":
            paired = pair_label_files(*folders, listed.classes.names, suffixes)
            names, image_paths, (mask_paths, *others), pairing = paired
            more_masks = list(zip(*others, strict=True))
        else:
            names, image_paths, mask_paths, pairing = pair_files(*folders, suffixes)
    read_ids = functools.partial(read_listed_mask, listed=listed, ignore_ids=ignore_ids)
    if mask_format == "bits":
        one = len(listed.classes) == 1
        read_ids = functools.partial(read_bits, one_label=one, ignore_ids=ignore_ids)
    if mask_format == "per_class":
        read_ids = functools.partial(read_label_files, ignore_ids=ignore_ids)
    return PairedFiles(
        "Folder",
        split,
        listed.classes,
        names,
        image_paths,
        mask_paths,
        _id_map(listed, ignore_ids, mask_format),
        read_image=functools.partial(
            read_image, channels=channels, value_range=tuple(value_range), exif=exif
        ),
        read_ids=read_ids,
        pairing=pairing,
        more_masks=more_masks,
    )


def _multilabel(listed: ClassList) -> ClassList:
    """The list with labels as bits."""
    if IGNORE in listed.labels:
        raise DataError(
            "data.classes has lines that end with `ignore`, which masks of bits cannot use",
            "leave these lines out, and mark void pixels with one of data.ignore_ids",
        )
    classes = dataclasses.replace(listed.classes, multilabel=True)
    return dataclasses.replace(listed, classes=classes)


def _listing(root: pathlib.Path, split: str) -> pathlib.Path | None:
    lists = [root / name.format(split) for name in _LISTS if (root / name.format(split)).is_file()]
    if len(lists) > 1:
        raise DataError(
            f"data split {split!r} has several lists in data.root={root}: "
            f"{', '.join(p.relative_to(root).as_posix() for p in lists)}",
            "use one of them",
        )
    return lists[0] if lists else None


def _names(image_paths: list[pathlib.Path], listing: pathlib.Path) -> list[str]:
    """Paths below the folder that all images share, without suffixes if they differ without."""
    twice = [str(path) for path, count in Counter(image_paths).items() if count > 1]
    if twice:
        raise DataError(f"{listing} lists images twice: {some(twice)}", "use each image once")
    shared = os.path.commonpath([path.parent for path in image_paths])
    names = [path.relative_to(shared) for path in image_paths]
    stems = [name.with_suffix("").as_posix() for name in names]
    return stems if len(set(stems)) == len(stems) else [name.as_posix() for name in names]


def _id_map(listed: ClassList, ignore_ids: tuple[int, ...], mask_format: str) -> IdMap:
    if listed.classes.multilabel:
        count = len(listed.classes.values)
        if mask_format == "per_class":  # `read_label_files` has mapped the ignored ids
            return class_ids(count)
        words = f"0..{count - 1}, a bit for each of {len(listed.classes)} classes"
        id_map = class_ids(count, ignore_ids)
        return dataclasses.replace(id_map, allowed=f"{words}, and data.ignore_ids={ignore_ids}")
    id_map = class_ids(len(listed.ids), ignore_ids)
    if listed.ids == listed.labels:
        return id_map
    labels = dict(zip(listed.ids, listed.labels, strict=True))
    return IdMap({**labels, **dict.fromkeys(ignore_ids, IGNORE)}, id_map.allowed)


def _split_folders(root: pathlib.Path, split: str) -> tuple[pathlib.Path, pathlib.Path]:
    layouts = (
        (root / "images" / split, root / "masks" / split),
        (root / split / "images", root / split / "masks"),
    )
    complete = [pair for pair in layouts if pair[0].is_dir() and pair[1].is_dir()]
    if len(complete) == 1:
        return complete[0]
    existing = [d.relative_to(root).as_posix() for pair in layouts for d in pair if d.is_dir()]
    splits = {p.name for p in (root / "images").glob("*/")}
    splits |= {p.parent.name for p in root.glob("*/images/")}
    lists = [p for name in _LISTS for p in root.glob(name.format("*"))]
    splits |= {p.stem for p in lists if _is_listing(p)}
    raise DataError(
        f"data split {split!r}: data.root={root} needs one of {_LAYOUTS}; found of these: "
        f"{some(existing)}; splits found: {some(splits)}; data.root holds: "
        f"{some([p.name for p in root.iterdir()])}",
        "use one of the splits, or add the folders or the list",
    )


def _is_listing(path: pathlib.Path) -> bool:
    """Whether the first line is a pair of files with suffixes of images."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        words = next(filter(None, map(listed_pair, file)), [])
    return len(words) == 2 and (
        words == ["image", "mask"] or all(w.lower().endswith(IMAGE_SUFFIXES) for w in words[1:])
    )


def _class_list(data: Mapping[str, Any]) -> ClassList:
    """`data.classes`, a file or names separated by commas; else `data.num_classes` of them."""
    given, count = data["classes"], data["num_classes"]
    if not given and not count:
        raise DataError(
            "data.classes is empty, but the folder data set has no classes of its own",
            'use a class list, a file or names ("road,car,sky"), or at least data.num_classes',
        )
    path = pathlib.Path(given)
    if given and (path.suffix in (".txt", ".csv", ".json") or path.is_file()):
        return class_lists.read_class_list(path)
    names = [name.strip() for name in given.split(",") if name.strip()]
    names = names if given else [f"class {k}" for k in range(count)]
    return class_lists.listed(from_names(names))


def _class_table(data: Mapping[str, Any]) -> ClassTable:
    listed = _class_list(data)
    return (listed if data.get("mask_format", "ids") == "ids" else _multilabel(listed)).classes


SPEC = DatasetSpec(
    title="folder: your own images and masks",
    licence="yours",
    url="",
    layout=_LAYOUTS,
    splits=("train", "val", "test"),
    classes=lambda data: _class_table(data),
    open=lambda data, split: open_folder(
        data["root"],
        split,
        _class_list(data),
        ignore_ids=tuple(data["ignore_ids"]),
        channels=data["channels"],
        value_range=image_options.ranges_of(data),
        exif=data.get("exif", "auto"),
        mask_format=data.get("mask_format", "ids"),
    ),
)
