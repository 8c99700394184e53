"""The forms that the masks of the folder data set may have: `data.mask_format` and its options."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from segjax.data.class_lists import ClassList
from segjax.data.classes import IGNORE
from segjax.data.errors import DataError
from segjax.data.files.masks import VOID, read_listed_mask
from segjax.data.files.multilabel import read_bits, read_label_files
from segjax.data.files.one_per_class import read_one_per_class
from segjax.data.files.panoptic import read_panoptic

MASK_FORMATS = ("ids", "bits", "per_class", "one_per_class", "panoptic")
MULTILABEL = ("bits", "per_class")
FILE_PER_CLASS = ("per_class", "one_per_class")


@dataclasses.dataclass(frozen=True)
class MaskFormat:
    """What mask files hold, and how they are read.

    Attributes:
      name: "ids": one class per pixel (see `masks.read_listed_mask`). "bits" (see
        `multilabel.read_bits`) and "per_class" (a file for each class, see
        `multilabel.read_label_files`): any number of classes per pixel. "one_per_class": such
        files that do not overlap. "panoptic": COCO's segments (see `panoptic.read_panoptic`).
      ignore_ids: ids in the files that become 255, also class ids.
      threshold, color_distance: as `masks.read_listed_mask` takes them.
      missing_is_empty: as `multilabel.pair_label_files` takes it.
    """

    name: str = "ids"
    ignore_ids: tuple[int, ...] = (IGNORE,)
    threshold: float = 0
    color_distance: int = 0
    missing_is_empty: bool = False

    @property
    def is_multilabel(self) -> bool:
        return self.name in MULTILABEL

    @property
    def has_file_per_class(self) -> bool:
        return self.name in FILE_PER_CLASS

    def check(self, listed: ClassList) -> None:
        """Raises DataError for an option that these masks cannot use."""
        count = len(listed.classes)
        if self.threshold and self.name == "ids" and (count != 2 or listed.labels != (0, 1)):
            raise DataError(
                f"data.mask_threshold={self.threshold:g} with {count} classes and "
                f"{len(listed.ids) - count} ignored lines in data.classes",
                "use a list of two classes, the background first, or data.mask_threshold=0",
            )
        if self.threshold and self.name == "panoptic":
            raise DataError(
                f"data.mask_threshold={self.threshold:g} with data.mask_format=panoptic",
                "use data.mask_threshold=0",
            )
        if self.color_distance and (self.name != "ids" or not any(listed.colors)):
            why = "data.classes without colours" if self.name == "ids" else f"{self.name} masks"
            raise DataError(
                f"data.color_distance={self.color_distance} with {why}",
                "use a class list with colours and data.mask_format=ids, or data.color_distance=0",
            )
        if self.missing_is_empty and not self.has_file_per_class:
            raise DataError(
                f"data.missing_is_empty with data.mask_format={self.name}",
                f"use it with {' or '.join(FILE_PER_CLASS)} alone",
            )

    def reader(
        self, listed: ClassList, *, by_folder: bool = False, rest: str = ""
    ) -> Callable[..., Any]:
        """The function from a sample's mask files to its `Mask`; it pickles.

        Args:
          listed: the class list.
          by_folder, rest: as `read_one_per_class` takes them.
        """
        options = {"ignore_ids": self.ignore_ids, "threshold": self.threshold}
        if self.name == "bits":
            return functools.partial(read_bits, num_classes=len(listed.classes), **options)
        if self.name == "per_class":
            names = listed.classes.names
            return functools.partial(
                read_label_files, classes=names, by_folder=by_folder, **options
            )
        if self.name == "one_per_class":
            return functools.partial(
                read_one_per_class, listed=listed, by_folder=by_folder, rest=rest, **options
            )
        if self.name == "panoptic":
            return functools.partial(read_panoptic, listed=listed)
        distance = self.color_distance
        return functools.partial(
            read_listed_mask, listed=listed, color_distance=distance, **options
        )

    @property
    def void_ids(self) -> tuple[int, ...]:
        """The ids that are ignored in what the reader gives."""
        if self.name == "per_class":
            return (IGNORE,)
        return (VOID,) if self.name in ("one_per_class", "panoptic") else self.ignore_ids
