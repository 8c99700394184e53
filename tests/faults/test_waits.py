"""Waits that would never end: disks, threads, processes, locks and signals."""

import contextlib
import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
import time

import pytest

from segjax.data.files.atomic import append, replacing
from segjax.data.files.folder_lock import FolderLock
from segjax.data.parallel import in_processes
from segjax.training import interruption
from segjax.training.tracking import event_file, followers
from segjax.training.tracking.event_file import EventFile
from segjax.training.tracking.followers import Follower, Followers
from tests.data.drawn import pairs
from tests.faults.test_reads import prepare
from tests.training import processes
from tests.training.processes import wait_for
from tests.training.tracking.test_event_file import events_in


@pytest.fixture
def folder(tmp_path):
    return pairs(tmp_path / "data", ["a", "b", "c"])


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
    with Followers(["tensorboard"], tmp_path, {}) as shown:
        shown.begin(0, [])
        shown._all[0]._thread.join(5)
        with pytest.warns(UserWarning, match=f"tensorboard ends.*{os.strerror(number)}.; the run"):
            shown.scalars(1, {"loss": 0.5})
        for step in range(5000):  # without another word, and without waiting
            shown.scalars(step, {"loss": 0.5})


@pytest.mark.fault(
    "the disk is full, read-only, gone or dead under TensorBoard's events",
    "one warning; the run goes on without them",
)
@pytest.mark.parametrize("why", ["hangs", "is dead"])
def test_a_thread_that_does_not_write_is_never_awaited(tmp_path, monkeypatch, why):
    released = threading.Event()
    if why == "is dead":  # of an error that no one thought of
        monkeypatch.setattr(Follower, "_work", lambda self: None)
    monkeypatch.setattr(event_file, "append", lambda file, data: released.wait())
    monkeypatch.setattr(followers, "_MOST", 20)
    monkeypatch.setattr(followers, "_GRACE_S", {"finished": 0.1})
    began = time.monotonic()

    def write_many(shown):
        shown.begin(0, [])
        for step in range(100):
            shown.scalars(step, {"loss": 0.5})

    message = "tensorboard ends here .it does not keep up"
    with Followers(["tensorboard"], tmp_path, {}) as shown, pytest.warns(match=message):
        write_many(shown)
    assert time.monotonic() - began < 5
    released.set()


@pytest.mark.fault("the clock is set back or forward, by any time", "nothing waits for it")
@pytest.mark.parametrize("now", [0.0, 1e11, -1e9])
def test_the_clock_does_not_matter(tmp_path, monkeypatch, now):
    monkeypatch.setattr(event_file.time, "time", lambda: now)
    file = EventFile(tmp_path, {})
    file.begin(0, [])
    file.scalars(1, {"loss": 0.5})
    file.close("finished")
    assert [event.wall_time for event in events_in(tmp_path / "tensorboard")] == [now] * 3


@pytest.mark.fault("the disk fills up within a row of the record", "no part of the row is left")
def test_a_row_is_appended_whole_or_not_at_all(tmp_path):
    with (tmp_path / "record").open("ab", buffering=0) as file:
        append(file, b"before ")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
            for _ in range(3):
                with pytest.raises(OSError, match="File too large"):
                    append(file, b"a row")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, old)
        append(file, b"a row")
    assert (tmp_path / "record").read_bytes() == b"before a row"


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
    assert "Exception in thread" not in text
    assert text.count("events end here") == text.count("rows wait") == 1
    assert (disk / "run" / "checkpoints" / "latest" / "60").is_dir()
    rows = [json.loads(row) for row in (disk / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "train"] == [*range(1, 61)]


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
