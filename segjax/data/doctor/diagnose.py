"""The doctor: decodes all of a data set as a config sees it, and reports what is wrong."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segjax.data.datasets import spec_of
from segjax.data.doctor import consistency_rules, sample_rules, set_up_rules, split_rules
from segjax.data.doctor.findings import ERROR, SEVERITIES, Diagnosis, Finding
from segjax.data.doctor.settings import Settings, settings_of
from segjax.data.doctor.split import Split, look_at
from segjax.data.errors import DataError, as_data_error
from segjax.data.prepared.manifest import verify
from segjax.data.source import Source

Progress = Callable[[int, int], None]
_RULES = (*sample_rules.RULES, *consistency_rules.RULES, *split_rules.RULES)  # of a split
# of all splits
_RULES_BETWEEN = (split_rules.repeated, consistency_rules.splits_differ, *set_up_rules.RULES)


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
    to_do, before, splits = sum(map(len, sources.values())), 0, {}
    for name, source in sources.items():

        def report(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, to_do)

        splits[name] = look_at(
            source, name, workers=workers, timeout_s=settings.timeout_s, progress=report
        )
        before += len(source)
    training = splits.get(settings.train_split)
    return Diagnosis(
        title=title,
        classes=next(iter(sources.values())).classes,
        train_split=settings.train_split,
        findings=findings_of(splits, settings, more),
        splits={name: split.numbers for name, split in splits.items()},
        weights={} if training is None else split_rules.class_weights(training),
        sources=sources,
        seconds=time.perf_counter() - started,
    )


def findings_of(
    splits: Mapping[str, Split], settings: Settings, more: Sequence[Finding] = ()
) -> list[Finding]:
    """What every rule finds in splits that were looked at, and `more`, the worst first."""
    findings = list(more)
    for rule in _RULES:
        for split in splits.values():
            findings += rule(split, settings)
    for rule in _RULES_BETWEEN:
        findings += rule(splits, settings)
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


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
    from segjax.data.splits import Splits  # whose check is the doctor's

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
