"""A data set written as ArrayRecord shards that need no decoding.

`data.name=prepared` reads them, and `--mode=doctor` compares their checksums. TFDS opens them too:
`tfds.builder_from_directory(folder).as_data_source(split)`.
"""

import dataclasses
import functools
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence

from segjax.data.classes import ClassTable
from segjax.data.errors import DataError
from segjax.data.files.folder_lock import LOCK, FolderLock
from segjax.data.files.images import some
from segjax.data.parallel import TIMEOUT_S, in_processes
from segjax.data.prepared import manifest as manifests
from segjax.data.prepared.array_records import (
    features,
    record,
    timed_sample,
    write_shard,
    write_tfds_metadata,
)
from segjax.data.prepared.manifest import Manifest, Shard, Split
from segjax.data.source import Source
from segjax.data.statistics import fingerprint_of


def write_prepared(
    sources: Mapping[str, Source],
    output: str | os.PathLike,
    *,
    name: str,
    classes: ClassTable,
    version: str = "1.0.0",
    size: tuple[int, ...] | None = None,
    encoding: str = "raw",
    workers: int = 0,
    shard_mb: float = 128,
    value_range: Sequence[tuple[float, float]] = (),
    title: str = "",
    licence: str = "",
    url: str = "",
    command: str = "",
    timeout_s: float = TIMEOUT_S,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Writes sources to `output/name/version/`, or continues an earlier run.

    A shard appears when it is complete; a run that is killed loses the shards that it was writing.
    The files do not depend on `workers`.

    Args:
      sources: by split; they pickle if there are workers.
      output: the folder of prepared data sets.
      name: of the data set, in lower case.
      classes: of all the sources.
      version: three numbers.
      size: (h, w) to fit every sample to, as `fitted.FittedDataset` does; None = as they are.
      encoding: "raw" (fast to read), "png" (smaller) or "jpeg" (smaller still, with a loss).
      workers: processes that write a shard each; 0 = this one.
      shard_mb: the approximate size of a shard, in 10**6 bytes.
      value_range: of the sources' images, kept with the shards, see `folder.open_folder`.
      title, licence, url: of the original data; kept with the shards.
      command: continues this preparation; for the error when an unfinished one is opened.
      timeout_s: the longest wait for a sample.
      progress: called with (samples written, samples to write), after each shard.

    Returns:
      The manifest, which is in the folder too.

    Raises:
      DataError: for an invalid option or a bad sample, or if the folder holds other data.
      ValueError: if another process writes there.
      TimeoutError: for a sample that is not read in time.
      OSError: for a full disk.
      RuntimeError: if a worker process dies.
    """
    _check(sources, name, version, size, workers, shard_mb)
    values = len(classes.values)
    first = {
        split: timed_sample(source, 0, values, size, timeout_s) for split, source in sources.items()
    }
    channels = next(iter(first.values()))["image"].shape[2]
    described = features(encoding, channels)
    sizes = {split: len(record(sample, described, encoding)) for split, sample in first.items()}
    planned = Manifest(
        folder=pathlib.Path(output) / name / version,
        name=name,
        version=version,
        title=title,
        licence=licence,
        url=url,
        classes=classes,
        encoding=encoding,
        channels=channels,
        size=size and tuple(size),
        value_range=tuple(value_range),
        command=command,
        finished=False,
        splits={
            split: _plan(f"{name}-{split}", source, sizes[split], shard_mb)
            for split, source in sources.items()
        },
    )
    with FolderLock(planned.folder, "output", "use another --output"):
        return _write(planned, sources, workers, timeout_s, progress)


def _write(
    planned: Manifest,
    sources: Mapping[str, Source],
    workers: int,
    timeout_s: float,
    progress: Callable[[int, int], None] | None,
) -> Manifest:
    """Writes the shards that are missing."""
    manifest = _begin(planned)
    calls = _missing(manifest, sources, timeout_s)
    total = sum(split.samples for split in manifest.splits.values())
    done = total - sum(manifest.splits[split].shards[i].samples for split, i in calls)
    if calls:
        manifest = dataclasses.replace(manifest, finished=False)
        manifest.save()
    for (split, index), shard in in_processes(calls, workers):
        manifest = manifest.with_shard(split, index, shard)
        manifest.save()
        done += shard.samples
        if progress is not None:
            progress(done, total)
    if not manifest.finished:
        for stale in manifest.folder.glob("*.part"):  # of runs that were killed
            stale.unlink()
        write_tfds_metadata(manifest)
        manifest = dataclasses.replace(manifest, finished=True)
        manifest.save()
    return manifest


def _check(sources, name, version, size, workers, shard_mb) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise DataError(f"name={name!r}", "use lower-case letters, digits and _, a letter first")
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise DataError(f"version={version!r}", "use three numbers such as 1.0.0")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise DataError(f"size={size}", "use (height, width), or None for each sample's own")
    if workers < 0 or shard_mb <= 0:
        raise DataError(f"workers={workers} and shard_mb={shard_mb}", "use 0 or more, and above 0")
    if not sources:
        raise DataError("there are no splits to prepare", "use one source at least")
    for split, source in sources.items():
        if not re.fullmatch(r"\w+", split):
            raise DataError(f"split {split!r}", "use a name of letters, digits and _")
        if not len(source):
            raise DataError(f"split {split!r} is empty", "use a source with samples")


def _plan(prefix: str, source: Source, record_bytes: int, shard_mb: float) -> Split:
    """Shards of about `shard_mb` by the size of the first record; their lengths differ by at most
    one sample."""
    total = len(source)
    count = max(1, min(total, round(total * record_bytes / (shard_mb * 1e6))))
    bounds = itertools.pairwise(total * i // count for i in range(count + 1))
    shards = [
        Shard(f"{prefix}.array_record-{i:05d}-of-{count:05d}", end - start)
        for i, (start, end) in enumerate(bounds)
    ]
    return Split(fingerprint_of(source) or type(source).__name__, tuple(shards))


def _missing(
    manifest: Manifest, sources: Mapping[str, Source], timeout_s: float
) -> dict[tuple[str, int], Callable[[], Shard]]:
    """The calls that write the missing shards, by split and place in it."""
    calls = {}
    for split, planned in manifest.splits.items():
        first = 0
        for index, shard in enumerate(planned.shards):
            if not manifest.done(shard):
                args = sources[split], first, shard, manifest, timeout_s
                calls[split, index] = functools.partial(write_shard, *args)
            first += shard.samples
    return calls


def _begin(planned: Manifest) -> Manifest:
    """The manifest to continue: an earlier run's, if it is of the same data and options."""
    folder = planned.folder
    if (folder / manifests.FILE).is_file():
        existing = manifests.load(folder)
        changed = manifests.differences(planned, existing)
        if changed:
            raise DataError(
                f"{folder} holds a preparation of other data or with other options (they differ "
                f"in: {', '.join(changed)})",
                "use another version or output, or delete that folder",
            )
        return existing
    own = f".{manifests.FILE}."  # the start of its name until it is complete
    others = [p.name for p in folder.iterdir() if p.name != LOCK and not p.name.startswith(own)]
    if others:
        found = f"{folder} holds other files ({some(others)})"
        raise DataError(found, "use another output, name or version")
    planned.save()
    return planned
