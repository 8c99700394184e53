"""Small files and sources that tests of several modules draw."""

import os
import pathlib
import zlib

import numpy as np
from PIL import Image

from configs import base
from segjax.data.classes import from_names
from segjax.data.fitted import FittedDataset
from segjax.data.sets.folder import open_folder

THREE = from_names(["road", "car", "sky"])
TWO = from_names(["background", "crack"])
CAMVID_ROOT = pathlib.Path(
    os.environ.get("SEGJAX_CAMVID", pathlib.Path(__file__).parents[3] / "shared" / "camvid")
)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path, **options)
    return path


def photo(path, height=4, width=6):
    """An image of noise, which the file's name decides."""
    random = np.random.default_rng(zlib.crc32(path.stem.encode()))
    return save(path, random.integers(0, 256, (height, width, 3), np.uint8))


def mask(path, ids=1, height=4, width=6):
    return save(path, np.broadcast_to(np.asarray(ids, np.uint8), (height, width)))


def pairs(root, names, split="train", ids=1, size=(4, 6)):
    """Images and masks of a folder data set, a name each; returns the root."""
    for name in names:
        photo(root / "images" / split / f"{name}.png", *size)
        mask(root / "masks" / split / f"{name}.png", ids, *size)
    return root


def uint8(*rows):
    return np.array(rows, np.uint8)


def data_config(**options):
    """`config.data` with these options."""
    data = base.get_config().data
    data.update(options)
    return data


class Drawn:
    """A source without files: every sample is a constant label."""

    def __init__(self, labels, classes=THREE, image=None):
        self.labels, self.classes, self.image = labels, classes, image
        self.reads = []

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.reads.append(index)
        label = np.asarray(self.labels[index])
        image = np.zeros((*label.shape, 3), np.uint8) if self.image is None else self.image
        return {"image": image, "label": label, "name": f"drawn {index}"}


class DrawnWithRepr(Drawn):
    def __repr__(self):
        return f"DrawnWithRepr({[np.asarray(label).tolist() for label in self.labels]})"


class Broken(Drawn):
    """A source whose own code fails."""

    def __getitem__(self, index):
        raise RuntimeError("a bug in the source")


class Around:
    """A source around another, whose labels `table` maps; `length` may hide samples."""

    def __init__(self, source, table=None, length=None):
        self.source, self.classes, self.table, self.length = source, THREE, table, length

    def __len__(self):
        return len(self.source) if self.length is None else self.length

    def __getitem__(self, index):
        sample = self.source[index]
        if self.table is None:
            return sample
        return {**sample, "label": np.array(self.table, np.uint8)[sample["label"]]}


class Numbered:
    """Samples whose every pixel is their number; `reads` lists the indices that were read."""

    def __init__(self, length, size=(8, 12)):
        self.length, self.size, self.reads = length, size, []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.reads.append(index)
        image = np.full((*self.size, 3), index % 256, np.uint8)
        return {"image": image, "label": image[..., 0] % 5, "name": str(index)}


DAMAGED_LENGTH = 7


def damaged_folder(path):
    """7 images; those of 2.png and 4.jpg end in the middle, and so does the mask of 3."""
    random = np.random.default_rng(0)
    for k in range(DAMAGED_LENGTH):
        image = path / "images" / "train" / f"{k}.{'jpg' if k == 4 else 'png'}"
        photo(image, 64, 96)
        mask(path / "masks" / "train" / f"{k}.png", random.integers(0, 3, (64, 96)), 64, 96)
        if k in (2, 4):
            damage(image)
    damage(path / "masks" / "train" / "3.png")
    return path


def damage(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def fitted_folder(folder, **options):
    """The training split of a folder of three classes, at 8x12."""
    return FittedDataset(open_folder(folder, "train", THREE), (8, 12), **options)
