"""Checks the options of losses, which are known before anything is compiled."""

from collections.abc import Sequence
from typing import Any


def require(valid: bool, name: str, value: Any, allowed: str) -> None:
    """Raises ValueError with the option, its value and what is allowed, unless `valid`."""
    if not valid:
        raise ValueError(f"{name}={value!r}; use {allowed}")


def require_one_of(known: Sequence[str], name: str, value: str) -> None:
    require(value in known, name, value, " or ".join((", ".join(known[:-1]), known[-1])))
