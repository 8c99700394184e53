"""Sources of image and mask files."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from segjax.data.classes import ClassTable
from segjax.data.errors import DataError
from segjax.data.files.headers import Header
from segjax.data.files.ids import IdMap
from segjax.data.files.images import read_image
from segjax.data.files.masks import Mask, read_mask
from segjax.data.files.orientation import to_turn
from segjax.data.files.values import Range


@dataclasses.dataclass(frozen=True, repr=False)
class PairedFiles:
    """A split whose samples are an image file and a mask file each, or a mask file per class; see
    `source.Source`.

    `image(i)` and `ids(i)` are the content of the files, before any check of the two together.

    Raises:
      DataError: on reading, if a file cannot be read, the sizes differ, or an id has no label.
    """

    dataset: str
    split: str
    classes: ClassTable  # the K classes
    names: Sequence[str]  # unique in the split
    image_paths: Sequence[pathlib.Path]
    mask_paths: Sequence[pathlib.Path]  # one per sample, as the image paths
    id_map: IdMap  # from the ids in a mask to labels
    # Decodes a path to uint8 [h, w, c]; it takes the (h, w) of the mask as `mask_size`
    read_image: Callable[..., UInt8[np.ndarray, "h w c"]] = read_image
    # Decodes a sample's mask files to the raw ids, an integer array [h, w], or to a `Mask`
    read_ids: Callable[..., Integer[np.ndarray, "h w"] | Mask] = read_mask
    pairing: str = ""  # the rule by which names were paired, where that was a guess
    notes: tuple[str, ...] = ()  # what the user should know of how the files were found
    # Whether masks are drawn from files that may be of many images: `read_ids` takes the image's
    # path too
    drawn: bool = False
    # Per sample, its masks after the first, where each class has a file of its own
    more_masks: Sequence[tuple[pathlib.Path, ...]] = ()

    def __len__(self) -> int:
        return len(self.image_paths)

    @property
    def channels(self) -> int:
        """Of the images."""
        return getattr(self.read_image, "keywords", {}).get("channels", 3)

    @property
    def value_range(self) -> tuple[Range, ...]:
        """The values that become 0 and 255; () = the range of the files' own type."""
        return getattr(self.read_image, "keywords", {}).get("value_range", ())

    def with_options(self, value_range: tuple[Range, ...], exif: str) -> "PairedFiles":
        """The same files, read with other options of `read_image`."""
        read = functools.partial(self.read_image, value_range=value_range, exif=exif)
        return dataclasses.replace(self, read_image=read)

    def image(
        self, index: int, mask_size: tuple[int, ...] | None = None
    ) -> UInt8[np.ndarray, "h w c"]:
        """The image, turned if a mask of `mask_size` (h, w) was drawn on it as turned."""
        return self.read_image(self.image_paths[index], mask_size=mask_size)

    def turns(self, header: Header, mask_size: tuple[int, ...]) -> bool:
        """Whether `image` turns an image with that header by its EXIF orientation."""
        exif = getattr(self.read_image, "keywords", {}).get("exif", "ignore")
        return to_turn(header.orientation, header.shape, exif, mask_size)

    def mask(self, index: int) -> Mask:
        files = (self.mask_paths[index], self.image_paths[index]) if self.drawn else ()
        mask = self.read_ids(*(files or self.masks_of(index)))
        return mask if isinstance(mask, Mask) else Mask(mask)

    def ids(self, index: int) -> Integer[np.ndarray, "h w"]:
        return self.mask(index).ids

    def masks_of(self, index: int) -> tuple[pathlib.Path, ...]:
        """All mask files of a sample."""
        more = self.more_masks[index] if self.more_masks else ()
        return self.mask_paths[index], *more

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self.ids(index)
        image = self.image(index, ids.shape)
        self.check_sizes(index, image, ids)
        label = self.id_map.labels_of(ids, self.mask_paths[index])
        return {"image": image, "label": label, "name": self.names[index]}

    def check_sizes(
        self,
        index: int,
        image: UInt8[np.ndarray, "h w c"],
        ids: Integer[np.ndarray, "mask_h mask_w"],
    ) -> None:
        """Raises DataError if image and mask of a sample differ in size."""
        (height, width), mask_size = image.shape[:2], ids.shape
        if (height, width) != mask_size:
            remedy = "use a mask of the image's size (resize masks by nearest neighbour)"
            if self.drawn:
                remedy = "use the image that was annotated, at its size"
            if (width, height) == mask_size:
                remedy = "use files that are turned alike"
            raise DataError(
                f"{self.image_paths[index]} is {height}x{width} but its mask "
                f"{self.mask_paths[index]} is {mask_size[0]}x{mask_size[1]} (height x width)",
                remedy,
            )

    def __repr__(self) -> str:
        # Without the root: grain compares this text on resume, and the data may have moved.
        return f"{self.dataset}(split={self.split!r}, samples={len(self)})"
