"""A mask file for each class, of which no two overlap: to one class per pixel."""

import pathlib

import numpy as np
from jaxtyping import Int32

from segjax.data.class_lists import ClassList
from segjax.data.classes import IGNORE
from segjax.data.errors import DataError
from segjax.data.files.ids import class_ids
from segjax.data.files.masks import NO_FOREGROUND, VOID, Mask
from segjax.data.files.multilabel import binary_files, class_of


def read_one_per_class(
    *paths: pathlib.Path,
    listed: ClassList,
    by_folder: bool,
    rest: str = "",
    ignore_ids: tuple[int, ...] = (IGNORE,),
    threshold: float = 0,
) -> Mask:
    """Decodes the masks of an image to the ids of a class list, and `VOID` for ignored pixels.

    Args:
      paths: the masks, of 0 and 1, or of 0 and 255 if 255 is not ignored.
      listed: the class list; the classes are found by their names.
      by_folder: see `multilabel.class_of`.
      rest: the class of the pixels that are in no mask; "" = there must be none.
      ignore_ids: further ids that may occur.
      threshold: as `masks.read_listed_mask` takes it.

    Raises:
      DataError: naming the file that cannot be read, holds other values or has another size, or
        the number of pixels that are in two masks, or in none.
    """
    known, encoding, rows, ignored = class_ids(2, ignore_ids), NO_FOREGROUND, None, False
    for path, (name, mask) in zip(paths, binary_files(paths, ignore_ids, threshold), strict=True):
        label = known.labels_of(mask.ids, name)
        if rows is None:
            rows = np.full(label.shape, -1, np.int32)
        present = label == 1
        twice = present & (rows >= 0)
        if twice.any():
            other = listed.names[int(rows[twice][0])]
            raise DataError(
                f"{path}: {np.count_nonzero(twice)} pixels are in the mask of {other} too",
                "use masks that do not overlap, or data.mask_format=per_class with "
                "model.head=sigmoid if a pixel may have several classes",
            )
        rows[present] = listed.names.index(class_of(path, listed.names, by_folder))
        ignored = ignored | (label == IGNORE)
        encoding = encoding.plus(mask.foreground)
    assert rows is not None, "an image has one mask at least"
    uncovered = (rows < 0) & ~np.asarray(ignored)
    if rest:
        rows[uncovered] = listed.names.index(rest)
    elif uncovered.any():
        raise DataError(
            f"{paths[0]}: {np.count_nonzero(uncovered)} pixels are in no mask of the image",
            "use one more name in data.classes, of a class without files, for such pixels: "
            "background, or in a file `rest ignore`",
        )
    ids: Int32[np.ndarray, "h w"] = np.array(listed.ids, np.int32)[rows]
    return Mask(np.where(ignored, np.int32(VOID), ids), foreground=encoding)
