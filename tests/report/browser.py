"""What a real browser makes of a page: headless Chromium, driven by its command line."""

import dataclasses
import html
import json
import pathlib
import re
import shutil
import subprocess
import tempfile

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The page is laid out in a frame as wide as the window asked for: a headless window is never
# narrower than 500 pixels. What the script finds is left in the document as JSON.
_FRAME = """<!DOCTYPE html><html><body style="margin:0"><iframe id="frame" srcdoc="{page}"
style="border:0;width:{width}px;height:900px"></iframe><pre id="found"></pre><script>
addEventListener("load", () => {{
  const page = document.getElementById("frame").contentDocument, root = page.documentElement;
  const window_ = document.getElementById("frame").contentWindow;
  for (const part of page.querySelectorAll("details")) part.open = true;
  const images = [...page.images];
  const scrolls = element => element.closest(".scroll") !== null;
  const wide = [...page.body.querySelectorAll("*")].filter(element => !scrolls(element) &&
    element.getBoundingClientRect().right > window_.innerWidth + 0.5);
  const charts = [...page.querySelectorAll("svg text")].filter(text => !text.closest(".matrix"));
  const texts = charts.map(text =>
    parseFloat(window_.getComputedStyle(text).fontSize) * text.getScreenCTM().a);
  const lead = page.querySelector(".lead");
  document.getElementById("found").textContent = JSON.stringify({{
    window_width: window_.innerWidth,
    page_width: root.scrollWidth,
    images: images.length,
    broken: images.filter(image => !image.naturalWidth).map(image => image.alt),
    wide: wide.map(element => element.outerHTML.slice(0, 120)),
    headings: [...page.querySelectorAll("h2")].map(heading => heading.innerText),
    lead_bottom: lead ? lead.getBoundingClientRect().bottom : null,
    smallest_text: texts.length ? Math.min(...texts) : null,
  }});
}});
</script></body></html>"""
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")


@dataclasses.dataclass(frozen=True)
class Shown:
    """A page in a window of one width.

    Attributes:
      window_width, page_width: CSS pixels; the page scrolls sideways where it is wider.
      images: number of pictures.
      broken: what is said in place of pictures that do not load.
      wide: elements that stick out of the window and do not scroll by themselves.
      headings: of the sections.
      lead_bottom: where the first sentence ends, from the top; None without one.
      smallest_text: of the charts, in pixels; None without one.
      console: messages, errors of the page's scripts and resources among them.
    """

    window_width: int
    page_width: int
    images: int
    broken: list[str]
    wide: list[str]
    headings: list[str]
    lead_bottom: float | None
    smallest_text: float | None
    console: list[str]


def chromium() -> str | None:
    """The path of a Chromium or Chrome on this machine."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def show(path: pathlib.Path, width: int) -> Shown:
    """Loads a page in a window of `width` CSS pixels, everything unfolded."""
    page = html.escape(path.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        outer = pathlib.Path(folder) / "outer.html"
        outer.write_text(_FRAME.format(page=page, width=width), encoding="utf-8")
        done = _run(folder, "--dump-dom", "--virtual-time-budget=20000", outer.as_uri())
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Shown(**json.loads(html.unescape(found[1])), console=console)


def to_pdf(path: pathlib.Path, pdf: pathlib.Path) -> None:
    """Prints a page."""
    with tempfile.TemporaryDirectory() as folder:
        _run(folder, f"--print-to-pdf={pdf}", "--no-pdf-header-footer", path.resolve().as_uri())


def _run(folder: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [chromium(), *_FLAGS, f"--user-data-dir={folder}/profile", "--window-size=1400,1000"]
    command += ["--log-level=0", "--enable-logging=stderr", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
