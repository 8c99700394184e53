"""The report of a run: one HTML file with everything in it, readable without a network."""

import base64
import io
import json
import os
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from segjax.data.classes import ClassTable
from segjax.reporting import plots, tables

_OPTION = ("name", "value")  # header of the option tables
_LONGEST_SIDE = 720  # pixels of an embedded sample picture: eight samples stay below 5 MB

_STYLE = """
:root { color-scheme: light dark; --page:#fff; --ink:#1f2328; --faint:#636c76; --line:#d8dee4;
  --card:#f6f8fa; --accent:#2563a8 }
@media (prefers-color-scheme: dark) { :root { --page:#0f1318; --ink:#e6e9ed; --faint:#9aa4b0;
  --line:#2d343d; --card:#181e25; --accent:#7db4f0 } }
* { box-sizing:border-box } html { -webkit-text-size-adjust:100% } p { margin:.4rem 0 }
body { margin:0 auto; max-width:70rem; padding:2rem 1.25rem 4rem; background:var(--page);
  color:var(--ink); font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif }
h1 { font-size:1.9rem; line-height:1.2; margin:0; overflow-wrap:anywhere }
h2 { font-size:1.3rem; margin:3rem 0 .9rem; padding-top:1rem; border-top:1px solid var(--line) }
h3 { font-size:1rem; margin:1.6rem 0 .6rem }
a, summary { color:var(--accent); text-decoration:none; cursor:pointer }
nav { display:flex; flex-wrap:wrap; gap:.2rem 1.1rem; margin:.6rem 0 1.4rem; font-size:.9rem }
figcaption b { color:var(--ink) } p.quiet, figcaption { color:var(--faint); font-size:.88rem }
aside { border-left:3px solid var(--accent); background:var(--card); padding:.1rem 1rem;
  margin:1rem 0 }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr)); gap:.75rem }
.tile { background:var(--card); border:1px solid var(--line); border-radius:8px; padding:.7rem }
.tile b { display:block; font-size:1.5rem; line-height:1.25; white-space:nowrap }
.tile span { display:block; color:var(--faint); font-size:.82rem }
.tile:first-child { border-color:var(--accent) } .tile:first-child b { color:var(--accent) }
.scroll { overflow-x:auto; max-width:100% }
table { border-collapse:collapse; font-size:.92rem; font-variant-numeric:tabular-nums }
th, td { text-align:left; padding:.32rem 1.6rem .32rem 0; border-bottom:1px solid var(--line) }
th { color:var(--faint); font-size:.82rem } td:last-child, th:last-child { padding-right:0 }
.n { text-align:right }
.options td { font:.82rem/1.5 ui-monospace,Menlo,Consolas,monospace }
.options td + td { overflow-wrap:anywhere }
.pair { display:grid; grid-template-columns:minmax(0,3fr) minmax(0,2fr); gap:1rem 2rem }
figure { margin:0 0 1.6rem } img { display:block; max-width:100%; height:auto }
img.plot { background:#fff; border-radius:8px; padding:.6rem; border:1px solid var(--line) }
.wide { grid-template-columns:minmax(0,1fr) } .wide img.plot { max-width:none; width:98rem }
.quad { display:grid; grid-template-columns:repeat(4,minmax(0,1fr)); gap:.5rem }
.quad img { width:100%; border-radius:3px } .quad img.small { image-rendering:pixelated }
.quad span { color:var(--faint); font-size:.78rem }
.legend { display:flex; flex-wrap:wrap; gap:.25rem 1.1rem; font-size:.85rem }
i { display:inline-block; width:.95em; height:.95em; border-radius:3px; margin-right:.45em;
  vertical-align:-.1em; border:1px solid #8886 }
.many { columns:2 26rem; column-gap:3rem }
.bar { display:grid; grid-template-columns:11rem 1fr; gap:.8rem; align-items:center;
  break-inside:avoid; padding:.14rem 0; font-size:.88rem; overflow-wrap:anywhere }
.track { display:grid; grid-template-columns:1fr 3.6rem 3rem; gap:.6rem; align-items:center;
  line-height:1.25; font-variant-numeric:tabular-nums; text-align:right }
.track div { background:var(--card); border-radius:3px; height:.8rem }
.track div div { outline:1px solid #8886 } .track + .track div div { opacity:.55 }
.track em { color:var(--faint); font-style:normal; font-size:.75rem; text-align:left }
@media (max-width:640px) { body { padding:1.25rem .9rem 3rem } h1 { font-size:1.5rem }
  .pair { grid-template-columns:minmax(0,1fr) } .pair:not(.wide) img { max-width:none; width:34rem }
  .quad, .tiles { grid-template-columns:repeat(2,minmax(0,1fr)) } th, td { padding-right:.9rem }
  .bar { grid-template-columns:6.5rem 1fr; gap:.5rem } }
@media print { :root { --page:#fff; --ink:#000; --faint:#555; --line:#ccc; --card:#f4f4f4;
  --accent:#1b4f8a } body { max-width:none; padding:0; font-size:10.5pt } nav { display:none }
  * { print-color-adjust:exact; -webkit-print-color-adjust:exact } h2, h3 { break-after:avoid }
  figure, .tile, tr, aside, img { break-inside:avoid } .wide img.plot { width:100% }
  details::details-content { content-visibility:visible } }
"""


def write_report(
    path: str | os.PathLike,
    *,
    title: str,
    config: Mapping,
    config_diff: Mapping,
    environment: Mapping,
    history: Sequence[Mapping],
    results: Mapping[str, Mapping],
    confusion: Mapping[str, np.ndarray],
    classes: ClassTable,
    samples: Mapping[str, Sequence[Mapping]],
    protocol: str,
    seconds: float | None,
    notes: Sequence[str],
) -> None:
    """Writes the report of a run to `path`; its folder is made. A part without data is left out.

    Args:
      path: the file, `report.html`.
      title: heading of the page.
      config: all options, nested or with dotted names.
      config_diff: the options that differ from the base config, as name -> this run's value, or
        name -> {"base": value, "run": value}; nested or with dotted names.
      environment: versions, device, commit, command, ...; "parameters" (int) is a headline too.
      history: rows of `metrics.jsonl` (see `tables.series`).
      results: split -> metrics (see `tables.result_rows`).
      confusion: split -> pixels [k, k], row = label, column = prediction.
      classes: the class table.
      samples: heading ("best", "median", ...) -> samples (see `plots.sample_grid`).
      protocol: how the numbers were measured, printed with them.
      seconds: duration of the training, None if unknown.
      notes: sentences shown at the top, such as warnings.

    Raises:
      ValueError: if results, confusion or samples do not fit the class table or each other.
    """
    samples = {heading: group for heading, group in samples.items() if group}
    options, machine = tables.flat_options(config), tables.flat_options(environment)
    listed = _table(_OPTION, options.items(), "options")
    folded = f"<details><summary>{len(options)} options</summary>{listed}</details>"
    sections = {
        "Results": _results(results, classes, protocol) if results else "",
        "IoU by class": _bars(results, classes) if results else "",
        "Training": _curves(history) if history else "",
        "Confusion": _confusion(confusion, classes),
        "Samples": _samples(samples, classes) if samples else "",
        "Changed options": _changes(config_diff),
        "All options": folded if options else "",
        "Environment": _table(_OPTION, machine.items(), "options") if machine else "",
    }
    links = parts = ""
    for name, body in sections.items():
        if body:
            anchor = name.lower().replace(" ", "-")
            links += f'<a href="#{anchor}">{name}</a>'
            parts += f'<section><h2 id="{anchor}">{name}</h2>{body}</section>\n'
    remarks = "".join(f"<p>{escape(note)}</p>" for note in notes)
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>"
        f"<header><h1>{escape(title)}</h1><nav>{links}</nav></header>\n<main>"
        f"{_tiles(history, results, environment, seconds)}\n"
        f"{f'<aside>{remarks}</aside>' if notes else ''}{parts}</main></body></html>\n"
    )
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text(page, encoding="utf-8")


def _text(value: object) -> str:
    """A value as the page shows it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _table(header: Sequence[str], rows, style: str = "") -> str:
    """An HTML table; all cells but a row's first are right-aligned numbers unless `style`."""
    marks = ["", *["" if style else ' class="n"'] * (len(header) - 1)]
    body = ""
    for tag, row in [("th", header), *(("td", row) for row in rows)]:
        cells = (f"<{tag}{m}>{escape(_text(c))}</{tag}>" for m, c in zip(marks, row, strict=True))
        body += f"<tr>{''.join(cells)}</tr>"
    return f'<div class="scroll"><table class="{style}">{body}</table></div>'


def _tiles(history, results, environment, seconds) -> str:
    """The headline numbers: (name, value, remark) each."""
    tiles = []
    best = tables.best_step(history)
    if best:
        tiles.append(("best validation mIoU", f"{best[1]:.4f}", f"at step {best[0]:,}"))
    for split, numbers in results.items():
        images = numbers.get("images")
        remark = "" if images is None else f"{tables.format_number(images)} images"
        tiles.append((f"{split} mIoU", tables.format_number(numbers["miou"]), remark))
    if seconds is not None:
        steps = tables.series(history, "train", "loss")[0]
        tiles.append(
            ("time", tables.format_duration(seconds), f"{steps[-1]:,} steps" if len(steps) else "")
        )
    _, rates = tables.series(history, "train", "images_per_second")
    if np.any(np.isfinite(rates)):
        rate = statistics.median(rates[np.isfinite(rates)])
        tiles.append(("images per second", f"{rate:,.1f}", "median in training"))
    if isinstance(environment.get("parameters"), int):
        count = environment["parameters"]
        tiles.append(("parameters", f"{count / 1e6:.3g} M", f"{count:,}"))
    body = ""
    for name, value, remark in tiles:
        name, value, remark = escape(name), escape(value), escape(remark)
        body += f'<div class="tile"><span>{name}</span><b>{value}</b><span>{remark}</span></div>'
    return f'<div class="tiles">{body}</div>'


def _results(results: Mapping, classes: ClassTable, protocol: str) -> str:
    overall, _ = tables.result_rows(results, classes)
    rows = [(name, *values) for name, values in overall]
    note = f"{escape(protocol)}. {tables.ABSENT}: not measured, or does not occur."
    return f'{_table(("", *results), rows)}<p class="quiet">Protocol: {note}</p>'


def _fill(color: Sequence[int]) -> str:
    return f"background:rgb{tuple(int(c) for c in color)}"


def _swatch(name: str, color: Sequence[int]) -> str:
    return f'<span><i style="{_fill(color)}"></i>{escape(name)}</span>'


def _bars(results: Mapping, classes: ClassTable) -> str:
    """One row a class, in id order; in it one bar a split, in the class's colour."""
    _, per_class = tables.result_rows(results, classes)
    rows = ""
    for (name, values), color in zip(per_class, classes.palette, strict=True):
        tracks = ""
        for split, value in zip(results, values, strict=True):
            width = "" if value == tables.ABSENT else f"width:{100 * float(value):.2f}%"
            fill = f'<div style="{width};{_fill(color)}"></div>' if width else ""
            tracks += f'<div class="track"><div>{fill}</div>{value}<em>{escape(split)}</em></div>'
        rows += f'<div class="bar">{_swatch(name, color)}<div>{tracks}</div></div>'
    return f'<div class="{"many" if len(classes) > 24 else ""}">{rows}</div>'


def _data_uri(data: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def _plot(draw, *arguments, **options) -> str:
    """The data URI of what one of the functions of `plots` draws."""
    buffer = io.BytesIO()
    draw(*arguments, buffer, **options)
    return _data_uri(buffer, "png")


def _curves(history: Sequence[Mapping]) -> str:
    narrow, wide = (_plot(plots.plot_curves, history, stacked=stacked) for stacked in (True, False))
    return (
        f'<picture><source media="(max-width:640px)" srcset="{narrow}"><img class="plot" '
        f'src="{wide}" alt="Loss, validation metrics and learning rate against the step"></picture>'
    )


def _confusion(confusion: Mapping[str, np.ndarray], classes: ClassTable) -> str:
    """Matrix and most confused pairs of every split; the first one open."""
    body = ""
    for split, matrix in confusion.items():
        pairs = [
            (f"{true} → {predicted}", f"{100 * share:.1f} %", f"{pixels:,}")
            for true, predicted, share, pixels in tables.most_confused(matrix, classes)
        ]
        table = _table(("truth → prediction", "of the truth", "pixels"), pairs)
        body += (
            f"<details{'' if body else ' open'}><summary>{escape(split)}</summary>"
            f'<div class="pair{" wide" if len(classes) > 20 else ""}"><div class="scroll">'
            f'<img class="plot" src="{_plot(plots.plot_confusion, matrix, classes)}" '
            f'alt="Confusion matrix of {escape(split)}: row truth, column prediction"></div>'
            f"<div><h3>Most confused</h3>{table}</div></div></details>"
        )
    return body


def _samples(samples: Mapping[str, Sequence[Mapping]], classes: ClassTable) -> str:
    """A legend, then under each heading one row of four pictures a sample."""
    everything = [sample for group in samples.values() for sample in group]
    shown = plots.classes_shown(everything, classes)
    entries = [(classes.names[k], classes.palette[k]) for k in shown]
    entries += [("wrong", plots.WRONG), ("ignored", (0, 0, 0))]
    body = f'<div class="legend">{"".join(_swatch(*entry) for entry in entries)}</div>'
    for heading, group in samples.items():
        body += f"<h3>{escape(heading.capitalize())}</h3>" if heading != "samples" else ""
        for sample in group:
            caption = f"<b>{escape(sample['name'])}</b> mIoU {tables.format_number(sample['miou'])}"
            pictures = "".join(
                f'<div><img{" class=small" if sample["label"].shape[1] < 300 else ""} src="{uri}" '
                f'alt="{panel} of {escape(sample["name"])}"><span>{panel}</span></div>'
                for panel, uri in _panel_uris(sample, classes)
            )
            pictures = f'<div class="quad">{pictures}</div>'
            body += f"<figure><figcaption>{caption}</figcaption>{pictures}</figure>"
    return body


def _panel_uris(sample: Mapping, classes: ClassTable) -> list[tuple[str, str]]:
    """(panel, data URI) of a sample's pictures: photographs as JPEG, label maps as PNG."""
    uris = []
    for panel, picture in zip(plots.PANELS, plots.sample_panels(sample, classes), strict=True):
        is_photo = panel in ("image", "errors")
        zoom = min(1, _LONGEST_SIDE / max(picture.shape))
        picture, buffer = Image.fromarray(plots.resize(picture, zoom, is_photo)), io.BytesIO()
        # Full colour resolution: at 4:2:0 the red of single wrong pixels would bleed.
        options = {"quality": 86, "subsampling": 0} if is_photo else {"optimize": True}
        picture.save(buffer, "JPEG" if is_photo else "PNG", **options)
        uris.append((panel, _data_uri(buffer, "jpeg" if is_photo else "png")))
    return uris


def _changes(config_diff: Mapping) -> str:
    rows = [
        (name, v["base"], v["run"]) if isinstance(v, Mapping) and v else (name, "", v)
        for name, v in tables.flat_options(config_diff).items()
    ]
    return _table(("option", "base", "this run"), rows, "options") if rows else ""
