"""Patterns of paths below the root of a data set: `{split}/{stem}.jpg`, `scenes/*/masks`."""

import difflib
import functools
import itertools
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from segjax.data.errors import DataError
from segjax.data.files.images import some
from segjax.data.files.walk import walk

# Names of one split, in lower case.
SPLIT_NAMES = (
    ("train", "training"),
    ("val", "valid", "validation", "dev"),
    ("test", "testing"),
)
_FIELD = re.compile(r"(\{[^}/]*\}|\*)")
_SUFFIX = re.compile(r"\.\w+$")


class Match(NamedTuple):
    """An existing path, with what stands at the pattern's `*` and at its `{stem}`."""

    wild: tuple[str, ...]
    stem: str
    path: pathlib.Path


def names_of_split(split: str) -> tuple[str, ...]:
    """The names that a split may have in folders and lists, its own first."""
    for names in SPLIT_NAMES:
        if split.lower() in names:
            return split, *(name for name in names if name != split)
    return (split,)


def normalized(option: str, pattern: str) -> str:
    """A pattern with `/` between folders; DataError, naming the option, for an unknown {field}."""
    unknown = [f for f in _FIELD.findall(pattern) if f not in ("*", "{split}", "{stem}")]
    if unknown or not pattern.strip():
        raise DataError(
            f"{option}={pattern!r} has {some(unknown) if unknown else 'no path'}",
            "use folders and file names below data.root with {split}, {stem} and *, such as "
            "images/{split}/{stem}.jpg",
        )
    parts = pattern.strip().replace("\\", "/").split("/")
    kept = [part for k, part in enumerate(parts) if part not in ("", ".") or not (k or part)]
    return "/".join(kept) or "."


class Tree:
    """The folders below a root, each listed at most once; hidden files are left out.

    Attributes:
      layouts: what `layouts.find` has found in it, by the names of splits.
    """

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.layouts: dict[tuple[str, ...], Any] = {}
        self._entries: dict[pathlib.Path, dict[str, bool]] = {}
        self._spellings: dict[pathlib.Path, dict[str, list[str]]] = {}
        self._walks: dict[pathlib.Path, tuple[list[pathlib.Path], Iterator[pathlib.Path]]] = {}

    def walk(self, folder: pathlib.Path) -> Iterator[pathlib.Path]:
        """As `walk.walk`; what another call has seen already is not looked at again."""
        seen, rest = self._walks.setdefault(folder, ([], walk(folder)))
        for place in itertools.count():
            if place == len(seen):
                try:
                    seen.append(next(rest))
                except StopIteration:
                    return
                except BaseException:
                    del self._walks[folder]  # of which the iterator would keep silent
                    raise
            yield seen[place]

    def entries(self, folder: pathlib.Path) -> dict[str, bool]:
        """The names in a folder, sorted, and whether each is a folder; {} if it is none."""
        if folder not in self._entries:
            try:
                with os.scandir(folder) as found:
                    names = {e.name: e.is_dir() for e in found if not e.name.startswith(".")}
            except OSError:  # missing, a file, or not allowed
                names = {}
            self._entries[folder] = dict(sorted(names.items()))
        return self._entries[folder]

    @functools.cached_property
    def names(self) -> str:
        """The names in the root and up to three folders below it, in lower case, for a quick look
        before patterns are tried."""
        names, level = [], [self.root]
        for _ in range(4):
            entries = [(folder, self.entries(folder)) for folder in level[:1000]]
            names += [name.lower() for _, found in entries for name in found]
            level = [f / n for f, found in entries for n, is_folder in found.items() if is_folder]
        return "\n".join(names)

    def expand(self, pattern: str, split: str = "") -> list[Match]:
        """The existing folders and files of a pattern without {stem}.

        Letters match in both cases, the same case first.
        """
        found = [Match((), "", self.root)]
        for part in pattern.split("/"):
            found = [deeper for match in found for deeper in self._step(match, part, split)]
        return found

    def _step(self, match: Match, part: str, split: str) -> Iterator[Match]:
        if part in ("", "."):
            yield match if part else match._replace(path=pathlib.Path("/"))
        elif part == "..":
            yield match._replace(path=match.path / part)
        elif "*" not in part:
            name = part.replace("{split}", split)
            alike = self._alike(match.path).get(name.lower(), ())
            alike = [name] if name in alike else alike
            yield from (match._replace(path=match.path / entry) for entry in alike)
        else:
            regex = re.compile(_regex(part, split), re.IGNORECASE)
            for entry in self.entries(match.path):
                if hit := regex.fullmatch(entry):
                    yield Match((*match.wild, *_wild(hit)), "", match.path / entry)

    def _alike(self, folder: pathlib.Path) -> dict[str, list[str]]:
        """The names in a folder by their lower case."""
        if folder not in self._spellings:
            spellings = self._spellings[folder] = {}
            for name in self.entries(folder):
                spellings.setdefault(name.lower(), []).append(name)
        return self._spellings[folder]

    def files(self, pattern: str, split: str, suffixes: tuple[str, ...]) -> list[Match]:
        """The files of these types of a pattern with {stem}, which may hold folders.

        A pattern whose last part ends without a suffix, or with `.*`, stands for all `suffixes`.
        """
        parts = pattern.split("/")
        first = next(k for k, part in enumerate(parts) if "{stem}" in part)
        base, rest = "/".join(parts[:first]) or ".", "/".join(parts[first:])
        rest = rest.removesuffix(".*")
        any_suffix = not has_suffix(rest)
        regex, found = re.compile(_regex(rest, split), re.IGNORECASE), []
        for folder in self.expand(base, split):
            for path in self.walk(folder.path):
                if path.suffix.lower() not in suffixes:
                    continue
                name = path.relative_to(folder.path)
                if hit := regex.fullmatch(
                    (name.with_suffix("") if any_suffix else name).as_posix()
                ):
                    wild = (*folder.wild, *_wild(hit))
                    found.append(Match(wild, hit["stem"], path))
        return sorted(found, key=lambda match: match.path.as_posix())

    def missing(self, pattern: str, split: str) -> str:
        """What is there in place of a pattern that matches nothing, for a message."""
        parts, found = pattern.split("/"), [Match((), "", self.root)]
        for part in parts:
            name = part.replace("{split}", split)
            deeper = (
                []
                if "{stem}" in part
                else [m for match in found for m in self._step(match, part, split)]
            )
            if not deeper:
                break
            found = deeper
        folder, name = found[0].path, name.replace("{stem}", "...")
        held = self.entries(folder)
        near = difflib.get_close_matches(name, held, 3, 0.5) if held else []
        near = f"; near names: {', '.join(near)}" if near else ""
        return f"no {name} in {folder}, which holds: {some(held, 9)}{near}"


def has_suffix(pattern: str) -> bool:
    """Whether the last part of a pattern says which type the files have."""
    last = _FIELD.split(pattern.rpartition("/")[2])[-1]
    return bool(_SUFFIX.search(last))


def _regex(part: str, split: str) -> str:
    text, seen = "", False
    for piece in _FIELD.split(part):
        if piece == "{stem}":
            text, seen = text + ("(?P=stem)" if seen else "(?P<stem>.+)"), True
        elif piece == "*":
            text += "([^/]*)"
        else:
            text += re.escape(split if piece == "{split}" else piece)
    return text


def _wild(hit: re.Match) -> list[str]:
    """The groups without a name."""
    named = set(hit.re.groupindex.values())
    return [text for k, text in enumerate(hit.groups(), 1) if k not in named]
