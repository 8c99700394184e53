"""The image and mask files that two patterns match."""

import dataclasses
import pathlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from segjax.data.errors import DataError
from segjax.data.files.images import (
    ARRAY_SUFFIX,
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    SHAPE_SUFFIXES,
    some,
)
from segjax.data.files.pairing import Pairs, pair_files, unpaired
from segjax.data.files.patterns import Match, Tree
from segjax.data.files.shares import check_shares
from segjax.data.files.walk import walk
from segjax.data.layouts.table import CLASS_LISTS
from segjax.data.polygons.formats import annotations_of

_SHAPES = tuple(suffix for suffix in SHAPE_SUFFIXES if suffix != ".csv")  # of one image each


@dataclasses.dataclass(frozen=True)
class Choice:
    """The options of `config.data` that say where the files of a split are."""

    images: str = ""  # patterns; "" = as found
    masks: str = ""
    train_split: str = "train"
    val_split: str = "val"
    val_share: float = 0.0
    test_share: float = 0.0
    skip_unlabelled: bool = False
    channels: int = 3

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Choice":
        """From `config.data`; runs of earlier versions lack some options."""
        fields = dataclasses.fields(cls)
        return cls(**{f.name: data.get(f.name, f.default) for f in fields})

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of the images."""
        return (*IMAGE_SUFFIXES, ARRAY_SUFFIX)

    @property
    def shares(self) -> dict[str, float]:
        shares = {"test": self.test_share, self.val_split: self.val_share}
        check_shares(shares, {"test": "data.test_share", self.val_split: "data.val_share"})
        return {split: share for split, share in shares.items() if share}


@dataclasses.dataclass(frozen=True)
class SplitFiles:
    """The files of a split and how they were found."""

    pairs: Pairs
    notes: tuple[str, ...]
    shapes: str = ""  # of masks: "" for pixels, "one" or "many" for polygons of one or many images


@dataclasses.dataclass(frozen=True)
class _Rules:
    """What may lack a partner."""

    bare: bool  # images without a mask
    spare: bool  # masks without an image
    skipped: bool  # whether the images without a mask are what data.skip_unlabelled leaves out


def matched(
    tree: Tree, images: str, masks: str, split: str, choice: Choice, *, listed: bool = False
) -> SplitFiles:
    """The files of two patterns for a split of that name.

    With `listed` a list chooses among them, so none needs a partner. Where only one of the patterns
    has {split}, the files of the other are of all splits, and need none either.

    Raises:
      DataError: if a pattern matches nothing, or files do not pair.
    """
    by_split = ["{split}" in pattern for pattern in (images, masks)]
    rules = _Rules(
        choice.skip_unlabelled or listed or (by_split[1] and not by_split[0]),
        listed or (by_split[0] and not by_split[1]),
        not listed and by_split[0] == by_split[1],
    )
    if "{stem}" not in masks:
        places = _expand(tree, "data.masks", masks, split)
        if all(match.path.is_file() for match in places):
            return _annotated(tree, images, split, places, choice, rules)
    if "{stem}" in images or "{stem}" in masks:
        return _by_stem(tree, images, masks, split, choice, rules)
    return _by_folder(tree, images, masks, split, choice, rules)


def folders(tree: Tree, images: str, masks: str, split: str) -> tuple[pathlib.Path, pathlib.Path]:
    """The folder of images and that of masks; DataError if the patterns are not of one each."""
    sides = [
        [] if "{stem}" in pattern else _expand(tree, option, pattern, split)
        for option, pattern in (("data.images", images), ("data.masks", masks))
    ]
    if any(len(side) != 1 for side in sides):
        raise DataError(
            f"data.mask_format=per_class with data.images={images} and data.masks={masks}",
            "use patterns of one folder each, without {stem} and *",
        )
    return sides[0][0].path, sides[1][0].path


def _expand(tree: Tree, option: str, pattern: str, split: str) -> list[Match]:
    places = tree.expand(pattern, split)
    if not places:
        found = f"{option}={pattern} matches nothing: {tree.missing(pattern, split)}"
        raise DataError(found, "use a pattern below data.root that matches")
    return places


def _by_folder(
    tree: Tree, images: str, masks: str, split: str, choice: Choice, rules: _Rules
) -> SplitFiles:
    """Folders of images with folders of masks, which agree in what stands at a *."""
    sides = [
        _expand(tree, option, pattern, split)
        for option, pattern in (("data.images", images), ("data.masks", masks))
    ]
    stars = images.count("*"), masks.count("*")
    if stars[0] != stars[1] and max(map(len, sides)) > 1:
        raise DataError(
            f"data.images={images} and data.masks={masks} match {len(sides[0])} and "
            f"{len(sides[1])} folders",
            "use as many * in both, or {stem}",
        )
    by_wild = [
        {match.wild if stars[0] == stars[1] else (): match.path for match in side} for side in sides
    ]
    bare = [path for wild, path in by_wild[0].items() if wild not in by_wild[1]]
    if bare and not rules.bare:
        found = f"the image folders {some(bare)} have no folder of masks (data.masks={masks})"
        raise DataError(found, "use a folder of masks for each, or data.skip_unlabelled=True")
    total, kinds = Pairs([], [], [], ""), set()
    for wild, folder in by_wild[0].items():
        if wild not in by_wild[1]:
            continue
        mask_folder = by_wild[1][wild]
        pixels = has_any(mask_folder, MASK_SUFFIXES)
        kinds.add("" if pixels else "one")
        pairs = pair_files(
            folder,
            mask_folder,
            choice.suffixes,
            _stem_of_shapes if not pixels else str,
            mask_suffixes=MASK_SUFFIXES if pixels else _SHAPES,
            skip_unlabelled=rules.bare,
            spare_masks=rules.spare,
        )
        names = ["/".join((*wild, name)) for name in pairs.names]
        total = Pairs(
            total.names + names,
            total.images + pairs.images,
            total.masks + pairs.masks,
            pairs.rule,
            total.unlabelled + pairs.unlabelled,
        )
    if len(kinds) > 1:
        found = f"data.masks={masks}: some folders hold pictures, others polygons alone"
        raise DataError(found, "use folders of one kind")
    return SplitFiles(total, _skipped(total.unlabelled, rules), kinds.pop())


def _by_stem(
    tree: Tree, images: str, masks: str, split: str, choice: Choice, rules: _Rules
) -> SplitFiles:
    """Files with the same text at {stem}, and at each * where both patterns have as many."""
    full = [p if "{stem}" in p else f"{p}/{{stem}}" for p in (images, masks)]
    stars = [p.removesuffix(".*").count("*") for p in full]
    by_key = []
    mask_files = tree.files(full[1], split, MASK_SUFFIXES)
    shapes = "" if mask_files else "one"
    if shapes:
        mask_files = tree.files(full[1], split, _SHAPES)
        mask_files = [m for m in mask_files if m.path.name.lower() not in CLASS_LISTS]
    taken = {match.path for match in mask_files}
    image_files = tree.files(full[0], split, choice.suffixes)
    image_files = [m for m in image_files if m.path not in taken]
    sides = (("data.images", full[0], image_files), ("data.masks", full[1], mask_files))
    for option, pattern, side in sides:
        if not side:
            known = choice.suffixes if option == "data.images" else (*MASK_SUFFIXES, *_SHAPES)
            raise DataError(
                f"{option}={pattern} matches nothing: {tree.missing(pattern, split)}",
                f"use a pattern below data.root that matches files of {' '.join(known)}",
            )
        files: dict[tuple[str, ...], pathlib.Path] = {}
        for match in side:
            key = (*match.wild, match.stem) if stars[0] == stars[1] else (match.stem,)
            if key in files:
                raise DataError(
                    f"{option}={pattern} matches {files[key]} and {match.path}, which have the "
                    "same name",
                    "use a pattern that matches one of them",
                )
            files[key] = match.path
        by_key.append(files)
    both = [key for key in by_key[0] if key in by_key[1]]
    bare = [path for key, path in by_key[0].items() if key not in by_key[1]]
    alone = [path for key, path in by_key[1].items() if key not in by_key[0]]
    rule = f"{full[0]} with {full[1]}"
    if not both or (bare and not rules.bare) or (alone and not rules.spare):
        places = (f"data.images={full[0]}", f"data.masks={full[1]}")
        raise unpaired(
            [] if rules.bare and both else bare, [] if rules.spare and both else alone, places, rule
        )
    pairs = Pairs(
        ["/".join(key) for key in both],
        [by_key[0][key] for key in both],
        [by_key[1][key] for key in both],
        rule,
        len(bare),
    )
    return SplitFiles(pairs, _skipped(len(bare), rules), shapes)


def _annotated(
    tree: Tree, images: str, split: str, files: list[Match], choice: Choice, rules: _Rules
) -> SplitFiles:
    """The images of a file that holds the polygons of all of them."""
    if len(files) > 1:
        raise DataError(
            f"data.masks matches several files of polygons: {some(m.path for m in files)}",
            "use a pattern of one file per split",
        )
    path = files[0].path
    annotations = annotations_of(path)
    if "{stem}" in images:
        found = [(m.stem, m.path) for m in tree.files(images, split, choice.suffixes)]
    else:
        found = [
            ((p.relative_to(m.path)).with_suffix("").as_posix(), p)
            for m in _expand(tree, "data.images", images, split)
            for p in tree.walk(m.path)
            if p.suffix.lower() in choice.suffixes
        ]
    named = [(name, image, annotations.name_of(image)) for name, image in sorted(found)]
    own = annotations.annotations
    if split in annotations.subsets:  # which the file tells, and no folder
        own = {entry: found for entry, found in own.items() if found.subset == split}
        others = annotations.annotations.keys() - own.keys()
        named = [row for row in named if row[2] not in others]
    used = Counter(entry for _, _, entry in named if entry is not None)
    bare = [image for _, image, entry in named if entry is None]
    alone = [pathlib.Path(entry) for entry in own if entry not in used]
    rule = f"by the file names in {path.relative_to(tree.root).as_posix()}"
    if not used or (bare and not rules.bare) or (alone and not rules.spare):
        places = (f"data.images={images}", str(path))
        raise unpaired(
            [] if rules.bare and used else bare, [] if rules.spare and used else alone, places, rule
        )
    twice = [entry for entry, count in used.items() if count > 1]
    if twice:
        found = f"{path}: several images are named as {some(twice)}"
        raise DataError(found, "use a folder with one of them (data.images)")
    kept = [(name, image) for name, image, entry in named if entry is not None]
    pairs = Pairs(
        [name for name, _ in kept],
        [image for _, image in kept],
        [path] * len(kept),
        rule,
        len(bare),
    )
    return SplitFiles(pairs, _skipped(len(bare), rules), "many")


def _stem_of_shapes(stem: str) -> str | None:
    """The stem of a file of polygons, None for one that names the classes."""
    known = {pathlib.PurePath(name).stem for name in CLASS_LISTS}
    return None if stem.lower() in known else stem


def has_any(folder: pathlib.Path, suffixes: tuple[str, ...]) -> bool:
    return any(path.suffix.lower() in suffixes for path in walk(folder))


def _skipped(count: int, rules: _Rules) -> tuple[str, ...]:
    if not (count and rules.skipped):
        return ()
    return (f"{count} images without a mask are left out (data.skip_unlabelled)",)
