"""The doctor's checks before anything is compiled: on a sample, and what stops is raised.

JAX does not complain about a class id out of range: one-hot gives zeros and indexing clamps, so a
bad mask would train into a bad model without a word.
"""

from collections.abc import Callable, Collection, Mapping

from segjax.data.counts import SplitCounts
from segjax.data.doctor.sample_rules import lost_foreground, mixed_foreground, shallow
from segjax.data.doctor.split import Split, look_at
from segjax.data.doctor.split_rules import too_few_images
from segjax.data.errors import DataError, joined
from segjax.data.parallel import TIMEOUT_S
from segjax.data.source import Source, files_of

# Samples of a split that are decoded before training: enough files to find what is wrong with
# many; scenes that a program draws are all alike. Of so many the pixels are noted too, and after so
# long the check ends.
_QUICK_FILES, _QUICK_DRAWN, _QUICK_PIXELS, _QUICK_SECONDS = 1000, 4, 32, 30.0


def check_source(
    source: Source,
    split: str,
    *,
    min_images: int = 1,
    limit: int | None = None,
    skip_unreadable: bool = False,
    timeout_s: float = TIMEOUT_S,
    progress: Callable[[int, int], None] | None = None,
) -> SplitCounts:
    """Decodes samples in threads, and counts their pixels or reports what is wrong.

    Args:
      source: the split.
      split: its name in messages.
      min_images: the fewest samples that a split needs: the training batch size.
      limit: check this many samples, evenly spaced, instead of all.
      skip_unreadable: leaves out samples that the source cannot read, as long as it can read one.
      timeout_s: the longest wait for a sample.
      progress: called after each sample with (samples done, samples to do).

    Raises:
      TimeoutError: naming the files of a sample that is not read in time.
      DataError: if the split has fewer than `min_images` samples; one error for all bad samples
        (unreadable, sizes that differ, colour masks, bad ids), the first 10 of them named; if
        16-bit images hold few levels, see `depth.shallow_split`; or if masks of 0 and 255 lose
        their foreground, see `sample_rules.lost_foreground` and `mixed_foreground`.
    """
    if len(source) < max(1, min_images):
        raise too_few_images(split, len(source), min_images)
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit} samples to check", "use 1 or more, or None for all")
    looked = look_at(source, split, limit=limit, thorough=0, timeout_s=timeout_s, progress=progress)
    _raise_problems(looked, skip_unreadable)
    return looked.usable_counts


def quick_check(
    sources: Mapping[str, Source],
    *,
    min_images: Mapping[str, int] | None = None,
    skip_unreadable: Collection[str] = (),
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Split]:
    """Looks at up to 1000 files of each split for up to 30 s, or at 4 samples of one without files.

    Args:
      sources: by split.
      min_images: the fewest samples that a split needs; 1 for a split that is not in it.
      skip_unreadable: the splits whose unreadable samples are left out.
      timeout_s: the longest wait for a sample.

    Returns:
      What was seen of each split, for the rules of the doctor (`diagnose.findings_of`).

    Raises:
      TimeoutError: naming the files of a sample that is not read in time.
      DataError: as `check_source`, one error for all splits.
    """
    looked, problems = {}, []
    for split, source in sources.items():
        needed = (min_images or {}).get(split, 1)
        try:
            if len(source) < max(1, needed):
                raise too_few_images(split, len(source), needed)
            looked[split] = look_at(
                source,
                split,
                limit=_QUICK_FILES if files_of(source) else _QUICK_DRAWN,
                thorough=_QUICK_PIXELS,
                seconds=_QUICK_SECONDS,
                timeout_s=timeout_s,
            )
            _raise_problems(looked[split], split in skip_unreadable)
        except DataError as error:
            problems.append(error)
    if problems:
        raise joined(problems)
    return looked


def _raise_problems(split: Split, skip_unreadable: bool) -> None:
    """Raises one DataError for all samples that cannot be used, or whose foreground is ignored."""
    bad = [sample.problems[0] for sample in split.facts if sample.problems]
    files, heading = files_of(split.source), f"of {len(split.facts)} samples are bad:"
    may_skip = [files is not None or problem.code == "unreadable" for problem in bad]
    if skip_unreadable and all(may_skip) and len(bad) < len(split.facts):
        bad = []
    if bad:
        heading = f"data split {split.name!r}: {len(bad)} {heading}"
        raise joined([problem.error for problem in bad], heading)
    few_levels, _ = shallow(split)
    if few_levels:
        raise few_levels
    lost = lost_foreground(split) or mixed_foreground(split)
    if lost:
        raise lost
