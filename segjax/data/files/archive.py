"""What the archives of published data sets have in common: folders that must be there, and images
and masks whose file names say that they belong together."""

import pathlib
from collections.abc import Sequence

from segjax.data.files.images import some


def check_split(data_set: str, split: str, splits: Sequence[str]) -> None:
    """ValueError, listing the splits, if the data set has no such split."""
    if split not in splits:
        raise ValueError(
            f"data split {split!r}: {data_set} has {', '.join(splits)}; use one of these in "
            "data.train_split, data.val_split and data.eval_splits"
        )


def need_folders(
    root: pathlib.Path, split: str, folders: Sequence[str | Sequence[str]], layout: str
) -> list[pathlib.Path]:
    """The folders of a layout; of alternatives, each the first that is there.

    Args:
      root: `data.root`.
      split: its name in messages.
      folders: below `root`; a sequence of names is one folder that may have any of them.
      layout: of the whole, in words.

    Raises:
      ValueError: naming those that are missing, those that were found, and what `root` holds.
    """
    ways = [(folder,) if isinstance(folder, str) else tuple(folder) for folder in folders]
    there = [next((way for way in names if (root / way).is_dir()), None) for names in ways]
    if None in there:
        missing = [" or ".join(names) for names, way in zip(ways, there, strict=True) if not way]
        raise ValueError(
            f"data split {split!r}: data.root={root} has no {' and no '.join(missing)}; found of "
            f"the layout: {some(filter(None, there))}; data.root holds: {held(root)}; use a root "
            f"with {layout}"
        )
    return [root / way for way in there]


def held(folder: pathlib.Path) -> str:
    """The first few names in a folder, for a message."""
    return some([p.name for p in folder.iterdir() if not p.name.startswith(".")], 9)


def files_by_key(folder: pathlib.Path, suffix: str) -> dict[str, pathlib.Path]:
    """The files in `folder` and below whose names end in `suffix`, by the rest of the name.

    Raises:
      ValueError: if two subfolders hold a file of one name.
    """
    files = {}
    for path in sorted(folder.rglob(f"*{suffix}")):
        key = path.name.removesuffix(suffix)
        if path.name.startswith(".") or not key:
            continue
        if key in files:
            raise ValueError(f"{path} is in {files[key].parent} too; use one copy of the archive")
        files[key] = path
    return files


def pair_by_key(
    split: str, images: dict[str, pathlib.Path], masks: dict[str, pathlib.Path], layout: str
) -> tuple[list[str], list[pathlib.Path], list[pathlib.Path]]:
    """(names, image paths, mask paths) in the order of the names, each image with its mask.

    Raises:
      ValueError: if there are none, or one has no partner; up to 5 of each kind are named.
    """
    bare = [images[k].name for k in images if k not in masks]
    spare = [masks[k].name for k in masks if k not in images]
    if bare or spare or not images:
        raise ValueError(
            f"data split {split!r} is incomplete: of {len(images)} images {len(bare)} have no "
            f"mask ({some(bare)}) and of {len(masks)} masks {len(spare)} have no image "
            f"({some(spare)}); use all archives, fully unpacked, as {layout}"
        )
    names = sorted(images)
    return names, [images[n] for n in names], [masks[n] for n in names]
