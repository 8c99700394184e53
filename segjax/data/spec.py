"""A row of the table of data sets."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from segjax.data.classes import ClassTable
from segjax.data.source import Source


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """A data set that `data.name` may name.

    Attributes:
      title: its name, authors and year.
      licence: the terms of its files, in a sentence.
      url: where to get them.
      layout: of `data.root`, in words.
      splits: their names in the data set's own files.
      classes: gives the class table, from `config.data`.
      open: gives the source of a split, from `config.data` (with the run's "seed") and the split's
        name; reads no sample.
      unlabelled: splits whose labels are not public.
      variants: values of `data.variant`, the first for ""; empty = it has none.
      weights: published class weights, by variant.
      reads_files: False for data that are drawn or that a library finds, which need no `data.root`.
    """

    title: str
    licence: str
    url: str
    layout: str
    splits: tuple[str, ...]
    classes: Callable[[Mapping[str, Any]], ClassTable]
    open: Callable[[Mapping[str, Any], str], Source]
    variants: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    weights: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    reads_files: bool = True
