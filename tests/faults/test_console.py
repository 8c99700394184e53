"""Output that fails or is hostile: the work goes on, and names are text."""

import errno
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.table import Table

from segjax import failures, terminal
from segjax.console import Console
from segjax.data.classes import from_names
from segjax.data.errors import DataError
from segjax.report import figures, page, pictures
from segjax.terminal import Output, one_line, printable
from segjax.training.progress import ProgressBar, print_line, progress_bar
from tests.conftest import make_tiny_config

ROOT = Path(__file__).parents[2]
# What a name may hold: escape sequences, markup, formulas, bytes that are no UTF-8, reordered text.
NAMES = {
    "escape": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "csi": "\x9b31m",
    "return": "good\rbad",
    "newline": "new\nline",
    "bidi": "\u202egnp.exe",
    "isolate": "\u2066x\u2069",
    "separator": "a\u2028b",
    "byte": os.fsdecode(b"gr\xf6\xdfe.png"),
    "surrogate": "a\ud800",
    "nul": "a\0b",
    "delete": "a\x7fb",
    "closing markup": "[/b]",
    "markup": "[bold]r",
    "link": "[link=file:///etc]y",
    "emoji code": ":smile:",
    "formula": "$x_",
    "fraction": r"$\frac{$",
    "undefined": r"\undefined{",
    "glyphs": "🚗 größe 日本 \u0b85",
    "long": "x" * 300,
    "empty": "",
    "blank": " ",
    "underscore": "_private",
    "html": "<script>alert(1)</script>\"'&",
    "format": "%s {0} {x!r}",
}
names = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)


def obeys(text: str) -> bool:
    """Whether a terminal would do something other than show the text."""
    return any(not (c.isprintable() or c in "\n ") and c != "\u0b85" for c in text)


def pipe() -> tuple[int, Output]:
    """The end that is read, and a stream into the other."""
    read, write = os.pipe()
    return read, Output(write, "utf-8")


@pytest.mark.fault("the reader of a pipe ends, as `| head -2` or a dead tee", "the work goes on")
def test_a_reader_that_ends():
    read, stream = pipe()
    print("one", file=stream)
    assert os.read(read, 10) == b"one\n"
    os.close(read)
    console = Console(file=stream.styled)
    for _ in range(3):
        print("two", file=stream)
        print_line(console, "three")
        console.print(Table(title="four"))
    assert isinstance(stream.failed, BrokenPipeError)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.fault(
    "stdout is on a full disk (/dev/full)", "the work goes on, and says so at its end"
)
def test_a_full_disk():
    stream = Output(os.open("/dev/full", os.O_WRONLY), "utf-8")
    print("one", file=stream, flush=True)
    assert stream.failed.errno == errno.ENOSPC


@pytest.mark.fault("stdout is closed (`>&-`)", "the work goes on")
def test_a_closed_stream():
    read, stream = pipe()
    os.close(stream.fileno())
    print("one", file=stream, flush=True)
    assert stream.failed.errno == errno.EBADF
    os.close(read)


@pytest.mark.fault(
    "a reader stops reading (Ctrl-S, a stopped pager)", "the work goes on after 20 s"
)
def test_a_reader_that_sleeps(monkeypatch):
    monkeypatch.setattr(terminal, "_PATIENCE_S", 0.2)
    read, stream = pipe()
    began = time.monotonic()
    for _ in range(10):
        print("x" * 50_000, file=stream)
    assert 0.2 <= time.monotonic() - began < 2.0
    taken = os.read(read, 1 << 20)
    print("there again", file=stream)
    assert os.read(read, 1 << 20).endswith(b"there again\n")
    assert 0 < len(taken) < 500_000


@pytest.mark.fault("the terminal goes away", "the work goes on")
def test_a_terminal_that_goes_away():
    ours, theirs = pty.openpty()
    stream = Output(theirs, "utf-8")
    console = Console(file=stream.styled)
    assert console.is_terminal
    with progress_bar(console, "train") as progress:
        progress(1, 3)
        os.close(ours)
        progress(2, 3)
        console.print("x")
    assert stream.failed.errno == errno.EIO


def test_a_stream_that_does_not_wait_gets_everything():
    """Other programs may make a terminal that they share non-blocking."""
    read, stream = pipe()
    os.set_blocking(stream.fileno(), False)
    got = io.BytesIO()

    def take():
        while piece := os.read(read, 1000):
            got.write(piece)

    thread = threading.Thread(target=take)
    thread.start()
    print("x" * 300_000, file=stream)
    os.close(stream.fileno())
    thread.join()
    assert got.getvalue() == b"x" * 300_000 + b"\n"


@pytest.mark.fault("output in ASCII or Latin-1", "letters that it lacks are written as escapes")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_encodings(encoding):
    read, write = os.pipe()
    stream = Output(write, encoding)
    table = Table("–×日", "\ud800")
    table.add_row("ö 🚗", "x")
    console = Console(file=stream.styled)
    console.print(table)
    print("mean – 日", file=stream)
    print_line(console, "größe")
    written = os.read(read, 1 << 16).decode(encoding)
    assert ("日" in written) == (encoding == "utf-8")
    assert ("\\u65e5" in written) == (encoding != "utf-8")


@pytest.mark.fault("COLUMNS, LINES or TERM make no sense", "tables and bars are drawn all the same")
@pytest.mark.parametrize("columns", ["1", "0", "-5", "2", "39", "garbage", "²", "٣", "", "9" * 9])
def test_terminals_of_any_size(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", columns)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    terminal.take_over()  # of pytest's streams nothing
    for term in ("dumb", "", "xterm", "nothing-known"):
        monkeypatch.setenv("TERM", term)
        out = io.StringIO()
        console = Console(file=out, force_terminal=True)
        assert 40 <= console.width <= 400
        table = Table("a", "b", title="title", min_width=60)
        table.add_row("x" * 500, "y")
        console.print(table)
        with ProgressBar(console, 3, 0, 1) as bar:
            bar.update(1, {"loss": 1.0, "learning_rate": 0.1, "images_per_second": 1.0})
        assert "title" in out.getvalue()
        assert len(out.getvalue()) < 40_000


@pytest.mark.fault("a name holds escape sequences, markup or emoji codes", "it is printed as text")
@names
def test_names_are_text_on_a_terminal(name):
    for terminal_ in (False, True):
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal_, color_system=None, width=200)
        table = Table(name, title=name, caption=name)
        table.add_column(name, no_wrap=True)
        table.add_row(name, name)
        console.print(table)
        console.print(name)
        print_line(console, name)
        console.print(f"workdir {name}", soft_wrap=True)
        assert not obeys(out.getvalue())
        if name not in ("new\nline", "good\rbad") and "\x07" not in name:  # rich drops these
            assert f"workdir {printable(name)}\n" in out.getvalue()


@pytest.mark.fault("a name holds escape sequences, markup or emoji codes", "it is printed as text")
@names
def test_names_are_text_in_messages(name):
    read, stream = pipe()
    with_stderr, sys.stderr = sys.stderr, stream
    try:
        terminal.say(f"error: {name}")
        print(f"plain {name}", file=sys.stderr)
        line = terminal._plain_warning(f"warned of {name}", UserWarning, "x.py", 3)
    finally:
        sys.stderr = with_stderr
    written = os.read(read, 1 << 16).decode()
    assert not obeys(written + line)
    assert f"error: {printable(name)}\nplain {printable(name)}\n" == written
    assert line == f"warning: warned of {printable(name)}\n"
    assert not obeys(one_line(name).replace("\n", "\x1b"))


@pytest.mark.fault("names hold formulas, or letters that no font has", "they are drawn as text")
def test_names_are_text_in_figures(tmp_path):
    """Those of classes are refused where they hold what is not printed."""
    every = [name for name in NAMES.values() if name]
    classes = from_names({one_line(name) for name in every})
    values = np.linspace(0.1, 1.0, len(classes))
    rows = np.linspace(0.1, 1.0, len(every))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        panels = [
            figures.bars("".join(every), every, dict.fromkeys(every[-3:], rows), logarithmic=True),
            figures.class_iou(NAMES["formula"], {"iou": values, "miou": 0.3}, classes),
            figures.trimap({NAMES[key]: {1: 0.2} for key in ("formula", "glyphs", "long")}),
        ]
        figures.save_png(panels, tmp_path / "a.png")
        svg = [figures.to_svg(panel) for panel in panels]
    assert all(not obeys(text) and "<script" not in text for text in svg)
    assert "$x_" in svg[0]
    assert Image.open(tmp_path / "a.png").size[0] < 3000


@pytest.mark.fault("names hold escape sequences, or are not UTF-8", "pictures and pages show them")
def test_names_are_text_in_pictures_and_pages(tmp_path):
    classes = from_names(("road", "sky"))
    image, label = np.zeros((8, 9, 3), np.uint8), np.zeros((8, 9), np.uint8)
    sample = {"miou": 0.5, "image": image, "label": label, "prediction": label}
    samples = [{**sample, "name": name} for name in NAMES.values()]
    pictures.sample_grid(samples, classes, tmp_path / "grid.png")
    page.write_text(tmp_path / "page.html", "".join(NAMES.values()))
    assert not obeys((tmp_path / "page.html").read_text("utf-8"))


@pytest.mark.fault("a class name holds control characters", "the class list is refused")
@pytest.mark.parametrize("name", ["\x1b[31mred", "new\nline", "a\tb", "a\0", "a\ud800", "\u202ex"])
def test_class_names_are_printed(name):
    with pytest.raises(DataError, match="holds a character that is not printed") as error:
        from_names(("road", name))
    assert not obeys(str(error.value))
    assert len(str(error.value).splitlines()) == 1


class TestExplained:
    """One readable message, whatever the exception holds."""

    @pytest.mark.parametrize(
        "error, message",
        [
            (OSError(28, "No space left on device"), "No space left.*test_console.*df -h"),
            (OSError(28, "No space left on device", "a/b"), "^a/b: No space left on device; make"),
            (OSError(24, "Too many open files"), "ulimit -n"),
            (BlockingIOError(11, "Resource temporarily unavailable"), "ulimit -u"),
            (OSError(36, "File name too long", "x" * 300), "^x+: File name too long$"),
            (OSError("in our own words"), "^in our own words$"),
            (OSError(), "^OSError, in "),
            (ValueError(), "^ValueError, in .*test_console"),
            (ValueError("data.root=x; use y"), "^data.root=x; use y$"),
            (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "codec.*, in .*test_console"),
            (json.JSONDecodeError("Expecting value", "", 0), "Expecting value.*, in "),
            (OverflowError("int too large"), "int too large, in "),
            (MemoryError(), "memory ran out, in .*smaller batch"),
            (RecursionError("maximum recursion depth"), "too deeply nested, in "),
            (
                RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore"),
                "memory of the device ran out",
            ),
            (RuntimeError("can't start new thread"), "ulimit -u"),
        ],
        ids=lambda x: "" if isinstance(x, str) else type(x).__name__,
    )
    @pytest.mark.fault("an error has no file's name, or no text", "the message says where it arose")
    def test_message(self, error, message):
        try:
            raise error
        except Exception as caught:
            text = failures.explained(caught)
        assert len(text.splitlines()) == 1
        assert re.search(message, text), text

    @pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("x"), TypeError("x")])
    def test_bugs_are_none_of_the_users(self, error):
        assert failures.explained(error) is None


def command(*arguments: str, **environment: str) -> list[str]:
    return [sys.executable, str(ROOT / "launch.py"), *arguments]


def flags_of_tiny() -> list[str]:
    """The options of `make_tiny_config` as they are typed."""
    config = make_tiny_config()
    given = {
        **{f"data.{k}": config.data[k] for k in ("image_size", "train_images", "eval_images")},
        **{f"train.{k}": config.train[k] for k in ("steps", "batch_size", "eval_every")},
        "model.features": 4,
        "report.samples": 1,
        "train.log_every": 1,
        "optim.warmup_steps": 0,
    }
    return [f"--config.{name}={value}" for name, value in given.items()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "shell, environment",
    [
        ("{} | head -2; exit ${{PIPESTATUS[0]}}", {}),
        ("{} >/dev/full", {}),
        ("{} >&- 2>&-", {}),
        ("{} 2>/dev/full | cat >/dev/null; exit ${{PIPESTATUS[0]}}", {}),
        ("{} 2>&1 | true; exit ${{PIPESTATUS[0]}}", {}),
        ("{} > out.txt", {"PYTHONIOENCODING": "ascii", "COLUMNS": "1"}),
        ("{} > out.txt", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    ],
    ids=["head", "full", "closed", "stderr full", "dead tee", "ascii", "C"],
)
@pytest.mark.fault(
    "a training's output fails, from its start to its end", "it ends with its report"
)
def test_a_training_ends_whatever_its_output_does(shell, environment, tmp_path):
    workdir = tmp_path / "run"
    words = command("--config=segnet_basic", *flags_of_tiny(), f"--workdir={workdir}")
    quoted = " ".join(f"'{word}'" for word in words)
    process = subprocess.run(
        ["bash", "-c", shell.format(quoted)],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr.decode()
    assert (workdir / "report.html").is_file()
    assert b"Traceback" not in process.stderr


@pytest.mark.slow
@pytest.mark.fault(
    "Ctrl-C while the libraries are imported", "the process ends, without a traceback"
)
@pytest.mark.parametrize("after", [0.3, 1.0, 2.0])
def test_ctrl_c_at_the_start(after, tmp_path):
    words = command("--config=segnet_basic", *flags_of_tiny(), f"--workdir={tmp_path / 'run'}")
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130, 75)
    assert b"segjax/" not in stderr  # Python itself has a traceback before it runs us


@pytest.mark.slow
@pytest.mark.fault("the result of compare or --help cannot be printed", "an error, exit code 2")
def test_results_that_are_lost(tmp_path):
    for arguments in (["--help"], ["weights"]):
        quoted = " ".join(f"'{word}'" for word in command(*arguments))
        process = subprocess.run(
            ["bash", "-c", f"{quoted} >/dev/full"], capture_output=True, cwd=tmp_path
        )
        assert process.returncode == 2
        assert process.stderr.startswith(b"error: stdout could not be written (No space left")
        process = subprocess.run(
            ["bash", "-c", f"{quoted} | head -1; exit ${{PIPESTATUS[0]}}"],
            capture_output=True,
            cwd=tmp_path,
        )
        assert (process.returncode, process.stderr) == (0, b"")
