"""The doctor's report: findings on the terminal, doctor.html and doctor.json in the workdir."""

import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from rich.text import Text

from segjax.console import Console
from segjax.data.doctor import SEVERITIES, Diagnosis, Finding, paste_lines
from segjax.report import figures
from segjax.report.doctor_samples import NO_CLASS, name_of, side_by_side
from segjax.report.numbers import ABSENT, evenly_spaced
from segjax.report.page import write_page, write_text
from segjax.report.pictures import Picture, jpeg_uri
from segjax.training.progress import duration, print_line

JSON_FILE, HTML_FILE = "doctor.json", "doctor.html"
_COLOURS: dict[str, str] = dict(zip(SEVERITIES, ("bold red", "yellow", "cyan"), strict=True))
_LISTED_FILES, _PICTURED, _SIZES = 200, 4, 8
Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # header and rows
_PICTURE_BYTES = 1_600_000  # of all pictures, as text


def print_findings(diagnosis: Diagnosis, console: Console | None = None) -> None:
    """Prints the findings, the worst first: title, evidence, remedy."""
    console = console or Console()
    for finding in diagnosis.findings:
        line = Text(f"{finding.severity}: ", style=_COLOURS[finding.severity])
        print_line(console, line.append(finding.title, style="bold"))
        for evidence in finding.found:
            print_line(console, f"  {evidence}")
        print_line(console, Text(f"  -> {finding.remedy}", style="green"))
    images = ", ".join(f"{n.images} {split}" for split, n in diagnosis.splits.items())
    console.print(Text(f"{summary(diagnosis)} in {images} images of {diagnosis.title}"))


def summary(diagnosis: Diagnosis) -> str:
    """The number of findings of each severity as text."""
    counts = [(len(diagnosis.of(severity)), severity) for severity in SEVERITIES]
    words = ", ".join(f"{count} {severity}" for count, severity in counts if count)
    total = len(diagnosis.findings)
    return f"{total} finding{'s' * (total != 1)} ({words})" if total else "nothing found"


def write_report(diagnosis: Diagnosis, workdir: str | os.PathLike) -> pathlib.Path:
    """Writes doctor.json and doctor.html, one file with all its pictures, into the workdir.

    Args:
      diagnosis: its sources are read again for the pictures.
      workdir: made if it does not exist.

    Returns:
      The path of doctor.html.
    """
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(diagnosis.to_json(), indent=2, allow_nan=False) + "\n"
    write_text(workdir / JSON_FILE, text)
    album, classes, splits = _Album(), diagnosis.classes, diagnosis.splits
    # Before the findings' pictures, so that there is room for the samples of every split.
    samples = _samples(diagnosis, album)
    images = sum(numbers.images for numbers in splits.values())
    headlines = [(severity, str(len(diagnosis.of(severity))), "") for severity in SEVERITIES]
    headlines += [("images", f"{images:,}", ""), ("classes", str(len(classes)), "")]
    path = workdir / HTML_FILE
    write_page(
        path,
        "doctor.html.j2",
        title=f"Data doctor: {diagnosis.title}",
        json_file=JSON_FILE,
        headlines=[*headlines, ("time", duration(diagnosis.seconds), "")],
        findings=[_finding(finding, diagnosis, album) for finding in diagnosis.findings],
        splits=_splits(diagnosis),
        class_figure=class_shares(diagnosis),
        class_table=_classes(diagnosis),
        sizes=_sizes(diagnosis),
        options=paste_lines(diagnosis),
        samples=samples,
        colors=[*zip(classes.names, classes.palette, strict=True), ("no class", NO_CLASS)],
    )
    return path


class _Album:
    """Pictures as data URIs, until the page has enough bytes of them."""

    def __init__(self):
        self._left = _PICTURE_BYTES

    def add(self, pictures: Iterable[tuple[str, Picture | None]]) -> list[tuple[str, str]]:
        """(name, URI) of those pictures that exist and find room."""
        entries = []
        for name, picture in pictures:
            uri = jpeg_uri(picture, 640, quality=80) if picture is not None else ""
            if 0 < len(uri) <= self._left:
                self._left -= len(uri)
                entries.append((name, uri))
        return entries


def _finding(
    finding: Finding, diagnosis: Diagnosis, album: _Album
) -> tuple[Finding, int, Sequence[str], list[tuple[str, str]]]:
    """The finding, the rank of its severity, files to list, and pictures."""
    listed = finding.files[:_LISTED_FILES] if len(finding.files) > len(finding.found) else ()
    enlarged = finding.code == "interpolated-mask"
    pictures = []
    for split, index in finding.samples[:_PICTURED]:
        source = diagnosis.sources[split]
        picture = side_by_side(source, index, diagnosis.classes, enlarged=enlarged)
        pictures.append((f"{split}: {name_of(source, index)}", picture))
    return finding, SEVERITIES.index(finding.severity), listed, album.add(pictures)


def _samples(diagnosis: Diagnosis, album: _Album) -> dict[str, list[tuple[str, str]]]:
    """A few evenly spaced samples of each split that has any."""
    sheet = {}
    for split, source in diagnosis.sources.items():
        sheet[split] = album.add(
            (name_of(source, index), side_by_side(source, index, diagnosis.classes))
            for index in evenly_spaced(len(source), _PICTURED)
        )
    return {split: pictures for split, pictures in sheet.items() if pictures}


def class_shares(diagnosis: Diagnosis) -> figures.Panel:
    """Each class's share of the labelled pixels, a bar per split, on a logarithmic scale."""
    values = {
        split: 100 * numbers.class_pixels / max(1, numbers.labelled_pixels)
        for split, numbers in diagnosis.splits.items()
    }
    title = "Share of the labelled pixels (×: none)"
    return figures.bars(title, diagnosis.classes.names, values, logarithmic=True)


def _classes(diagnosis: Diagnosis) -> Table:
    """Header and rows: each class's share and number of images."""
    header, columns = ["class"], [list(diagnosis.classes.names)]
    for split, numbers in diagnosis.splits.items():
        header += [f"{split}: pixels", "images"]
        total = max(1, numbers.labelled_pixels)
        pixels = numbers.class_pixels.tolist()
        columns.append([f"{100 * n / total:.3g} %" if n else ABSENT for n in pixels])
        columns.append([f"{n:,}" for n in numbers.class_images.tolist()])
    return header, list(zip(*columns, strict=True))


def _splits(diagnosis: Diagnosis) -> Table:
    rows = [
        (
            split,
            f"{n.images:,}",
            f"{n.usable:,}",
            f"{int((n.class_pixels > 0).sum())} of {len(diagnosis.classes)}",
            ABSENT if n.void_share != n.void_share else f"{100 * n.void_share:.2f} %",
            f"{n.void_images:,}",
            f"{n.unknown_pixels:,}",
            _listed(n.mean),
            _listed(n.std),
        )
        for split, n in diagnosis.splits.items()
    ]
    header = ("split", "images", "usable", "classes", "ignored", "all ignored", "unknown ids")
    return (*header, "mean", "standard deviation"), rows


def _listed(values: Any) -> str:
    return ", ".join(ABSENT if v != v else f"{v:.3f}" for v in values)


def _sizes(diagnosis: Diagnosis) -> list[tuple[str, ...]]:
    """The most frequent image sizes of each split, and how many images have others."""
    rows = []
    for split, numbers in diagnosis.splits.items():
        ordered = sorted(numbers.sizes.items(), key=lambda item: -item[1])
        rows += [(split, f"{h} x {w}", f"{n:,}") for (h, w), n in ordered[:_SIZES]]
        if rest := ordered[_SIZES:]:
            rows.append((split, f"{len(rest)} other sizes", f"{sum(n for _, n in rest):,}"))
    return rows
