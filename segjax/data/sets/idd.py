"""The India Driving Dataset: unstructured driving scenes, labelled by polygons.

The polygons are drawn at any level of the label hierarchy.

Reference: Varma et al., "IDD: A Dataset for Exploring Problems of Autonomous Navigation in
Unconstrained Environments", WACV 2019, figure 2.
"""

import csv
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from segjax.data.classes import IGNORE, ClassTable
from segjax.data.errors import DataError
from segjax.data.files.archive import existing_root
from segjax.data.files.atomic import replacing
from segjax.data.files.ids import IdMap
from segjax.data.files.images import some
from segjax.data.files.json_file import parse_json
from segjax.data.files.masks import read_mask
from segjax.data.files.paired import PairedFiles
from segjax.data.files.pixels import check_size
from segjax.data.files.reading import reading
from segjax.data.files.regular import read_bytes
from segjax.data.files.walk import walk
from segjax.data.parallel import in_processes
from segjax.data.polygons.paint import paint
from segjax.data.polygons.per_image import cityscapes
from segjax.data.source import DatasetSpec

_BACKGROUND = "unlabeled"  # of pixels that no polygon covers

# The names of the masks at each level, as the authors' preparation script writes them.
MASK_ENDINGS = {f"level{k}": f"_gtFine_labellevel{k}Ids.png" for k in (1, 2, 3, 4)}
MASK_ENDINGS |= {"cityscapes": "_gtFine_labelcsTrainIds.png"}
_IMAGE_ENDINGS = ("_leftImg8bit.png", "_leftImg8bit.jpg", "_leftImg8bit.jpeg")
_POLYGONS = "_gtFine_polygons.json"
_LAYOUT = (
    "leftImg8bit/<split>/<drive>/<frame>_leftImg8bit.png (or .jpg) and "
    f"gtFine/<split>/<drive>/<frame>{_POLYGONS}, or folders that each hold these (both parts)"
)
_FORM = (
    "use an intact file of the data set, with imgWidth, imgHeight, and objects that have label and "
    "polygon"
)
# The notebooks in the seed documents tested on 4,011 of the 14,027 training images, without saying
# which.
_NOTEBOOK_SHARE = 4011 / 14027
_NOTEBOOK_SPLITS = ("notebook_train", "notebook_test")


def open_idd(root, split: str, variant: str = "level1", *, seed: int = 0) -> PairedFiles:
    """A split's images with masks at a level of the label hierarchy.

    A mask is drawn from the frame's polygons, or read if `write_masks` or the authors' script has
    put one beside them; `pairing` counts both.

    Args:
      root: the data set's folder, or one that holds both of its parts, which are then joined.
      split: train or val; or notebook_train, notebook_test: the training split's sorted frames in
        an order drawn from `seed`, the last 4011/14027 of them for testing.
      variant: level1, level2, level3, level4 (7, 16, 26, 30 classes), or cityscapes (19).
      seed: of the notebooks' splits.

    Raises:
      DataError: if the split is missing or has no labels, or files do not pair.
    """
    images, labels = _find_files(root, split, variant)
    unlabelled, imageless = images.keys() - labels.keys(), labels.keys() - images.keys()
    if unlabelled or imageless:
        raise DataError(
            f"data split {split!r}: {len(unlabelled)} images have no labels ({some(unlabelled)}) "
            f"and {len(imageless)} labels no image ({some(imageless)})",
            f"use a complete copy, with {_LAYOUT}",
        )
    names = sorted(images)
    if split in _NOTEBOOK_SPLITS:
        order = np.random.default_rng(seed).permutation(len(names))
        first = len(names) - round(len(names) * _NOTEBOOK_SHARE)
        kept = order[:first] if split == "notebook_train" else order[first:]
        names = [names[i] for i in sorted(kept)]
    classes = class_table(variant)
    drawn = sum(labels[n].suffix == ".json" for n in names)
    return PairedFiles(
        f"IDD {variant}",
        split,
        classes,
        names,
        [images[n] for n in names],
        [labels[n] for n in names],
        IdMap(
            {k: k for k in range(len(classes))} | {IGNORE: IGNORE},
            f"0..{len(classes) - 1} and {IGNORE}",
            f"use masks of {variant} in *{MASK_ENDINGS[variant]}, or remove them to have "
            "polygons drawn",
        ),
        read_ids=functools.partial(_read_ids, variant=variant),
        pairing=f"{drawn} masks drawn from *{_POLYGONS}, {len(names) - drawn} read from "
        f"*{MASK_ENDINGS[variant]}",
    )


def write_masks(
    root,
    splits: Iterable[str],
    variant: str = "level1",
    *,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Draws each frame's mask into a PNG beside its polygons, which is faster to read.

    The files have the same names as those of the authors' script, and appear when complete, so a
    run that was stopped can be continued; existing files are left alone.

    Args:
      root, variant: as in `open_idd`.
      splits: names of splits.
      workers: processes; 0 = this one.
      progress: called with (masks that exist, masks in all) after each one.

    Returns:
      The number of masks written.

    Raises:
      DataError: as `open_idd` and `draw_polygons`.
    """
    splits = ["train" if split in _NOTEBOOK_SPLITS else split for split in splits]
    by_split = [_find_files(root, split, variant)[1] for split in dict.fromkeys(splits)]
    labels = [files[name] for files in by_split for name in sorted(files)]
    todo = [path for path in labels if path.suffix == ".json"]
    calls = {path: functools.partial(_write_mask, path, variant) for path in todo}
    for done, _ in enumerate(in_processes(calls, workers), len(labels) - len(todo) + 1):
        if progress is not None:
            progress(done, len(labels))
    return len(todo)


def _write_mask(path: pathlib.Path, variant: str) -> None:
    stem = path.name.removesuffix(_POLYGONS)
    with replacing(path.with_name(stem + MASK_ENDINGS[variant])) as partial:
        Image.fromarray(draw_polygons(path, variant)).save(partial, format="png")


def _read_ids(path: pathlib.Path, variant: str) -> Integer[np.ndarray, "h w"]:
    return draw_polygons(path, variant) if path.suffix == ".json" else read_mask(path)


def _find_files(root, split: str, variant: str):
    """(images, labels) of a split by name: `<drive>/<frame>`, or `<part>/<drive>/<frame>`.

    A label is the frame's mask of that level, or its polygons if it has none.
    """
    root = existing_root(root, _LAYOUT)
    folder = "train" if split in _NOTEBOOK_SPLITS else split
    parts = [root]
    if not (root / "leftImg8bit").is_dir():
        parts = sorted(path.parent for path in root.glob("*/leftImg8bit/"))
    if folder == "test" and not any((part / "gtFine" / folder).is_dir() for part in parts):
        raise DataError(
            f"data split 'test': IDD's authors keep its labels, and {root} has none",
            "use val, or notebook_test (held back from train)",
        )
    images, labels = {}, {}
    for part in parts:
        image_folder, label_folder = part / "leftImg8bit" / folder, part / "gtFine" / folder
        if image_folder.is_dir() and label_folder.is_dir():
            name = part.relative_to(root)
            images |= _files_by_name(image_folder, name, _IMAGE_ENDINGS)
            labels |= _files_by_name(label_folder, name, (MASK_ENDINGS[variant], _POLYGONS))
    if not images:
        content = [p.relative_to(root).as_posix() for p in root.glob("*")]
        content += [p.relative_to(root).as_posix() for part in parts for p in part.glob("*/*/")]
        raise DataError(
            f"data split {split!r}: no images in data.root={root}; it holds: {some(content, 12)}",
            f"use the split train, val, {' or '.join(_NOTEBOOK_SPLITS)}, and a folder with "
            f"{_LAYOUT}",
        )
    return images, labels


def _files_by_name(
    folder: pathlib.Path, part: pathlib.Path, endings: tuple[str, ...]
) -> dict[str, pathlib.Path]:
    """Files below `folder` by part, path and name without the ending; the first ending wins."""
    files, paths = {}, list(walk(folder))
    for ending in reversed(endings):
        for path in paths:
            if path.name.endswith(ending):
                name = part / path.parent.relative_to(folder) / path.name.removesuffix(ending)
                files[name.as_posix()] = path
    return files


def label_ids(variant: str) -> Mapping[str, int]:
    """The id, 0..K-1 or 255, that each of the 40 labels has at a level (a `data.variant`)."""
    return {row["name"]: int(row[variant]) for row in _rows()}


@functools.cache
def class_table(variant: str) -> ClassTable:
    """The classes of a level: 7, 16, 26 or 30, or Cityscapes' 19."""
    labels, colors = label_ids(variant), {row["name"]: row["rgb"].split() for row in _rows()}
    names = {r["label"]: r["name"] for r in _rows("idd_names.csv") if r["variant"] == variant}
    member = {}  # the label whose colour and name each class has
    for label, id_ in labels.items():
        if id_ != IGNORE and (id_ not in member or label in names):
            member[id_] = label
    members = [member[k] for k in range(len(member))]
    return ClassTable(
        tuple(names.get(label, label) for label in members),
        tuple(tuple(int(c) for c in colors[label]) for label in members),
    )


def draw_polygons(path: pathlib.Path, variant: str) -> UInt8[np.ndarray, "h w"]:
    """Draws the polygons of a `*_gtFine_polygons.json`: ids 0..K-1 of a level, and 255.

    As in the authors' script, each polygon covers those before it in the file, void ones too;
    deleted ones and those of fewer than 3 points are left out; a label `cargroup` is `car`.

    Raises:
      DataError: naming the file, if it is no such file or has an unknown label.
    """
    ids = label_ids(variant)
    with reading(path, _FORM, "cannot be drawn"):
        annotation = cityscapes(parse_json(read_bytes(path, _FORM), strict=False))
        if annotation.size is None or min(annotation.size) < 1:
            raise ValueError(f"imgHeight and imgWidth are {annotation.size}")
        check_size(path, annotation.size)
    known = {}
    for name in {shape.label for shape in annotation.shapes}:
        label = name if name in ids else name.removesuffix("group")
        if label not in ids:
            raise DataError(
                f"{path}: label {name!r} is unknown", f"use the labels of IDD: {', '.join(ids)}"
            )
        known[name] = ids[label]
    drawn = paint(annotation.size, annotation.shapes, known, ids[_BACKGROUND])
    return drawn.astype(np.uint8)


@functools.cache
def _rows(table: str = "idd.csv") -> tuple[dict[str, str], ...]:
    """The rows of a table.

    idd.csv: the 40 labels of the authors' label file, the id of each at every level, its colour.
    idd_names.csv: classes of several labels, the label whose colour such a class has, its name.
    """
    path = pathlib.Path(__file__).parent / "tables" / table
    with path.open(newline="") as file:
        return tuple(csv.DictReader(file))


SPEC = DatasetSpec(
    title="India Driving Dataset (Varma et al., WACV 2019)",
    licence="the authors' own terms, accepted on registering for the download",
    url="https://idd.insaan.iiit.ac.in",
    layout=_LAYOUT,
    splits=("train", "val", *_NOTEBOOK_SPLITS),
    classes=lambda data: class_table(data["variant"]),
    open=lambda data, split: open_idd(data["root"], split, data["variant"], seed=data["seed"]),
    variants=tuple(MASK_ENDINGS),
)
