"""The doctor's report: findings on the terminal, doctor.html and doctor.json in the workdir."""

import base64
import io
import json
import os
import pathlib
from html import escape

from rich.console import Console
from rich.text import Text

from segjax.data.doctor import SEVERITIES, Diagnosis, Finding, paste_lines
from segjax.report import doctor_pictures as pictures
from segjax.report import page, tables

JSON_FILE, HTML_FILE = "doctor.json", "doctor.html"
_COLOURS = dict(zip(SEVERITIES, ("bold red", "yellow", "cyan"), strict=True))
_LISTED_FILES, _PICTURED, _SIZES = 200, 4, 8
_PICTURE_BYTES = 1_200_000  # of all pictures; as text they take a third more
_STYLE = """
.finding { border-left:4px solid var(--line); background:var(--card); padding:.6rem 1rem;
  margin:0 0 1rem; border-radius:0 8px 8px 0; break-inside:avoid }
.finding h3 { margin:.1rem 0 .4rem } .finding ul { margin:.3rem 0; padding-left:1.1rem }
.finding li, .finding details { font-size:.9rem; overflow-wrap:anywhere }
.chip { font-size:.75rem; font-weight:600; text-transform:uppercase; letter-spacing:.04em }
.error { border-color:#d1242f } .error .chip { color:#d1242f }
.warning { border-color:#d9730d } .warning .chip { color:#d9730d }
.info { border-color:#2563a8 } .info .chip { color:var(--accent) }
.sheet { display:flex; flex-wrap:wrap; gap:.8rem; margin:.6rem 0 }
.sheet figure { margin:0; max-width:100% } .sheet img { height:9.5rem; width:auto }
pre { overflow-x:auto; background:var(--card); border:1px solid var(--line); border-radius:8px;
  padding:.6rem .8rem; font:.82rem/1.5 ui-monospace,Menlo,Consolas,monospace }
"""


def print_findings(diagnosis: Diagnosis, console: Console | None = None) -> None:
    """Prints the findings, the worst first: title, what was found, remedy."""
    console = console or Console()
    for finding in diagnosis.findings:
        line = Text(f"{finding.severity}: ", style=_COLOURS[finding.severity])
        console.print(line.append(finding.title, style="bold"), soft_wrap=True)
        for found in finding.found:
            console.print(Text(f"  {found}"), soft_wrap=True)
        console.print(Text(f"  -> {finding.remedy}", style="green"), soft_wrap=True)
    images = ", ".join(f"{n.images} {split}" for split, n in diagnosis.splits.items())
    console.print(Text(f"{summary(diagnosis)} in {images} images of {diagnosis.title}"))


def summary(diagnosis: Diagnosis) -> str:
    """How many findings there are of each severity, in words."""
    counts = [(len(diagnosis.of(severity)), severity) for severity in SEVERITIES]
    words = ", ".join(f"{count} {severity}" for count, severity in counts if count)
    total = len(diagnosis.findings)
    return f"{total} finding{'s' * (total != 1)} ({words})" if total else "nothing found"


def write_report(diagnosis: Diagnosis, workdir: str | os.PathLike) -> pathlib.Path:
    """Writes doctor.json and doctor.html, one file with all its pictures, into the workdir.

    Args:
      diagnosis: whose sources are read again for the pictures.
      workdir: made if it does not exist.

    Returns:
      The path of doctor.html.
    """
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(diagnosis.to_json(), indent=2, allow_nan=False) + "\n"
    (workdir / JSON_FILE).write_text(text, encoding="utf-8")
    path = workdir / HTML_FILE
    title = f"Data doctor: {diagnosis.title}"
    page.write_page(path, title, _sections(diagnosis), _tiles(diagnosis), _STYLE)
    return path


def _sections(diagnosis: Diagnosis) -> dict[str, str]:
    budget = [_PICTURE_BYTES]
    sheet = _contact_sheet(diagnosis, budget)  # before the findings' pictures: always there
    return {
        "Findings": _findings(diagnosis, budget),
        "Splits": _splits(diagnosis),
        "Classes": _classes(diagnosis),
        "Sizes": _sizes(diagnosis),
        "Options to paste": _options(diagnosis),
        "Samples": sheet,
    }


def _tiles(diagnosis: Diagnosis) -> str:
    images = sum(numbers.images for numbers in diagnosis.splits.values())
    rows = [(severity, str(len(diagnosis.of(severity))), "") for severity in SEVERITIES]
    rows += [("images", f"{images:,}", ""), ("classes", str(len(diagnosis.classes)), "")]
    return page.tiles([*rows, ("time", tables.format_duration(diagnosis.seconds), "")])


def _findings(diagnosis: Diagnosis, budget: list[int]) -> str:
    if not diagnosis.findings:
        return "<p>Nothing found.</p>"
    return "".join(_finding(finding, diagnosis, budget) for finding in diagnosis.findings)


def _finding(finding: Finding, diagnosis: Diagnosis, budget: list[int]) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in finding.found)
    files = folded = ""
    if len(finding.files) > len(finding.found):
        shown = finding.files[:_LISTED_FILES]
        files = "".join(f"<li>{escape(file)}</li>" for file in shown)
        rest = len(finding.files) - len(shown)
        files += f"<li>and {rest} more, in {JSON_FILE}</li>" if rest else ""
        summary_line = f"<summary>all {len(finding.files)} files</summary>"
        folded = f"<details>{summary_line}<ul>{files}</ul></details>"
    figures = []
    for split, index in finding.samples[:_PICTURED]:
        enlarged = finding.code == "interpolated-mask"
        picture = pictures.side_by_side(
            diagnosis.sources[split], index, diagnosis.classes, enlarged=enlarged
        )
        if picture is not None:
            name = pictures.name_of(diagnosis.sources[split], index)
            figures.append(_figure(f"{split}: {name}", picture, budget))
    return (
        f'<div class="finding {finding.severity}"><span class="chip">'
        f"{finding.severity}</span><h3>{escape(finding.title)}</h3><ul>{lines}</ul>"
        f"<p><b>Remedy:</b> {escape(finding.remedy)}</p>{folded}"
        f'{_sheet(figures)}<p class="quiet">{finding.code}</p></div>'
    )


def _figure(caption: str, picture, budget: list[int]) -> str:
    """An embedded picture; "" once the pictures of the page are enough."""
    data = pictures.as_jpeg(picture)
    if len(data) > budget[0]:
        return ""
    budget[0] -= len(data)
    source = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    caption = escape(caption)
    return (
        f'<figure><img src="{source}" alt="image and mask of {caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _sheet(figures: list[str]) -> str:
    body = "".join(figures)
    return f'<div class="sheet">{body}</div>' if body else ""


def _splits(diagnosis: Diagnosis) -> str:
    rows = [
        (
            split,
            f"{n.images:,}",
            f"{n.usable:,}",
            f"{int((n.class_pixels > 0).sum())} of {len(diagnosis.classes)}",
            _percent(n.void_share),
            f"{n.void_images:,}",
            f"{n.unknown_pixels:,}",
            _listed(n.mean),
            _listed(n.std),
        )
        for split, n in diagnosis.splits.items()
    ]
    header = ("split", "images", "usable", "classes", "ignored", "all ignored", "unknown ids")
    header += ("mean", "standard deviation")
    note = "Mean and standard deviation: of the pixels of all images, in [0, 1], per channel."
    return f'{page.table(header, rows)}<p class="quiet">{note}</p>'


def _percent(share: float) -> str:
    return tables.ABSENT if share != share else f"{100 * share:.2f} %"


def _listed(values) -> str:
    return ", ".join(tables.ABSENT if v != v else f"{v:.3f}" for v in values)


def _classes(diagnosis: Diagnosis) -> str:
    buffer = io.BytesIO()
    pictures.plot_classes(diagnosis, buffer)
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    plot = f'<img class="plot" src="{source}" alt="Share of the pixels of each class, by split">'
    header, columns = ["class"], [diagnosis.classes.names]
    for split, numbers in diagnosis.splits.items():
        header += [f"{split}: pixels", "images"]
        columns.append(pictures.shares(numbers.class_pixels.tolist()))
        columns.append([f"{n:,}" for n in numbers.class_images.tolist()])
    table = page.table(header, zip(*columns, strict=True))
    return f'<div class="scroll">{plot}</div><h3>In numbers</h3>{table}'


def _sizes(diagnosis: Diagnosis) -> str:
    rows = []
    for split, numbers in diagnosis.splits.items():
        ordered = sorted(numbers.sizes.items(), key=lambda item: -item[1])
        rows += [(split, f"{h} x {w}", f"{n:,}") for (h, w), n in ordered[:_SIZES]]
        rest = len(ordered) - _SIZES
        if rest > 0:
            others = sum(n for _, n in ordered[_SIZES:])
            rows.append((split, f"{rest} other sizes", f"{others:,}"))
    return page.table(("split", "height x width", "images"), rows) if rows else ""


def _options(diagnosis: Diagnosis) -> str:
    return "".join(
        f"<h3>{escape(name)}</h3><pre>{escape(line)}</pre>"
        for name, line in paste_lines(diagnosis).items()
    )


def _contact_sheet(diagnosis: Diagnosis, budget: list[int]) -> str:
    classes, body = diagnosis.classes, ""
    entries = [*zip(classes.names, classes.palette, strict=True), ("no class", pictures.NO_CLASS)]
    legend = "".join(page.swatch(name, color) for name, color in entries)
    for split, samples in pictures.contact_sheet(diagnosis.sources, classes).items():
        figures = [_figure(name, picture, budget) for name, picture in samples]
        body += f"<h3>{escape(split)}</h3>{_sheet(figures)}"
    return f'<div class="legend">{legend}</div>{body}' if body else ""
