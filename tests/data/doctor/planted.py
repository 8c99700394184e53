"""Data sets in folders: street scenes written to files, clean or with defects planted."""

import pathlib

import numpy as np
from PIL import Image

from segjax.data.class_lists import IDD_LEVEL1
from segjax.data.classes import IGNORE
from segjax.data.sets.folder import open_folder
from segjax.data.streets.dataset import Streets
from tests.data.drawn import save

SIZE = (72, 144)
LENGTHS = {"train": 10, "val": 4}


def image_of(root: pathlib.Path, split: str, index: int) -> pathlib.Path:
    return root / "images" / split / f"scene_{index:02d}.png"


def mask_of(root: pathlib.Path, split: str, index: int) -> pathlib.Path:
    return root / "masks" / split / f"scene_{index:02d}.png"


def clean(root: pathlib.Path, lengths=LENGTHS) -> None:
    """Street scenes as PNG files."""
    for split, length in lengths.items():
        for index, scene in enumerate(Streets(split, SIZE, length=length, seed=3)):
            save(image_of(root, split, index), scene["image"])
            save(mask_of(root, split, index), scene["label"])


def ids_of(path: pathlib.Path) -> np.ndarray:
    return np.array(Image.open(path))


def plant(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """A clean data set with one defect of each kind; the code of each finding and its file."""
    clean(root)
    files = {
        "unreadable": image_of(root, "train", 0),
        "unknown-ids": mask_of(root, "train", 1),
        "size-mismatch": mask_of(root, "train", 2),
        "rgb-mask": mask_of(root, "train", 3),
        "interpolated-mask": mask_of(root, "train", 4),
        "exif-orientation": image_of(root, "train", 5),
        "constant-image": image_of(root, "train", 6),
        "jpeg-mask": mask_of(root, "train", 7).with_suffix(".jpg"),
        "all-void": mask_of(root, "val", 1),
        "duplicates-across-splits": image_of(root, "val", 2),
        "duplicates": image_of(root, "train", 9),
    }
    content = files["unreadable"].read_bytes()
    files["unreadable"].write_bytes(content[: len(content) // 2])
    ids = ids_of(files["unknown-ids"])
    ids[4:8, 4:9] = 42
    save(files["unknown-ids"], ids)
    save(files["size-mismatch"], ids_of(files["size-mismatch"])[::2, ::2])
    save(files["rgb-mask"], IDD_LEVEL1.colorize(ids_of(files["rgb-mask"])))
    ids = ids_of(files["interpolated-mask"])
    half = Image.fromarray(np.where(ids == IGNORE, 0, ids)[::2, ::2])
    save(files["interpolated-mask"], half.resize(SIZE[::-1], Image.Resampling.BILINEAR))
    exif = Image.Exif()
    exif[0x0112] = 3
    save(files["exif-orientation"], ids_of(files["exif-orientation"]), exif=exif)
    save(files["constant-image"], np.full((*SIZE, 3), 90, np.uint8))
    files["jpeg-mask"].with_suffix(".png").unlink()
    save(files["jpeg-mask"], np.zeros(SIZE, np.uint8))  # of one class, which JPEG happens to keep
    save(files["all-void"], np.full(SIZE, IGNORE, np.uint8))
    for copy, index in (("duplicates-across-splits", 8), ("duplicates", 7)):
        files[copy].write_bytes(image_of(root, "train", index).read_bytes())
    for path in (root / "masks").rglob("*.png"):  # a class that is never seen
        if path != files["rgb-mask"]:
            ids = ids_of(path)
            save(path, np.where(ids == 2, 3, ids).astype(np.uint8))
    return files


def sources(root: pathlib.Path, lengths=LENGTHS) -> dict:
    return {split: open_folder(root, split, IDD_LEVEL1) for split in lengths}
