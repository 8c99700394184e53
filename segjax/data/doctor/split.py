"""A split as the doctor sees it: samples that were looked at, their facts and their sums."""

import contextlib
import dataclasses
import functools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from segjax.data.classes import ClassTable
from segjax.data.counts import SplitCounts, split_counts
from segjax.data.doctor import findings
from segjax.data.doctor.findings import Finding, SplitNumbers
from segjax.data.doctor.samples import SampleFacts, examine
from segjax.data.parallel import TIMEOUT_S, in_threads
from segjax.data.source import Source, file_names

_ENOUGH = 100  # samples that speak for a split; fewer only if they are all of it


@dataclasses.dataclass(frozen=True)
class Split:
    """A split's name, source, the facts of samples, by index, and their sums."""

    name: str
    source: Source
    facts: Sequence[SampleFacts]
    numbers: SplitNumbers

    @property
    def classes(self) -> ClassTable:
        return self.source.classes

    @property
    def complete(self) -> bool:
        """Whether all samples were looked at."""
        return len(self.facts) == self.numbers.images

    @property
    def decisive(self) -> bool:
        """Whether what no sample shows may be said of the split."""
        return bool(self.facts) and (self.complete or len(self.facts) >= _ENOUGH)

    @property
    def looked_at(self) -> str:
        """What follows "3 of 1000 images" or "never occurs" where it is said of a sample."""
        return "" if self.complete else f" in {len(self.facts)} of {self.numbers.images} samples"

    @functools.cached_property
    def usable_counts(self) -> SplitCounts:
        """The pixels of the samples without a problem."""
        labels = [s.counts for s in self.facts if s.counts is not None and not s.problems]
        return split_counts(labels, self.numbers.images, len(self.classes))

    def finding(
        self, code: str, severity: str, title: str, found: Iterable[str], remedy: str, **more: Any
    ) -> Finding:
        """A finding about this split."""
        title = f"{self.name}: {title}"
        return Finding(code, severity, title, tuple(found), remedy, self.name, **more)

    def finding_of_files(
        self,
        code: str,
        severity: str,
        title: str,
        lines: Mapping[int, str],
        remedy: str,
        files: Sequence[str] = (),
    ) -> Finding:
        """A finding about samples, by place in `facts` with a line about each.

        `title` follows "3 of 7". `files` are those of the samples, () = their masks.
        """
        return self.finding(
            code,
            severity,
            f"{len(lines)} of {len(self.facts)} {title}",
            findings.first_lines(list(lines.values())),
            remedy,
            files=tuple(files or (self.facts[i].mask for i in lines)),
            samples=self.places(lines),
        )

    def places(self, chosen: Iterable[int]) -> tuple[tuple[str, int], ...]:
        """(split, index) of samples at places in `facts`, for pictures of the first of them."""
        return tuple((self.name, self.facts[i].index) for i in list(chosen)[: findings.PICTURED])


def look_at(
    source: Source,
    name: str,
    *,
    limit: int | None = None,
    thorough: int | None = None,
    seconds: float = math.inf,
    workers: int = 0,
    timeout_s: float = TIMEOUT_S,
    progress: Callable[[int, int], None] | None = None,
) -> Split:
    """Decodes samples in threads and notes their facts.

    Args:
      source: the split.
      name: its name.
      limit: look at this many samples, evenly spaced, instead of all.
      thorough: of these, note the pixels of so many alone, see `samples.examine`; None = all.
      seconds: the time after which no more samples are begun.
      workers: threads; 0 = one per core, 8 at most.
      timeout_s: the longest wait for a sample.
      progress: called after each sample with (samples done, samples to do).

    Raises:
      TimeoutError: naming the files of a sample, if it is not read within `timeout_s`.
    """
    indices = _spaced(range(len(source)), limit)
    fully = set(_spaced(indices, thorough))
    if seconds < math.inf:  # those seen before the end are spread over the split
        shuffled = np.random.default_rng(0).permutation(indices).tolist()
        indices = sorted(shuffled, key=lambda index: index not in fully)
    end, facts = time.perf_counter() + seconds, []

    def look(index: int) -> SampleFacts:
        return examine(source, index, thorough=index in fully)

    def reading(index: int) -> str:
        return " with ".join(file_names(source, index))

    looks = in_threads(look, indices, workers, reading=reading, timeout_s=timeout_s)
    with contextlib.closing(looks) as samples:
        for done, sample in enumerate(samples, 1):
            facts.append(sample)
            if progress is not None:
                progress(done, len(indices))
            if time.perf_counter() > end:
                break
    facts.sort(key=lambda sample: sample.index)
    return Split(name, source, facts, numbers_of(facts, len(source), len(source.classes)))


def _spaced(indices: Sequence[int], count: int | None) -> list[int]:
    """`count` of the indices, evenly spaced; all for None."""
    if count is None or count >= len(indices):
        return list(indices)
    places = np.unique(np.linspace(0, len(indices) - 1, count).round().astype(int))
    return [indices[place] for place in places.tolist()]


def numbers_of(facts: Sequence[SampleFacts], images: int, num_classes: int) -> SplitNumbers:
    """The sums over samples of a split that has `images` of them."""
    labels = [sample.counts for sample in facts if sample.counts is not None]
    counts = split_counts(labels, images, num_classes)
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
