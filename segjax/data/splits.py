"""The splits of a run's data set, opened and checked once and handed on."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from segjax.data.checks import quick_check
from segjax.data.classes import ClassTable
from segjax.data.counts import SplitCounts
from segjax.data.datasets import class_table, classes_in_words, make_source, spec_of
from segjax.data.doctor.diagnose import findings_of
from segjax.data.doctor.findings import ERROR, Finding
from segjax.data.doctor.settings import settings_of
from segjax.data.doctor.split import Split
from segjax.data.errors import DataError, joined
from segjax.data.files.paired import PairedFiles
from segjax.data.fitted import FittedDataset
from segjax.data.image_options import ImageOptions, ranges_of, resolve
from segjax.data.scored import OWN, LabelSize, ScoredDataset, label_size
from segjax.data.source import Source, files_of, notes_of


class Splits:
    """The splits of the data set that `config.data` names.

    Each split is opened, checked and fitted at its first use and kept for the next one, so make one
    object per command and hand it on.

    Args:
      data: `config.data`.
      seed: of the run: of procedural scenes, and of splits that are drawn.
    """

    def __init__(self, data: Mapping[str, Any], seed: int = 0):
        self.data, self.seed = data, seed
        # With what data sets have found in the root, for the next split to be opened.
        self._data = {**data, "trees": {}}
        self._finished = False
        self._sources: dict[str, Source] = {}
        self._looked: dict[str, Split] = {}
        self._fitted: dict[tuple, FittedDataset] = {}

    @classmethod
    def of_run(cls, config: Mapping[str, Any]) -> "Splits":
        """The splits of a finished run, whose data may have moved since the training.

        Args:
          config: of the run, with overrides.

        Raises:
          DataError: if the folder of the data is gone.
        """
        data = config["data"]
        is_folder = data["root"] and not data["name"].startswith("tfds:")  # TFDS makes its folder
        if is_folder and not pathlib.Path(data["root"]).exists():
            raise DataError(
                f"the data of the run are not in data.root={data['root']} any more",
                "say where they are with --config.data.root=FOLDER",
            )
        splits = cls(data, config["seed"])
        splits._finished = True
        return splits

    @functools.cached_property
    def classes(self) -> ClassTable:
        """The classes, after `data.class_map`; opens no split."""
        return class_table(self._data)

    @property
    def classes_in_words(self) -> str:
        """See `datasets.classes_in_words`."""
        return classes_in_words(self._data)

    @functools.cached_property
    def image_options(self) -> ImageOptions:
        """`data.value_range` and `data.exif`; what is `auto` is found over the training split, but
        for a finished run, whose config says what was found."""
        if self._finished:
            return ImageOptions(ranges_of(self.data), self.data.get("exif", "auto"))
        split, opened = self.data["train_split"], []

        def training(data: Mapping[str, Any]) -> PairedFiles | None:
            opened.append(files_of(make_source({**self._data, **data}, split, self.seed)))
            return opened[0]

        options = resolve(self.data, training)
        if opened and opened[0] is not None:
            source = opened[0].with_options(options.value_range, options.exif)
            notes = (*source.notes, *options.notes)
            self._sources[split] = dataclasses.replace(source, notes=notes)
        return options

    @functools.cached_property
    def evaluated(self) -> tuple[str, ...]:
        """The splits to evaluate on: `data.eval_splits`; without any, `data.val_split` and, if
        there is such a split with labels, "test"."""
        val = self.data["val_split"]
        if self.data["eval_splits"]:
            return tuple(self.data["eval_splits"])
        if "test" not in (val, *spec_of(self.data).unlabelled):
            with contextlib.suppress(DataError):  # there is no split test
                self.source("test")
                return val, "test"
        return (val,)

    @property
    def used(self) -> tuple[str, ...]:
        """All splits that a run reads: for training, for its best checkpoint, for evaluation."""
        splits = self.data["train_split"], self.data["val_split"], *self.evaluated
        return tuple(dict.fromkeys(splits))

    def source(self, split: str) -> Source:
        """The samples of a split as in its files; DataError if it is missing or incomplete."""
        data = {**self._data, **self.image_options.values}
        if split not in self._sources:
            self._sources[split] = make_source(data, split, self.seed)
        return self._sources[split]

    @property
    def notes(self) -> list[str]:
        """What the user should know of how the files of the open splits were found."""
        return notes_of(self._sources.values())

    def check(self, *splits: str, batch_size: int = 1) -> None:
        """Looks at samples of each split that is not checked yet, see `checks.quick_check`.

        The training split needs `batch_size` images. DataError for all problems of all splits;
        TimeoutError for a sample that is not read within `data.timeout_s`.
        """
        training = self.data["train_split"]
        sources = {split: self.source(split) for split in splits if split not in self._looked}
        self._looked |= quick_check(
            sources,
            min_images={training: batch_size},
            skip_unreadable=[training] if self.data["on_unreadable"] == "skip" else [],
            timeout_s=self.data["timeout_s"],
        )

    def findings(self, config: Mapping[str, Any]) -> list[Finding]:
        """What the doctor's rules find in the checked splits, judged by a complete config.

        Raises:
          DataError: one for all findings that stop training.
        """
        found = findings_of(self._looked, settings_of(config))
        errors = [
            DataError(": ".join((finding.title, *finding.found[:1])), finding.remedy)
            for finding in found
            if finding.severity == ERROR
        ]
        if errors:
            raise joined(errors)
        return found

    def check_labels(self, *splits: str) -> None:
        """Raises DataError for a split without a labelled pixel, on which nothing is measured."""
        for name in splits:
            split = self.looked_at(name)
            if split.decisive and not split.usable_counts.labelled_pixels:
                raise DataError(
                    f"data split {name!r}: no pixel has a label{split.looked_at}, so there is "
                    "nothing to measure",
                    "check the ids in the masks, the class list, data.ignore_ids and "
                    "data.class_map, or leave the split out of data.eval_splits",
                )

    def looked_at(self, split: str) -> Split:
        """The samples of a split that its check has seen, with their facts."""
        self.check(split)
        return self._looked[split]

    def counts(self, split: str) -> SplitCounts | None:
        """The pixels of a split, from its check; None if that left out some of its samples."""
        self.check(split)
        looked = self._looked[split]
        return looked.usable_counts if looked.complete else None

    def training(self) -> FittedDataset:
        """The training split on the canvas, checked."""
        data = self.data
        return self._fit(data["train_split"], None, data["on_unreadable"])

    def fitted(self, split: str) -> FittedDataset:
        """A split for evaluation, checked: images on the canvas, labels at the scored size."""
        return self._fit(split, label_size(self.data), "stop")

    def on_canvas(self, split: str) -> FittedDataset:
        """A split for evaluation, checked: images and labels on the canvas."""
        return self._fit(split, None, "stop")

    def _fit(self, split: str, scored: LabelSize, on_unreadable: str) -> FittedDataset:
        self.check(split)
        key = split, scored, on_unreadable
        if key not in self._fitted:
            data = self.data
            options: dict[str, Any] = {
                name: data[name] for name in ("cache_mb", "channels", "timeout_s")
            }
            options["on_unreadable"] = on_unreadable
            source, size = self.source(split), tuple(data["image_size"])
            if scored is None:
                self._fitted[key] = FittedDataset(source, size, **options)
            else:
                stated = None if scored == OWN else scored
                self._fitted[key] = ScoredDataset(source, size, stated, **options)
        return self._fitted[key]
