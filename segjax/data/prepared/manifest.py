"""The manifest of a prepared data set: its content, its shards and their checksums.

A prepared data set is a folder `<name>/<version>/` of ArrayRecord shards with `segjax.json` beside
them; `write.write_prepared` writes it, and `sets.prepared` reads it.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from segjax.data.classes import ClassTable, from_rows
from segjax.data.errors import DataError
from segjax.data.files.archive import existing_root, held
from segjax.data.files.atomic import replacing
from segjax.data.files.images import some
from segjax.data.files.json_file import need_form, read_json
from segjax.data.files.reading import reading

FILE = "segjax.json"
ENCODINGS = ("raw", "png", "jpeg")
_LAYOUT = f"<name>/<version>/{FILE}, as --mode=prepare writes it"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of consecutive samples; `sha256` is "" until it is complete."""

    file: str
    samples: int
    bytes: int = 0
    sha256: str = ""


@dataclasses.dataclass(frozen=True)
class Split:
    """The shards of a split in order, and the fingerprint of their source."""

    source: str
    shards: tuple[Shard, ...]

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A prepared data set, finished or not."""

    folder: pathlib.Path  # of the shards
    name: str  # in TFDS's form, as the version
    version: str
    title: str  # of the original data, as licence and url
    licence: str
    url: str
    classes: ClassTable  # the class table
    encoding: str  # of images and labels, see `array_records`
    channels: int  # of the images
    size: tuple[int, int] | None  # (h, w) of every sample; None = each has its own
    command: str  # prepares the data set, or continues
    finished: bool  # whether all shards and TFDS's metadata are complete
    splits: Mapping[str, Split]  # by name
    # The values that became 0 and 255, see `values.to_bytes`; () = the range of the files' type
    value_range: tuple[tuple[float, float], ...] = ()

    @property
    def shards(self) -> list[Shard]:
        return [shard for split in self.splits.values() for shard in split.shards]

    def path(self, shard: Shard) -> pathlib.Path:
        return self.folder / shard.file

    def done(self, shard: Shard) -> bool:
        """Whether a shard was completed and still has its size."""
        path = self.path(shard)
        return bool(shard.sha256) and path.is_file() and path.stat().st_size == shard.bytes

    def check_sizes(self, split: str) -> None:
        """Raises DataError, naming the file, if a shard is missing or has another size."""
        for shard in self.splits[split].shards:
            if not self.done(shard):
                path = self.path(shard)
                size = f"{path.stat().st_size} bytes" if path.is_file() else "missing"
                raise DataError(f"{path} is {size}, not {shard.bytes} bytes", self.remedy())

    def remedy(self) -> str:
        """The remedy for a shard that is missing or incomplete."""
        command = self.command or "the --mode=prepare command that began it, unchanged"
        return f"use {command} (it keeps the complete shards and writes the others)"

    def with_shard(self, split: str, index: int, shard: Shard) -> "Manifest":
        shards = list(self.splits[split].shards)
        shards[index] = shard
        changed = dataclasses.replace(self.splits[split], shards=tuple(shards))
        return dataclasses.replace(self, splits={**self.splits, split: changed})

    def save(self) -> None:
        """Writes the file, completely or not at all."""
        values = dataclasses.asdict(self)
        values.pop("folder")
        values["classes"] = self.classes.to_rows()
        if self.classes.multilabel:
            values["multilabel"] = True
        if not self.value_range:  # as versions wrote that had none
            values.pop("value_range")
        with replacing(self.folder / FILE) as partial:
            partial.write_text(json.dumps({"format": 1, **values}, indent=1))


# The form of the file, and how shards are named.
_FORM = {"format": int, "name": str, "version": str, "title": str, "licence": str, "url": str}
_FORM |= {"classes": list, "encoding": str, "channels": int, "command": str}
_SHARD = {"file": str, "samples": int, "bytes": int, "sha256": str}
_FORM |= {"finished": bool, "splits": {str: {"source": str, "shards": [_SHARD]}}}
_SHARD_NAME = re.compile(r"\w[\w.-]*")


def load(folder: pathlib.Path) -> Manifest:
    """The manifest in a folder; DataError if it cannot be understood."""
    path = folder / FILE
    remedy = "use another folder, or delete this one and prepare it again"
    values = read_json(path, "a manifest of prepared data", remedy, fields=_FORM)
    with reading(path, remedy, "is not a manifest of prepared data"):
        if values.pop("format") != 1:
            raise ValueError("written by another version of segjax")
        classes = from_rows(values.pop("classes"), multilabel=values.pop("multilabel", False))
        splits = {name: _split(split) for name, split in values.pop("splits").items()}
        size = values.pop("size")
        if size is not None:
            need_form(size, [int], "size")
        ranges = tuple((float(low), float(high)) for low, high in values.pop("value_range", ()))
        if values["encoding"] not in ENCODINGS or values["channels"] < 1:
            raise ValueError(f"{values['channels']} channels, encoded as {values['encoding']!r}")
        more: dict[str, Any] = {"size": size and tuple(size), "value_range": ranges, **values}
        return Manifest(folder, classes=classes, splits=splits, **more)


def _split(values: Mapping[str, Any]) -> Split:
    """A split of the file; ValueError and others if it is none."""
    shards = tuple(Shard(**shard) for shard in values["shards"])
    for shard in shards:
        if not _SHARD_NAME.fullmatch(shard.file) or shard.samples < 0:
            raise ValueError(f"shard {shard.file!r} of {shard.samples} samples")
    return Split(values["source"], shards)


def find(root: str | os.PathLike) -> Manifest:
    """The manifest of the finished data set in `root`, or one or two folders below it; DataError if
    there is none, there are several, or its preparation has not ended."""
    if not os.fspath(root):
        raise DataError("data.root is empty", f"use --config.data.root=FOLDER with {_LAYOUT}")
    root = existing_root(root, _LAYOUT)
    depths = (sorted(root.glob(depth + FILE)) for depth in ("", "*/", "*/*/"))
    files = next(filter(None, depths), [])
    if not files:
        raise DataError(
            f"data.root={root} holds no prepared data ({_LAYOUT}); it holds: {held(root)}",
            "use such a folder, or make one with --mode=prepare",
        )
    if len(files) > 1:
        folders = some([file.parent.relative_to(root).as_posix() for file in files], 9)
        raise DataError(f"data.root={root} holds several data sets: {folders}", "use one of them")
    manifest = load(files[0].parent)
    if not manifest.finished:
        shards = manifest.shards
        done = f"{sum(map(manifest.done, shards))} of {len(shards)} shards are complete"
        raise DataError(f"{manifest.folder} is unfinished: {done}", manifest.remedy())
    return manifest


def verify(root: str | os.PathLike, progress: Callable[[int, int], None] | None = None) -> Manifest:
    """Reads every shard of a prepared data set and compares its SHA-256 with the manifest's.

    Args:
      root: the data set's folder, or one or two above it.
      progress: called with (shards read, shards to read).

    Raises:
      DataError: naming the shards that are missing or have changed.
    """
    manifest, bad = find(root), []
    for number, shard in enumerate(manifest.shards, 1):
        if not manifest.done(shard) or sha256(manifest.path(shard)) != shard.sha256:
            bad.append(shard.file)
        if progress is not None:
            progress(number, len(manifest.shards))
    if bad:
        count = f"{len(bad)} of {len(manifest.shards)} shards"
        raise DataError(
            f"{manifest.folder}: {count} are not as they were written: {some(bad)}",
            f"delete them and {manifest.remedy()}",
        )
    return manifest


def sha256(path: pathlib.Path) -> str:
    """A file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(planned: Manifest, existing: Manifest) -> list[str]:
    """The attributes and splits in which the shards of one manifest differ from another's."""

    def facts(manifest: Manifest) -> dict[str, Any]:
        names = ("name", "version", "classes", "encoding", "channels", "size", "value_range")
        splits = {
            f"split {name}": (split.source, tuple((s.file, s.samples) for s in split.shards))
            for name, split in manifest.splits.items()
        }
        facts = {name: getattr(manifest, name) for name in names} | splits
        # The records hold labels, whatever the raw ids, which earlier versions did not keep.
        return facts | {"classes": dataclasses.replace(manifest.classes, ids=())}

    ours, theirs = facts(planned), facts(existing)
    return [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
