"""Signals, sent to this process and to real others."""

import contextlib
import os
import pathlib
import re
import signal
import threading
import time

import pytest

from segjax.training import interruption as module
from segjax.training.interruption import EXIT_INTERRUPTED, Interrupted, Interruption
from tests.training import processes
from tests.training.processes import assert_end_well, free_address, wait_for

SIGNALS = ("SIGTERM", "SIGINT")
# Says "ready", and is then stuck where Python runs no handlers: in C, as in a compilation.
STUCK = """
import ctypes, multiprocessing, sys, time
from segjax.training.interruption import Interruption

def work():
    time.sleep(60)

def in_c():
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    libc.pthread_mutex_lock(mutex)
    print("ready", *pids, flush=True)
    libc.pthread_mutex_lock(mutex)

def compiling():
    import jax, jax.numpy as jnp

    def long(x):
        for i in range(3000):
            x = jnp.sin(x) @ x + i
        return x

    lowered = jax.jit(long).lower(jnp.ones((8, 8)))
    print("ready", *pids, flush=True)
    lowered.compile()

if __name__ == "__main__":
    where, unsaved = sys.argv[1:]
    worker = multiprocessing.get_context("spawn").Process(target=work, daemon=True)
    worker.start()
    pids = [worker.pid]
    with Interruption() as interruption:
        interruption.unsaved = unsaved == "unsaved"
        {"in_c": in_c, "compiling": compiling}[where]()
        print("not stuck", flush=True)
"""


@pytest.fixture
def start(tmp_path):
    """Starts a script, which ends with the test."""
    running = []

    def start(text, *arguments):
        script = tmp_path / "script.py"
        script.write_text(text)
        running.append(processes.start(script, *arguments))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def is_gone(pid):
    """Whether a process has ended; nobody may have waited for it."""
    with contextlib.suppress(OSError):
        return ") Z" in pathlib.Path(f"/proc/{pid}/stat").read_text()
    return True


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_is_heard_and_the_old_handlers_are_back(name, capfd):
    number = signal.Signals[name]
    before = [signal.getsignal(signal.Signals[n]) for n in SIGNALS]
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    with Interruption() as interruption:
        interruption.unsaved = True
        assert interruption.requested() == interruption.asked == ""
        os.kill(os.getpid(), number)
        assert interruption.requested() == interruption.asked == name
        assert interruption.requested() == name
        wait_for(lambda: capfd.readouterr().err.startswith(f"{name}: the step is finished"))
    assert [signal.getsignal(signal.Signals[n]) for n in SIGNALS] == before
    assert signal.set_wakeup_fd(descriptor) == descriptor


def test_each_of_two_signals_is_answered_once(capfd):
    with Interruption() as interruption:
        interruption.unsaved = True
        for name in ("SIGTERM", "SIGINT", "SIGTERM"):
            os.kill(os.getpid(), signal.Signals[name])
        said = []
        wait_for(lambda: said.append(capfd.readouterr().err) or "".join(said).count("\n") == 2)
        assert interruption.requested() == "SIGTERM"
    said.append(capfd.readouterr().err)
    first, second = "".join(said).splitlines()
    assert first == "SIGTERM: the step is finished and saved, then the run stops"
    assert second.startswith("SIGINT: ")
    assert second.endswith("a second one stops at once")


@pytest.fixture
def ends(monkeypatch):
    """The codes that this process would have ended with."""
    codes = []
    monkeypatch.setattr(module, "_GRACE_S", 0.1)
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


@pytest.mark.parametrize("loop", ["is stuck", "asks", "begins a step", "is over"])
def test_nothing_unsaved_ends_a_loop_that_is_stuck(ends, loop):
    """A signal that the loop did not ask for any more is obeyed when it is over."""
    never_asked = contextlib.nullcontext()
    if loop != "asks":
        never_asked = pytest.raises(Interrupted, match="SIGTERM: the run is saved")
    with never_asked, Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        if loop == "asks":
            assert interruption.requested() == "SIGTERM"
        interruption.unsaved = loop == "begins a step"
        if loop == "is stuck":
            wait_for(lambda: ends == [EXIT_INTERRUPTED])
        elif loop != "is over":
            time.sleep(0.3)
    if loop != "is stuck":
        time.sleep(0.3 if loop == "is over" else 0)
        assert ends == []


@pytest.mark.parametrize("ends_itself", [True, False])
def test_unsaved_work_keeps_a_process_only_so_long(ends, monkeypatch, capfd, ends_itself):
    monkeypatch.setattr(module, "LIMIT_S", 0.2)
    with Interruption() as interruption:
        interruption.unsaved = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.requested() == "SIGTERM"
        if not ends_itself:
            wait_for(lambda: ends == [EXIT_INTERRUPTED])
            assert "resumes from its last checkpoint" in capfd.readouterr().err
    time.sleep(0.4 * ends_itself)
    assert ends == [EXIT_INTERRUPTED] * (not ends_itself)


def test_the_limit_is_longer_where_steps_are(ends, monkeypatch):
    monkeypatch.setattr(module, "LIMIT_S", 0.1)
    with Interruption() as interruption:
        interruption.unsaved, interruption.limit_s = True, 60
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        assert interruption.requested() == "SIGTERM"
    assert ends == []


def look_until(interruption, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        interruption.look()
        time.sleep(0.01)


def test_a_wait_looks_for_a_signal():
    with Interruption() as interruption:
        interruption.unsaved = True
        interruption.look()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted, match="SIGINT"):
            look_until(interruption)
        assert interruption.requested() == "SIGINT"


def interrupted_after(seconds, name):
    os.kill(os.getpid(), signal.Signals[name])
    time.sleep(seconds)


@pytest.mark.parametrize("name", SIGNALS)
def test_what_nobody_asks_in_ends_at_once(ends, capfd, name):
    text = "the report is not done"
    with pytest.raises(Interrupted, match=f"{name}: {text}"), Interruption(text):
        interrupted_after(5, name)
    time.sleep(0.3)
    assert ends == []
    assert capfd.readouterr().err == ""  # the caller says it


def test_an_exception_that_is_lost_ends_the_process_too(ends, capfd):
    """As one in a callback of the garbage collector is."""
    text = "the report is not done"
    with pytest.raises(Interrupted, match=text), Interruption(text):  # noqa: PT012
        with contextlib.suppress(Interrupted):
            interrupted_after(5, "SIGINT")
        wait_for(lambda: ends == [EXIT_INTERRUPTED])
    assert capfd.readouterr().err == f"SIGINT: {text} (exit code 75)\n"


def test_outside_the_main_thread_nothing_changes():
    seen = []

    def run():
        with Interruption() as interruption:
            seen.append(signal.getsignal(signal.SIGTERM))
            seen.append(interruption.requested())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM), ""]


def test_signals_of_others_are_left_alone(ends, capfd):
    heard = []
    old = signal.signal(signal.SIGUSR1, lambda *_: heard.append("USR1"))
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.2)
            assert interruption.requested() == ""
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert heard == ["USR1"]
    assert ends == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("where", ["in_c", pytest.param("compiling", marks=pytest.mark.slow)])
def test_a_process_that_is_stuck(start, where):
    """The first signal ends it if nothing is unsaved; a second SIGINT ends any."""
    saved, unsaved = start(STUCK, where, "saved"), start(STUCK, where, "unsaved")
    workers = []
    for process in (saved, unsaved):
        ready, pid = process.stdout.readline().split()
        assert ready == "ready"
        workers.append(int(pid))
    time.sleep(0.2)  # into C
    began = time.monotonic()
    saved.send_signal(signal.SIGTERM)
    unsaved.send_signal(signal.SIGINT)
    assert "a second one stops at once" in unsaved.stderr.readline()
    assert saved.wait(30) == EXIT_INTERRUPTED
    assert unsaved.poll() is None
    unsaved.send_signal(signal.SIGTERM)  # is no second SIGINT
    assert unsaved.stderr.readline().startswith("SIGTERM: ")
    time.sleep(1.5 * module._GRACE_S)
    assert unsaved.poll() is None
    unsaved.send_signal(signal.SIGINT)
    assert unsaved.wait(30) == 130
    assert time.monotonic() - began < 30
    assert "nothing was unsaved" in saved.stderr.read()
    assert [process.stdout.read() for process in (saved, unsaved)] == [""] * 2
    wait_for(lambda: all(is_gone(pid) for pid in workers))


# Polls, and says when it was asked to stop; "step" is what the processes agree on.
MANY = """
import sys, time
import jax
from segjax.training.interruption import Interruption

address, process, ready_at, pause, first_pause = sys.argv[1:]
jax.distributed.initialize(address, 2, int(process))
with Interruption() as interruption:
    for step in range(3000):
        if step == int(ready_at):
            print("ready", flush=True)
        # Not at the same pace.
        time.sleep(float(pause) * (1 + int(process)) if step else float(first_pause))
        if step and interruption.requested():
            break
    again = interruption.requested()
print(step, interruption.asked, again, flush=True)
jax.distributed.shutdown()
"""


def start_two(start, ready_at, pause, first_pause=0):
    address = free_address()
    two = [start(MANY, address, number, ready_at, pause, first_pause) for number in range(2)]
    for process in two:
        assert process.stdout.readline() == "ready\n"
    return two


@pytest.mark.slow
@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("ready_at, first_pause", [(10, 0), (0, 4)], ids=["in steps", "before"])
def test_many_processes_stop_at_the_same_step(start, name, ready_at, first_pause):
    two = start_two(start, ready_at, 0.02, first_pause)
    two[1].send_signal(signal.Signals[name])
    for process in two:
        process.wait(60)
    errors = [process.stderr.read() for process in two]
    lines = [output.split() for output in assert_end_well(two)]
    assert lines[0][0] == lines[1][0]
    assert lines[0][1:] == ["SIGTERM", "SIGTERM"]
    assert lines[1][1:] == [name, name]
    for error in errors:
        assert len(re.findall(r"^SIG(?:TERM|INT): the step is finished", error, re.M)) == 1


@pytest.mark.slow
def test_one_of_many_processes_ends_at_the_second_sigint(start):
    two = start_two(start, 1, 2)
    for _ in range(2):
        two[1].send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert two[1].wait(10) == 130


@pytest.mark.slow
def test_one_of_many_processes_that_is_stuck_ends_after_the_limit(start):
    """JAX has the handler, in C, and nobody asks it."""
    loop = "    for step in range(3000):"
    stuck = MANY.replace(loop, f"    interruption.limit_s = 2.0\n{loop}")
    address = free_address()
    two = [start(stuck, address, number, 0, 0, 1000) for number in range(2)]
    for process in two:
        assert process.stdout.readline() == "ready\n"
    two[1].send_signal(signal.SIGTERM)
    assert two[1].wait(20) == EXIT_INTERRUPTED
    assert "resumes from its last checkpoint" in two[1].stderr.read()
