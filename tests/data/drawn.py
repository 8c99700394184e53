"""Small files and sources that tests of several modules draw."""

import os
import pathlib

import numpy as np
from PIL import Image

from configs import base
from segjax.data.classes import from_names

THREE = from_names(["road", "car", "sky"])
TWO = from_names(["background", "crack"])
CAMVID_ROOT = pathlib.Path(
    os.environ.get("SEGJAX_CAMVID", pathlib.Path(__file__).parents[3] / "shared" / "camvid")
)


def photo(path, height=4, width=6):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)


def mask(path, ids=1, height=4, width=6):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.broadcast_to(np.asarray(ids, np.uint8), (height, width))).save(path)


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


def uint8(*rows):
    return np.array(rows, np.uint8)


def data_config(**options):
    """`config.data` with these options."""
    data = base.get_config().data
    data.update(options)
    return data
