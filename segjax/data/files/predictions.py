"""Label maps that some program predicted: paired with the samples of a split, and read."""

import collections
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Integer, UInt8

from segjax.data.class_lists import ClassList
from segjax.data.classes import IGNORE, ClassTable
from segjax.data.errors import DataError
from segjax.data.files import colors
from segjax.data.files.ids import count_ids
from segjax.data.files.images import IMAGE_SUFFIXES, list_images, some
from segjax.data.files.mask_files import read_stored, whole_ids
from segjax.data.files.masks import one_channel
from segjax.data.files.pixels import ARRAY_SUFFIX

MASKS = "masks"  # where --mode=predict writes label maps
_TRIED = 16  # names by which the affixes of all are found
_AFFIXES = 64  # that are tried


@dataclasses.dataclass(frozen=True)
class PredictedFiles:
    """The file of each sample.

    Attributes:
      paths: one a sample, in the order of the split.
      rule: by which names were read, such as `*_pred`.
      extra: files that belong to no sample.
    """

    paths: Sequence[pathlib.Path]
    rule: str
    extra: Sequence[pathlib.Path]


def find_predictions(folder: str | pathlib.Path, names: Sequence[str]) -> PredictedFiles:
    """Finds the label map of each sample, in a folder or in the `masks/` that predict writes.

    A file is named as its sample, but for a text before and after the name that all share (as
    `a/b_pred.png` for `a/b`), or as the last part of the name where no two samples share it.

    Args:
      folder: with image files, or .npy, in it and below.
      names: of the samples.

    Raises:
      DataError: if there is no such folder, two files have one name, or a sample has no file.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not an existing folder", "use one with a label map an image")
    folder = folder / MASKS if (folder / MASKS).is_dir() else folder
    files: dict[str, pathlib.Path] = {}
    for path in list_images(folder, (*IMAGE_SUFFIXES, ARRAY_SUFFIX)):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in files:
            raise DataError(f"{path} and {files[stem].name} have one name", "use one of the two")
        files[stem] = path
    found, rule = max(
        (_paired(keys, stems) for keys, stems in _keyings(names, files)),
        key=lambda pairing: len(pairing[0]),
    )
    missing = [name for i, name in enumerate(names) if i not in found]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} images have no label map in {folder} "
            f"({some(missing)}); it holds {len(files)} ({some(files)}), read as {rule}",
            "use one label map an image, named as the image but for an affix that all share",
        )
    paths = [found[i] for i in range(len(names))]
    return PredictedFiles(paths, rule, sorted({*files.values()} - {*paths}))


def _keyings(
    names: Sequence[str], files: Mapping[str, pathlib.Path]
) -> list[tuple[list[str], Mapping[str, pathlib.Path]]]:
    """What is compared: whole names, and last parts where each is unique."""
    keyings = [(list(names), files)]
    last = [name.rpartition("/")[2] for name in names]
    by_last = {stem.rpartition("/")[2]: path for stem, path in files.items()}
    if len({*last}) == len(last):
        keyings.append((last, files))
        if len(by_last) == len(files):
            keyings.append((last, by_last))
    return keyings


def _paired(
    names: Sequence[str], files: Mapping[str, pathlib.Path]
) -> tuple[dict[int, pathlib.Path], str]:
    """The file of each sample that has one, by the affixes that pair the most, and these."""
    counts = collections.Counter({("", ""): 1})
    for name in names[:: max(1, len(names) // _TRIED)][:_TRIED]:
        for stem in files:
            place = stem.rfind(name)
            if place >= 0:
                counts[stem[:place], stem[place + len(name) :]] += 1
    best: dict[int, pathlib.Path] = {}
    chosen = "", ""
    likely = [affixes for affixes, _ in counts.most_common(_AFFIXES)]
    for before, after in sorted(likely, key=lambda affixes: sum(map(len, affixes))):
        stems = (f"{before}{name}{after}" for name in names)
        found = {i: files[stem] for i, stem in enumerate(stems) if stem in files}
        if len(found) > len(best):
            best, chosen = found, (before, after)
    return best, "*".join(chosen)


def label_of_ids(
    classes: ClassTable, ids: str, mask_ids: Mapping[int, int] | None = None
) -> dict[int, int]:
    """The label 0..K-1 of each id in predictions; bits stand for themselves.

    Args:
      classes: of the data.
      ids: "raw": the data set's own; "train": 0..K-1.
      mask_ids: the label of each id in the data set's masks, of which several may have one.
    """
    if classes.multilabel or ids == "train":
        return {value: value for value in classes.values}
    own = {id_: label for id_, label in (mask_ids or {}).items() if label != IGNORE}
    return own | {id_: label for label, id_ in enumerate(classes.raw_ids)}


def read_prediction(
    path: pathlib.Path, classes: ClassTable, labels: Mapping[int, int]
) -> tuple[Integer[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]:
    """The ids in a file, and their labels, 255 where an id is of no class.

    RGB and RGBA files hold the colours of the palette (black where no class is, unless it is a
    class's colour), or the same id in all three channels.

    Args:
      path: an image file of ids or colours, or an array of ids.
      classes: of the data.
      labels: of `label_of_ids`.

    Raises:
      DataError: if the file cannot be read, or holds colours that are not in the palette.
    """
    stored = read_stored(path)
    if stored.is_colored:
        found = _labels_of_colors(stored.values, classes, path)
        if found is not None:
            return found, found
    ids = whole_ids(one_channel(stored, path), path)
    values, places = np.unique(ids, return_inverse=True)
    table = np.array([labels.get(int(value), IGNORE) for value in values], np.uint8)
    return ids, table[places].reshape(ids.shape)


def _labels_of_colors(
    rgb: UInt8[np.ndarray, "h w 3"], classes: ClassTable, path: pathlib.Path
) -> UInt8[np.ndarray, "h w"] | None:
    """The labels of colours; None if the three channels are alike and not of the palette."""
    alike = bool((rgb == rgb[..., :1]).all())
    if classes.multilabel and not alike:
        remedy = "use one channel, with bit k of a value for class k"
        raise DataError(f"{path} holds colours, but a pixel may have several classes", remedy)
    if not classes.multilabel:
        count = tuple(range(len(classes)))
        listed = ClassList(classes, count, count, classes.names, classes.palette)
        rows = colors.rows_of_colors(rgb, listed)
        if alike and rows.min() < 0:
            return None
        if not np.any((rows < 0) & rgb.any(-1)):
            return np.where(rows < 0, IGNORE, rows).astype(np.uint8)
        return colors.ids_of_colors(rgb, listed, path).astype(np.uint8)  # raises
    return None


def described_ids(ids: Integer[np.ndarray, "n"]) -> str:
    """Ids with their pixels, in words."""
    counts = count_ids(ids)
    shown = [f"{id_} ({pixels} pixels)" for id_, pixels in list(counts.items())[:8]]
    return ", ".join([*shown, *["..."] * (len(counts) > 8)])
