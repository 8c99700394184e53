"""Lists of the samples of a split: a line for each, of its image and its mask, or of its name."""

import codecs
import csv
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from segjax.data.errors import DataError
from segjax.data.files.images import MASK_SUFFIXES, some
from segjax.data.files.json_file import parse_json
from segjax.data.files.pairing import Pairs
from segjax.data.files.patterns import names_of_split
from segjax.data.files.reading import reading
from segjax.data.files.regular import regular
from segjax.data.files.text_file import read_text
from segjax.data.parallel import TIMEOUT_S, within

_PLACES = ("", "list/", "lists/", "splits/", "ImageSets/Segmentation/", "ImageSets/")
_HEAD = 1 << 16  # bytes that tell whether a file may be a list
_TYPES = (".txt", ".csv", ".tsv", ".lst", ".jsonl")
# Headers of columns, in lower case and without _, spaces and the like.
_IMAGE_HEADS = (
    "image images img imgs imagepath imgpath imagefile imagename imgname imageurl imagefilename "
    "filename file filepath path input inputs photo rgb x imageid"
)
_MASK_HEADS = (
    "mask masks maskpath maskfile maskname maskfilename label labels labelpath labelfile "
    "annotation annotations annotationpath annot ann annpath seg segpath segmap segmentation "
    "segmentationpath gt gtpath groundtruth groundtruthpath target targets targetpath y"
)
_PAIR = "`image.png mask.png`"


class Row(NamedTuple):
    """A line of a list."""

    line: int
    image: str
    mask: str | None  # None in a list of names alone
    text: str


def find_lists(root: pathlib.Path, split: str) -> list[pathlib.Path]:
    """The lists of a split: those named as the split is, else those named by a synonym."""
    for names in ((split,), names_of_split(split)[1:]):
        paths = [root / f"{p}{n}{t}" for n in names for p in _PLACES for t in _TYPES]
        found = [path for path in paths if path.is_file() and is_list(path)]
        if found:
            return found
    return []


def is_list(path: pathlib.Path) -> bool:
    """Whether a file may be a list: its first lines hold a name each, or names of pictures.

    A table of something else (`id,rle_mask`) is none.
    """
    rows = _first_rows(path)
    if not rows or not {"encodedpixels", "rlemask", "maskrle", "rle"}.isdisjoint(
        map(_head, rows[0])
    ):
        return not rows
    return (
        all(len(words) == 1 for words in rows)
        or any(map(_is_file, [w for words in rows for w in words]))
        or _columns(rows[0]) is not None
    )


def read_list(path: pathlib.Path) -> list[Row]:
    """The rows of a list.

    Words are separated by a tab, else by a comma, else by a semicolon, else by spaces; a line of
    JSON has them by name. Empty lines and those that start with # are skipped. A header names the
    columns (`image,mask`, `image_path,mask_path`, ...), and others are passed over.

    Raises:
      DataError: naming the line that is no pair.
    """
    rows, columns, width = [], None, 0
    for line, words, text in _lines(path):
        if columns is None:
            columns = _columns(words)
            if columns is not None:
                width = len(words)
                continue
            if len(words) == 2 and not any(map(_is_file, words)) and not rows and _headed(path):
                columns, width = (0, 1), 2
                continue
        if columns is None or len(words) != width:
            places = _places(words)
        else:
            places = columns
        if places is None:
            raise DataError(
                f"{path}, line {line}: {text!r}",
                f"use {_PAIR}, with a tab or a comma between names that hold spaces",
            )
        image, mask = places
        rows.append(Row(line, words[image], None if mask is None else words[mask], text))
    if not rows:
        raise DataError(f"{path} lists no images", f"use lines of {_PAIR}")
    return rows


def pairs_of_list(
    root: pathlib.Path, path: pathlib.Path, layout: Callable[[], Pairs | None] = lambda: None
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Image and mask paths of a list.

    A path counts from `root`, or by its last two components (lists often start with their authors'
    own folders); an absolute path of an existing file is that file. `\\` may stand for `/`.

    Args:
      root: the data set's folder.
      path: of the list.
      layout: gives the pairs that names without a folder, or without a suffix, stand for; None
        where no layout of folders is known.

    Raises:
      DataError: naming the line that is no pair or whose file is missing.
    """
    known: list[dict[str, int]] = []
    pairs: list[Pairs] = []

    def sample(row: Row) -> int | None:
        """The place of a name in the layout."""
        if not known:
            found = layout()
            pairs.append(found or Pairs([], [], [], ""))
            known.append(_by_name(pairs[0]))
        word = row.image.replace("\\", "/").lstrip("/").removeprefix("./")
        parts = pathlib.PurePosixPath(word).parts
        tried = ["/".join(parts[k:]) for k in range(len(parts))]
        tried += [str(pathlib.PurePosixPath(t).with_suffix("")) for t in tried if t]
        return next((known[0][t] for t in tried if t in known[0]), None)

    columns: tuple[list[pathlib.Path], list[pathlib.Path]] = [], []
    for row in read_list(path):
        with reading(f"{path}, line {row.line}", f"use {_PAIR}", "names no file"):  # too long
            files = [_find(root, path, word) for word in (row.image, row.mask) if word is not None]
        if len(files) == 2 and all(files):
            both = [file for file in files if file is not None]
        else:
            place = sample(row)
            if place is None:
                raise _missing(root, path, row, bool(pairs[0].names))
            both = [pairs[0].images[place], pairs[0].masks[place]]
        for column, file in zip(columns, both, strict=True):
            column.append(file)
    return columns


def _by_name(pairs: Pairs) -> dict[str, int]:
    """The places of pairs by the names that belong to one of them alone."""
    found: dict[str, set[int]] = {}
    for place, (name, image) in enumerate(zip(pairs.names, pairs.images, strict=True)):
        for known in {name, name.rpartition("/")[2], image.name, image.stem}:
            found.setdefault(known, set()).add(place)
    return {name: places.pop() for name, places in found.items() if len(places) == 1}


def _find(root: pathlib.Path, listing: pathlib.Path, word: str) -> pathlib.Path | None:
    tried = [listing.parent / word, *_tried(root, word)] if ".." in word else _tried(root, word)
    return next((path for path in (root / word, *tried) if path.is_file()), None)


def _tried(root: pathlib.Path, word: str) -> list[pathlib.Path]:
    found = []
    for text in dict.fromkeys((word, word.replace("\\", "/"))):
        parts = pathlib.PurePosixPath(text).parts
        found += [root / text.lstrip("/"), root.joinpath(*parts[-2:])]
    return list(dict.fromkeys(found))


def _missing(root: pathlib.Path, path: pathlib.Path, row: Row, layout: bool) -> DataError:
    if row.mask is None:
        if not layout:
            return DataError(
                f"{path}, line {row.line}: {row.text!r}",
                f"use {_PAIR}, or names alone where data.root has folders of images and masks "
                "(or data.images and data.masks)",
            )
        found = f"{path}, line {row.line}: no image and mask are named {row.image}"
        return DataError(found, "use a complete copy of the data, or take the line out of the list")
    word = row.mask if _find(root, path, row.image) else row.image
    tried = _tried(root, word)
    return DataError(
        f"{path}, line {row.line}: {word} is not there (looked for "
        f"{' and '.join(map(str, tried))})",
        "use a complete copy of the data, or take the line out of the list",
    )


def _lines(path: pathlib.Path) -> Iterable[tuple[int, list[str], str]]:
    """(number, words, text) of each line that holds any; DataError if the file is no text."""
    text, _ = read_text(path, f"use a list, of lines of {_PAIR}")
    for number, line in enumerate(text.split("\n"), 1):
        with reading(f"{path}, line {number},", f"use {_PAIR}"):
            words = _words(line.strip())
        if any(words):
            yield number, words, line.strip()


def _first_rows(path: pathlib.Path) -> list[list[str]]:
    """The words of the first two lines that hold any, of a file of any kind and size."""
    data = within(TIMEOUT_S, path, _start, regular(path))
    encoding = "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    rows = []
    for line in data.decode(encoding, "replace").splitlines():
        try:
            words = _words(line.strip())
        except (ValueError, csv.Error):
            words = [line.strip()]
        rows += [words] * any(words)
    return rows[:2]


def _start(path: pathlib.Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _words(line: str) -> list[str]:
    if not line or line.startswith("#"):
        return []
    if line.startswith("{"):
        by_head = {_head(key): value for key, value in parse_json(line, strict=False).items()}
        found = [
            next((str(by_head[h]) for h in heads.split() if h in by_head), "")
            for heads in (_IMAGE_HEADS, _MASK_HEADS)
        ]
        return found if all(found) else found[:1] if found[0] else [line]
    separator = next((s for s in "\t,;" if s in line), None)
    if separator is None:
        return line.split()
    return [w.strip() for w in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]


def _head(word: str) -> str:
    return re.sub(r"[\W_]", "", word.lower())


def _is_file(word: str) -> bool:
    return word.lower().endswith((*MASK_SUFFIXES, ".json"))


def _columns(words: list[str]) -> tuple[int, int | None] | None:
    """The columns of image and mask that a header names; None if it is no header."""
    heads = [_head(word) for word in words]
    images = [k for k, h in enumerate(heads) if h in _IMAGE_HEADS.split()]
    masks = [k for k, h in enumerate(heads) if h in _MASK_HEADS.split()]
    if any(map(_is_file, words)) or not images or not (masks or len(words) == 1):
        return None
    return images[0], masks[0] if masks else None


def _headed(path: pathlib.Path) -> bool:
    """Whether the second line is a pair of files."""
    words = [*_first_rows(path), [], []][1]
    return len(words) == 2 and all(map(_is_file, words))


def _places(words: list[str]) -> tuple[int, int | None] | None:
    """The columns of image and mask in a line without a header."""
    if len(words) == 1:
        return 0, None
    if len(words) == 2 and not words[0].isdecimal():
        return 0, 1
    files = [k for k, word in enumerate(words) if _is_file(word)]
    rest = [word for k, word in enumerate(words) if k not in files]
    if len(files) in (1, 2) and all(word.isdecimal() or not word for word in rest):
        return files[0], files[1] if len(files) == 2 else None
    return None


def listed_splits(root: pathlib.Path) -> list[str]:
    """The names of the lists in `root`, for a message."""
    found = []
    for place in _PLACES:
        for path in sorted((root / place).glob("*")):
            if path.suffix in _TYPES and path.is_file() and _pairs_files(path):
                found.append(path.stem)
    return found


def _pairs_files(path: pathlib.Path) -> bool:
    """Whether the first line is a header, or a pair of files."""
    words = next(iter(_first_rows(path)), [])
    return _columns(words) is not None or (
        len(words) == 2 and all(w.lower().endswith(MASK_SUFFIXES) for w in words[1:])
    )


def several(root: pathlib.Path, split: str, lists: list[pathlib.Path]) -> DataError:
    """The error for a split with more than one list."""
    names = some(path.relative_to(root).as_posix() for path in lists)
    return DataError(
        f"data split {split!r} has several lists in data.root={root}: {names}", "use one of them"
    )
