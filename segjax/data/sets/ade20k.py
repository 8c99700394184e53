"""ADE20K as in the MIT Scene Parsing Benchmark (Zhou et al., 2017): 150 classes.

This is `ADEChallengeData2016`, whose masks hold one class id per pixel. TFDS's `scene_parse150` is
another: it has the instance annotations of the same images, as three-channel files.
"""

import pathlib

from segjax.data.class_lists import published
from segjax.data.classes import IGNORE
from segjax.data.files.archive import check_split, files_by_key, need_folders, pair_by_key
from segjax.data.files.ids import IdMap
from segjax.data.files.paired import PairedFiles
from segjax.data.source import DatasetSpec

_FOLDERS = {name: name for name in ("training", "validation")}
_FOLDERS |= {"train": "training", "val": "validation"}
_LAYOUT = "images/{training,validation}/*.jpg and annotations/{training,validation}/*.png"
_ID_MAP = IdMap({0: IGNORE, **{k + 1: k for k in range(150)}}, "1..150, and 0 for other")


def open_ade20k(root, split: str) -> PairedFiles:
    """ADE20K: the ids 1..150 of its masks become labels 0..149, their 0 ("other") becomes 255.

    Args:
      root: `ADEChallengeData2016`, or the folder it is in.
      split: "training" (20,210 images) or "validation" (2,000), also as "train" and "val".

    Raises:
      DataError: if a folder or a file is missing; the message names it.
    """
    check_split("ade20k", split, tuple(_FOLDERS))
    inner = pathlib.Path(root) / "ADEChallengeData2016"
    folders = [f"{kind}/{_FOLDERS[split]}" for kind in ("images", "annotations")]
    images, masks = need_folders(inner if inner.is_dir() else root, split, folders, _LAYOUT)
    pairs = pair_by_key(split, files_by_key(images, ".jpg"), files_by_key(masks, ".png"), _LAYOUT)
    return PairedFiles("ADE20K", split, published("ade20k").classes, *pairs, _ID_MAP)


SPEC = DatasetSpec(
    title="ADE20K, scene parsing (Zhou et al., 2017)",
    licence="images for research and teaching, not commercial; annotations BSD 3-clause",
    url="http://sceneparsing.csail.mit.edu",
    layout=_LAYOUT,
    splits=("training", "validation"),
    classes=lambda data: published("ade20k").classes,
    open=lambda data, split: open_ade20k(data["root"], split),
)
