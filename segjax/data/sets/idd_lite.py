"""IDD-Lite: a small part of the India Driving Dataset, 320x227, for courses and small machines.

Reference: Mishra et al., "Semantic Segmentation Datasets for Resource Constrained Training",
NCVPRIPG 2019.
"""

import pathlib

from segjax.data.classes import IGNORE
from segjax.data.files.archive import check_split, need_folders, pair_by_key
from segjax.data.files.ids import IdMap
from segjax.data.files.paired import PairedFiles
from segjax.data.files.walk import walk
from segjax.data.sets.idd import class_table
from segjax.data.source import DatasetSpec

_SPLITS = ("train", "val")
_LAYOUT = (
    "leftImg8bit/<split>/<drive>/<frame>_image.jpg and gtFine/<split>/<drive>/<frame>_label.png"
)
_CLASSES = class_table("level1")
_IDS = IdMap({**{k: k for k in range(len(_CLASSES))}, 255: IGNORE}, "ids 0..6 and 255")


def open_idd_lite(root, split: str) -> PairedFiles:
    """IDD-Lite's images with its seven classes, which are those of `idd` at level 1.

    Args:
      root: with `leftImg8bit/` and `gtFine/`.
      split: "train" (1,403 images) or "val" (204). The masks of the 404 test images are not public.

    Raises:
      DataError: if a folder or a file is missing; the message names it.
    """
    check_split("idd_lite", split, _SPLITS)
    folders = [f"leftImg8bit/{split}", f"gtFine/{split}"]
    image_folder, mask_folder = need_folders(root, split, folders, _LAYOUT)
    images = _by_drive_and_frame(image_folder, "_image.jpg")
    masks = _by_drive_and_frame(mask_folder, "_label.png")
    # The archive also has a mask of instances, *_inst_label.png, beside each.
    masks = {key: path for key, path in masks.items() if not key.endswith("_inst")}
    pairs = pair_by_key(split, images, masks, _LAYOUT)
    return PairedFiles("IDD-Lite", split, _CLASSES, *pairs, _IDS)


def _by_drive_and_frame(folder: pathlib.Path, suffix: str) -> dict[str, pathlib.Path]:
    """The files by `<drive>/<frame>`: frames of several drives have one number."""
    paths = (path for path in walk(folder) if path.name.endswith(suffix))
    return {p.relative_to(folder).as_posix().removesuffix(suffix): p for p in paths}


SPEC = DatasetSpec(
    title="IDD-Lite (Mishra et al., NCVPRIPG 2019)",
    licence="the authors' own terms, accepted on registering for the download",
    url="https://idd.insaan.iiit.ac.in",
    layout=_LAYOUT,
    splits=_SPLITS,
    classes=lambda data: _CLASSES,
    open=lambda data, split: open_idd_lite(data["root"], split),
    # evaluation/idd_lite_evaluate_mIoU.py of AutoNUE/public-code: both become 256x128 (width x
    # height) by Pillow's nearest neighbour; the mean over the 7 classes leaves out the pixels whose
    # label is ignored, while the rows that it prints count them as wrong predictions.
    server_size=(128, 256),
)
