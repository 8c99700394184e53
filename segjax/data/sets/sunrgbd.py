"""SUN RGB-D (Song et al., 2015): indoor scenes, the colour images and 37 classes.

Two releases hold the same labels: `sunrgbd-meta-data` as a PNG per image, the authors' toolbox in
one MATLAB 7.3 (HDF5) file, beside lists of the images.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer

from segjax.data.class_lists import published
from segjax.data.classes import IGNORE
from segjax.data.errors import DataError
from segjax.data.files.archive import check_split, files_by_key, held, need_folders, pair_by_key
from segjax.data.files.ids import IdMap
from segjax.data.files.images import some
from segjax.data.files.mat import load_mat
from segjax.data.files.paired import PairedFiles
from segjax.data.files.reading import reading
from segjax.data.files.regular import regular
from segjax.data.source import DatasetSpec

_SPLITS = ("train", "test")
_MOST_PIXELS = 100_000_000  # of a label map; Kinect's have 0.4 million
_TEST_IMAGES = 5050  # labels 1..5050 are of the test images, 5051..10335 of the training ones
_PNG_LAYOUT = (
    "sunrgbd_train_test_labels/img-*.png, SUNRGBD-train_images/img-*.jpg and "
    "SUNRGBD-test_images/img-*.jpg"
)
_TOOLBOX_FILES = (
    "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat",
    "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat",
    "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat",
)
_TOOLBOX_LAYOUT = "SUNRGBD/ (of SUNRGBD.zip) and SUNRGBDtoolbox/ (of SUNRGBDtoolbox.zip)"
_LAYOUT = f"{_PNG_LAYOUT}; or {_TOOLBOX_LAYOUT}"
_ID_MAP = IdMap({0: IGNORE, **{k + 1: k for k in range(37)}}, "1..37, and 0 for unlabelled")


def open_sunrgbd(root, split: str) -> PairedFiles:
    """SUN RGB-D: the ids 1..37 of its labels become 0..36, their 0 (unlabelled) becomes 255.

    Args:
      root: with the folders of `sunrgbd-meta-data`'s archives, or with `SUNRGBD/` and
        `SUNRGBDtoolbox/`. With both, the former are read.
      split: "train" (5,285 images) or "test" (5,050). There is no official validation split.

    Raises:
      DataError: if a folder or a file is missing; the message names it.
    """
    check_split("sunrgbd", split, _SPLITS)
    root = pathlib.Path(root)
    if (root / "SUNRGBDtoolbox").is_dir() and not (root / f"SUNRGBD-{split}_images").is_dir():
        return _open_toolbox(root, split)
    folders = [("sunrgbd_train_test_labels", "labels"), f"SUNRGBD-{split}_images"]
    label_folder, image_folder = need_folders(root, split, folders, _LAYOUT)
    masks = _by_number(label_folder, ".png")
    masks = {n: mask for n, mask in masks.items() if (n > _TEST_IMAGES) == (split == "train")}
    images = _by_number(image_folder, ".jpg")
    if split == "train" and images and max(images) <= 5285:
        # The archive counts the training images from 1; some copies are numbered like the labels.
        images = {number + _TEST_IMAGES: path for number, path in images.items()}
    keyed = [{f"{n:06d}": path for n, path in files.items()} for files in (images, masks)]
    pairs = pair_by_key(split, *keyed, _PNG_LAYOUT)
    return PairedFiles("SUN RGB-D", split, published("sunrgbd").classes, *pairs, _ID_MAP)


@dataclasses.dataclass(frozen=True, repr=False)
class ToolboxPairs(PairedFiles):
    """Image files whose label maps are all in one `SUNRGBD2Dseg.mat`."""

    records: Sequence[int] = ()  # the index of each sample's label map in that file, from 0

    def ids(self, index: int) -> Integer[np.ndarray, "h w"]:
        return read_seglabel(self.mask_paths[index], self.records[index])


def read_seglabel(path: pathlib.Path, record: int) -> Integer[np.ndarray, "h w"]:
    """The label map of `SUNRGBD2Dseg(record + 1)`: ids 0..37; DataError if the file has no such
    record."""
    import h5py  # slow to import, and needed for this alone

    found = f"cannot be read as SUNRGBD2Dseg({record + 1}).seglabel"
    remedy = "use the file of SUNRGBDtoolbox.zip as it is"
    with reading(path, remedy, found), h5py.File(regular(path)) as file:
        # A MATLAB struct array: one dataset per field, of references to the elements' values.
        references = _dataset(_dataset(file, "SUNRGBD2Dseg"), "seglabel")
        stored = _dataset(file, references[record, 0])
        if stored.ndim != 2 or stored.size > _MOST_PIXELS or stored.dtype.kind not in "ui":
            raise ValueError(f"it is {stored.dtype} {list(stored.shape)}")
        return stored[()].T  # MATLAB stores columns first


def _dataset(group: Any, key: Any) -> Any:
    """A group or dataset in a file; ValueError for one that lies in another file."""
    import h5py

    if isinstance(key, str) and not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise ValueError(f"{key!r} is a link")
    found = group[key]
    if isinstance(found, h5py.Dataset) and (found.is_virtual or found.external):
        raise ValueError(f"{key!r} names another file")
    return found


def _open_toolbox(root: pathlib.Path, split: str) -> ToolboxPairs:
    labels, meta, lists = (root / name for name in _TOOLBOX_FILES)
    absent = [n for n in (*_TOOLBOX_FILES, "SUNRGBD") if not (root / n).exists()]
    if absent:
        raise DataError(
            f"data split {split!r}: {', '.join(absent)} not found in data.root={root}, which holds "
            f"{held(root)}",
            f"use a root with {_LAYOUT}",
        )
    listed = {
        _below_sunrgbd(str(folder), lists)
        for folder in np.ravel(_load_mat(lists, f"all{split}")).tolist()
    }
    records, names, image_paths = [], [], []
    scenes = np.ravel(_load_mat(meta, "SUNRGBDMeta"))
    with reading(meta, "use the file of SUNRGBDtoolbox.zip"):
        for record, scene in enumerate(scenes):
            folder = _below_sunrgbd(str(scene.rgbpath), meta).parent.parent
            if folder in listed:
                records.append(record)
                names.append(folder.as_posix())
                image_paths.append(root / "SUNRGBD" / folder / "image" / str(scene.rgbname))
    absent = [path for path in image_paths if not path.is_file()]
    if absent or len(records) != len(listed):
        raise DataError(
            f"data split {split!r} is incomplete: of {len(listed)} scenes in {lists}, "
            f"{len(records)} are in {meta} and {len(absent)} of these have no image "
            f"({some(absent)})",
            "use SUNRGBD.zip and SUNRGBDtoolbox.zip, fully unpacked",
        )
    return ToolboxPairs(
        "SUN RGB-D toolbox",
        split,
        published("sunrgbd").classes,
        names,
        image_paths,
        [labels] * len(records),
        _ID_MAP,
        records=records,
    )


def _below_sunrgbd(path: str, listing: pathlib.Path) -> pathlib.PurePosixPath:
    """A path of the authors' machine, such as /n/fs/sun3d/data/SUNRGBD/kv1/..., from kv1 on."""
    _, separator, below = path.partition("/SUNRGBD/")
    if not separator:
        raise DataError(f"{listing}: path {path!r} has no /SUNRGBD/", "use the file as it came")
    return pathlib.PurePosixPath(below)


_load_mat = functools.partial(
    load_mat,
    remedy="use the file of SUNRGBDtoolbox.zip",
    squeeze_me=True,
    struct_as_record=False,
)


def _by_number(folder: pathlib.Path, suffix: str) -> dict[int, pathlib.Path]:
    numbered = {}
    for key, path in files_by_key(folder, suffix).items():
        match = re.fullmatch(r"img-(\d+)", key)
        if not match:
            raise DataError(
                f"{path} is not named img-NUMBER{suffix}",
                "use the archives of sunrgbd-meta-data "
                "(sunrgbd_train_test_labels has 37 classes, train13labels and test13labels do not)",
            )
        numbered[int(match[1])] = path
    return numbered


SPEC = DatasetSpec(
    title="SUN RGB-D (Song, Lichtenberg and Xiao, 2015), colour images, 37 classes",
    licence="for research; its parts NYUv2, B3DO and SUN3D keep their own terms",
    url="https://rgbd.cs.princeton.edu, https://github.com/ankurhanda/sunrgbd-meta-data",
    layout=_LAYOUT,
    splits=_SPLITS,
    classes=lambda data: published("sunrgbd").classes,
    open=lambda data, split: open_sunrgbd(data["root"], split),
)
