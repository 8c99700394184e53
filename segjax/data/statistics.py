"""Class frequencies of a split, counted once, and the state of its files."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from segjax.data.checks import check_source
from segjax.data.files.atomic import replacing
from segjax.data.files.json_file import need_form, parse_json
from segjax.data.files.regular import read_bytes
from segjax.data.parallel import TIMEOUT_S
from segjax.data.source import Source

_CACHE = {"fingerprint": str, "statistics": dict}
_STATISTICS = {
    "images": int,
    "class_pixels": [int],
    "present_pixels": [int],
    "ignored_pixels": int,
    "sizes": [[int]],
}
_VERSION = 1  # raise it when the meaning of a cached count changes


def class_statistics(
    source: Source,
    cache_file: str | os.PathLike | None = None,
    *,
    skip_unreadable: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """Pixel counts of a whole source, cached in `cache_file` (JSON) until the data change, as
    `fingerprint_of` tells; without a fingerprint they are counted anew.

    Returns:
      {"images": int, "class_pixels": int64 [K], "present_pixels": int64 [K], "ignored_pixels":
      int, "sizes": sorted list of (height, width)}; the counts are those of `SplitCounts`.

    Raises:
      DataError: for bad samples, as `check_source` does; with `skip_unreadable` those that cannot
        be read are left out.
    """

    def count() -> dict:
        split = getattr(source, "split", type(source).__name__)
        counts = check_source(source, split, skip_unreadable=skip_unreadable, timeout_s=timeout_s)
        return {
            "images": counts.images,
            "class_pixels": counts.class_pixels.tolist(),
            "present_pixels": counts.present_pixels.tolist(),
            "ignored_pixels": counts.ignored_pixels,
            "sizes": sorted(counts.sizes),
        }

    def check(values: Any) -> None:
        need_form(values, _STATISTICS, "it")
        lengths = {len(values[name]) for name in ("class_pixels", "present_pixels")}
        if lengths != {len(source.classes)} or {*map(len, values["sizes"])} - {2}:
            raise ValueError("it has another number of classes")

    statistics = cached_count(source, cache_file, count, check)
    pixels = {k: np.array(statistics[k], np.int64) for k in ("class_pixels", "present_pixels")}
    return {**statistics, **pixels, "sizes": [tuple(size) for size in statistics["sizes"]]}


def cached_count(
    source: Source,
    cache_file: str | os.PathLike | None,
    count: Callable[[], dict],
    check: Callable[[Any], None],
) -> dict:
    """The JSON values that `count()` gives for a source, cached as in `class_statistics`; `check`
    raises ValueError for others, which are counted again."""
    fingerprint = fingerprint_of(source)
    if cache_file is None or fingerprint is None:
        return count()
    cache = pathlib.Path(cache_file)
    try:
        content = parse_json(read_bytes(cache))
        need_form(content, _CACHE, "it")
        if content["fingerprint"] == fingerprint:
            check(content["statistics"])
            return content["statistics"]
    except (OSError, ValueError):
        pass  # absent or damaged: count again
    statistics = count()
    cache.parent.mkdir(parents=True, exist_ok=True)
    with replacing(cache) as partial:
        partial.write_text(json.dumps({"fingerprint": fingerprint, "statistics": statistics}))
    return statistics


def fingerprint_of(source: Source, *, times: bool = True) -> str | None:
    """SHA-256 (hex) that tells two states of a split apart without reading its files.

    It is over the classes, the ignored ids, the length, and each file's name, last two folders,
    size and, with `times`, time of change, which a copy does not keep; for a source without files,
    its `repr`. None if a file is missing, or for a source with neither files nor its own `repr`.
    """
    paths = [*getattr(source, "image_paths", ()), *getattr(source, "mask_paths", ())]
    paths += [path for masks in getattr(source, "more_masks", ()) for path in masks]
    if not paths and type(source).__repr__ is object.__repr__:
        return None
    id_map = getattr(source, "id_map", None)
    options = getattr(getattr(source, "read_ids", None), "keywords", {})  # such as mask colours
    ids = [sorted(id_map.labels.items()) if id_map else [], sorted(options.items())]
    facts = [_VERSION, source.classes.names, ids, *([] if paths else [repr(source)]), len(source)]
    for path in map(pathlib.Path, paths):
        if not path.is_file():
            return None  # the count itself reports the missing file
        stat = path.stat()
        facts.append((*path.parts[-3:], stat.st_size, *([stat.st_mtime_ns] if times else [])))
    return hashlib.sha256(repr(facts).encode()).hexdigest()
