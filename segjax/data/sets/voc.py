"""Pascal VOC 2012 (Everingham et al., 2010), and with the masks of SBD (Hariharan et al., 2011)."""

import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer

from segjax.data.class_lists import published
from segjax.data.errors import DataError
from segjax.data.files.archive import check_split, files_by_key, held, need_folders
from segjax.data.files.ids import class_ids
from segjax.data.files.images import some
from segjax.data.files.masks import read_mask
from segjax.data.files.mat import load_mat
from segjax.data.files.paired import PairedFiles
from segjax.data.files.reading import reading
from segjax.data.files.text_file import read_text
from segjax.data.source import DatasetSpec

_SPLITS = ("train", "val", "trainval")
_WHOLE = "use all of VOCtrainval_11-May-2012.tar"
_LAYOUT = "JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/{train,val,trainval}.txt"
_SBD_LAYOUT = "benchmark_RELEASE/dataset/cls/*.mat, or SegmentationClassAug/*.png beside JPEGImages"
_SBD_FOLDERS = ("benchmark_RELEASE/dataset", "SBD/benchmark_RELEASE/dataset", "SBD/dataset", "SBD")


def open_voc(root, split: str, *, sbd: bool = False) -> PairedFiles:
    """Pascal VOC 2012: background and 20 classes; the border of objects (255) is ignored.

    With `sbd`, "train" is the set known as trainaug, 10,582 images: VOC's train, and all of SBD
    except VOC's val. Where both have a mask, VOC's is read. "val" is VOC's.

    Args:
      root: `VOC2012`, or a folder with `VOCdevkit/VOC2012`.
      split: "train" (1,464 images), "val" (1,449) or "trainval".
      sbd: also use SBD's masks, from `benchmark_RELEASE/` or `SBD/` in `root` or in or beside
        `VOC2012`, else from `SegmentationClassAug/` beside `JPEGImages`.

    Raises:
      DataError: if a folder, a list or a file is missing; the message names it.
    """
    check_split("voc", split, _SPLITS)
    root = pathlib.Path(root)
    places = [root / "VOCdevkit/VOC2012", root / "VOC2012", root]
    voc = next(folder for folder in places if (folder / "JPEGImages").is_dir() or folder == root)
    folders = ["JPEGImages", "SegmentationClass", "ImageSets/Segmentation"]
    jpegs, own_masks, lists = need_folders(voc, split, folders, _LAYOUT)
    names = _listed(lists, split, voc)
    images, masks = files_by_key(jpegs, ".jpg"), files_by_key(own_masks, ".png")
    if not sbd:
        _need_files(split, names, masks, own_masks)
    else:
        train, val = _listed(lists, "train", voc), set(_listed(lists, "val", voc))
        own_names = [*train, *val]
        _need_files(split, own_names, masks, own_masks)
        more_masks, more_images = _sbd_files(root, voc)
        # VOC's own mask comes before SBD's, which has coarser outlines and no border.
        masks = {**more_masks, **{name: masks[name] for name in own_names}}
        images = {**more_images, **images}
        if split != "val":
            names = sorted((more_masks.keys() | set(train)) - val)
            names += sorted(val) if split == "trainval" else []
    _need_files(split, names, images, jpegs)
    return PairedFiles(
        "VOC 2012 + SBD" if sbd else "VOC 2012",
        split,
        published("voc").classes,
        names,
        [images[name] for name in names],
        [masks[name] for name in names],
        class_ids(21),
        read_ids=read_voc_mask,
    )


def read_voc_mask(path: pathlib.Path) -> Integer[np.ndarray, "h w"]:
    """Decodes a mask: the indices of a palette PNG, or the class ids of SBD's MATLAB file;
    DataError if the file cannot be read, or holds no `GTcls.Segmentation`."""
    if path.suffix != ".mat":
        return read_mask(path)
    remedy = "use intact files of dataset/cls"
    classes = load_mat(path, "GTcls", remedy)
    with reading(path, remedy, "cannot be read as a mask of SBD (GTcls.Segmentation)"):
        ids = np.asarray(classes["Segmentation"][0, 0])
        if ids.ndim != 2 or ids.dtype.kind not in "ui":
            raise ValueError(f"it is {ids.dtype} {list(ids.shape)}")
        return ids


def _listed(lists: pathlib.Path, split: str, voc: pathlib.Path) -> list[str]:
    path = lists / f"{split}.txt"
    if not path.is_file():
        found = f"data split {split!r}: no ImageSets/Segmentation/{split}.txt in {voc}"
        raise DataError(f"{found}; lists found: {held(lists)}", _WHOLE)
    names = read_text(path)[0].split()
    if not names:
        raise DataError(f"{path} lists no images", _WHOLE)
    return names


def _need_files(split: str, names: Sequence[str], files: dict, folder: pathlib.Path) -> None:
    absent = [name for name in names if name not in files]
    if absent:
        raise DataError(
            f"data split {split!r} is incomplete: {len(absent)} of {len(names)} listed files are "
            f"not in {folder} ({some(absent)})",
            _WHOLE,
        )


def _sbd_files(root: pathlib.Path, voc: pathlib.Path) -> tuple[dict, dict]:
    """SBD's masks and images by name, from the first layout that exists."""
    for base in dict.fromkeys((root, voc, voc.parent)):
        for folder in (base / name for name in _SBD_FOLDERS):
            masks = files_by_key(folder / "cls", ".mat")
            if masks:
                return masks, files_by_key(folder / "img", ".jpg")
    masks = files_by_key(voc / "SegmentationClassAug", ".png")
    if masks:
        return masks, {}
    raise DataError(
        f"data.variant=sbd: SBD's masks are not in data.root={root}, which holds: {held(root)}",
        f"use a root with {_SBD_LAYOUT}, or data.variant=voc2012",
    )


SPEC = DatasetSpec(
    title="Pascal VOC 2012 (Everingham et al., 2010), SBD (Hariharan et al., 2011)",
    licence="Flickr's terms for the images: for research; each photographer keeps their rights",
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/, "
    "http://home.bharathh.info/pubs/codes/SBD/download.html",
    layout=f"VOCdevkit/VOC2012 or its content: {_LAYOUT}; with SBD {_SBD_LAYOUT}",
    splits=_SPLITS,
    classes=lambda data: published("voc").classes,
    open=lambda data, split: open_voc(data["root"], split, sbd=data["variant"] == "sbd"),
    variants=("voc2012", "sbd"),
)
