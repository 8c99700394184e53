"""Labels of the India Driving Dataset: its polygons drawn, at any level of its hierarchy.

Reference: Varma et al., "IDD: A Dataset for Exploring Problems of Autonomous Navigation in
Unconstrained Environments", WACV 2019, figure 2.
"""

import csv
import functools
import json
import pathlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from segjax.data.classes import IGNORE, ClassTable
from segjax.data.errors import DataError

_BACKGROUND = "unlabeled"  # of pixels that no polygon covers

# The names of the masks at each level, as the authors' preparation script writes them.
MASK_ENDINGS: Mapping[str, str] = {
    "level1": "_gtFine_labellevel1Ids.png",
    "level2": "_gtFine_labellevel2Ids.png",
    "level3": "_gtFine_labellevel3Ids.png",
    "level4": "_gtFine_labellevel4Ids.png",
    "cityscapes": "_gtFine_labelcsTrainIds.png",
}


def label_ids(variant: str) -> Mapping[str, int]:
    """The id, 0..K-1 or 255, that each of the 40 labels has at a level (a `data.variant`)."""
    return {row["name"]: int(row[variant]) for row in _rows()}


@functools.cache
def class_table(variant: str) -> ClassTable:
    """The classes of a level: 7, 16, 26 or 30, or Cityscapes' 19."""
    labels, colors = label_ids(variant), {row["name"]: row["rgb"].split() for row in _rows()}
    names = {r["label"]: r["name"] for r in _rows("idd_names.csv") if r["variant"] == variant}
    member = {}  # the label whose colour and name each class has
    for label, id_ in labels.items():
        if id_ != IGNORE and (id_ not in member or label in names):
            member[id_] = label
    members = [member[k] for k in range(len(member))]
    return ClassTable(
        tuple(names.get(label, label) for label in members),
        tuple(tuple(int(c) for c in colors[label]) for label in members),
    )


def draw_polygons(path: pathlib.Path, variant: str) -> UInt8[np.ndarray, "h w"]:
    """Draws the polygons of a `*_gtFine_polygons.json`: ids 0..K-1 of a level, and 255.

    As in the authors' script, each polygon covers those before it in the file, void ones too;
    deleted ones and those of fewer than 3 points are left out; a label `cargroup` is `car`.

    Raises:
      DataError: naming the file, if it is no such file or has an unknown label.
    """
    ids = label_ids(variant)
    try:
        annotation = json.loads(pathlib.Path(path).read_text("utf-8"))
        size = int(annotation["imgWidth"]), int(annotation["imgHeight"])
        mask = Image.new("L", size, ids[_BACKGROUND])
        polygons = [
            (str(item["label"]), [(float(x), float(y)) for x, y in item["polygon"]])
            for item in annotation["objects"]
            if not item.get("deleted")
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be drawn: {type(error).__name__} {error}",
            "use an intact file of the "
            "data set, with imgWidth, imgHeight, and objects that have label and polygon",
        ) from error
    pen = ImageDraw.Draw(mask)
    for name, points in polygons:
        if len(points) < 3:
            continue
        label = name if name in ids else name.removesuffix("group")
        if label not in ids:
            raise DataError(
                f"{path}: label {name!r} is unknown", f"use the labels of IDD: {', '.join(ids)}"
            )
        pen.polygon(points, fill=ids[label])
    return np.array(mask)


@functools.cache
def _rows(table: str = "idd.csv") -> tuple[dict[str, str], ...]:
    """The rows of a table.

    idd.csv: the 40 labels of the authors' label file, the id of each at every level, its colour.
    idd_names.csv: classes of several labels, the label whose colour such a class has, its name.
    """
    path = pathlib.Path(__file__).parent / "tables" / table
    with path.open(newline="") as file:
        return tuple(csv.DictReader(file))
