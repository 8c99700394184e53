"""Data sets in folders: street scenes written to files, clean or with defects planted."""

import pathlib

import numpy as np
from PIL import Image

from segjax.data.classes import IDD_LEVEL1, IGNORE
from segjax.data.sets.folder import open_folder
from segjax.data.streets.dataset import Streets

SIZE = (72, 144)
LENGTHS = {"train": 10, "val": 4}


def image_of(root: pathlib.Path, split: str, index: int) -> pathlib.Path:
    return root / "images" / split / f"scene_{index:02d}.png"


def mask_of(root: pathlib.Path, split: str, index: int) -> pathlib.Path:
    return root / "masks" / split / f"scene_{index:02d}.png"


def clean(root: pathlib.Path, lengths=LENGTHS) -> None:
    """Street scenes as PNG files."""
    for split, length in lengths.items():
        scenes = Streets(split, SIZE, length=length, seed=3)
        for index in range(length):
            for path, key in ((image_of, "image"), (mask_of, "label")):
                file = path(root, split, index)
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(scenes[index][key]).save(file)


def ids_of(path: pathlib.Path) -> np.ndarray:
    return np.array(Image.open(path))


def save(path: pathlib.Path, array: np.ndarray, **options) -> None:
    Image.fromarray(array).save(path, **options)


def plant(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """A clean data set with one defect of each kind; the code of each finding and its file."""
    clean(root)
    files = {}

    def defect(code: str, path) -> pathlib.Path:
        files[code] = path
        return path

    path = defect("unreadable", image_of(root, "train", 0))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    path = defect("unknown-ids", mask_of(root, "train", 1))
    ids = ids_of(path)
    ids[4:8, 4:9] = 42
    save(path, ids)
    path = defect("size-mismatch", mask_of(root, "train", 2))
    save(path, ids_of(path)[::2, ::2])
    path = defect("rgb-mask", mask_of(root, "train", 3))
    save(path, IDD_LEVEL1.colorize(ids_of(path)))
    path = defect("interpolated-mask", mask_of(root, "train", 4))
    half = Image.fromarray(np.where(ids_of(path) == IGNORE, 0, ids_of(path)))
    half = half.resize((SIZE[1] // 2, SIZE[0] // 2), Image.Resampling.NEAREST)
    half.resize(SIZE[::-1], Image.Resampling.BILINEAR).save(path)
    path = defect("exif-orientation", image_of(root, "train", 5))
    exif = Image.Exif()
    exif[0x0112] = 3
    save(path, ids_of(path), exif=exif)
    path = defect("constant-image", image_of(root, "train", 6))
    save(path, np.full((*SIZE, 3), 90, np.uint8))
    path = defect("jpeg-mask", mask_of(root, "train", 7).with_suffix(".jpg"))
    flat = np.zeros(SIZE, np.uint8)  # of one class, which JPEG happens to keep
    mask_of(root, "train", 7).unlink()
    save(path, flat)
    path = defect("all-void", mask_of(root, "val", 1))
    save(path, np.full(SIZE, IGNORE, np.uint8))
    path = defect("duplicates-across-splits", image_of(root, "val", 2))
    path.write_bytes(image_of(root, "train", 8).read_bytes())
    path = defect("duplicates", image_of(root, "train", 9))
    path.write_bytes(image_of(root, "train", 7).read_bytes())
    for split, length in LENGTHS.items():  # a class that is never seen
        for index in range(length):
            path = mask_of(root, split, index)
            if path.is_file() and path not in (files["rgb-mask"], files["unreadable"]):
                ids = ids_of(path)
                save(path, np.where(ids == 2, 3, ids).astype(np.uint8))
    return files


def sources(root: pathlib.Path, lengths=LENGTHS) -> dict:
    return {split: open_folder(root, split, IDD_LEVEL1) for split in lengths}
