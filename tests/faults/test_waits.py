"""Waits that would never end: reads, disks, threads, processes, locks and signals."""

import contextlib
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import numpy as np
import pytest

from segjax.data import depth
from segjax.data.checks import check_source
from segjax.data.class_lists import read_class_list
from segjax.data.doctor import diagnose
from segjax.data.errors import DataError
from segjax.data.files import json_file, pixels, regular, tiff
from segjax.data.files.atomic import append, replacing
from segjax.data.files.folder_lock import FolderLock
from segjax.data.files.images import list_images
from segjax.data.files.predictions import PredictedFiles, label_of_ids
from segjax.data.files.walk import walk
from segjax.data.found_classes import classes_of_masks
from segjax.data.parallel import in_processes, in_threads
from segjax.data.prepared.write import write_prepared
from segjax.data.sampling import class_presence
from segjax.data.sets.folder import open_folder
from segjax.inference.inputs import open_inputs
from segjax.inference.label_maps import LabelMaps, score_label_maps
from segjax.report.run import predicted_samples
from segjax.training import event_file, interruption
from segjax.training.event_file import EventFile
from tests.data.drawn import THREE, pairs
from tests.training import processes
from tests.training.processes import wait_for
from tests.training.test_event_file import events_in

# Files whose read never ends ---------------------------------------------------------------------

KINDS = {
    "a named pipe": os.mkfifo,
    "a link to a named pipe": lambda path: (
        os.mkfifo(path.with_suffix(".pipe")),
        path.symlink_to(path.with_suffix(".pipe")),
    ),
    "a socket": lambda path: bind(path),
    "a device without end": lambda path: path.symlink_to("/dev/zero"),
    "a terminal": lambda path: path.symlink_to("/dev/tty"),
}


def bind(path):
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):
        server.bind(path.name)


@pytest.fixture
def folder(tmp_path):
    return pairs(tmp_path / "data", ["a", "b", "c"])


def source_of(folder):
    return open_folder(folder, "train", THREE)


READERS = {
    "train": lambda folder, found: check_source(source_of(folder), "train"),
    "doctor": lambda folder, found: diagnosed(folder),
    "prepare": lambda folder, found: prepare(folder),
    "predict": lambda folder, found: predicted(found),
    "predict a folder": lambda folder, found: predicted(found.parent),
    "class weights": lambda folder, found: class_presence(source_of(folder)),
}


def diagnosed(folder):
    """The doctor reports every bad file and goes on."""
    findings = diagnose({"train": source_of(folder)}).findings
    raise DataError("; ".join(line for finding in findings for line in finding.found), "")


def predicted(path):
    problems = [item.problem for item in open_inputs(path).read() if item.problem]
    raise DataError("; ".join(problems), "")


def prepare(folder, **options):
    sources = {"train": source_of(folder)}
    return write_prepared(sources, folder.parent / "out", name="toy", classes=THREE, **options)


@pytest.mark.fault(
    "an image or mask is a named pipe, a socket or a device, to train, doctor, predict or prepare",
    "it is named before it is opened",
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_regular_file_is_not_opened(folder, kind, reader):
    side = "masks" if reader == "class weights" else "images"
    found = folder / side / "train" / "a.png"
    found.unlink()
    KINDS[kind](found)
    with pytest.raises((DataError, ValueError), match=re.escape(str(found))):
        READERS[reader](folder, found)


@pytest.mark.fault(
    "an image or mask is a named pipe, a socket or a device, to train, doctor, predict or prepare",
    "it is named before it is opened",
)
@pytest.mark.parametrize("suffix", [".png", ".npy", ".tif"])
def test_a_mask_in_any_format(folder, suffix):
    mask = folder / "masks" / "train" / "a.png"
    mask.unlink()
    os.mkfifo(mask.with_suffix(suffix))
    with pytest.raises(DataError, match=rf"a\{suffix} is a named pipe, not a file"):
        check_source(source_of(folder), "train")


@pytest.mark.fault(
    "a class list or list file is a named pipe or a device", "it is named before it is opened"
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["classes.txt", "classes.csv", "classes.json", "classes.yaml"])
def test_a_class_list_that_is_no_regular_file(tmp_path, kind, name):
    KINDS[kind](tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}"):
        read_class_list(tmp_path / name)


@pytest.fixture
def dead(folder, monkeypatch):
    """A file of a server that does not answer: a pipe that nobody refuses. Its path."""
    for module in (pixels, tiff):
        monkeypatch.setattr(module, "regular", lambda path: path)
    monkeypatch.setattr(depth, "read_header", lambda path: depth.Header(mode=hang(path)))
    path = folder / "images" / "train" / "b.png"
    path.unlink()
    os.mkfifo(path)
    yield path
    with contextlib.suppress(OSError):  # ends the threads
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def hang(path):
    with open(path, "rb") as file:
        return str(file.read())


def scored(folder, **options):
    source = source_of(folder)
    maps = PredictedFiles([folder / "images" / "train" / f"{n}.png" for n in "bbb"], "*", [])
    return score_label_maps(source, LabelMaps(maps, THREE, label_of_ids(THREE, "raw")), **options)


WAITS = {
    "train": lambda folder, limit: check_source(source_of(folder), "train", **limit),
    "prepare": lambda folder, limit: prepare(folder, **limit),
    "score": lambda folder, limit: scored(folder, **limit),
    "predict": lambda folder, limit: list(open_inputs(folder / "images", **limit).read()),
    "value range": lambda folder, limit: depth.value_range(source_of(folder), **limit),
    "orientation": lambda folder, limit: depth.exif_evidence(source_of(folder), **limit),
    "pictures": lambda folder, limit: predicted_samples(
        lambda *_: np.zeros((4, 6), np.uint8), source_of(folder), range(3), **limit
    ),
}


@pytest.mark.fault(
    "a file server does not answer, to train, predict, score, prepare or the report",
    "an error names the file after data.timeout_s",
)
@pytest.mark.parametrize("command", WAITS)
def test_a_server_that_does_not_answer(folder, dead, command):
    began = time.monotonic()
    message = rf"no data for 0\.2 s \(data\.timeout_s\) while reading .*{re.escape(str(dead))}"
    with pytest.raises(TimeoutError, match=message):
        WAITS[command](folder, {"timeout_s": 0.2})
    assert time.monotonic() - began < 10


@pytest.mark.fault(
    "a file server does not answer, to train, predict, score, prepare or the report",
    "an error names the file after data.timeout_s",
)
@pytest.mark.parametrize("what", ["masks of init", "a class list", "the doctor"])
def test_a_server_that_does_not_answer_where_no_option_says(folder, dead, monkeypatch, what):
    """The limit is then the default of data.timeout_s."""
    monkeypatch.setattr(regular, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(json_file, "read_bytes", lambda path, *_: hang(path))
    monkeypatch.setitem(in_threads.__kwdefaults__, "timeout_s", 0.2)
    calls = {
        "masks of init": lambda: classes_of_masks([dead]),
        "a class list": lambda: read_class_list(dead),
        "the doctor": lambda: check_source(source_of(folder), "train", timeout_s=0.2),
    }
    with pytest.raises(TimeoutError, match=re.escape(str(dead))):
        calls[what]()


LINKS = {
    "a link to its folder": lambda d: (d / "loop").symlink_to(d),
    "two links to their folder": lambda d: [(d / f"loop{k}").symlink_to(d) for k in range(2)],
    "a link to the folder above": lambda d: (d / "up").symlink_to(d.parent),
    "a link to itself": lambda d: (d / "self").symlink_to(d / "self"),
    "links to each other": lambda d: [(d / a).symlink_to(d / b) for a, b in ("xy", "yx")],
    "a second name for a folder": lambda d: (d / "0first").symlink_to(d / "deep"),
}


@pytest.mark.fault("links to folders form a circle", "each file comes once, by its own name")
@pytest.mark.parametrize("links", LINKS)
def test_links_between_folders(tmp_path, links):
    top = tmp_path / "images"
    for name in ("a.png", "deep/b.png", "deep/deeper/c.png"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"")
    expected = sorted(top.rglob("*.png"))
    LINKS[links](top)
    assert sorted(path for path in walk(top) if path.suffix) == expected
    assert list_images(top) == expected


# Threads, and disks that refuse ------------------------------------------------------------------


@pytest.mark.fault(
    "the disk is full, read-only, gone or dead under TensorBoard's events",
    "one warning; the run goes on without them",
)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_disk_that_refuses_ends_the_events_with_one_warning(tmp_path, monkeypatch, number):
    def refuse(file, data):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(event_file, "append", refuse)
    file = EventFile(tmp_path, 0)
    file._thread.join(5)
    with pytest.warns(UserWarning, match=f"events end here.*: {os.strerror(number)}; the run"):
        file.scalars(1, {"loss": 0.5})
    for step in range(5000):  # without another word, and without waiting
        file.scalars(step, {"loss": 0.5})
    file.close()


@pytest.mark.fault(
    "the disk is full, read-only, gone or dead under TensorBoard's events",
    "one warning; the run goes on without them",
)
@pytest.mark.parametrize("why", ["hangs", "is dead"])
def test_a_thread_that_does_not_write_is_never_awaited(tmp_path, monkeypatch, why):
    released = threading.Event()
    if why == "is dead":  # of an error that no one thought of
        monkeypatch.setattr(event_file.EventFile, "_write", lambda self: None)
    monkeypatch.setattr(event_file, "append", lambda file, data: released.wait())
    monkeypatch.setattr(event_file, "_MOST", 20)
    monkeypatch.setattr(event_file, "_GRACE_S", 0.1)
    file, began = EventFile(tmp_path, 0), time.monotonic()

    def write_many():
        for step in range(100):
            file.scalars(step, {"loss": 0.5})

    with pytest.warns(UserWarning, match="events end here.*: the disk does not answer"):
        write_many()
    file.close()
    assert time.monotonic() - began < 5
    released.set()


@pytest.mark.fault("the clock is set back or forward, by any time", "nothing waits for it")
@pytest.mark.parametrize("now", [0.0, 1e11, -1e9])
def test_the_clock_does_not_matter(tmp_path, monkeypatch, now):
    monkeypatch.setattr(event_file.time, "time", lambda: now)
    file = EventFile(tmp_path, 0)
    file.scalars(1, {"loss": 0.5})
    file.close()
    assert [event.wall_time for event in events_in(tmp_path)] == [now] * 3


class Small:
    """A file on a disk with room for a few bytes."""

    def __init__(self, room):
        self.content, self.room = b"before", room

    def tell(self):
        return len(self.content)

    def write(self, data):
        kept = bytes(data[: self.room])
        if not kept:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.content, self.room = self.content + kept, self.room - len(kept)
        return len(kept)

    def truncate(self, size):
        self.content = self.content[:size]


@pytest.mark.fault("the disk fills up within a row of the record", "no part of the row is left")
def test_a_row_is_appended_whole_or_not_at_all():
    disk = Small(10)
    append(disk, b"a row")
    with pytest.raises(OSError, match="No space"):
        append(disk, b"another row")
    assert disk.content == b"beforea row"


@pytest.mark.fault("the disk is full when a file of the run is written", "an error names the file")
def test_a_full_disk_is_an_error_with_the_files_name(tmp_path):
    (tmp_path / "config.json").write_text("before")
    with (
        pytest.raises(OSError, match=r"No space.*config\.json"),
        replacing(tmp_path / "config.json"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


@pytest.mark.fault("a file of the run is a link to another file", "the other file is not written")
def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "report.html").symlink_to(tmp_path / "mine")
    with replacing(tmp_path / "report.html") as partial:
        partial.write_text("report")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "report.html").read_text() == "report"
    assert not (tmp_path / "report.html").is_symlink()


# Processes and locks -----------------------------------------------------------------------------

THINGS = {
    "a dangling link": lambda path, other: path.symlink_to(path.with_name("nothing")),
    "a link to itself": lambda path, other: path.symlink_to(path),
    "a link to a file": lambda path, other: path.symlink_to(other),
    "a link to a folder": lambda path, other: path.symlink_to(other.parent),
    "a link to a pipe": lambda path, other: (
        os.mkfifo(other.with_name("pipe")),
        path.symlink_to(other.with_name("pipe")),
    ),
    "a hard link": lambda path, other: os.link(other, path),
    "a pipe": lambda path, other: os.mkfifo(path),
    "a folder": lambda path, other: path.mkdir(),
    "a device": lambda path, other: path.symlink_to("/dev/zero"),
    "a file of the user's": lambda path, other: path.write_text("my notes"),
    "a file of bytes": lambda path, other: path.write_bytes(b"\xff\0" * 1000),
}


@pytest.mark.fault(
    "WORKDIR/lock is a link, a pipe, a folder or a file of the user's",
    "refused in one line; no file is written",
)
@pytest.mark.parametrize("thing", THINGS)
def test_nothing_but_a_lock_is_taken_for_one(tmp_path, thing):
    other, workdir = tmp_path / "other" / "file", tmp_path / "run"
    other.parent.mkdir()
    workdir.mkdir()
    other.write_text("process 1: mine")
    THINGS[thing](workdir / "lock", other)
    before = sorted(tmp_path.rglob("*"))
    mine = (workdir / "lock").read_bytes() if thing.startswith("a file") else b""
    with pytest.raises(ValueError, match=r"run/lock is .*move it away, or use another --workdir"):
        FolderLock(workdir, "workdir", "use another --workdir").__enter__()
    assert sorted(tmp_path.rglob("*")) == before
    assert other.read_text() == "process 1: mine"
    if mine:
        assert (workdir / "lock").read_bytes() == mine


@pytest.mark.fault("two prepares into one folder", "the second is refused and told who has it")
def test_a_second_prepare_is_refused(folder):
    target = folder.parent / "out" / "toy" / "1.0.0"
    with FolderLock(target, "output", "use another --output"):
        message = rf"output .*1\.0\.0 is in use by process {os.getpid()} on .*--output"
        with pytest.raises(ValueError, match=message):
            prepare(folder)
    assert prepare(folder).finished
    assert not (target / "lock").exists()


@pytest.mark.fault("prepare is killed before its first file is complete", "it starts again")
def test_what_a_killed_prepare_leaves_is_no_hindrance(folder):
    target = folder.parent / "out" / "toy" / "1.0.0"
    target.mkdir(parents=True)
    (target / "lock").write_text("process 1 on node7, started 2020-01-01")
    (target / ".segjax.json.0123.part").write_text("{")
    assert prepare(folder).finished
    assert not list(target.glob(".*"))


@pytest.mark.fault("the disk is full during prepare", "one line names the file; it resumes")
def test_a_full_disk_during_prepare(folder, monkeypatch):
    from array_record.python import array_record_module

    class Full:
        def __init__(self, path, options):
            pass

        def write(self, record):
            raise RuntimeError("write() failed: No space left on device; at byte 17")

    with monkeypatch.context() as patch:
        patch.setattr(array_record_module, "ArrayRecordWriter", Full)
        with pytest.raises(OSError, match=r"No space left on device.*toy-train\.array_record"):
            prepare(folder)
    assert prepare(folder).finished


def sleep_long():
    time.sleep(60)


def fail():
    raise ValueError("one of the calls fails")


@pytest.mark.slow
@pytest.mark.fault("a call in one of several processes fails", "the others end at once")
def test_a_call_that_fails_ends_the_other_processes():
    began = time.monotonic()
    with pytest.raises(ValueError, match="one of the calls fails"):
        list(in_processes({"long": sleep_long, "bad": fail}, 2))
    assert time.monotonic() - began < 30


# Signals -----------------------------------------------------------------------------------------

STUCK = """
import ctypes, sys, threading
from segjax.training.interruption import ends_at_signals

def in_c():
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)

def in_a_read():
    open(sys.argv[2], "rb").read()

def losing_exceptions():
    while True:
        try:
            threading.Event().wait()
        except BaseException:
            pass

def waiting_for_a_thread():
    thread = threading.Thread(target=threading.Event().wait)
    thread.start()
    threading.Event().wait()

try:
    with ends_at_signals():
        print("ready", flush=True)
        globals()[sys.argv[1]]()
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.fault(
    "Ctrl-C or SIGTERM in a read that hangs, or where the exception is lost", "it ends in seconds"
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "where", ["in_a_read", "in_c", "losing_exceptions", "waiting_for_a_thread"]
)
def test_one_signal_ends_any_command(tmp_path, where, number):
    os.mkfifo(tmp_path / "pipe")
    process = processes.start("-c", STUCK, where, tmp_path / "pipe")
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 128 + number
        assert said == ""
    finally:
        process.kill()


OPTIONS = [
    "--config=configs/segnet_basic.py",
    *("--config.train.steps=8", "--config.train.eval_every=4", "--config.train.batch_size=4"),
    *("--config.data.image_size=(32,64)", "--config.augment.crop_size=(32,64)"),
    *("--config.data.train_images=12", "--config.data.eval_images=4", "--config.report.samples=2"),
    *("--config.train.log_every=1", "--config.optim.warmup_steps=2"),
]


@pytest.fixture
def launch(tmp_path_factory):
    """Starts a command, whose output goes to a file."""
    started = []
    cache = tmp_path_factory.getbasetemp() / "compiled"

    def launch(log, *arguments, environment=None):
        environment = {"JAX_COMPILATION_CACHE_DIR": str(cache), **(environment or {})}
        with log.open("w") as output:
            given = {argument.partition("=")[0]: argument for argument in (*OPTIONS, *arguments)}
            process = processes.start(
                *("launch.py", *given.values()),
                environment=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield launch
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def says(process, log, pattern):
    """Waits until a command has printed what matches."""
    end = time.monotonic() + 250
    while not re.search(pattern, log.read_text(errors="replace")):
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < end, log.read_text(errors="replace")
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.fault(
    "SIGTERM or Ctrl-C after the last step",
    "the command ends in 30 s with code 75; the evaluation and report are done at the next start",
)
@pytest.mark.parametrize("delay, number", [(0, signal.SIGTERM), (2, signal.SIGINT)])
def test_a_signal_after_the_last_step(tmp_path, launch, delay, number):
    workdir, log = tmp_path / "run", tmp_path / "log"
    process = launch(log, f"--workdir={workdir}")
    says(process, log, "step 8  val")
    time.sleep(delay)
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(60) == interruption.EXIT_INTERRUPTED
    assert time.monotonic() - began < 30
    assert not (workdir / "report.html").exists()
    assert launch(tmp_path / "again", f"--workdir={workdir}").wait(250) == 0
    assert (workdir / "report.html").exists()


def mounted(folder, size):
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    )
    if done.returncode:
        pytest.skip("mounts need root")
    return folder


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own."""
    folder = mounted(tmp_path / "disk", "12m")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk):
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.slow
@pytest.mark.fault(
    "the disk is full to the last byte under a run, and later has room again",
    "one warning each; the run goes on, saves again, and obeys SIGTERM in 30 s",
)
@pytest.mark.parametrize("then", ["room", "SIGTERM"])
def test_a_disk_that_another_program_fills(tmp_path, disk, launch, then):
    log = tmp_path / "log"
    more = [
        "--config.train.steps=60",
        "--config.train.eval_every=20",
        "--config.train.save_every=5",
    ]
    process = launch(log, *more, f"--workdir={disk / 'run'}")
    says(process, log, "step 5/")
    fill(disk)
    says(process, log, "step 25/")
    if then == "SIGTERM":
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (2, interruption.EXIT_INTERRUPTED)
        assert time.monotonic() - began < 30
        return
    (disk / "filler").unlink()
    assert process.wait(250) == 0
    text = log.read_text()
    assert "Traceback" not in text
    assert text.count("events end here") == text.count("rows wait") == 1
    assert (disk / "run" / "checkpoints" / "latest" / "60").is_dir()
    rows = (disk / "run" / "metrics.jsonl").read_text().splitlines()
    assert sum('"split": "train"' in row for row in rows) == 60


CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long offset(void) {
  long seconds = 0;
  FILE *file = fopen(getenv("CLOCK_OFFSET"), "r");
  if (file) { if (fscanf(file, "%ld", &seconds) != 1) seconds = 0; fclose(file); }
  return seconds;
}
int clock_gettime(clockid_t id, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(id, now);
  if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) now->tv_sec += offset();
  return failed;
}
time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}
int gettimeofday(struct timeval *out, void *zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  out->tv_sec = now.tv_sec;
  out->tv_usec = now.tv_nsec / 1000;
  return 0;
}
"""


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    """A library that moves the clock of a process."""
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(CLOCK)
    compiler = shutil.which("gcc") or pytest.skip("needs gcc")
    command = [compiler, "-shared", "-fPIC", "-o", "clock.so", "clock.c", "-ldl"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "clock.so"


@pytest.mark.slow
@pytest.mark.fault("the clock is set back or forward, by any time", "nothing waits for it")
@pytest.mark.parametrize("jump", [-30 * 86400, -(10**9), 10**9])
def test_a_clock_that_jumps_under_a_run(tmp_path, launch, clock, jump):
    workdir, log, offset = tmp_path / "run", tmp_path / "log", tmp_path / "offset"
    offset.write_text("0")
    environment = {"LD_PRELOAD": str(clock), "CLOCK_OFFSET": str(offset)}
    more = ["--config.train.save_every=1", f"--workdir={workdir}"]
    process = launch(log, *more, environment=environment)
    says(process, log, "step 3/")
    offset.write_text(str(jump))
    assert process.wait(250) == 0
    assert "Traceback" not in log.read_text()
    assert (workdir / "report.html").exists()


def group(process):
    """The living processes of a command's group."""
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-g", str(process.pid)], capture_output=True, text=True
    ).stdout
    return [state for state in listed.split() if not state.startswith("Z")]


@pytest.mark.slow
@pytest.mark.fault(
    "prepare gets SIGTERM, SIGKILL or Ctrl-C", "its processes end with it; it resumes"
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_the_processes_of_prepare_end_with_it(tmp_path, launch, number):
    log = tmp_path / "log"
    more = ["--mode=prepare", "--config.data.train_images=3000", f"--output={tmp_path / 'out'}"]
    process = launch(log, *more)
    end = time.monotonic() + 250
    while len(group(process)) < 4 and time.monotonic() < end:  # resource tracker, two workers
        time.sleep(1)
    assert process.poll() is None, log.read_text()
    if number == signal.SIGINT:  # as a terminal does
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    expected = -number if number == signal.SIGKILL else 128 + number
    assert process.wait(60) == expected
    wait_for(lambda: not group(process), 30)
    assert "Traceback" not in log.read_text()
