"""Modes that look at the data alone: doctor, prepare, benchmark."""

import os
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from segjax.command_line import parse_size
from segjax.data import prepare as preparation
from segjax.data import throughput
from segjax.data.datasets import class_table, make_source, spec_of, used_splits
from segjax.data.doctor import STOPS, Diagnosis, diagnose_config
from segjax.data.manifest import Manifest
from segjax.data.pipeline import Canvas
from segjax.data.sets.idd import write_masks
from segjax.modes.progress import progress_bar
from segjax.reporting import doctor_report

# --format of --mode=prepare, and what prepare calls it.
_ENCODINGS = {"decoded": "raw", "encoded": "png"}


def doctor(
    config: Mapping[str, Any],
    workdir: str | pathlib.Path,
    splits: Sequence[str] = (),
    console: Console | None = None,
) -> Diagnosis:
    """Decodes the data as the config sees it; prints what is wrong, writes doctor.html and .json.

    Args:
      config: see configs/base.py.
      workdir: made if it does not exist.
      splits: those that the config trains and evaluates on by default.

    Raises:
      ValueError: if a finding stops training, after all of them are printed and written.
    """
    console, workdir = console or Console(), pathlib.Path(workdir)
    with progress_bar(console, "reading") as progress:
        diagnosis = diagnose_config(config, splits, progress=progress)
    workdir.mkdir(parents=True, exist_ok=True)
    doctor_report.print_findings(diagnosis, console)
    page = doctor_report.write_report(diagnosis, workdir)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)
    worst = diagnosis.of(STOPS)
    if worst:
        raise ValueError(f"{len(worst)} finding(s) stop training; see above, or {page}")
    return diagnosis


def prepare(
    config: Mapping[str, Any],
    output: str | pathlib.Path | None = None,
    splits: Sequence[str] = (),
    format: str | None = None,
    size: str | None = None,
    console: Console | None = None,
) -> Manifest | int:
    """Writes the config's data set as ArrayRecord, for `data.name=prepared`.

    The same command goes on with what a killed one left.

    Args:
      config: see configs/base.py; `data.workers` processes write (0 = one per core).
      output: a folder; data/prepared by default. The files go to OUTPUT/NAME/1.0.0.
      splits: those that the config trains and evaluates on by default.
      format: "decoded" (default, fast to read), "encoded" (PNG), or "masks": for IDD, mask PNGs
        beside the polygons in `data.root` and nothing else.
      size: "HEIGHTxWIDTH" to fit images to; each image's own by default.

    Returns:
      The manifest; for masks, the number that was written.

    Raises:
      ValueError: for an option that will not do, or a bad sample.
    """
    console, data = console or Console(), config["data"]
    workers = data["workers"] or os.cpu_count() or 1
    splits = splits or used_splits(data, config["seed"])
    if format == "masks":
        return _prepare_masks(data, splits, workers, console)
    encoding = _ENCODINGS.get(format or "decoded")
    if encoding is None:
        raise ValueError(f"--format={format}; prepare has {', '.join(_ENCODINGS)}, masks (IDD)")
    sources = {split: make_source(data, split, config["seed"]) for split in splits}
    spec = spec_of(data)
    with progress_bar(console, "preparing") as progress:
        manifest = preparation.prepare(
            sources,
            output or "data/prepared",
            name=_plain_name(data),
            classes=class_table(data),
            size=parse_size(size, "size"),
            encoding=encoding,
            workers=workers,
            title=spec.title,
            licence=spec.licence,
            url=spec.url,
            command=" ".join(["python", *sys.argv]),
            progress=progress,
        )
    counts = ", ".join(f"{split.samples} {name}" for name, split in manifest.splits.items())
    console.print(
        f"{manifest.folder}: {counts}\ntrain on it with --config.data.name=prepared "
        f"--config.data.root={manifest.folder}",
        highlight=False,
        soft_wrap=True,
    )
    return manifest


def _prepare_masks(data: Mapping[str, Any], splits, workers: int, console: Console) -> int:
    if data["name"] != "idd":
        raise ValueError(f"--format=masks is for data.name=idd, not {data['name']}; leave it out")
    with progress_bar(console, "drawing") as progress:
        variant = data["variant"] or spec_of(data).variants[0]
        written = write_masks(data["root"], splits, variant, workers=workers, progress=progress)
    console.print(f"{written} masks written into {data['root']}/gtFine", highlight=False)
    return written


def _plain_name(data: Mapping[str, Any]) -> str:
    """camvid_original for camvid's variant; of tfds:NAME the NAME."""
    name = "_".join([data["name"].removeprefix("tfds:"), *filter(None, [data["variant"]])])
    return re.sub(r"\W", "_", name.lower())


def benchmark_data(
    config: Mapping[str, Any], seconds: float = 5.0, console: Console | None = None
) -> list[throughput.Rate]:
    """Prints how many training images a second the host makes ready, by worker processes, and what
    torch's DataLoader does on the same files, if torch is installed.

    Args:
      config: see configs/base.py; nothing is kept decoded, whatever `data.cache_mb` says.
      seconds: to measure each.
    """
    console, data = console or Console(), config["data"]
    source = make_source(data, data["train_split"], config["seed"])
    canvas = Canvas(source, tuple(data["image_size"]))
    batch_size = config["train"]["batch_size"]
    if batch_size > len(source):
        raise ValueError(
            f"train.batch_size={batch_size}, but the split has {len(source)} images; use fewer"
        )
    workers = sorted({0, 1, 2, os.cpu_count() or 1})
    rates = throughput.measure(canvas, batch_size, workers=workers, seconds=seconds)
    height, width = data["image_size"]
    table = Table(
        title=f"{data['name']}: {len(source)} images at {height}x{width}, batch {batch_size}, "
        f"{os.cpu_count()} cores"
    )
    for column in ("loader", "worker processes", "images/s"):
        table.add_column(column, justify="left" if column == "loader" else "right")
    for rate in rates:
        workers = "-" if rate.skipped else str(rate.workers)
        table.add_row(rate.loader, workers, rate.skipped or f"{rate.images_per_second:.0f}")
    console.print(table)
    return rates
