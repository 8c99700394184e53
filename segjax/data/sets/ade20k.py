"""ADE20K as in the MIT Scene Parsing Benchmark (Zhou et al., 2017): 150 classes.

This is `ADEChallengeData2016`, whose masks hold one class id per pixel. TFDS's `scene_parse150` is
another: it has the instance annotations of the same images, as three-channel files.
"""

import functools
import pathlib

from segjax.data.classes import IGNORE, ClassTable, from_file
from segjax.data.files.archive import check_split, files_by_key, need_folders, pair_by_key
from segjax.data.files.ids import IdMap
from segjax.data.files.paired import PairedFiles, existing_root
from segjax.data.spec import DatasetSpec

_FOLDERS = {
    "training": "training",
    "validation": "validation",
    "train": "training",
    "val": "validation",
}
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
    root = existing_root(root, _LAYOUT)
    if (root / "ADEChallengeData2016").is_dir():
        root = root / "ADEChallengeData2016"
    folder = _FOLDERS[split]
    folders = [f"images/{folder}", f"annotations/{folder}"]
    images, masks = need_folders(root, split, folders, _LAYOUT)
    pairs = pair_by_key(split, files_by_key(images, ".jpg"), files_by_key(masks, ".png"), _LAYOUT)
    return PairedFiles("ADE20K", split, ade20k_classes(), *pairs, _ID_MAP)


@functools.cache
def ade20k_classes() -> ClassTable:
    """The 150 classes, each by the first of its names, in the benchmark's colours."""
    return from_file(pathlib.Path(__file__).with_name("tables") / "ade20k.txt")


SPEC = DatasetSpec(
    title="ADE20K, scene parsing (Zhou et al., 2017)",
    licence="images for research and teaching, not commercial; annotations BSD 3-clause",
    url="http://sceneparsing.csail.mit.edu",
    layout=_LAYOUT,
    splits=("training", "validation"),
    classes=lambda data: ade20k_classes(),
    open=lambda data, split: open_ade20k(data["root"], split),
)
