"""The doctor: decodes all of a data set as a config sees it, and reports what is wrong."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from segjax.data.counts import split_counts
from segjax.data.datasets import spec_of
from segjax.data.doctor import sample_rules, split_rules
from segjax.data.doctor.findings import ERROR, SEVERITIES, Diagnosis, Finding, SplitNumbers
from segjax.data.doctor.sample_rules import Split
from segjax.data.doctor.samples import SampleFacts, examine
from segjax.data.doctor.split_rules import Settings, settings_of
from segjax.data.errors import DataError, as_data_error
from segjax.data.parallel import in_threads
from segjax.data.prepared.manifest import verify
from segjax.data.source import Source
from segjax.data.splits import Splits

Progress = Callable[[int, int], None]


def diagnose(
    sources: Mapping[str, Source],
    *,
    config: Mapping[str, Any] | None = None,
    workers: int = 0,
    progress: Progress | None = None,
    title: str = "data set",
    more: Sequence[Finding] = (),
) -> Diagnosis:
    """Decodes every sample of every split and reports what is wrong with the data.

    Nothing is compiled, and jax is not imported.

    Args:
      sources: by split, all with the same classes. From a `PairedFiles`, also inside another
        source's `.source`, the raw ids are read too.
      config: the complete config; without it, the training split is "train", and there are no
        findings about options.
      workers: threads that decode; 0 = one per core, 8 at most.
      progress: called with (samples done, samples to do).
      title: of the data set.
      more: findings to report with the others.

    Raises:
      DataError: if there are no splits.
    """
    if not sources:
        raise DataError("there are no splits to diagnose", "use sources by split")
    started = time.perf_counter()
    settings = Settings() if config is None else settings_of(config)
    to_do, done = sum(map(len, sources.values())), 0
    splits = {}
    for name, source in sources.items():
        facts = []
        for sample in in_threads(partial(examine, source), range(len(source)), workers):
            facts.append(sample)
            done += 1
            if progress is not None:
                progress(done, to_do)
        splits[name] = Split(name, source, facts, numbers_of(facts, len(source.classes)))
    findings = list(more)
    for split in splits.values():
        for rule in sample_rules.RULES:
            findings += rule(split)
    findings += split_rules.repeated(splits)
    for rule in split_rules.RULES:
        for split in splits.values():
            findings += rule(split, settings)
    training = splits.get(settings.train_split)
    return Diagnosis(
        title=title,
        classes=next(iter(sources.values())).classes,
        train_split=settings.train_split,
        findings=sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)),
        splits={name: split.numbers for name, split in splits.items()},
        weights={} if training is None else split_rules.class_weights(training),
        sources=sources,
        seconds=time.perf_counter() - started,
    )


def diagnose_config(
    config: Mapping[str, Any],
    splits: Sequence[str] = (),
    *,
    workers: int = 0,
    progress: Progress | None = None,
) -> Diagnosis:
    """`diagnose` for the splits that a config trains and evaluates on, or for the named ones.

    A split that cannot be opened is a finding, and so are shards of prepared data that have
    changed.

    Raises:
      DataError: if the data set or its classes are not known, or no split can be opened.
    """
    data = Splits(config["data"], config["seed"])
    _ = data.classes  # an unknown data set is an error and no finding
    sources, errors = {}, {}
    for split in splits or data.used:
        try:
            sources[split] = data.source(split)
        except (ValueError, OSError) as error:
            errors[split] = as_data_error(error)
    if not sources:
        raise next(iter(errors.values()))
    findings = []
    for split, error in errors.items():
        title = f"{split}: the split cannot be opened"
        findings.append(Finding("cannot-open", ERROR, title, (error.found,), error.remedy, split))
    if config["data"]["name"] == "prepared":
        try:
            verify(config["data"]["root"])
        except DataError as error:
            title = "shards of the prepared data have changed"
            findings.append(Finding("changed-shard", ERROR, title, (error.found,), error.remedy))
    return diagnose(
        sources,
        config=config,
        workers=workers,
        progress=progress,
        title=spec_of(config["data"]).title,
        more=findings,
    )


def numbers_of(facts: Sequence[SampleFacts], num_classes: int) -> SplitNumbers:
    """The sums over a split's samples."""
    labels = [sample.counts for sample in facts if sample.counts is not None]
    counts = split_counts(labels, len(facts), num_classes)
    mean, std = _moments(facts)
    numbers = vars(counts) | {
        "sizes": dict(Counter(sample.size for sample in facts if sample.size)),
        "usable": sum(not sample.problems for sample in facts),
    }
    return SplitNumbers(**numbers, mean=mean, std=std)


def _moments(facts: Sequence[SampleFacts]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per channel, over the pixels of all images in [0, 1]."""
    read = [sample for sample in facts if sample.pixel_sums is not None]
    if not read:
        return np.full(3, np.nan), np.full(3, np.nan)
    channels = Counter(sample.pixel_sums.shape[1] for sample in read).most_common(1)[0][0]
    read = [sample for sample in read if sample.pixel_sums.shape[1] == channels]
    pixels = sum(sample.size[0] * sample.size[1] for sample in read)
    mean, square = sum(sample.pixel_sums for sample in read) / pixels
    return mean, np.sqrt(np.maximum(0, square - mean**2))
