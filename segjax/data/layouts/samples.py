"""The files of a split: by a list, by patterns, or by the layout that is found."""

import dataclasses
import os
import pathlib
from collections import Counter

from segjax.data.errors import DataError
from segjax.data.files.images import MASK_SUFFIXES, SHAPE_SUFFIXES, list_images, some
from segjax.data.files.lists import find_lists, listed_splits, pairs_of_list, read_list, several
from segjax.data.files.pairing import Pairs
from segjax.data.files.patterns import Tree, names_of_split, normalized
from segjax.data.files.shares import drawn, name_in_root
from segjax.data.layouts.find import Found, find_folders
from segjax.data.layouts.match import Choice, SplitFiles, folders, has_any, matched
from segjax.data.layouts.table import CLASS_LISTS

LAYOUTS = (
    "images/<split> with masks/<split>, or <split>/images with <split>/masks, or a list of "
    "`image mask` lines: <split>.txt or .csv, or either in list/; or another layout that is known "
    "(see docs/own_data.md), or any by data.images and data.masks"
)


class Place:
    """Where the samples of a root are.

    Args:
      root: an existing folder.
      choice: the options.
      split: that is asked for; a layout may name splits by any name.
      tree: of the root, where it has been looked at already.

    Raises:
      DataError: if several layouts fit, or one pattern is given without the other.
    """

    def __init__(self, root: pathlib.Path, choice: Choice, split: str, tree: Tree | None = None):
        self.root, self.choice, self.tree = root, choice, tree or Tree(root)
        self.splits = tuple(dict.fromkeys([split, choice.train_split, choice.val_split]))
        given = [choice.images, choice.masks]
        if any(given) and not all(given):
            one = "data.masks" if choice.images else "data.images"
            raise DataError(f"{one} is empty, but its partner is not", "use both, or neither")
        self.patterns = ("", "")
        if all(given):
            self.patterns = (
                normalized("data.images", choice.images),
                normalized("data.masks", choice.masks),
            )

    @property
    def given(self) -> bool:
        """Whether the options give the patterns."""
        return bool(self.patterns[0])

    @property
    def found(self) -> Found | None:
        """The layout that is found by itself; None where none fits, or patterns are given."""
        return None if self.given else find_folders(self.tree, self.splits)

    @property
    def used(self) -> tuple[str, str]:
        """The patterns of images and masks; ("", "") where there are none."""
        return (self.found.images, self.found.masks) if self.found else self.patterns

    def lists(self, split: str) -> list[pathlib.Path]:
        return [] if self.given else find_lists(self.root, split)

    def names(self, split: str) -> list[str]:
        """The names that a split has in the folders of the patterns: the own one, or synonyms."""
        found = [
            name
            for name in names_of_split(split)
            if all(self._is_there(pattern, name) for pattern in self.patterns)
        ]
        return found[:1] if found[:1] == [split] else found

    def _is_there(self, pattern: str, split: str) -> bool:
        if "{split}" not in pattern:
            return True
        if "{stem}" in pattern:
            return bool(self.tree.files(pattern, split, (*MASK_SUFFIXES, *SHAPE_SUFFIXES)))
        return bool(self.tree.expand(pattern, split))

    @property
    def has_splits(self) -> bool:
        """Whether the patterns, or the layout, tell splits apart."""
        if self.given:
            return any("{split}" in pattern for pattern in self.patterns)
        return bool(self.found and self.found.splits)

    def has(self, split: str) -> bool:
        """Whether there are files of a split."""
        if self.lists(split):
            return True
        if self.given:
            return bool(self.names(split)) if self.has_splits else split == self.choice.train_split
        if self.found is None:
            return False
        if self.found.splits:
            return self.found.split_of(split) is not None
        return split == self.choice.train_split

    def open(self, split: str) -> SplitFiles:
        lists = self.lists(split)
        if len(lists) > 1:
            raise several(self.root, split, lists)
        if lists:
            return self._listed(split, lists[0])
        name = self._name(split)
        notes = () if self.found is None else (str(self.found),)
        files = matched(self.tree, *self.used, name, self.choice)
        return dataclasses.replace(files, notes=(*notes, *files.notes))

    def folders(self, split: str) -> tuple[pathlib.Path, pathlib.Path]:
        """The folder of a split's images and that of its masks."""
        lists = self.lists(split)
        if lists:
            raise DataError(
                f"data.mask_format='per_class' with the list {lists[0]}, which names one mask an "
                "image",
                "use folders of images and of masks, or data.mask_format=bits",
            )
        return folders(self.tree, *self.used_for(split), self._name(split))

    def used_for(self, split: str) -> tuple[str, str]:
        """`used`; DataError if a split is nowhere."""
        self._name(split)
        return self.used

    @property
    def kind(self) -> str:
        """What the masks are: "" for pixels, "one" or "many" for polygons of one or many images."""
        for split in self.splits:
            lists = self.lists(split)
            if lists:
                masks = [row.mask for row in read_list(lists[0])[:100]]
                if None in masks:
                    break  # names, which the folders tell more of
                return _shapes_of([pathlib.Path(str(mask)) for mask in masks])
        images, masks = self.used
        for split in self.splits if images else ():
            for name in names_of_split(split):
                if "{stem}" in masks:
                    found = self.tree.files(masks, name, MASK_SUFFIXES)
                    other = found or self.tree.files(masks, name, SHAPE_SUFFIXES)
                    if other:
                        return "" if found else "one"
                    continue
                for match in self.tree.expand(masks, name)[:1]:
                    if match.path.is_file():
                        return "many"
                    return "" if has_any(match.path, MASK_SUFFIXES) else "one"
        return ""

    def first_shapes(self, most: int = 50) -> list[pathlib.Path]:
        """The first files of polygons of the training split, or of the first that is there."""
        split = next((s for s in self.splits if self.has(s)), None)
        return [] if split is None else self.open(split).pairs.masks[:most]

    @property
    def class_list(self) -> pathlib.Path | None:
        """A file that names the classes, where one is found."""
        if self.found is not None:
            return self.found.class_list
        names = self.tree.entries(self.root)
        return next((self.root / name for name in CLASS_LISTS if names.get(name) is False), None)

    def _name(self, split: str) -> str:
        """The name of a split in the patterns' folders, "" where there are no splits."""
        if not self.given and self.found is None:
            raise self._missing(split)
        if not self.has_splits:
            if split != self.choice.train_split:
                raise self._no_splits(split)
            return ""
        if self.found is not None:
            name = self.found.split_of(split)
            if name is None:
                raise self._missing(split)
            return name
        names = self.names(split)
        if len(names) > 1:
            raise DataError(
                f"data split {split!r} may be {' or '.join(names)} in data.root={self.root}",
                "name the one to use in data.train_split, data.val_split or data.eval_splits",
            )
        if not names:
            pattern = next(p for p in self.patterns if not self._is_there(p, split))
            option = "data.images" if pattern == self.patterns[0] else "data.masks"
            raise DataError(
                f"data split {split!r}: {option}={pattern} matches nothing: "
                f"{self.tree.missing(pattern, split)}",
                "use a pattern that matches, or one of the splits" + self._share_remedy(split),
            )
        return names[0]

    def _no_splits(self, split: str) -> DataError:
        how = str(self.found) if self.found else "data.images and data.masks have no {split}"
        return DataError(
            f"data split {split!r}: data.root={self.root} has no splits ({how})",
            "use data.val_share=0.2 to hold back a share of the images for validation, drawn by "
            "their names, or data.test_share for test",
        )

    def _share_remedy(self, split: str) -> str:
        if split == self.choice.val_split:
            return ", or data.val_share=0.2 to hold back a share of the training split"
        return ""

    def _missing(self, split: str) -> DataError:
        """The error for a split that is not there."""
        root, found = self.root, self.found
        if found is not None:
            return DataError(
                f"data split {split!r} is not in data.root={root}; {found}; splits found: "
                f"{some(found.splits)}",
                "use one of the splits, as data.train_split, data.val_split and data.eval_splits"
                + self._share_remedy(split),
            )
        layouts = [f"images/{split}", f"masks/{split}", f"{split}/images", f"{split}/masks"]
        existing = [folder for folder in layouts if (root / folder).is_dir()]
        for images, masks in (layouts[:2], layouts[2:]):
            if images in existing and masks in existing:  # they hold no images, or no masks
                list_images(root / images, self.choice.suffixes)
                list_images(root / masks, MASK_SUFFIXES)
        splits = {p.name for p in (root / "images").glob("*/")}
        splits |= {p.parent.name for p in root.glob("*/images/")}
        splits |= set(listed_splits(root))
        remedy = (
            "use one of the splits, add the folders or the list, or say where the files are: "
            "data.images=photos/{split} data.masks=classes/{split}"
        )
        if (root / "leftImg8bit").is_dir():
            remedy = "use data.name=cityscapes, idd or idd_lite, whose folders these are"
        return DataError(
            f"data split {split!r}: data.root={root} needs one of {LAYOUTS}; found of these: "
            f"{some(existing)}; splits found: {some(splits)}; data.root holds: "
            f"{some([p.name for p in root.iterdir()])}",
            remedy,
        )

    def _listed(self, split: str, path: pathlib.Path) -> SplitFiles:
        def layout() -> Pairs | None:
            if self.found is None:
                return None
            name = self.found.split_of(split) if self.found.splits else ""
            return (
                None
                if name is None
                else matched(self.tree, *self.used, name, self.choice, listed=True).pairs
            )

        images, masks = pairs_of_list(self.root, path, layout)
        rule = f"as listed in {path.relative_to(self.root).as_posix()}"
        pairs = Pairs(_names(images, path), images, masks, rule)
        return SplitFiles(pairs, (), _shapes_of(masks))


def files_of_split(
    root: pathlib.Path, split: str, choice: Choice, tree: Tree | None = None
) -> SplitFiles:
    """The image and mask files of a split; a share of the training split where `data.val_share` or
    `data.test_share` says so.

    Raises:
      DataError: if the files are not found, do not pair, or a share is asked of a split that
        exists.
    """
    place, shares = Place(root, choice, split, tree), choice.shares
    for name, share in shares.items():
        if place.has(name):
            option = "data.test_share" if name == "test" else "data.val_share"
            raise DataError(
                f"{option}={share}, but data.root={root} has the split {name!r}",
                "use 0 to use it, or another name in data.val_split to leave it",
            )
    if not shares or split not in (choice.train_split, *shares):
        return place.open(split)
    files = place.open(choice.train_split)
    pairs = files.pairs
    names = pairs.names
    if pairs.rule.startswith("as listed"):
        names = [name_in_root(path, root) for path in pairs.images]
    kept = drawn(names, shares, split if split in shares else None)
    listed = ", ".join(f"{name} {share:g}" for name, share in shares.items())
    if not kept:
        raise DataError(
            f"data split {split!r}: no image of {len(names)} falls into its share ({listed})",
            "use a larger share, or more images",
        )
    part = Pairs(
        *([column[k] for k in kept] for column in (pairs.names, pairs.images, pairs.masks)),
        pairs.rule,
        pairs.unlabelled,
    )
    note = f"{split}: {len(kept)} of {len(names)} images, drawn by their names (shares: {listed})"
    return dataclasses.replace(files, pairs=part, notes=(*files.notes, note))


def _shapes_of(masks: list[pathlib.Path]) -> str:
    """Whether the masks of a list are polygons, of one image or of many."""
    if not all(path.suffix.lower() in SHAPE_SUFFIXES for path in masks):
        return ""
    return "one" if len(set(masks)) == len(masks) else "many"


def _names(image_paths: list[pathlib.Path], listing: pathlib.Path) -> list[str]:
    """Paths below the folder that all images share, without suffixes if they differ without."""
    twice = [str(path) for path, count in Counter(image_paths).items() if count > 1]
    if twice:
        raise DataError(f"{listing} lists images twice: {some(twice)}", "use each image once")
    shared = os.path.commonpath([path.parent for path in image_paths])
    names = [path.relative_to(shared) for path in image_paths]
    stems = [name.with_suffix("").as_posix() for name in names]
    return stems if len(set(stems)) == len(stems) else [name.as_posix() for name in names]
