"""Shares of a split for validation and test, drawn by the names of the samples."""

import hashlib
import pathlib
import unicodedata
from collections.abc import Mapping, Sequence

from segjax.data.errors import DataError


def part_of(name: str, shares: Mapping[str, float]) -> str | None:
    """The split whose share a sample falls into, None for the rest.

    The hash of a name never changes, so added samples move no other; a split keeps its samples
    when the share of one after it changes.

    Args:
      name: of the sample, unique; in any form of Unicode.
      shares: of each split, in (0, 1); their sum is below 1.
    """
    digest = hashlib.blake2b(unicodedata.normalize("NFC", name).encode(), digest_size=8).digest()
    place, start = int.from_bytes(digest, "big") / 2**64, 0.0
    for split, share in shares.items():
        start += share
        if place < start:
            return split
    return None


def check_shares(shares: Mapping[str, float], options: Mapping[str, str]) -> None:
    """Raises DataError, naming the option, for a share outside [0, 1) or shares that leave nothing
    for training."""
    for split, share in shares.items():
        if not 0 <= share < 1:
            raise DataError(f"{options[split]}={share}", "use a share from 0 (none) to below 1")
    if sum(shares.values()) >= 1:
        given = " and ".join(f"{options[split]}={share}" for split, share in shares.items())
        raise DataError(f"{given} leave nothing for training", "use shares whose sum is below 1")


def name_in_root(path: pathlib.Path, root: pathlib.Path) -> str:
    """A name that does not depend on other files, for an image of a list."""
    path = path.with_suffix("")
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return "/".join(path.parts[-2:])


def drawn(names: Sequence[str], shares: Mapping[str, float], split: str | None) -> list[int]:
    """The places of the samples that fall into a split's share, or with None into none."""
    return [k for k, name in enumerate(names) if part_of(name, shares) == split]
