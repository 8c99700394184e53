"""The layouts of labelling tools, archives and toolkits, recognised by themselves.

A layout is a pattern of image files and one of mask files, as `data.images` and `data.masks` are.
"""

import dataclasses
import itertools
import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from segjax.data.errors import DataError
from segjax.data.files.images import ARRAY_SUFFIX, IMAGE_SUFFIXES, MASK_SUFFIXES, SHAPE_SUFFIXES
from segjax.data.files.lists import find_lists, read_list, several
from segjax.data.files.patterns import SPLIT_NAMES, Match, Tree, has_suffix, names_of_split
from segjax.data.layouts.beside import ends_beside
from segjax.data.layouts.table import (
    BY_SPLIT,
    CLASS_LISTS,
    IMAGES,
    MASKS,
    NAMED,
    WHOLE,
    Row,
)
from segjax.data.polygons.formats import annotations_of

_PIXEL_SUFFIXES = (*IMAGE_SUFFIXES, ARRAY_SUFFIX)


@dataclasses.dataclass(frozen=True)
class Found:
    """A layout that fits a folder."""

    name: str  # such as "Carvana"
    root: pathlib.Path
    images: str  # the patterns, as in data.images and data.masks; "" for lists
    masks: str
    splits: Mapping[str, int]  # images by the name of each split that has masks; {} = no splits
    count: int  # images of all splits, or of the whole where there are none
    unlabelled: tuple[str, ...] = ()  # splits with images and without masks
    class_list: pathlib.Path | None = None  # a file that names the classes
    other_lists: tuple[pathlib.Path, ...] = ()  # further such files, which are not read

    def split_of(self, split: str) -> str | None:
        """The name that a split has in the layout's folders; None if it is not there."""
        names = names_of_split(split)
        exact = [s for s in self.splits if s == split]
        alike = [s for s in self.splits if s.lower() in names]
        return next(iter(exact or alike), None)

    @property
    def options(self) -> dict[str, object]:
        """The options of `config.data` that choose the layout and its splits."""
        options: dict[str, object] = {}
        if self.images:
            options |= {"images": self.images, "masks": self.masks}
        if self.splits and self.split_of("train") is None:
            options["train_split"] = next(iter(self.splits))
        if self.split_of("val") is None:
            if self.split_of("test") is None:
                options["val_share"] = 0.2
            else:
                options["val_split"] = "test"
        return options

    def __str__(self) -> str:
        counts = [f"{split} ({number})" for split, number in self.splits.items()]
        text = f"data.root looks like {self.name}: "
        text += ", ".join(counts) if counts else f"{self.count} images, no splits"
        if self.unlabelled:
            text += f"; without masks: {', '.join(self.unlabelled)}"
        return text


# Of images and of masks (or files of polygons), by split.
_Folders = Mapping[str, tuple[list[Match], list[Match]]]


class _Hit(NamedTuple):
    rank: int  # 0 = a named layout
    name: str
    images: str
    masks: str
    folders: _Folders


def find_layout(root, splits: Iterable[str] = ()) -> Found | None:
    """The layout of a folder: where its images and its masks are, its splits and its class list.

    No image is decoded. Lists of the splits come before folders. A folder inside is searched if it
    is the only one.

    Args:
      root: the folder.
      splits: names of splits beside train, val, test and their synonyms.

    Returns:
      None if no layout fits.

    Raises:
      DataError: if several fit; the message names them and the options that choose.
    """
    root = pathlib.Path(root)
    lists = {}
    for split in dict.fromkeys([*splits, *(names[0] for names in SPLIT_NAMES)]):
        found = find_lists(root, split)
        if len(found) > 1:
            raise several(root, split, found)
        if found:
            lists.setdefault(found[0].stem, len(read_list(found[0])))
    if lists:
        class_lists = _class_lists(Tree(root), "", {})
        return Found(
            "lists of images and masks",
            root,
            "",
            "",
            lists,
            sum(lists.values()),
            class_list=next(iter(class_lists), None),
            other_lists=tuple(class_lists[1:]),
        )
    return find_folders(Tree(root), splits)


def find_folders(tree: Tree, splits: Iterable[str] = ()) -> Found | None:
    """`find_layout` without lists; the tree keeps what is found."""
    names = tuple(_split_names(splits))
    if names not in tree.layouts:
        tree.layouts[names] = _searched(tree, [n for n in names if n.lower() in tree.names])
    return tree.layouts[names]


def _searched(tree: Tree, names: Sequence[str]) -> Found | None:
    for search in (_with_splits, _whole, _together_by_split, _together):
        for prefix in _nested(tree):
            hits = _distinct(search(tree, prefix, names))
            if hits:
                return _found(tree, prefix, _only(hits, tree.root), names)
    return None


def _split_names(splits: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*itertools.chain(*SPLIT_NAMES), *splits]))


def _nested(tree: Tree) -> Iterator[str]:
    """ "" for the root, and the folders inside it as long as each is the only one."""
    prefix, folder = "", tree.root
    for _ in range(3):
        yield prefix
        folders = [name for name, is_folder in tree.entries(folder).items() if is_folder]
        if len(folders) != 1:
            return
        prefix, folder = f"{prefix}{folders[0]}/", folder / folders[0]


def _with_splits(tree: Tree, prefix: str, names: Sequence[str]) -> Iterator[_Hit]:
    for row in NAMED:
        if "{split}" in row.masks[0]:
            yield from _first_hit(tree, prefix, row, names)
    for images, masks in BY_SPLIT:
        yield from _generic_hits(tree, prefix, images, masks, names)


def _whole(tree: Tree, prefix: str, names: Sequence[str]) -> Iterator[_Hit]:
    for row in NAMED:
        if "{split}" not in row.masks[0]:
            yield from _first_hit(tree, prefix, row, [""])
    for images, masks in WHOLE:
        yield from _generic_hits(tree, prefix, images, masks, [""])


def _first_hit(tree: Tree, prefix: str, row: Row, names: Sequence[str]) -> Iterator[_Hit]:
    for masks in row.masks:
        folders = _fits(tree, prefix + row.images, prefix + masks, names)
        if folders:
            yield _Hit(0, row.name, prefix + row.images, prefix + masks, folders)
            return


def _generic_hits(
    tree: Tree, prefix: str, images: str, masks: str, names: Sequence[str]
) -> Iterator[_Hit]:
    def existing(pattern: str, words: Sequence[str]) -> list[str]:
        words = [w for w in words if w in tree.names] if pattern != "{split}" else [""]
        patterns = [prefix + pattern.replace("{images}", w).replace("{masks}", w) for w in words]
        return [p for p in dict.fromkeys(patterns) if any(tree.expand(p, name) for name in names)]

    sides = existing(images, IMAGES), existing(masks, MASKS)
    for image_pattern, mask_pattern in itertools.product(*sides):
        folders = _fits(tree, image_pattern, mask_pattern, names)
        if folders:
            named = [_as_named(tree, p, folders) for p in (image_pattern, mask_pattern)]
            yield _Hit(1, f"{named[0]} with {named[1]}", *named, folders)


def _as_named(tree: Tree, pattern: str, folders) -> str:
    """The pattern with the letters of the folder that it matches."""
    first = next(iter(folders))
    for match in (m for side in folders[first] for m in side):
        path = match.path.relative_to(tree.root).parts
        parts = pattern.split("/")
        if len(path) == len(parts) and all(
            p.replace("{split}", first).lower() == name.lower() or "*" in p
            for p, name in zip(parts, path, strict=True)
        ):
            return "/".join(
                p if "{split}" in p or "*" in p else name
                for p, name in zip(parts, path, strict=True)
            )
    return pattern


def _fits(tree: Tree, images: str, masks: str, names: Sequence[str]):
    """{split: (image folders, mask folders or files)} of the splits that have both."""
    found = {}
    for name in names:
        sides = tree.expand(images, name), tree.expand(masks, name)
        bare = images.rpartition("/")[2] == "{split}"  # whose own folders may be another layout's
        if all(sides) and _holds_images(tree, sides[0], bare) and _has_labels(tree, sides[1]):
            own = _spelling(sides[0][0].path.relative_to(tree.root).as_posix(), images, name)
            found.setdefault(own, sides)
    return found


def _spelling(path: str, pattern: str, split: str) -> str:
    """A split's name as its folder has it."""
    for part, name in zip(pattern.split("/"), path.split("/"), strict=False):
        before, field, after = part.partition("{split}")
        if field and "*" not in part:
            return name[len(before) : len(name) - len(after)]
    return split


def _holds_images(tree: Tree, places: list[Match], bare: bool) -> bool:
    words = {*IMAGES, *MASKS} if bare else set()
    return any(
        path.suffix.lower() in _PIXEL_SUFFIXES
        and words.isdisjoint(p.lower() for p in path.relative_to(match.path).parts[:-1])
        for match in places
        for path in tree.walk(match.path)
    )


def _has_labels(tree: Tree, places: list[Match]) -> bool:
    if all(match.path.is_file() for match in places):
        return places[0].path.suffix.lower() in SHAPE_SUFFIXES
    return _holds(tree, places, (*MASK_SUFFIXES, ".json", ".txt", ".xml"))


def _holds(tree: Tree, places: list[Match], suffixes: tuple[str, ...]) -> bool:
    files = itertools.chain.from_iterable(tree.walk(match.path) for match in places)
    return any(
        path.suffix.lower() in suffixes and path.name.lower() not in CLASS_LISTS for path in files
    )


def _together_by_split(tree: Tree, prefix: str, names: Sequence[str]) -> Iterator[_Hit]:
    for folder in ("{split}", *(f"{images}/{{split}}" for images in IMAGES)):
        yield from _together_in(tree, prefix + folder, names)


def _together(tree: Tree, prefix: str, names: Sequence[str]) -> Iterator[_Hit]:
    for folder in (".", *IMAGES):
        yield from _together_in(tree, f"{prefix}{folder}", [""])


def _together_in(tree: Tree, folder: str, names: Sequence[str]) -> Iterator[_Hit]:
    """The hit where images lie beside their masks, if the folder exists."""
    by_split, ends = {}, Counter()
    for name in names:
        for match in tree.expand(folder, name)[:1]:
            own = _spelling(match.path.relative_to(tree.root).as_posix(), folder, name)
            by_split.setdefault(own, ([match], [match]))
            ends.update(dict.fromkeys(ends_beside(tree, match.path), 1))
    for image_end, mask_end in ends:
        patterns = [f"{folder}/{{stem}}{end}".removeprefix("./") for end in (image_end, mask_end)]
        title = "Roboflow's export" if _is_roboflow(by_split) else "images beside their masks"
        if (image_end[:4], mask_end[:5]) == ("_sat", "_mask"):
            title = "DeepGlobe"
        fitting = {
            s: sides
            for s, sides in by_split.items()
            if ends[image_end, mask_end]
            and tree.files(patterns[1], s, (*MASK_SUFFIXES, ".json", ".txt", ".xml"))
        }
        if fitting:
            yield _Hit(0, title, *patterns, fitting)


def _is_roboflow(by_split) -> bool:
    return any((s[0][0].path / "_classes.csv").is_file() for s in by_split.values())


def _distinct(hits: Iterable[_Hit]) -> list[_Hit]:
    """The hits of different folders; of several with the same images, those of the least rank."""
    kept: dict[tuple, _Hit] = {}
    for hit in hits:
        images, masks = (
            tuple(sorted(m.path for sides in hit.folders.values() for m in sides[k]))
            for k in (0, 1)
        )
        ends = [p if has_suffix(p) else "" for p in (hit.images, hit.masks)]
        key = (images, masks, *ends)
        kept.setdefault(key, hit)
    ranks: dict[tuple, int] = {}
    for key, hit in kept.items():
        ranks[key[0]] = min(hit.rank, ranks.get(key[0], hit.rank))
    best = {key: hit for key, hit in kept.items() if hit.rank == ranks[key[0]]}
    return [hit for key, hit in best.items() if not any(_is_part(key, other) for other in best)]


def _is_part(key: tuple, other: tuple) -> bool:
    """Whether a layout's folders are all among another's, or it takes the same masks for a wider
    folder of images."""
    (images, masks), (other_images, other_masks) = key[:2], other[:2]
    if set(images) < set(other_images) and set(masks) < set(other_masks):
        return True
    return masks == other_masks and any(
        deep != wide and deep.is_relative_to(wide) for wide in images for deep in other_images
    )


def _only(hits: list[_Hit], root: pathlib.Path) -> _Hit:
    if len(hits) > 1:
        ways = [f"{h.name} (data.images={h.images} data.masks={h.masks})" for h in hits]
        raise DataError(
            f"data.root={root} fits {len(hits)} layouts: {' and '.join(sorted(ways))}",
            "choose with these options",
        )
    return hits[0]


def _found(tree: Tree, prefix: str, hit: _Hit, names: Sequence[str]) -> Found:
    counts = {
        split: count_images(tree, hit.images, hit.masks, split) for split in hit.folders if split
    }
    if not counts and "{stem}" not in hit.masks:
        for match in tree.expand(hit.masks):
            if match.path.suffix.lower() == ".xml" and match.path.is_file():
                counts = annotations_of(match.path).subsets
    whole = 0 if counts else count_images(tree, hit.images, hit.masks, "")
    lists = _class_lists(tree, prefix, hit.folders)
    return Found(
        hit.name,
        tree.root,
        hit.images,
        hit.masks,
        counts,
        sum(counts.values()) or whole,
        _unlabelled(tree, hit, names) if "" not in hit.folders else (),
        lists[0] if lists else None,
        tuple(lists[1:]),
    )


def count_images(tree: Tree, images: str, masks: str, split: str) -> int:
    """The image files of a split."""
    if "{stem}" not in images:
        places = tree.expand(images, split)
        return sum(
            path.suffix.lower() in _PIXEL_SUFFIXES for m in places for path in tree.walk(m.path)
        )
    found = {m.path for m in tree.files(images, split, _PIXEL_SUFFIXES)}
    if "{stem}" in masks:
        found -= {m.path for m in tree.files(masks, split, MASK_SUFFIXES)}
    return len(found)


def _unlabelled(tree: Tree, hit: _Hit, names: Sequence[str]) -> tuple[str, ...]:
    folder = hit.images.partition("{stem}")[0].rstrip("/") if "{stem}" in hit.images else hit.images
    seen = {m.path for sides in hit.folders.values() for m in sides[0]}
    bare = {}
    for name in names:
        places = tree.expand(folder, name)
        if places and not seen & {m.path for m in places} and _holds(tree, places, _PIXEL_SUFFIXES):
            own = _spelling(places[0].path.relative_to(tree.root).as_posix(), folder, name)
            bare[own] = None
    return tuple(bare)


def _class_lists(tree: Tree, prefix: str, folders: _Folders) -> list[pathlib.Path]:
    """The class lists in the root, above the images and masks, and beside them: one of a name."""
    places = [tree.root, tree.root / prefix]
    for sides in folders.values():
        for match in itertools.chain(*sides):
            places += [match.path.parent, match.path]
    found = {}
    for name in CLASS_LISTS:
        for place in dict.fromkeys(places):
            if place.is_relative_to(tree.root) and tree.entries(place).get(name) is False:
                found.setdefault(name, place / name)
    return list(found.values())
