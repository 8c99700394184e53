"""What the data of a run hold, in a form that a later start can compare: classes, ids, and the
names and contents of all files."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from segjax.data.classes import IGNORE, ClassTable, from_rows
from segjax.data.errors import DataError
from segjax.data.files.atomic import replacing
from segjax.data.files.json_file import need_form, read_json
from segjax.data.files.paired import PairedFiles
from segjax.data.parallel import in_threads
from segjax.data.source import Source, files_of
from segjax.data.splits import Splits

FILE = "inputs.json"
_MOST_BYTES = 1 << 30  # of the file: a few million names
_WHOLE, _BLOCK = 1 << 16, 1 << 12  # bytes of an image that are read as a whole, and in a block
_AT_ONCE = 64  # files that a thread looks at before it hands on what it found
_SHOWN = 3  # names in a message


class Stamp(NamedTuple):
    """A file: its size, the hash of its content, and by which the file system tells it has not
    been written since (changes of time, or the place of a copy, lead to another look)."""

    size: int
    content: str
    state: str


@dataclasses.dataclass(frozen=True)
class SplitContents:
    """A split: the names of its images in order (of its shards where it has no image files) and the
    stamps of the files of each, the image first; `sampled` tells samples apart that no file holds.
    """

    images: int
    sampled: str
    names: tuple[str, ...] = ()
    files: tuple[tuple[int, ...], ...] = ()  # for each name, places in `stamps`
    stamps: tuple[Stamp, ...] = ()

    def of(self, place: int) -> list[tuple[int, str]]:
        """Size and hash of the files of a name."""
        return [self.stamps[k][:2] for k in self.files[place]]

    @property
    def fingerprint(self) -> str:
        """Of names and contents, the same for every copy."""
        facts = [self.images, self.sampled, self.names, *map(self.of, range(len(self.names)))]
        return _hash(repr(facts).encode())


@dataclasses.dataclass(frozen=True)
class Contents:
    """All that the data give to a run; `ids` are [raw id, label] pairs of the training masks, and
    `listed` the rows [id, label, name, colour] of the class list by which they are read."""

    classes: ClassTable
    ids: tuple[tuple[int, int], ...]
    listed: tuple[tuple[Any, ...], ...]
    splits: Mapping[str, SplitContents]

    @property
    def fingerprints(self) -> dict[str, dict[str, Any]]:
        """Of each split."""
        return {
            name: {"images": split.images, "fingerprint": split.fingerprint}
            for name, split in self.splits.items()
        }

    def save(self, folder: pathlib.Path, **more: Any) -> None:
        """Writes the file in a workdir, with `more` values beside the contents."""
        values = {
            **more,
            "multilabel": self.classes.multilabel,
            "classes": self.classes.to_rows(),
            "ids": self.ids,
            "listed": self.listed,
            "splits": {name: dataclasses.asdict(split) for name, split in self.splits.items()},
        }
        with replacing(folder / FILE) as partial:
            partial.write_text(json.dumps(values), encoding="utf-8")


def contents_of(splits: Splits, before: "Contents | None" = None) -> Contents:
    """The contents of the splits that a run uses.

    Masks are read as a whole, of images larger than 64 KiB a few blocks. What has the state of a
    stamp in `before` is not read again.

    Raises:
      TimeoutError: naming the files, if there is no answer for `data.timeout_s`.
    """
    known = before.splits if before else {}
    training = splits.source(splits.data["train_split"])
    ids, listed, inner = {}, (), training
    while inner is not None:
        own = inner.id_map if hasattr(inner, "id_map") else inner
        labels = getattr(own, "labels", None)
        if isinstance(labels, Mapping):  # a map around another one takes its labels
            ids = {int(k): int(ids.get(v, IGNORE) if ids else v) for k, v in labels.items()}
        rows = getattr(getattr(inner, "read_ids", None), "keywords", {}).get("listed")
        if rows is not None:
            listed = tuple(zip(rows.ids, rows.labels, rows.names, rows.colors, strict=True))
        inner = getattr(inner, "source", None)
    return Contents(
        splits.classes,
        tuple(sorted(ids.items())),
        listed,
        {
            name: _split_contents(splits.source(name), known.get(name), splits.data["timeout_s"])
            for name in splits.used
        },
    )


def _split_contents(
    source: Source, before: SplitContents | None, timeout_s: float
) -> SplitContents:
    names, files, whole = _files(source)
    known = {}
    if before:
        states = dict(zip(before.names, before.files, strict=True))
        for name, each in zip(names, files, strict=True):
            known |= zip(each, (before.stamps[k] for k in states.get(name, ())), strict=False)
    todo = list({path: None for each in files for path in each})
    parts = in_threads(
        lambda at: [stamp_of(p, whole(p), known.get(p)) for p in todo[at : at + _AT_ONCE]],
        range(0, len(todo), _AT_ONCE),
        reading=lambda at: f"{todo[at]} and {len(todo[at : at + _AT_ONCE]) - 1} more",
        timeout_s=timeout_s,
    )
    places = {path: k for k, path in enumerate(todo)}
    return SplitContents(
        len(source),
        "" if names else _of_samples(source),
        tuple(name.encode(errors="backslashreplace").decode() for name in names),
        tuple(tuple(places[path] for path in each) for each in files),
        tuple(stamp for stamps in parts for stamp in stamps),
    )


def _files(
    source: Source,
) -> tuple[Sequence[str], Sequence[Sequence[pathlib.Path]], Callable[[pathlib.Path], bool]]:
    """(names, files of each, whether a file is read as a whole)."""
    paired = files_of(source)
    if isinstance(paired, PairedFiles):
        images = {*paired.image_paths}
        files = [(path, *paired.masks_of(k)) for k, path in enumerate(paired.image_paths)]
        return paired.names, files, lambda path: path not in images
    inner: Any = source
    while hasattr(inner, "source"):
        inner = inner.source
    files = sorted(getattr(inner, "files", ()))
    return [path.name for path in files], [(path,) for path in files], lambda path: False


def stamp_of(path: pathlib.Path, whole: bool = False, known: Stamp | None = None) -> Stamp:
    """The stamp of a file; an empty one for what is no file or cannot be read, which the checks of
    the data report."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            # As git tells: the time of the last change of the inode cannot be set back.
            state = f"{found.st_mtime_ns}.{found.st_ctime_ns}.{found.st_ino}"
            if known and known.size == found.st_size and known.state == state:
                return known
            if stat.S_ISREG(found.st_mode):
                size, digest = found.st_size, hashlib.blake2b(digest_size=8)
                blocks = 1 if whole or size <= _WHOLE else 4 + (size >> 22)
                if blocks == 1:
                    with open(descriptor, "rb", closefd=False) as file:
                        while block := file.read(1 << 20):
                            digest.update(block)
                else:
                    for k in range(blocks):
                        at = (size - _BLOCK) * k // (blocks - 1)
                        digest.update(os.pread(descriptor, _BLOCK, at))
                return Stamp(size, digest.hexdigest(), state)
        finally:
            os.close(descriptor)
    return Stamp(-1, "", "")


def _of_samples(source: Source) -> str:
    """The hash of the first and the last sample."""
    digest = hashlib.blake2b(digest_size=8)
    for sample in (source[k] for k in {0, len(source) - 1} if len(source)):
        for array in (sample["image"], sample["label"]):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def load_contents(folder: pathlib.Path) -> tuple[Contents, dict[str, Any]]:
    """What `Contents.save` wrote in a workdir, and the other values.

    Raises:
      DataError: if the file is damaged.
    """
    path, what = folder / FILE, "the record of a run's data"
    remedy = f"remove {path}: the run then resumes without a comparison of its data"
    values = read_json(
        path,
        what,
        remedy,
        fields={"classes": list, "multilabel": bool, "ids": list, "listed": list, "splits": dict},
        most_bytes=_MOST_BYTES,
    )
    try:
        return _from_json(values), values
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(f"{path} is not {what} ({error!r})", remedy) from error


def _from_json(values: Mapping[str, Any]) -> Contents:
    splits = {}
    for name, split in values["splits"].items():
        stamps = tuple(Stamp(*stamp) for stamp in split["stamps"])
        files = tuple(tuple(each) for each in split["files"])
        need_form(split, {"images": int, "sampled": str, "names": [str], "files": [[int]]}, name)
        need_form([list(stamp) for stamp in stamps], [[(int, str)]], name)
        if len(files) != len(split["names"]) or not all(
            0 <= place < len(stamps) for each in files for place in each
        ):
            raise ValueError(f"the files of split {name} are not those of its names")
        splits[name] = SplitContents(
            split["images"], split["sampled"], tuple(split["names"]), files, stamps
        )
    return Contents(
        from_rows(values["classes"], values["multilabel"]),
        tuple((int(id_), int(label)) for id_, label in values["ids"]),
        tuple((*row[:3], row[3] and tuple(row[3])) for row in values["listed"]),
        splits,
    )


def class_changes(before: ClassTable, now: ClassTable) -> str:
    """Why a network that was trained with one table cannot go on with another, "" if it can: the
    number of classes, or the place of one, differs."""
    if before.multilabel != now.multilabel:
        one, any_number = "one class per pixel", "any number of classes per pixel"
        words = (any_number, one) if before.multilabel else (one, any_number)
        return f"the run has {words[0]}, the data now {words[1]}"
    moved = [
        f"{name!r} was class {before.names.index(name)}, is {k}"
        for k, name in enumerate(now.names)
        if name in before.names and before.names.index(name) != k
    ]
    if len(before) != len(now):
        return (
            f"the run has {len(before)} classes ({_some(before.names, 8)}), the data now have "
            f"{len(now)} ({_some(now.names, 8)})"
        )
    return f"the classes have another order: {_some(moved)}" if moved else ""


def changes(before: Contents, now: Contents) -> list[str]:
    """What differs between two states of a run's data, in words; see `class_changes` too."""
    old, new = before.classes, now.classes
    found = [
        f"class {k} was {a!r}, is {b!r}"
        for k, (a, b) in enumerate(zip(old.names, new.names, strict=False))
        if a != b
    ]
    found = [f"other names: {_some(found)}"] if found else []
    if old.raw_ids != new.raw_ids:
        found.append(f"the ids of the classes were {list(old.raw_ids)}, are {list(new.raw_ids)}")
    if old.palette != new.palette:
        found.append("the classes have other colours")
    if before.ids != now.ids:
        were, are = dict(before.ids), dict(now.ids)
        words = [
            f"{id_} was {_label(were.get(id_), old)}, is {_label(are.get(id_), new)}"
            for id_ in sorted({*were, *are})
            if were.get(id_) != are.get(id_)
        ]
        found.append(f"ids in masks mean other classes: {_some(words)}")
    elif before.listed != now.listed and not found:
        found.append("the rows of the class list differ")
    for name, split in now.splits.items():
        if name in before.splits:
            found += [f"{name}: {text}" for text in _split_changes(before.splits[name], split)]
    return found


def _split_changes(before: SplitContents, now: SplitContents) -> list[str]:
    if not before.names or not now.names:  # known by number and samples alone
        if before.images != now.images:
            return [f"{before.images} images then, {now.images} now"]
        return ["its samples differ"] if before.sampled != now.sampled else []
    old, new = (dict(zip(s.names, range(len(s.names)), strict=True)) for s in (before, now))
    common = [name for name in new if name in old]
    found = []
    for names, words in (
        ([n for n in old if n not in new], "missing"),
        ([n for n in new if n not in old], "added"),
    ):
        if names:
            found.append(f"{_count(len(names), len(old))} {words} ({_some(names)})")
    changed = {"image": [], "mask": []}
    for name in common:
        a, b = before.of(old[name]), now.of(new[name])
        if a[:1] != b[:1]:
            changed["image"].append(name)
        if a[1:] != b[1:]:
            changed["mask"].append(name)
    for kind, names in changed.items():
        if names:
            found.append(f"the {kind} of {_count(len(names), len(old))} changed ({_some(names)})")
    if [name for name in old if name in new] != common:
        found.append("the images have another order")
    return found


def _count(number: int, of: int) -> str:
    return f"{number} of {of} image{'s' * (of > 1)}"


def _label(label: int | None, classes: ClassTable) -> str:
    if label is None:
        return "unknown"
    if label == IGNORE:
        return "ignored"
    return repr(classes.names[label]) if label < len(classes) else f"label {label}"


def _some(texts: Iterable[str], shown: int = _SHOWN) -> str:
    texts = list(texts)
    return ", ".join([*texts[:shown], *(["..."] if len(texts) > shown else [])])
