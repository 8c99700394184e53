"""The parts every HTML page of ours is made of: style, frame, tables, swatches, pictures.

A page is one file without scripts that needs no network. It follows the reader's light or dark
theme, fits a phone (nothing but what is marked `scroll` is wider than the window) and prints
unfolded on white.
"""

import base64
import io
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from PIL import Image

_SERIES = ("#2563a8", "#d9730d", "#2e8b57", "#8a63d2")  # colours of lines, in order
_SERIES_DARK = ("#7db4f0", "#f0a35e", "#6cc794", "#b79df0")
_COLOURS = "; ".join(f"--c{i}:{c}" for i, c in enumerate(_SERIES))
_COLOURS_DARK = "; ".join(f"--c{i}:{c}" for i, c in enumerate(_SERIES_DARK))
_MARKS = " ".join(
    f".c{i} {{ --mark:var(--c{i}) }}" for i in range(len(_SERIES))
)  # a line, its points and its swatch

STYLE = f"""
:root {{ color-scheme:light dark; --page:#fff; --ink:#1f2328; --faint:#636c76; --line:#d8dee4;
  --card:#f6f8fa; --accent:#2563a8; --wrong:#cf222e; {_COLOURS} }}
@media (prefers-color-scheme: dark) {{ :root {{ --page:#0f1318; --ink:#e6e9ed; --faint:#9aa4b0;
  --line:#2d343d; --card:#181e25; --accent:#7db4f0; --wrong:#ff7b72; {_COLOURS_DARK} }} }}
{_MARKS}
""" + """
* { box-sizing:border-box } html { -webkit-text-size-adjust:100% } p { margin:.4rem 0 }
body { margin:0 auto; max-width:70rem; padding:2rem 1.25rem 4rem; background:var(--page);
  color:var(--ink); font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif }
h1 { font-size:1.9rem; line-height:1.2; margin:0; overflow-wrap:anywhere }
h2 { font-size:1.3rem; margin:3rem 0 .9rem; padding-top:1rem; border-top:1px solid var(--line) }
h3 { font-size:1rem; margin:1.6rem 0 .6rem }
a, summary { color:var(--accent); text-decoration:none; cursor:pointer }
nav { display:flex; flex-wrap:wrap; gap:.2rem 1.1rem; margin:.9rem 0 0; font-size:.9rem }
figcaption b { color:var(--ink) } .quiet, figcaption { color:var(--faint); font-size:.88rem }
p, figcaption { overflow-wrap:anywhere }
.lead { font-size:1.15rem; margin:.7rem 0 .2rem } .lead b { font-size:1.9rem; color:var(--accent) }
aside { border-left:3px solid var(--accent); background:var(--card); padding:.1rem 1rem;
  margin:1rem 0 }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr)); gap:.75rem;
  margin:1rem 0 }
.tile { background:var(--card); border:1px solid var(--line); border-radius:8px; padding:.7rem }
.tile b { display:block; font-size:1.5rem; line-height:1.25; white-space:nowrap }
.tile span { display:block; color:var(--faint); font-size:.82rem; overflow-wrap:anywhere }
.scroll { overflow-x:auto; max-width:100% }
table { border-collapse:collapse; font-size:.92rem; font-variant-numeric:tabular-nums }
th, td { text-align:left; padding:.32rem 1.6rem .32rem 0; border-bottom:1px solid var(--line);
  vertical-align:top }
th { color:var(--faint); font-size:.82rem } td:last-child, th:last-child { padding-right:0 }
.n { text-align:right } td.n { white-space:nowrap }
.options td { font:.82rem/1.5 ui-monospace,Menlo,Consolas,monospace }
.options td + td, .protocols td:last-child { overflow-wrap:anywhere; min-width:9rem }
.pair { display:grid; grid-template-columns:minmax(0,3fr) minmax(0,2fr); gap:1rem 2rem }
.wide { grid-template-columns:minmax(0,1fr) }
figure { margin:0 0 1.6rem; break-inside:avoid } img { display:block; max-width:100%; height:auto }
img.plot { background:#fff; border-radius:8px; padding:.6rem; border:1px solid var(--line) }
.charts { display:grid; grid-template-columns:repeat(2,minmax(0,1fr)); gap:.6rem 2rem }
svg { display:block; max-width:100%; height:auto; font:12px system-ui,sans-serif }
svg text { fill:var(--faint) } svg .axis { stroke:var(--line); stroke-width:1 }
svg path { fill:none; stroke:var(--mark); stroke-width:2; stroke-linejoin:round }
svg path.raw { stroke-width:1; opacity:.35 } svg circle { fill:var(--mark) }
svg .even { stroke:var(--faint); stroke-dasharray:4 4 }
svg .fill { fill:var(--c0); opacity:.75 } svg .gap { fill:var(--wrong); opacity:.3 }
svg.matrix { max-width:none } .matrix rect { fill:var(--wrong) } .matrix .hit { fill:var(--c0) }
svg.matrix text { fill:var(--ink) } svg.matrix .light { fill:var(--page) }
svg.matrix .none { fill:var(--faint) } .matrix .ground { fill:var(--card) }
.legend { display:flex; flex-wrap:wrap; gap:.25rem 1.1rem; font-size:.85rem }
.key i { background:var(--mark) } .key { margin-left:.9rem; white-space:nowrap }
i { display:inline-block; width:.95em; height:.95em; border-radius:3px; margin-right:.45em;
  vertical-align:-.1em; border:1px solid #8886 }
.quad { display:grid; grid-template-columns:repeat(4,minmax(0,1fr)); gap:.5rem }
.quad img { width:100%; border-radius:3px } .quad img.small { image-rendering:pixelated }
.quad span { color:var(--faint); font-size:.78rem }
.many > div { columns:2 26rem; column-gap:3rem }
.bar { display:grid; grid-template-columns:11rem 1fr; gap:.8rem; align-items:center;
  break-inside:avoid; padding:.14rem 0; font-size:.88rem; overflow-wrap:anywhere }
.track { display:grid; grid-template-columns:1fr 3.6rem var(--name); gap:.6rem; align-items:center;
  line-height:1.25; font-variant-numeric:tabular-nums; text-align:right }
.track div { background:var(--card); border-radius:3px; height:.8rem }
.track div div { outline:1px solid #8886 } .track + .track div div { opacity:.55 }
.track em { color:var(--faint); font-style:normal; font-size:.75rem; text-align:left;
  overflow-wrap:anywhere }
@media (max-width:640px) { body { padding:1.25rem .9rem 3rem } h1 { font-size:1.5rem }
  .pair, .charts { grid-template-columns:minmax(0,1fr) }
  .quad, .tiles { grid-template-columns:repeat(2,minmax(0,1fr)) } th, td { padding-right:.9rem }
  .tile b { font-size:1.25rem } .protocols tr { display:flex; flex-wrap:wrap; padding-bottom:.4rem;
  border-bottom:1px solid var(--line) } .protocols td, .protocols th { border:0; flex:1 0 auto }
  .protocols td:last-child { flex-basis:100%; width:0 } .protocols th:last-child { display:none }
  .protocols { width:100% } .bar { grid-template-columns:6.5rem 1fr; gap:.5rem } }
@media print { :root { --page:#fff; --ink:#000; --faint:#555; --line:#ccc; --card:#f4f4f4;
  --accent:#1b4f8a; --wrong:#b3202a; PRINTED }
  body { max-width:none; padding:0; font-size:10pt } nav { display:none }
  * { print-color-adjust:exact; -webkit-print-color-adjust:exact } h2, h3 { break-after:avoid }
  .tile, tr, aside, img, .bar { break-inside:avoid } .scroll { overflow:visible }
  h2 { margin-top:1.6rem } svg.matrix, img.plot { max-width:100%; height:auto }
  .charts { grid-template-columns:repeat(2,minmax(0,1fr)) } .pair { display:block }
  .quad { grid-template-columns:repeat(4,minmax(0,1fr)) }
  .many > div { columns:2 } .many .bar { grid-template-columns:7rem 1fr; font-size:8pt }
  details::details-content { content-visibility:visible } }
""".replace("PRINTED", _COLOURS)


def write_page(
    path: str | os.PathLike,
    title: str,
    sections: Mapping[str, str],
    head: str = "",
    style: str = "",
) -> None:
    """Writes a page as UTF-8; its folder is made.

    Args:
      path: the file.
      title: heading, as plain text.
      sections: heading -> HTML, in order; those without any are left out. The page links to them.
      head: HTML between the heading and the links.
      style: rules after those of `STYLE`.
    """
    links = parts = ""
    for name, body in sections.items():
        if body:
            anchor = name.lower().replace(" ", "-")
            links += f'<a href="#{anchor}">{escape(name)}</a>'
            parts += f'<section><h2 id="{anchor}">{escape(name)}</h2>{body}</section>\n'
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n<body>"
        f"<header><h1>{escape(title)}</h1>{head}<nav>{links}</nav></header>\n"
        f"<main>{parts}</main></body></html>\n"
    )
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text(page, encoding="utf-8")


def tiles(rows: Iterable[tuple[str, str, str]]) -> str:
    """Headline numbers, (name, value, remark) each, as plain text."""
    body = ""
    for name, value, remark in rows:
        remark = f"<span>{escape(remark)}</span>" if remark else ""
        body += f'<div class="tile"><span>{escape(name)}</span><b>{escape(value)}</b>{remark}</div>'
    return f'<div class="tiles">{body}</div>' if body else ""


def table(header: Sequence[str], rows: Iterable[Sequence[object]], style: str = "") -> str:
    """A table of plain values, which scrolls by itself where it is wider than the page.

    Args:
      header: one text per column.
      rows: cells that are not text are shown as JSON.
      style: class of the table; without one all columns but the first are right-aligned numbers.
    """
    marks = ["", *["" if style else ' class="n"'] * (len(header) - 1)]
    body = ""
    for tag, row in [("th", header), *(("td", row) for row in rows)]:
        cells = (f"<{tag}{m}>{escape(_text(c))}</{tag}>" for m, c in zip(marks, row, strict=True))
        body += f"<tr>{''.join(cells)}</tr>"
    return f'<div class="scroll"><table class="{style}">{body}</table></div>'


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def folded(summary: str, body: str, is_open: bool = False) -> str:
    """What opens at a click, and always in print; `summary` is plain text, `body` HTML."""
    mark = " open" if is_open else ""
    return f"<details{mark}><summary>{escape(summary)}</summary>{body}</details>"


def fill(color: Sequence[int]) -> str:
    """The style of an element filled with an RGB colour, 0..255."""
    return f"background:rgb{tuple(int(c) for c in color)}"


def swatch(name: str, color: Sequence[int]) -> str:
    """A legend's entry: a square of the colour, and the name."""
    return f'<span><i style="{fill(color)}"></i>{escape(name)}</span>'


def picture_uri(picture: Image.Image, kind: str, **options: object) -> str:
    """A picture as a data URI; `kind` is "jpeg" or "png", `options` are Pillow's for saving."""
    buffer = io.BytesIO()
    picture.save(buffer, kind.upper(), **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
