"""The folder `checkpoints/`: which checkpoints in it are complete, and what a broken-off run left.

STEP is a complete checkpoint. STEP.orbax-checkpoint-tmp-N is being written, STEP.replaced was STEP
until a newer one of the same step took its place, STEP.deleted is being deleted. STEP.damaged
lacked parts when it was found.
"""

import json
import pathlib
import shutil
import warnings
from collections.abc import Mapping

METRIC = "val_miou"
# Orbax's own tools pass over folders with this in their name.
TEMPORARY = ".orbax-checkpoint-tmp"
_REPLACED, _DELETED = ".replaced", ".deleted"

# What each checkpoint holds, whatever else; JSON files are looked into.
_PARTS = ("state/_METADATA", "state/manifest.ocdbt", "host/metadata")
_JSON = ("state/_METADATA", "host/metadata", "metrics/metrics")


def lacking_part(checkpoint: pathlib.Path) -> str:
    """What is wrong with a checkpoint's folder as far as a look at its files tells; "" if
    nothing is."""
    for name in _PARTS:
        if not (checkpoint / name).exists():
            return f"there is no {name}"
    for name in _JSON:
        try:
            if (checkpoint / name).exists():
                json.loads((checkpoint / name).read_text())
        except ValueError:
            return f"{name} is cut off"
    return ""


def stored(folder: pathlib.Path) -> tuple[dict[int, pathlib.Path], dict[int, str]]:
    """The complete checkpoints of a folder, and what is wrong with the others, both by step.

    Of a replacement that was broken off between two renames the older checkpoint counts.
    """
    complete, damaged = {}, {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():  # 4 before 4.replaced
        name = path.name.removesuffix(_REPLACED)
        if not name.isdigit() or int(name) in complete:
            continue
        problem = lacking_part(path)
        if not problem:
            complete[int(name)] = path
        elif path.exists():  # not deleted meanwhile
            damaged.setdefault(int(name), f"checkpoint {path} is damaged: {problem}")
    return complete, {step: text for step, text in damaged.items() if step not in complete}


def tidy(folder: pathlib.Path) -> None:
    """Readies a folder for writing: makes it, sets damaged checkpoints aside (with a warning each),
    ends a broken-off replacement, removes what is half-written or half-deleted.

    Raises:
      OSError: if the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    complete, _ = stored(folder)
    for path in list(folder.iterdir()):
        step = path.name.removesuffix(_REPLACED)
        if not step.isdigit() or path in complete.values():
            continue
        if path.name == step or int(step) not in complete:
            _set_aside(path, folder / f"{step}.damaged")
        else:
            shutil.rmtree(path, ignore_errors=True)
    for step, path in complete.items():
        path.rename(folder / str(step))


def _set_aside(checkpoint: pathlib.Path, aside: pathlib.Path) -> None:
    name, number = aside.name, 1
    while aside.exists():
        number += 1
        aside = aside.with_name(f"{name}{number}")
    problem = lacking_part(checkpoint)
    checkpoint.rename(aside)
    warnings.warn(
        f"checkpoint {checkpoint} is damaged: {problem}; set aside as {aside.name}", stacklevel=5
    )


def remove_leftovers(folder: pathlib.Path) -> None:
    """Removes what is half-written or half-deleted, as far as the file system lets it."""
    for path in list(folder.iterdir()):
        if TEMPORARY in path.name or path.name.endswith(_DELETED):
            shutil.rmtree(path, ignore_errors=True)


def delete(checkpoint: pathlib.Path) -> None:
    """Deletes a checkpoint so that it is never there in part.

    Raises:
      OSError: if it cannot be.
    """
    doomed = checkpoint.with_name(checkpoint.name + _DELETED)
    shutil.rmtree(doomed, ignore_errors=True)
    checkpoint.rename(doomed)
    shutil.rmtree(doomed)


def put_in_place(temporary: pathlib.Path, checkpoint: pathlib.Path) -> None:
    """Renames a complete temporary folder, over an older checkpoint if there is one: at each moment
    one of the two is there.

    Raises:
      OSError: if it cannot be; then the older one is where it was.
    """
    if not checkpoint.exists():
        temporary.rename(checkpoint)
        return
    older = checkpoint.with_name(checkpoint.name + _REPLACED)
    shutil.rmtree(older, ignore_errors=True)
    checkpoint.rename(older)
    try:
        temporary.rename(checkpoint)
    except OSError:
        older.rename(checkpoint)
        raise
    shutil.rmtree(older, ignore_errors=True)


def val_mious(checkpoints: Mapping[int, pathlib.Path]) -> dict[int, float | None]:
    """What the evaluation of each said; None where there was none."""

    def read(path: pathlib.Path) -> float | None:
        try:
            return json.loads(path.read_text()).get(METRIC)
        except FileNotFoundError:
            return None

    return {step: read(path / "metrics" / "metrics") for step, path in checkpoints.items()}


def best(mious: Mapping[int, float | None]) -> int | None:
    """The step of the highest val mIoU, the later one of equals; None without any."""
    evaluated = {step: miou for step, miou in mious.items() if miou is not None}
    return max(evaluated, key=lambda step: (evaluated[step], step), default=None)


def to_keep(mious: Mapping[int, float | None]) -> set[int]:
    """The latest two steps and the best one."""
    return {*sorted(mious)[-2:], best(mious)} - {None}
