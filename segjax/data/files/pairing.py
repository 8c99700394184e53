"""The pairing of image files and mask files by their names."""

import itertools
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from segjax.data.errors import DataError
from segjax.data.files.images import IMAGE_SUFFIXES, MASK_SUFFIXES, list_images, some

# The words of a file name, at whose ends affixes may end: gtFine_03 is gt, Fine, _, 03.
_WORDS = re.compile(r"\d+|[A-Z]*[a-z]+|[A-Z]+|.")
# A number that stands alone, as in `seq1_`, and not inside a word, as in `leftImg8bit`.
_NUMBER = re.compile(r"(?<![^\W_])\d|\d(?![^\W_])")
_NAMED_NUMBER = re.compile(r"([^\W\d_]*)(\d+)")

_Files = Mapping[tuple[pathlib.Path, str], pathlib.Path]  # by folder and the text that is paired


class Pairs(NamedTuple):
    """The files of a split."""

    names: list[str]
    images: list[pathlib.Path]
    masks: list[pathlib.Path]
    rule: str  # in words
    unlabelled: int = 0  # images that were left out, as they have no mask


class _Keying(NamedTuple):
    prefix: str  # left out at the start of every stem
    suffix: str
    files: _Files

    @property
    def pattern(self) -> str:
        return f"{self.prefix}*{self.suffix}"

    @property
    def has_number(self) -> bool:
        return bool(_NUMBER.search(f"{self.prefix} {self.suffix}"))


def pair_files(
    images: pathlib.Path,
    masks: pathlib.Path,
    image_suffixes: tuple[str, ...] = IMAGE_SUFFIXES,
    mask_stem: Callable[[str], str | None] = str,
    *,
    mask_suffixes: tuple[str, ...] = MASK_SUFFIXES,
    skip_unlabelled: bool = False,
    spare_masks: bool = False,
) -> Pairs:
    """Pairs the files of two folders one to one.

    Equal stems pair, and `a.jpg` with `a.jpg.png`. Otherwise the shortest affixes that all stems of
    a side share are left out: `a.jpg` with `a_mask.png`, `img_003` with `mask_003`. An affix ends
    where a word ends, and takes no part of an id: `seq1_04` is not `seq2_04`, `4` not `4_1`. It
    holds a number only together with letters (`21_training` with `21_manual1`), where all files
    pair by it and the other side has no such word with another number.

    Args:
      images, masks: the folders.
      image_suffixes: of the images' files.
      mask_stem: from the stem of a mask's file to the stem that is paired, None for a mask that
        takes no part.
      mask_suffixes: of the masks' files.
      skip_unlabelled: leave images without a mask out.
      spare_masks: masks without an image are no error, as they are of other splits.

    Raises:
      DataError: if two files share a name, or a file has no partner; up to 5 are named.
    """
    found = _files_by_name(images, image_suffixes), _files_by_name(masks, mask_suffixes)
    stems = {key: mask_stem(key[1]) for key in found[1]}
    renamed = {(key[0], stem): found[1][key] for key, stem in stems.items() if stem is not None}
    return pair_by_affix(
        (found[0], renamed),
        (str(images), str(masks)),
        skip_unlabelled=skip_unlabelled,
        spare_masks=spare_masks,
    )


def pair_by_affix(
    sides: tuple[_Files, _Files],
    places: tuple[str, str],
    *,
    skip_unlabelled: bool = False,
    spare_masks: bool = False,
) -> Pairs:
    """`pair_files` for files by folder and stem; the places are for messages."""
    keyed = [*map(_keyings, sides)]
    whole = {(key[0], path.name): path for key, path in sides[0].items()}
    pairs = sorted(
        [(_Keying("", ".*", whole), keyed[1][0]), *itertools.product(*keyed)],
        key=lambda pair: sum(len(side.prefix + side.suffix) for side in pair),
    )
    allowed = [pair for pair in pairs if not any(side.has_number for side in pair)]
    # The first of those that pair the most.
    best = max(allowed, key=_paired)
    alone = _alone(best, skip_unlabelled, spare_masks)
    if any(alone):
        numbered = [
            pair
            for pair in pairs
            if pair not in allowed
            and _paired(pair)
            and _names_no_id(pair)
            and not any(_alone(pair, skip_unlabelled, spare_masks))
        ]
        if len({tuple(_matched(pair)) for pair in numbered}) == 1:
            best, alone = numbered[0], ([], [])
    rule = f"{best[0].pattern} with {best[1].pattern}"
    if any(alone):
        raise unpaired(*alone, places, rule)
    both = [key for key in best[0].files if key in best[1].files]
    names = {path: (folder / stem).as_posix() for (folder, stem), path in sides[0].items()}
    return Pairs(
        [names[best[0].files[key]] for key in both],
        [best[0].files[key] for key in both],
        [best[1].files[key] for key in both],
        rule,
        len(best[0].files) - len(both),
    )


def unpaired(
    images: Iterable[pathlib.Path],
    masks: Iterable[pathlib.Path],
    places: tuple[str, str],
    rule: str,
) -> DataError:
    """The error for files without a partner."""
    bare, spare = [p.name for p in images], [p.name for p in masks]
    remedy = (
        "use one mask of class ids per image, in the same subfolder, named alike but for an affix "
        "that all share"
    )
    if not spare:
        remedy += ", or data.skip_unlabelled=True to leave these images out"
    return DataError(
        f"{len(bare)} images in {places[0]} have no mask ({some(bare)}) and {len(spare)} masks in "
        f"{places[1]} have no image ({some(spare)}), names read as {rule}",
        remedy,
    )


def _paired(pair: tuple[_Keying, _Keying]) -> int:
    return len(pair[0].files.keys() & pair[1].files.keys())


def _matched(pair: tuple[_Keying, _Keying]) -> list[tuple[pathlib.Path, pathlib.Path]]:
    images, masks = pair[0].files, pair[1].files
    return [(images[key], masks[key]) for key in images if key in masks]


def _alone(
    pair: tuple[_Keying, _Keying], skip_unlabelled: bool, spare_masks: bool
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """The images and the masks without a partner that are an error."""
    images, masks = pair[0].files, pair[1].files
    bare = [path for key, path in images.items() if key not in masks]
    spare = [path for key, path in masks.items() if key not in images]
    none = len(bare) == len(images)
    return (
        [] if skip_unlabelled and not none else bare,
        [] if spare_masks and not none else spare,
    )


def _names_no_id(pair: tuple[_Keying, _Keying]) -> bool:
    """Whether affixes with numbers are words (`manual1`), and not ids that differ."""
    numbers = []
    for side in pair:
        affixes = [a for a in (side.prefix, side.suffix) if _NUMBER.search(a)]
        if not all(re.search(r"[^\W\d_]", affix) for affix in affixes):
            return False
        found: dict[str, set[str]] = {}
        for word, number in _NAMED_NUMBER.findall(f"{side.prefix} {side.suffix}"):
            found.setdefault(word.lower(), set()).add(number)
        numbers.append(found)
    shared = numbers[0].keys() & numbers[1].keys()
    return all(numbers[0][word] == numbers[1][word] for word in shared)


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


def _keyings(files: _Files) -> list[_Keying]:
    """The files by the text between affixes that all stems share, for each such pair of affixes."""
    words = [_WORDS.findall(stem) for _, stem in files]
    prefixes = ["", *itertools.accumulate(_shared(words))]
    suffixes = ["", *itertools.accumulate(_shared([w[::-1] for w in words]), lambda s, w: w + s)]
    shortest = min(len(stem) for _, stem in files)
    return [
        _Keying(p, s, {(d, n[len(p) : len(n) - len(s)]): file for (d, n), file in files.items()})
        for p, s in itertools.product(prefixes, suffixes)
        if len(p + s) < shortest
    ]


def _shared(words: list[list[str]]) -> list[str]:
    columns = zip(*words, strict=False)
    return [c[0] for c in itertools.takewhile(lambda c: len(set(c)) == 1, columns)]
