"""Masks in which a pixel has any number of classes: bits of one file, or a file for each class."""

import functools
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from segjax.data.classes import IGNORE
from segjax.data.errors import DataError
from segjax.data.files.ids import class_ids
from segjax.data.files.images import IMAGE_SUFFIXES, MASK_SUFFIXES, list_images, some
from segjax.data.files.mask_files import Stored, read_stored, whole_ids
from segjax.data.files.masks import NO_FOREGROUND, Mask, one_channel, read_binary
from segjax.data.files.pairing import pair_files


def read_bits(
    path: pathlib.Path,
    *,
    num_classes: int,
    ignore_ids: tuple[int, ...] = (IGNORE,),
    threshold: float = 0,
) -> Mask:
    """Decodes a mask whose bit k is set where class k is present.

    With one class the values are 0 and 1, or, if 255 is not among the ignored ids, 0 and 255. For
    several classes, a .npy or TIFF file may also hold a channel for each, of such values.

    Args:
      path: a file of one channel, of equal channels, or of a channel for each class.
      num_classes: the number of classes.
      ignore_ids: further ids that may occur.
      threshold: as `masks.read_listed_mask` takes it, of one class or of channels.

    Raises:
      DataError: if the file cannot be read or holds colours; holds 1 and 255 where only one of
        them can be the foreground; or has one channel, for several classes, and a threshold.
    """
    path = pathlib.Path(path)
    stored = read_stored(path, channels=num_classes if num_classes > 1 else 0)
    if num_classes == 1:
        return read_binary(stored, path, ignore_ids, threshold)
    if not stored.is_stack:
        if threshold:
            raise DataError(
                f"{path} has bits of {num_classes} classes, which data.mask_threshold="
                f"{threshold:g} cannot tell",
                "use data.mask_threshold=0, or data.mask_format=per_class with a file for each",
            )
        return Mask(whole_ids(one_channel(stored, path), path), stored.palette)
    channels = [Stored(stored.values[..., k]) for k in range(num_classes)]
    masks = (
        (f"{path}, channel {k}", read_binary(channel, path, ignore_ids, threshold))
        for k, channel in enumerate(channels)
    )
    return _bits(masks, ignore_ids)


def read_label_files(
    *paths: pathlib.Path,
    classes: Sequence[str],
    by_folder: bool,
    ignore_ids: tuple[int, ...] = (IGNORE,),
    threshold: float = 0,
) -> Mask:
    """Decodes the masks of an image, one for each class, to bits.

    A mask holds 0 and 1, or, if 255 is not among the ignored ids, 0 and 255. A pixel that is
    ignored in one of them is ignored (255) altogether.

    Args:
      paths: files of one size, of one channel or of equal channels; a class without a file does
        not occur.
      classes: the names of all classes, in the order of the bits.
      by_folder: see `class_of`.
      ignore_ids: further ids that may occur.
      threshold: as `masks.read_listed_mask` takes it.

    Raises:
      DataError: naming the file that cannot be read, holds other values or has another size.
    """
    places = [classes.index(class_of(path, classes, by_folder)) for path in paths]
    read = binary_files(paths, ignore_ids, threshold)
    return _bits(read, ignore_ids, places)


def binary_files(
    paths: Sequence[pathlib.Path], ignore_ids: tuple[int, ...], threshold: float
) -> Iterator[tuple[str, Mask]]:
    """(name, mask of 0, 1 and ignored ids) of files that must be of one size."""
    size = None
    for path in paths:
        mask = read_binary(read_stored(path), path, ignore_ids, threshold)
        size = size or mask.ids.shape
        if mask.ids.shape != size:
            raise DataError(
                f"{path} is {mask.ids.shape[0]}x{mask.ids.shape[1]} but {paths[0]}, a mask of the "
                f"same image, is {size[0]}x{size[1]} (height x width)",
                "use masks of the image's size (resize masks by nearest neighbour)",
            )
        yield str(path), mask


def _bits(
    masks: Iterable[tuple[str, Mask]],
    ignore_ids: tuple[int, ...],
    places: Sequence[int] | None = None,
) -> Mask:
    """The bits of the masks of classes, 255 where one of them is ignored."""
    known, bits, ignored, encoding = class_ids(2, ignore_ids), np.uint8(0), False, NO_FOREGROUND
    for number, (name, mask) in enumerate(masks):
        label = known.labels_of(mask.ids, name)
        bits = bits | (label == 1).astype(np.uint8) << (places[number] if places else number)
        ignored = ignored | (label == IGNORE)
        encoding = encoding.plus(mask.foreground)
    return Mask(np.where(ignored, np.uint8(IGNORE), bits), foreground=encoding)


def class_of(path: pathlib.Path, classes: Sequence[str], by_folder: bool) -> str:
    """The class of a mask's file: its folder, `CLASS/NAME.png`, or the end of its name,
    `NAME_CLASS.png`, of which it is the longest that fits."""
    if by_folder:
        return next(folder.name for folder in path.parents if folder.name in classes)
    return _class_in(path.stem, classes) or ""


class LabelFiles(NamedTuple):
    """Images and their mask files, of some or all classes."""

    names: list[str]
    images: list[pathlib.Path]
    masks: list[tuple[pathlib.Path, ...]]  # of each image
    rule: str  # of the names, in words
    by_folder: bool  # see `class_of`
    missing: tuple[str, ...] = ()  # the classes without any file


def pair_label_files(
    images: pathlib.Path,
    masks: pathlib.Path,
    classes: Sequence[str],
    image_suffixes: tuple[str, ...] = IMAGE_SUFFIXES,
    *,
    missing_is_empty: bool = False,
    has_rest: bool = False,
) -> LabelFiles:
    """Pairs images with a mask file for each class.

    The masks of a class are in a folder of its name, `masks/CLASS/NAME.png`, or all are in one
    folder as `NAME_CLASS.png`. Names pair as in `pair_files`.

    Args:
      images, masks: the folders.
      classes: their names.
      image_suffixes: of the images' files.
      missing_is_empty: an image without a file of a class does not show it. Without this, every
        image needs a mask of every class: a missing file may be a mistake, an empty mask is none.
        An image without any mask is an error in any case.
      has_rest: one of the classes, which is where the others are not, may have no files.

    Raises:
      DataError: naming the classes without masks, the masks of no class, or the files without a
        partner.
    """
    subfolders = [p.name for p in masks.iterdir() if p.is_dir() and not p.name.startswith(".")]
    by_folder = not set(subfolders).isdisjoint(classes)
    if by_folder:
        owned, nobodys = subfolders, [name for name in subfolders if name not in classes]
    else:
        owners = {p.stem: _class_in(p.stem, classes) for p in list_images(masks, MASK_SUFFIXES)}
        owned, nobodys = owners.values(), [stem for stem, owner in owners.items() if owner is None]
    missing = [name for name in classes if name not in owned]
    if nobodys or len(missing) > has_rest:
        kind = "folders" if by_folder else "files"
        raise DataError(
            f"{masks} has not the masks of each class as masks/CLASS/NAME.png or as "
            f"masks/NAME_CLASS.png; classes without a mask: {some(missing)}; {kind} of no class: "
            f"{some(nobodys)}",
            "name the folders, or the ends of the files, as in data.classes"
            + "; one class alone may have none, which is where the others are not" * has_rest,
        )
    by_image, names, rules = {}, {}, []
    for name in (name for name in classes if name not in missing):
        folder, stem_of = masks / name if by_folder else masks, str
        if not by_folder:
            stem_of = functools.partial(_stem_of, name, owners)
        stems, image_paths, mask_paths, rule = pair_files(
            images, folder, image_suffixes, stem_of, skip_unlabelled=missing_is_empty
        )[:4]
        rules.append(f"{name}: {rule}")
        names |= zip(image_paths, stems, strict=True)
        for image, mask in zip(image_paths, mask_paths, strict=True):
            by_image.setdefault(image, []).append(mask)
    bare = [p.name for p in list_images(images, image_suffixes) if p not in by_image]
    if bare:
        raise DataError(
            f"{len(bare)} images in {images} have no mask of any class ({some(bare)})",
            "use an empty mask of one class where an image shows none, or leave the images out",
        )
    order = sorted(by_image, key=pathlib.Path.as_posix)
    return LabelFiles(
        [names[image] for image in order],
        order,
        [tuple(by_image[image]) for image in order],
        "; ".join(rules),
        by_folder,
        tuple(missing),
    )


def _stem_of(name: str, owners: Mapping[str, str | None], stem: str) -> str | None:
    """The stem of a class's mask without the class, None for a mask of another class."""
    return stem.removesuffix(f"_{name}") if owners[stem] == name else None


def _class_in(stem: str, classes: Sequence[str]) -> str | None:
    """The class whose name ends a stem after a _; of several the longest, None without any."""
    return max((name for name in classes if stem.endswith(f"_{name}")), key=len, default=None)
