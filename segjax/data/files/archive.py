"""The files of a published data set: its root, its folders, and pairs by file name."""

import os
import pathlib
from collections.abc import Mapping, Sequence

from segjax.data.errors import DataError
from segjax.data.files.images import some
from segjax.data.files.walk import walk


def existing_root(root: str | os.PathLike, layout: str) -> pathlib.Path:
    """`data.root` as a path; DataError, with the expected layout, if it is no folder."""
    root = pathlib.Path(root)
    if not root.is_dir():
        raise DataError(f"data.root={root} is not an existing folder", f"use one with {layout}")
    return root


def check_split(data_set: str, split: str, splits: Sequence[str]) -> None:
    """Raises DataError, listing the splits, if the data set has no such split."""
    if split not in splits:
        raise DataError(
            f"data split {split!r}: {data_set} has {', '.join(splits)}",
            "use one of these in data.train_split, data.val_split and data.eval_splits",
        )


def need_folders(
    root: str | os.PathLike,
    split: str,
    folders: Sequence[str | Sequence[str]],
    layout: str,
) -> list[pathlib.Path]:
    """The folders of a layout that exist.

    Args:
      root: `data.root`.
      split: its name in messages.
      folders: below `root`; a sequence holds alternative names of one folder, of which the first
        that exists is taken.
      layout: of the data set, in words.

    Raises:
      DataError: naming the missing folders, those that exist, and the content of `root`.
    """
    root = existing_root(root, layout)
    options = [(folder,) if isinstance(folder, str) else tuple(folder) for folder in folders]
    existing = [next((name for name in names if (root / name).is_dir()), "") for names in options]
    if not all(existing):
        pairs = zip(options, existing, strict=True)
        missing = [" or ".join(names) for names, name in pairs if not name]
        raise DataError(
            f"data split {split!r}: data.root={root} has no {' and no '.join(missing)}; found of "
            f"the layout: {some(filter(None, existing))}; data.root holds: {held(root)}",
            f"use a root with {layout}",
        )
    return [root / name for name in existing]


def held(folder: pathlib.Path) -> str:
    """The first few names in a folder, for a message."""
    return some([p.name for p in folder.iterdir() if not p.name.startswith(".")], 9)


def files_by_key(folder: pathlib.Path, suffix: str) -> dict[str, pathlib.Path]:
    """The files in `folder` and below whose names end in `suffix`, by the rest of the name;
    DataError if two subfolders hold a file of one name."""
    files = {}
    for path in sorted(walk(folder)):
        key = path.name.removesuffix(suffix)
        if key in ("", path.name):
            continue
        if key in files:
            raise DataError(f"{path} is in {files[key].parent} too", "use one copy of the archive")
        files[key] = path
    return files


def pair_by_key(
    split: str, images: Mapping[str, pathlib.Path], masks: Mapping[str, pathlib.Path], layout: str
) -> tuple[list[str], list[pathlib.Path], list[pathlib.Path]]:
    """(names, image paths, mask paths) in the order of the names, each image with its mask;
    DataError if there are none, or one has no partner; up to 5 of each kind are named."""
    bare = [images[k].name for k in images if k not in masks]
    spare = [masks[k].name for k in masks if k not in images]
    if bare or spare or not images:
        raise DataError(
            f"data split {split!r} is incomplete: of {len(images)} images {len(bare)} have no "
            f"mask ({some(bare)}) and of {len(masks)} masks {len(spare)} have no image "
            f"({some(spare)})",
            f"use all archives, fully unpacked, as {layout}",
        )
    names = sorted(images)
    return names, [images[n] for n in names], [masks[n] for n in names]
