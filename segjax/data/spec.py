"""What is known of a data set before any of its files is opened."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from segjax.data.classes import ClassTable


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """A data set that `data.name` may name.

    Attributes:
      title: its name, authors and year.
      licence: what its files may be used for, in a sentence.
      url: where they are.
      layout: of `data.root`, in words.
      splits: the names that its own files give.
      classes: the class table, from `config.data`.
      open: the source of a split, from `config.data` and the split's name; reads no sample.
      unlabelled: splits whose labels are not public.
      variants: values of `data.variant`, the first for ""; empty = it has none.
      weights: published class weights, by variant.
      reads_files: False for what is drawn or asked of a library, which needs no `data.root`.
    """

    title: str
    licence: str
    url: str
    layout: str
    splits: tuple[str, ...]
    classes: Callable[[Mapping[str, Any]], ClassTable]
    open: Callable[[Mapping[str, Any], str], Any]
    variants: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    weights: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    reads_files: bool = True
