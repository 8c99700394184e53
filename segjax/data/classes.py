"""Class tables: the names and colours of a data set's classes, and the ignore label.

Inside segjax a label map holds ids 0..K-1, or bits where a pixel may have several classes or none
(`ClassTable.multilabel`), and `IGNORE` for every pixel that does not count (void, unlabelled,
outside the image, padding). A data set's source maps its own void ids to `IGNORE`.
"""

import colorsys
import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped, UInt8

from segjax.data.errors import DataError
from segjax.data.files.json_file import need_form, need_type
from segjax.terminal import one_line

IGNORE = 255
MAX_LABELS = 7  # bits of a multi-label map; with the eighth, all labels together would be IGNORE

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """Names and RGB colours (0..255) of K classes, in id order.

    A pixel of a label map has one class, whose id it holds. With `multilabel` it has any number of
    them: bit k of its value is set where class k is present, and 0 is none (with one class: 1 is
    the foreground, 0 the background).

    Raises:
      DataError: if names and palette differ in length, a name occurs twice or holds what is not
        printed (see `terminal.one_line`), or there are no classes or too many: 255 (id 255 is the
        ignore label), with `multilabel` 7.
    """

    names: tuple[str, ...]
    palette: tuple[Color, ...]
    multilabel: bool = False
    # The id of each class in the data set's own masks, in which predictions are written;
    # () = 0..K-1, which becomes ()
    ids: tuple[int, ...] = ()

    def __post_init__(self):
        if self.ids == tuple(range(len(self.ids))):
            object.__setattr__(self, "ids", ())
        if not 1 <= len(self.names) <= IGNORE:
            raise DataError(
                f"a class table needs 1 to {IGNORE} classes, found {len(self.names)}",
                f"use another class list (id {IGNORE} is the ignore label)",
            )
        if self.multilabel and len(self.names) > MAX_LABELS:
            raise DataError(
                f"{len(self.names)} classes, of which a pixel may have several",
                f"use at most {MAX_LABELS}: a label map keeps a bit for each in one byte, beside "
                f"the ignore label {IGNORE}; or train a run for each {MAX_LABELS} of them",
            )
        if len(self.names) != len(self.palette):
            found = f"{len(self.names)} class names but {len(self.palette)} colours"
            raise DataError(found, "use one colour for each name")
        if self.ids and len(self.ids) != len(self.names):
            found = f"{len(self.names)} class names but {len(self.ids)} ids"
            raise DataError(found, "use one id for each name")
        if len({*self.ids}) < len(self.ids):
            raise DataError(f"class ids {self.ids} occur twice", "use each id once")
        unprinted = [name for name in self.names if one_line(name) != name]
        if unprinted:
            raise DataError(
                f"class name '{one_line(unprinted[0])}' holds a character that is not printed",
                "use letters, signs and spaces, in one line",
            )
        twice = sorted({n for n in self.names if self.names.count(n) > 1})
        if twice:
            raise DataError(f"class names occur twice: {', '.join(twice)}", "use each name once")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def raw_ids(self) -> tuple[int, ...]:
        """`ids`, or 0..K-1 where it is ()."""
        return self.ids or tuple(range(len(self)))

    @property
    def values(self) -> range:
        """What labelled pixels may hold: ids, or with `multilabel` every set of classes as bits."""
        return range(2 ** len(self) if self.multilabel else len(self))

    @functools.cached_property
    def classes_of(self) -> Bool[np.ndarray, "256 k"]:
        """Whether a pixel of each value 0..255 shows each class; `IGNORE` shows none."""
        values, classes = np.arange(IGNORE + 1)[:, None], np.arange(len(self))
        shown = (values >> classes) & 1 == 1 if self.multilabel else values == classes
        return shown & (values < len(self.values))

    @functools.cached_property
    def colors(self) -> UInt8[np.ndarray, "256 3"]:
        """The colour of each value 0..255: the mean over its classes, black without any."""
        shown = self.classes_of.astype(np.float64)
        mean = shown @ np.array(self.palette) / np.maximum(shown.sum(1, keepdims=True), 1)
        return np.rint(mean).astype(np.uint8)

    def colorize(self, label: np.typing.ArrayLike) -> UInt8[np.ndarray, "h w 3"]:
        """Paints a label map [h, w] in the palette's colours; pixels that are ignored, or have no
        class, are black."""
        return self.colors[np.asarray(label, np.uint8)]

    def to_rows(self) -> list[dict[str, Any]]:
        """The table for JSON: name and colour of each class, and its ids if they are not 0..K-1."""
        rows = zip(self.raw_ids, self.names, self.palette, strict=True)
        return [
            {**({"id": id_, "train_id": k} if self.ids else {}), "name": name, "color": list(color)}
            for k, (id_, name, color) in enumerate(rows)
        ]

    def to_raw_ids(self, label: np.typing.ArrayLike) -> Shaped[np.ndarray, "h w"]:
        """The label map [h, w] in `raw_ids`: uint8, or uint16 if an id needs it.

        Other values than 0..K-1, and bits of `multilabel`, stay; but 255, where it is the raw id of
        a class, becomes the largest byte that is none.
        """
        label = np.asarray(label, np.uint8)
        if self.multilabel or not self.ids:
            return label
        table = np.arange(IGNORE + 1, dtype=np.uint8 if max(self.ids) <= IGNORE else np.uint16)
        table[: len(self)] = self.ids
        if IGNORE in self.ids:
            table[IGNORE] = max({*range(IGNORE)} - {*self.ids})
        return table[label]

    def is_painted(self, label: np.typing.ArrayLike) -> Bool[np.ndarray, "h w"]:
        """Where a label map [h, w] shows a class."""
        return self.classes_of.any(1)[np.asarray(label, np.uint8)]


def default_palette(num_classes: int) -> tuple[Color, ...]:
    """Distinct colours for classes without any: golden-angle hues, three brightnesses."""
    return tuple(
        tuple(
            round(255 * c)
            for c in colorsys.hsv_to_rgb((0.61803398875 * k) % 1, 0.75, (0.95, 0.7, 0.5)[k % 3])
        )
        for k in range(num_classes)
    )


def in_words(ids: Iterable[int]) -> str:
    """Ids in ascending order, with runs as ranges: "0, 7, 11..13"."""
    runs: list[list[int]] = []
    for id_ in sorted(ids):
        if runs and id_ == runs[-1][-1] + 1:
            runs[-1].append(id_)
        else:
            runs.append([id_])
    words = (f"{r[0]}..{r[-1]}" if len(r) > 2 else ", ".join(map(str, r)) for r in runs)
    return ", ".join(words)


def from_rows(rows: Any, multilabel: bool = False) -> ClassTable:
    """The table of `ClassTable.to_rows`, from JSON; ValueError for anything else."""
    need_form(rows, [{"name": str, "color": [int]}], "the list of classes")
    for row in rows:
        need_type(row.get("id", 0), int, "an id")
        if len(row["color"]) != 3 or not all(0 <= part <= 255 for part in row["color"]):
            raise ValueError(f"a colour is {row['color']}")
    return ClassTable(
        tuple(row["name"] for row in rows),
        tuple(tuple(row["color"]) for row in rows),
        multilabel,
        tuple(row["id"] for row in rows if "id" in row),
    )


def from_names(names) -> ClassTable:
    """A table with the default palette."""
    names = tuple(names)
    return ClassTable(names, default_palette(len(names)))
