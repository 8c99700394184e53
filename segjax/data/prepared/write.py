"""A data set written as ArrayRecord shards that need no decoding.

`data.name=prepared` reads them, and `--mode=doctor` compares their checksums. TFDS opens them too:
`tfds.builder_from_directory(folder).as_data_source(split)`.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import multiprocessing
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from segjax.data.classes import ClassTable
from segjax.data.errors import DataError
from segjax.data.prepared import manifest as manifests
from segjax.data.prepared.array_records import (
    features,
    fitted_sample,
    record,
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
    title: str = "",
    licence: str = "",
    url: str = "",
    command: str = "",
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
      encoding: "raw" (fast to read) or "png" (smaller).
      workers: processes that write a shard each; 0 = this one.
      shard_mb: the approximate size of a shard, in 10**6 bytes.
      title, licence, url: of the original data; kept with the shards.
      command: continues this preparation; for the error when an unfinished one is opened.
      progress: called with (samples written, samples to write), after each shard.

    Returns:
      The manifest, which is in the folder too.

    Raises:
      DataError: for an invalid option or a bad sample, or if the folder holds other data.
    """
    _check(sources, name, version, size, workers, shard_mb)
    samples = {
        split: fitted_sample(source, 0, len(classes), size) for split, source in sources.items()
    }
    channels = next(iter(samples.values()))["image"].shape[2]
    described = features(encoding, channels)
    folder = pathlib.Path(output) / name / version
    planned = Manifest(
        folder=folder,
        name=name,
        version=version,
        title=title,
        licence=licence,
        url=url,
        classes=classes,
        encoding=encoding,
        channels=channels,
        size=size and tuple(size),
        command=command,
        finished=False,
        splits={
            split: _plan(
                f"{name}-{split}",
                source,
                len(record(samples[split], described, encoding)),
                shard_mb,
            )
            for split, source in sources.items()
        },
    )
    manifest = _begin(planned)
    tasks = _tasks(manifest, sources)
    total = sum(split.samples for split in manifest.splits.values())
    done = total - sum(manifest.splits[split].shards[i].samples for split, i in tasks)
    if tasks:
        manifest = dataclasses.replace(manifest, finished=False)
        manifest.save()
    for (split, index), shard in _run(tasks, workers):
        manifest = manifest.with_shard(split, index, shard)
        manifest.save()
        done += shard.samples
        if progress is not None:
            progress(done, total)
    if not manifest.finished:
        for stale in folder.glob("*.part"):  # of runs that were killed
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
    return Split(
        source=fingerprint_of(source) or type(source).__name__,
        shards=tuple(
            Shard(
                file=f"{prefix}.array_record-{i:05d}-of-{count:05d}",
                samples=total * (i + 1) // count - total * i // count,
            )
            for i in range(count)
        ),
    )


def _tasks(manifest: Manifest, sources: Mapping[str, Source]) -> dict[tuple[str, int], Callable]:
    """The calls that write the missing shards, by split and place in it."""
    tasks = {}
    for split, planned in manifest.splits.items():
        starts = itertools.accumulate((shard.samples for shard in planned.shards), initial=0)
        for index, (first, shard) in enumerate(zip(starts, planned.shards, strict=False)):
            if not manifest.done(shard):
                tasks[split, index] = functools.partial(
                    write_shard,
                    sources[split],
                    first,
                    shard,
                    manifest.folder,
                    num_classes=len(manifest.classes),
                    encoding=manifest.encoding,
                    channels=manifest.channels,
                    size=manifest.size,
                )
    return tasks


def _begin(planned: Manifest) -> Manifest:
    """The manifest to continue: an earlier run's, if it is of the same data and options."""
    folder = planned.folder
    if not (folder / manifests.FILE).is_file():
        others = list(folder.iterdir()) if folder.is_dir() else []
        if others:
            raise DataError(
                f"{folder} holds other files ({manifests.some([p.name for p in others])})",
                "use another output, name or version",
            )
        folder.mkdir(parents=True, exist_ok=True)
        planned.save()
        return planned
    existing = manifests.load(folder)
    changed = manifests.differences(planned, existing)
    if changed:
        raise DataError(
            f"{folder} holds a preparation of other data or with other options (they differ in: "
            f"{', '.join(changed)})",
            "use another version or output, or delete that folder",
        )
    return existing


def _run(tasks: Mapping[Any, Callable], workers: int) -> Iterator[tuple[Any, Any]]:
    """(key, result) of each task as it ends; waiting tasks are cancelled if one fails."""
    if not workers or not tasks:
        for key, task in tasks.items():
            yield key, task()
        return
    spawn = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(tasks)), spawn) as pool:
        try:
            keys = {pool.submit(task): key for key, task in tasks.items()}
            for future in concurrent.futures.as_completed(keys):
                yield keys[future], future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process died, most often for lack of memory; complete shards are kept: "
                "run the same command again, with fewer workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
