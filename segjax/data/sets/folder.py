"""The `folder` data set: your own images and masks, paired by a list or by folder and name."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from segjax.data import class_lists, image_options
from segjax.data.class_lists import ClassList
from segjax.data.classes import IGNORE, ClassTable, in_words
from segjax.data.errors import DataError
from segjax.data.files.archive import existing_root
from segjax.data.files.ids import IdMap, class_ids, listed_ids
from segjax.data.files.images import read_image
from segjax.data.files.mask_formats import MULTILABEL, MaskFormat
from segjax.data.files.multilabel import pair_label_files
from segjax.data.files.paired import PairedFiles
from segjax.data.files.pairing import Pairs
from segjax.data.files.panoptic import find_annotations, load_annotations
from segjax.data.files.patterns import Tree
from segjax.data.files.values import Range
from segjax.data.layouts.match import Choice, SplitFiles
from segjax.data.layouts.samples import LAYOUTS, Place, files_of_split
from segjax.data.polygons.class_names import found_classes, number_names
from segjax.data.polygons.formats import read_shapes, with_background
from segjax.data.source import DatasetSpec


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
    mask_threshold: float = 0,
    color_distance: int = 0,
    missing_is_empty: bool = False,
    choice: Choice | None = None,
    tree: Tree | None = None,
) -> PairedFiles:
    """The image and mask files of a split.

    They are those of `data.images` and `data.masks`; without these, those of the list `<split>.txt`
    (or .csv, or either in `list/`), if there is one; else those of the layout that is found, such
    as `images/<split>` with `masks/<split>`. Subfolders are searched, and are part of the names.
    Masks are pictures, or files of polygons, which are drawn.

    `lists` and `pairing` describe the pairing, `layouts` the layouts, `mask_formats.MaskFormat`
    the masks, `polygons.formats` the polygons.

    Args:
      root: the data set's folder.
      split: the split's name, such as "train".
      classes: the K classes, or the class list with the ids and colours in the masks. For polygons
        its names are the labels; without one for background it gets that in front.
      channels, value_range, exif: of the images; see `read_image`.
      ignore_ids, mask_format, mask_threshold, color_distance, missing_is_empty: how masks are
        read, see `MaskFormat`.
      choice: further options that say where the files are.
      tree: of the root, where it has been looked at already.

    Raises:
      DataError: if there are several lists or layouts, or none; a list names a missing file, or an
        image twice; or files do not pair one to one.
    """
    listed = classes if isinstance(classes, ClassList) else class_lists.listed(classes)
    ignored = tuple(int(i) for i in ignore_ids)
    form = MaskFormat(mask_format, ignored, mask_threshold, color_distance, missing_is_empty)
    form.check(listed)
    if form.is_multilabel:
        listed = _multilabel(listed, mask_format)
    root, more_masks, found = existing_root(root, LAYOUTS), [], {}
    choice = dataclasses.replace(choice or Choice(), channels=channels)
    if form.has_file_per_class:
        label_files = pair_label_files(
            *Place(root, choice, split, tree).folders(split),
            listed.names,
            choice.suffixes,
            missing_is_empty=missing_is_empty,
            has_rest=not form.is_multilabel,
        )
        masks = [masks[0] for masks in label_files.masks]
        pairs = Pairs(label_files.names, label_files.images, masks, label_files.rule)
        files, more_masks = SplitFiles(pairs, ()), [masks[1:] for masks in label_files.masks]
        found = {"by_folder": label_files.by_folder, "rest": "".join(label_files.missing)}
    else:
        files = files_of_split(root, split, choice, tree)
    if files.shapes and mask_format != "ids":
        raise DataError(
            f"data.mask_format={mask_format} with polygons ({files.pairs.masks[0]})",
            "use data.mask_format=ids: a pixel has the class of the shape on top",
        )
    if form.name == "panoptic":
        annotations = find_annotations(root, split, files.pairs.masks)
        load_annotations(annotations)  # now, once, and not in each of the threads that read masks
        more_masks = [(annotations,)] * len(files.pairs.masks)
    read_ids, void_ids = form.reader(listed, **found), form.void_ids
    notes = files.notes
    if files.shapes:
        listed, background = with_background(listed)
        read_ids = functools.partial(
            read_shapes,
            listed=listed,
            background=background,
            many=files.shapes == "many",
            names=number_names(root, files.pairs.masks[0], listed, background),
        )
        name = listed.names[listed.ids.index(background)]
        notes = (*notes, f"masks are drawn from polygons; what none covers is {name!r}")
        void_ids = (*ignored, IGNORE)
    return PairedFiles(
        "Folder",
        split,
        listed.classes,
        files.pairs.names,
        files.pairs.images,
        files.pairs.masks,
        _id_map(listed, void_ids, mask_format),
        read_image=functools.partial(
            read_image, channels=channels, value_range=tuple(value_range), exif=exif
        ),
        read_ids=read_ids,
        pairing=files.pairs.rule,
        notes=notes,
        drawn=bool(files.shapes),
        more_masks=more_masks,
    )


def _multilabel(listed: ClassList, mask_format: str) -> ClassList:
    """The list with labels as bits."""
    if IGNORE in listed.labels:
        raise DataError(
            "data.classes has lines that end with `ignore`, which masks of bits cannot use",
            "leave these lines out, and mark void pixels with one of data.ignore_ids",
        )
    if listed.classes.ids and mask_format == "bits":
        raise DataError(
            f"data.classes gives ids {in_words(listed.classes.ids)}, but masks hold bits 0..K-1",
            "use a list without ids, in the order of the bits",
        )
    classes = dataclasses.replace(listed.classes, multilabel=True, ids=())
    return dataclasses.replace(listed, classes=classes)


def _id_map(listed: ClassList, ignore_ids: tuple[int, ...], mask_format: str) -> IdMap:
    if listed.classes.multilabel:
        count = len(listed.classes.values)
        if mask_format == "per_class":  # `read_label_files` has mapped the ignored ids
            return class_ids(count)
        words = f"0..{count - 1}, a bit for each of {len(listed.classes)} classes"
        id_map = class_ids(count, ignore_ids)
        return dataclasses.replace(id_map, allowed=f"{words}, and data.ignore_ids={ignore_ids}")
    return listed_ids(listed, ignore_ids)


def _open(data: Mapping[str, Any], split: str) -> PairedFiles:
    source = open_folder(
        data["root"],
        split,
        _class_list(data),
        ignore_ids=tuple(data["ignore_ids"]),
        channels=data["channels"],
        value_range=image_options.ranges_of(data),
        exif=data.get("exif", "auto"),
        mask_format=data.get("mask_format", "ids"),
        mask_threshold=data.get("mask_threshold", 0),
        color_distance=data.get("color_distance", 0),
        missing_is_empty=data.get("missing_is_empty", False),
        choice=Choice.of(data),
        tree=_tree(data),
    )
    if data["classes"]:
        return source
    path = _place(data, split).class_list
    where = (
        "the names in its polygons" if source.drawn else f"data.num_classes={len(source.classes)}"
    )
    note = f"classes of {path or where}: {', '.join(source.classes.names)}"
    return dataclasses.replace(source, notes=(*source.notes, note))


def _place(data: Mapping[str, Any], split: str) -> Place:
    return Place(pathlib.Path(data["root"]), Choice.of(data), split, _tree(data))


def _tree(data: Mapping[str, Any]) -> Tree | None:
    """The tree of the root that `Splits` hands on, so that the root is searched once."""
    trees = data.get("trees")
    if trees is None:
        return None
    root = pathlib.Path(data["root"])
    return trees.setdefault(root, Tree(root))


def _class_list(data: Mapping[str, Any]) -> ClassList:
    """`data.classes`, a file or names separated by commas; else the list that is found in the
    folder, or `data.num_classes` of them; for polygons with a background."""
    given, count = data["classes"], data["num_classes"]
    place = None
    if data["root"] and pathlib.Path(data["root"]).is_dir() and data.get("mask_format") != "bits":
        place = _place(data, data["train_split"])
    if given:
        listed = class_lists.given_list(given)
    else:
        found = None
        # With a number of classes, a list of something else that lies there is no error.
        with contextlib.suppress(DataError) if count else contextlib.nullcontext():
            found = found_classes(place) if place else None
        if count and (found is None or len(found.classes) != count):
            found = class_lists.given_list("", count)
        if found is None:
            raise DataError(
                "data.classes is empty, but the folder data set has no classes of its own",
                'use a class list, a file or names ("road,car,sky"), or at least data.num_classes',
            )
        listed = found
    return with_background(listed)[0] if place and place.kind else listed


def _class_table(data: Mapping[str, Any]) -> ClassTable:
    listed, mask_format = _class_list(data), data.get("mask_format", "ids")
    return (_multilabel(listed, mask_format) if mask_format in MULTILABEL else listed).classes


SPEC = DatasetSpec(
    title="folder: your own images and masks",
    licence="yours",
    url="",
    layout=LAYOUTS,
    splits=("train", "val", "test"),
    classes=lambda data: _class_table(data),
    open=_open,
)
