"""Masks in which a pixel has any number of classes: bits of one file, or a file for each class."""

import functools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Integer, UInt8

from segjax.data.classes import IGNORE
from segjax.data.errors import DataError
from segjax.data.files.ids import class_ids
from segjax.data.files.images import IMAGE_SUFFIXES, list_images, read_mask, some
from segjax.data.files.masks import foreground
from segjax.data.files.pairing import pair_files


def read_bits(
    path: pathlib.Path, *, one_label: bool, ignore_ids: tuple[int, ...] = (IGNORE,)
) -> Integer[np.ndarray, "h w"]:
    """Decodes a mask whose bit k is set where class k is present.

    With one label the values are 0 and 1, or, if 255 is not among the ignored ids, 0 and 255.

    Args:
      path: a one-channel file.
      one_label: whether there is one class.
      ignore_ids: further ids that may occur.

    Raises:
      DataError: if the file cannot be read or holds colours; or holds 1 and 255 where only one of
        them can be the foreground.
    """
    ids = read_mask(path)
    return foreground(ids, path) if one_label and IGNORE not in ignore_ids else ids


def read_label_files(
    *paths: pathlib.Path, ignore_ids: tuple[int, ...] = (IGNORE,)
) -> UInt8[np.ndarray, "h w"]:
    """Decodes the masks of an image, one for each class, to bits.

    A mask holds 0 and 1, or, if 255 is not among the ignored ids, 0 and 255. A pixel that is
    ignored in one of them is ignored (255) altogether.

    Args:
      paths: one-channel files of one size, in the order of the classes.
      ignore_ids: further ids that may occur.

    Raises:
      DataError: naming the file that cannot be read, holds other values or has another size.
    """
    known, bits, ignored = class_ids(2, ignore_ids), None, None
    for place, path in enumerate(paths):
        label = known.labels_of(read_bits(path, one_label=True, ignore_ids=ignore_ids), path)
        if bits is None or ignored is None:
            bits, ignored = np.zeros_like(label), np.zeros(label.shape, bool)
        if label.shape != bits.shape:
            raise DataError(
                f"{path} is {label.shape[0]}x{label.shape[1]} but {paths[0]}, a mask of the same "
                f"image, is {bits.shape[0]}x{bits.shape[1]} (height x width)",
                "use masks of the image's size (resize masks by nearest neighbour)",
            )
        bits |= (label == 1).astype(np.uint8) << place
        ignored |= label == IGNORE
    assert bits is not None, "an image has one mask at least"
    return np.where(ignored, np.uint8(IGNORE), bits)


def pair_label_files(
    images: pathlib.Path,
    masks: pathlib.Path,
    classes: Sequence[str],
    image_suffixes: tuple[str, ...] = IMAGE_SUFFIXES,
) -> tuple[list[str], list[pathlib.Path], list[list[pathlib.Path]], str]:
    """Pairs images with a mask for each class: (names, image paths, mask paths by class, rule).

    The masks of a class are in a folder of its name, `masks/CLASS/NAME.png`, or all are in one
    folder as `NAME_CLASS.png`. Names pair as in `pair_files`. Every image needs a mask of every
    class: a missing file may be a mistake, an empty mask is none.

    Raises:
      DataError: naming the classes without masks, or the files without a partner.
    """
    folders = [masks / name for name in classes if (masks / name).is_dir()]
    if folders and len(folders) < len(classes):
        missing = [name for name in classes if masks / name not in folders]
        raise DataError(
            f"{masks} has no folder of the classes {some(missing)}; it has "
            f"{some([p.name for p in masks.iterdir() if p.is_dir()])}",
            "use a folder for each of data.classes, named as the class",
        )
    if folders:
        pairs = [pair_files(images, folder, image_suffixes) for folder in folders]
    else:
        stems = [path.stem for path in list_images(masks, IMAGE_SUFFIXES)]
        owners = {stem: _class_in(stem, classes) for stem in stems}
        nobodys = [stem for stem, owner in owners.items() if owner is None]
        missing = [name for name in classes if name not in owners.values()]
        if nobodys or missing:
            raise DataError(
                f"data.mask_format='per_class': {masks} has neither a folder for each class nor "
                f"files NAME_CLASS alone; classes without a mask: {some(missing)}; files of no "
                f"class: {some(nobodys)}",
                "name the masks of a class masks/CLASS/NAME.png or masks/NAME_CLASS.png, as in "
                "data.classes",
            )
        pairs = [
            pair_files(images, masks, image_suffixes, functools.partial(_stem_of, name, owners))
            for name in classes
        ]
    names, image_paths = pairs[0][:2]
    rule = "; ".join(f"{name}: {pair[3]}" for name, pair in zip(classes, pairs, strict=True))
    return names, image_paths, [pair[2] for pair in pairs], rule


def _stem_of(name: str, owners: Mapping[str, str | None], stem: str) -> str | None:
    """The stem of a class's mask without the class, None for a mask of another class."""
    return stem.removesuffix(f"_{name}") if owners[stem] == name else None


def _class_in(stem: str, classes: Sequence[str]) -> str | None:
    """The class whose name ends a stem after a _; of several the longest, None without any."""
    return max((name for name in classes if stem.endswith(f"_{name}")), key=len, default=None)
