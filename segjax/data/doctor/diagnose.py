"""The doctor: decodes all of a data set as a config sees it, and says what is wrong with it."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from segjax.data.checks import in_threads
from segjax.data.datasets import class_table, make_source, spec_of, used_splits
from segjax.data.doctor import sample_rules, split_rules
from segjax.data.doctor.findings import SEVERITIES, STOPS, Diagnosis, Finding, SplitNumbers
from segjax.data.doctor.sample_rules import Split
from segjax.data.doctor.samples import SampleFacts, examine
from segjax.data.doctor.split_rules import Settings, settings_of

Progress = Callable[[int, int], None]


def diagnose(
    sources: Mapping[str, Any],
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
      sources: by split; each has len, `[i]` and `classes`, the same in all. Of sources of files
        (`pairs.PairedFiles`), also inside another's `.source`, the raw ids are read too.
      config: the whole config, if there is one; without it, the training split is "train", and
        findings about its options are left out.
      workers: threads that decode; 0 = one per core, 8 at most.
      progress: called with (samples done, samples to do).
      title: of the data set.
      more: findings to report with the others.

    Raises:
      ValueError: if there are no splits.
    """
    if not sources:
        raise ValueError("there are no splits to diagnose; use sources by split")
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
    for rule in split_rules.RULES:
        findings += rule(splits, settings)
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
    """`diagnose` for the splits that a config trains and evaluates on, or those that are named.

    A split that cannot be opened is a finding.

    Raises:
      ValueError: if the data set or its classes are not known, or no split can be opened.
    """
    data = config["data"]
    class_table(data)
    sources, errors = {}, {}
    for split in splits or used_splits(data, config["seed"]):
        try:
            sources[split] = make_source(data, split, config["seed"])
        except (ValueError, OSError) as error:
            errors[split] = error
    if not sources:
        raise next(iter(errors.values()))
    findings = []
    for split, error in errors.items():
        found, _, remedy = str(error).rpartition("; use ")
        title = f"{split}: the split cannot be opened"
        remedy = f"use {remedy}" if found else "see above"
        findings.append(Finding("cannot-open", STOPS, title, (found or str(error),), remedy, split))
    return diagnose(
        sources,
        config=config,
        workers=workers,
        progress=progress,
        title=spec_of(data).title,
        more=findings,
    )


def numbers_of(facts: Sequence[SampleFacts], num_classes: int) -> SplitNumbers:
    """The sums of a split's samples."""
    class_pixels, class_images, present = np.zeros((3, num_classes), np.int64)
    ignored = unknown = void = 0
    for sample in facts:
        if sample.class_pixels is None:
            continue
        bad = sum(sample.unknown.values())
        pixels = int(sample.class_pixels.sum()) + sample.ignored_pixels + bad
        class_pixels += sample.class_pixels
        class_images += sample.class_pixels > 0
        present += np.where(sample.class_pixels > 0, pixels, 0)
        ignored += sample.ignored_pixels
        unknown += bad
        void += pixels > 0 and sample.ignored_pixels == pixels
    mean, std = _moments(facts)
    return SplitNumbers(
        images=len(facts),
        usable=sum(not sample.problems for sample in facts),
        sizes=dict(Counter(sample.size for sample in facts if sample.size)),
        class_pixels=class_pixels,
        class_images=class_images,
        present_pixels=present,
        ignored_pixels=ignored,
        unknown_pixels=unknown,
        void_images=void,
        mean=mean,
        std=std,
    )


def _moments(facts: Sequence[SampleFacts]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per channel over the pixels of all images in [0, 1]."""
    read = [sample for sample in facts if sample.pixel_sums is not None]
    if not read:
        return np.full(3, np.nan), np.full(3, np.nan)
    channels = Counter(sample.pixel_sums.shape[1] for sample in read).most_common(1)[0][0]
    read = [sample for sample in read if sample.pixel_sums.shape[1] == channels]
    pixels = sum(sample.size[0] * sample.size[1] for sample in read)
    mean, square = sum(sample.pixel_sums for sample in read) / pixels
    return mean, np.sqrt(np.maximum(0, square - mean**2))
