"""Sources of image and mask files, and the pairing of their names."""

import csv
import dataclasses
import functools
import itertools
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from segjax.data.classes import ClassTable
from segjax.data.errors import DataError
from segjax.data.files.ids import IdMap
from segjax.data.files.images import IMAGE_SUFFIXES, list_images, read_image, read_mask, some
from segjax.data.files.orientation import to_turn
from segjax.data.files.pixels import image_header
from segjax.data.files.values import Range

# The words of a file name, at whose ends affixes may end: gtFine_03 is gt, Fine, _, 03.
_WORDS = re.compile(r"\d+|[A-Z]*[a-z]+|[A-Z]+|.")
# A number that stands alone, as in `seq1_`, and not inside a word, as in `leftImg8bit`.
_NUMBER = re.compile(r"(?<![^\W_])\d|\d(?![^\W_])")


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
    # Decodes a sample's mask files to the raw ids, an integer array [h, w]
    read_ids: Callable[..., Integer[np.ndarray, "h w"]] = read_mask
    pairing: str = ""  # the rule by which names were paired, where that was a guess
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

    def turns(self, index: int, ids: Integer[np.ndarray, "h w"]) -> bool:
        """Whether `image` turns an image with these ids by its EXIF orientation."""
        header, path = image_header(self.image_paths[index]), self.image_paths[index]
        exif = getattr(self.read_image, "keywords", {}).get("exif", "ignore")
        return to_turn(header.orientation, header.size, exif, ids.shape, path)

    def ids(self, index: int) -> Integer[np.ndarray, "h w"]:
        return self.read_ids(*self.masks_of(index))

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


def pair_files(
    images: pathlib.Path,
    masks: pathlib.Path,
    image_suffixes: tuple[str, ...] = IMAGE_SUFFIXES,
    mask_stem: Callable[[str], str | None] = str,
) -> tuple[list[str], list[pathlib.Path], list[pathlib.Path], str]:
    """Pairs the files of two folders one to one: (names, image paths, mask paths, rule in words).

    Equal stems pair. Otherwise the shortest affixes that all stems of a side share are left out:
    `a.jpg` with `a_mask.png`, `img_003` with `mask_003`. An affix ends where a word ends and holds
    no number, so it takes no part of an id: `seq1_04` is not `seq2_04`.

    Args:
      images, masks: the folders.
      image_suffixes: of the images' files.
      mask_stem: from the stem of a mask's file to the stem that is paired, None for a mask that
        takes no part.

    Raises:
      DataError: if two files share a name, or a file has no partner; up to 5 are named.
    """
    sides = [_files_by_name(images, image_suffixes), _files_by_name(masks, IMAGE_SUFFIXES)]
    stems = {key: mask_stem(key[1]) for key in sides[1]}
    sides[1] = {(key[0], stem): sides[1][key] for key, stem in stems.items() if stem is not None}
    keyings = sorted(
        itertools.product(*map(_keyings, sides)),
        key=lambda keying: sum(len(pattern) for pattern, _ in keying),
    )
    # The first of those that pair the most.
    keying = max(keyings, key=lambda keying: len(keying[0][1].keys() & keying[1][1].keys()))
    best, rule = [files for _, files in keying], " with ".join(pattern for pattern, _ in keying)
    alone = [[best[s][k].name for k in best[s] if k not in best[1 - s]] for s in (0, 1)]
    if any(alone):
        raise DataError(
            f"{len(alone[0])} images in {images} have no mask ({some(alone[0])}) and "
            f"{len(alone[1])} masks in {masks} have no image ({some(alone[1])}), names read as "
            f"{rule}",
            "use one mask of class ids per image, in the same subfolder, named alike but "
            "for an affix that all share",
        )
    names = [(folder / stem).as_posix() for folder, stem in sides[0]]
    return names, list(best[0].values()), [best[1][key] for key in best[0]], rule


def _files_by_name(
    folder: pathlib.Path, suffixes: tuple[str, ...]
) -> dict[tuple[pathlib.Path, str], pathlib.Path]:
    files = {}
    for path in list_images(folder, suffixes):
        key = (path.parent.relative_to(folder), path.stem)
        if key in files:
            raise DataError(f"{path} has the same name as {files[key].name}", "use one of the two")
        files[key] = path
    return files


def _keyings(files) -> list[tuple[str, dict]]:
    """(pattern such as `*_mask`, files by the text at its `*`), per affix that all stems share."""
    words = [_WORDS.findall(stem) for _, stem in files]
    prefixes = ["", *itertools.accumulate(_shared(words))]
    suffixes = ["", *itertools.accumulate(_shared([w[::-1] for w in words]), lambda s, w: w + s)]
    shortest = min(len(stem) for _, stem in files)
    keyings = []
    for p, s in itertools.product(prefixes, suffixes):
        if len(p + s) < shortest and not _NUMBER.search(f"{p} {s}"):
            keyed = {(d, n[len(p) : len(n) - len(s)]): file for (d, n), file in files.items()}
            keyings.append((f"{p}*{s}", keyed))
    return keyings


def _shared(words: list[list[str]]) -> list[str]:
    columns = zip(*words, strict=False)
    return [c[0] for c in itertools.takewhile(lambda c: len(set(c)) == 1, columns)]


def read_listing(
    root: pathlib.Path, listing: pathlib.Path
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Image and mask paths of a file with `image mask` on each line.

    The two are separated by a tab, else by a comma, else by spaces. Empty lines, lines that start
    with #, and a header `image,mask` are skipped. A path counts from `root`, or by its last two
    components (lists often start with their authors' own folders); an absolute path of an existing
    file is that file.

    Raises:
      DataError: naming the line that is no pair or whose file is missing.
    """
    columns = [], []
    for number, line in enumerate(listing.read_text(encoding="utf-8-sig").splitlines(), 1):
        words = listed_pair(line)
        if not words or (not columns[0] and [w.lower() for w in words] == ["image", "mask"]):
            continue
        if len(words) != 2:
            raise DataError(
                f"{listing}, line {number}: {line!r}",
                "use `image.png mask.png`, with a tab or a comma between names that hold spaces",
            )
        for column, word in zip(columns, words, strict=True):
            path = pathlib.PurePosixPath(word)
            tried = root / word.lstrip("/"), root.joinpath(*path.parts[-2:])
            files = [p for p in (root / path, *tried) if p.is_file()]
            if not files:
                raise DataError(
                    f"{listing}, line {number}: {word} is not there (looked for "
                    f"{' and '.join(map(str, dict.fromkeys(tried)))})",
                    "use a complete copy of the data, or take the line out of the list",
                )
            column.append(files[0])
    if not columns[0]:
        raise DataError(f"{listing} lists no images", "use lines of `image.png mask.png`")
    return columns


def listed_pair(line: str) -> list[str]:
    """The words of a list's line; none for a line that is empty or starts with #."""
    line = line.strip()
    if not line or line.startswith("#"):
        return []
    if "\t" not in line and "," not in line:
        return line.split()
    separator = "\t" if "\t" in line else ","
    return [w.strip() for w in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]
