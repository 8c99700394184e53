"""Cityscapes (Cordts et al., 2016): street scenes of 50 cities, 1024x2048."""

from segjax.data.class_lists import published
from segjax.data.classes import IGNORE
from segjax.data.errors import DataError
from segjax.data.files.archive import check_split, files_by_key, need_folders, pair_by_key
from segjax.data.files.ids import IdMap
from segjax.data.files.images import some
from segjax.data.files.paired import PairedFiles
from segjax.data.files.walk import walk
from segjax.data.source import DatasetSpec

_SPLITS = {"fine": ("train", "val", "test"), "coarse": ("train", "train_extra", "val")}
_LAYOUT = (
    "leftImg8bit/<split>/<city>/*_leftImg8bit.png and "
    "gtFine/<split>/<city>/*_gtFine_labelIds.png (gtCoarse for the variant coarse)"
)
_CLASSES = published("cityscapes").classes
# Raw ids are 0..33. The archive's own files do not draw the license plate's -1; tools that do write
# it as -1 or, in a byte, as 255.
_FROM_RAW = IdMap(
    dict.fromkeys((-1, *range(34), 255), IGNORE)
    | {raw: k for k, raw in enumerate(_CLASSES.raw_ids)},
    "Cityscapes' raw ids -1..33",
)
_FROM_TRAIN_IDS = IdMap({**{k: k for k in range(19)}, 255: IGNORE}, "train ids 0..18 and 255")
# A black image of train_extra, which Cityscapes' download page excludes.
_BAD = "troisdorf_000000_000073"


def open_cityscapes(root, split: str, *, variant: str = "fine") -> PairedFiles:
    """Cityscapes with the 19 classes that are evaluated; all others become 255.

    Masks are `*_labelIds.png`, or, in a folder without any, `*_labelTrainIds.png`.

    Args:
      root: with `leftImg8bit/` and `gtFine/` or `gtCoarse/`.
      split: "train" (2,975 images), "val" (500) or "test" (1,525, whose masks are all void: the
        real ones are on the benchmark's server); of "coarse", "train", "train_extra" (19,998,
        of which one is black and left out) or "val".
      variant: "fine" or "coarse", the annotation.

    Raises:
      DataError: if a folder or a file is missing; the message names it.
    """
    check_split(f"cityscapes ({variant})", split, _SPLITS[variant])
    annotation = f"gt{variant.capitalize()}"
    folders = [f"leftImg8bit/{split}", f"{annotation}/{split}"]
    image_folder, mask_folder = need_folders(root, split, folders, _LAYOUT)
    images = files_by_key(image_folder, "_leftImg8bit.png")
    masks, id_map = files_by_key(mask_folder, f"_{annotation}_labelIds.png"), _FROM_RAW
    if not masks:
        masks = files_by_key(mask_folder, f"_{annotation}_labelTrainIds.png")
        id_map = _FROM_TRAIN_IDS
    if not masks:
        raise DataError(
            f"{mask_folder} holds no *_{annotation}_labelIds.png or *_labelTrainIds.png; files "
            f"found: {some([path.name for path in walk(mask_folder)])}",
            f"use all of {annotation}'s archive",
        )
    for files in (images, masks):
        files.pop(_BAD, None)
    name = "Cityscapes" if variant == "fine" else "Cityscapes coarse"
    pairs = pair_by_key(split, images, masks, _LAYOUT)
    return PairedFiles(name, split, _CLASSES, *pairs, id_map)


SPEC = DatasetSpec(
    title="Cityscapes (Cordts et al., 2016)",
    licence="for research and teaching, not commercial; its authors give access on registration",
    url="https://www.cityscapes-dataset.com",
    layout=f"{_LAYOUT}; the masks of test are all void",
    unlabelled=("test",),
    splits=("train", "val", "test", "train_extra"),
    classes=lambda data: _CLASSES,
    open=lambda data, split: open_cityscapes(data["root"], split, variant=data["variant"]),
    variants=("fine", "coarse"),
)
