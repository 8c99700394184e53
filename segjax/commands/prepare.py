"""The command prepare: a data set written as ArrayRecord."""

import os
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from segjax.console import Console
from segjax.data.datasets import spec_of
from segjax.data.prepared.manifest import Manifest
from segjax.data.prepared.write import write_prepared
from segjax.data.sets.idd import write_masks
from segjax.data.splits import Splits
from segjax.destinations import check_folder
from segjax.training.progress import print_line, progress_bar

# --format of --mode=prepare -> the encoding of `write_prepared`.
_ENCODINGS = {"decoded": "raw", "encoded": "png", "jpeg": "jpeg"}


def prepare(
    config: Mapping[str, Any],
    output: str | pathlib.Path | None = None,
    splits: Sequence[str] = (),
    format: str | None = None,
    size: tuple[int, int] | str | None = None,
    console: Console | None = None,
) -> Manifest | int:
    """Writes the config's data set as ArrayRecord, for `data.name=prepared`.

    If the command is killed, the same command resumes it.

    Args:
      config: see configs/base.py; `data.workers` processes write (0 = one per core).
      output: a folder; data/prepared by default. The files go to OUTPUT/NAME/1.0.0.
      splits: by default those that the config trains and evaluates on.
      format: "decoded" (default, fast to read), "encoded" (PNG), "jpeg" (images as JPEG, with a
        loss), or "masks": for IDD, mask PNGs beside the polygons in `data.root` and nothing else.
      size: (height, width) to fit images to; each image's own by default.

    Returns:
      The manifest; for masks, the number of files written.

    Raises:
      ValueError: for an unknown format, masks of another data set than IDD, or a bad sample.
    """
    console, data = console or Console(), config["data"]
    workers = data["workers"] or os.cpu_count() or 1
    opened = Splits(data, config["seed"])
    splits = splits or opened.used
    if isinstance(size, str):
        raise ValueError(f"--size={size} with prepare; use HEIGHTxWIDTH, such as 240x480")
    if format == "masks" and (size or output):
        given = f"--size={size[0]}x{size[1]}" if size else f"--output={output}"
        raise ValueError(
            f"{given} with --format=masks, which writes beside the polygons; leave it out"
        )
    if format == "masks":
        return _prepare_masks(data, splits, workers, console)
    encoding = _ENCODINGS.get(format or "decoded")
    if encoding is None:
        raise ValueError(f"--format={format}; prepare has {', '.join(_ENCODINGS)}, masks (IDD)")
    check_folder(output or "data/prepared", "--output")
    sources = {split: opened.source(split) for split in splits}
    for note in opened.notes:
        print_line(console, note)
    spec = spec_of(data)
    with progress_bar(console, "preparing") as progress:
        manifest = write_prepared(
            sources,
            output or "data/prepared",
            name=_plain_name(data),
            classes=opened.classes,
            size=size,
            encoding=encoding,
            workers=workers,
            value_range=opened.image_options.value_range,
            title=spec.title,
            licence=spec.licence,
            url=spec.url,
            command=" ".join(["python", *sys.argv]),
            timeout_s=data["timeout_s"],
            progress=progress,
        )
    counts = ", ".join(f"{split.samples} {name}" for name, split in manifest.splits.items())
    print_line(
        console,
        f"{manifest.folder}: {counts}\ntrain on it with --config.data.name=prepared "
        f"--config.data.root={manifest.folder}",
    )
    return manifest


def _prepare_masks(data: Mapping[str, Any], splits, workers: int, console: Console) -> int:
    if data["name"] != "idd":
        raise ValueError(f"--format=masks is for data.name=idd, not {data['name']}; leave it out")
    with progress_bar(console, "drawing") as progress:
        variant = data["variant"] or spec_of(data).variants[0]
        written = write_masks(data["root"], splits, variant, workers=workers, progress=progress)
    print_line(console, f"{written} masks written into {data['root']}/gtFine")
    return written


def _plain_name(data: Mapping[str, Any]) -> str:
    """The name as a folder: camvid_original for a variant, NAME for tfds:NAME."""
    name = "_".join([data["name"].removeprefix("tfds:"), *filter(None, [data["variant"]])])
    return re.sub(r"\W", "_", name.lower())
