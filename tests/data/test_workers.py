"""Worker processes of the loader whose own process is killed, is signalled, or hangs."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.data.drawn import DAMAGED_LENGTH, damaged_folder

pytestmark = pytest.mark.slow  # each starts a program that starts two more


@pytest.fixture
def folder(tmp_path):
    return damaged_folder(tmp_path)


def children_of(pid):
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout
    pairs = [map(int, line.split()) for line in listing.splitlines()]
    return [child for child, parent in pairs if parent == pid]


def is_running(pid):
    """Whether a process is there and no zombie."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


PROGRAM = """
    import signal, sys
    from segjax.data.batches import train_iterator
    from segjax.data.files import pixels
    from segjax.data.fitted import FittedDataset
    from segjax.data.sets.folder import open_folder
    from tests.data.drawn import THREE

    pixels.regular = lambda path: path  # in the workers too: pipes hang, as a file server may

    if __name__ == "__main__":
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        source = open_folder(sys.argv[1], "train", THREE)
        split = FittedDataset(source, (8, 12), on_unreadable="skip", timeout_s=float(sys.argv[2]))
        iterator = train_iterator(split, 4, seed=0, workers=2)
        for line in sys.stdin:
            try:
                print(next(iterator)["index"].tolist(), flush=True)
            except OSError as error:
                print(f"{type(error).__name__}: {error}", flush=True)
                sys.exit(2)
        iterator.close()
"""


@pytest.fixture
def program(folder):
    """Starts a program of its own that takes one batch for each line it is sent."""
    file, started = folder / "program.py", []
    file.write_text(textwrap.dedent(PROGRAM))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(pathlib.Path.cwd()), *sys.path])}

    def start(timeout_s):
        process = subprocess.Popen(
            [sys.executable, file, folder, str(timeout_s)],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ask(process):
    print(file=process.stdin, flush=True)
    return process.stdout.readline()


def test_workers_do_not_outlive_a_process_that_is_killed(program):
    process = program(60)
    assert ask(process).startswith("[")
    workers = children_of(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.wait(10)
    end = time.monotonic() + 10
    while any(map(is_running, workers)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(is_running, workers))


@pytest.mark.parametrize("moment", [0.0, 1.0, 2.0, None])
def test_signals_to_the_whole_group_leave_the_workers_to_their_process(program, moment):
    process = program(60)
    answers = []
    if moment is None:
        answers.append(ask(process))
    else:  # while things start; the handlers of the process itself are there at the first answer
        print(file=process.stdin, flush=True)
        while not children_of(process.pid):
            time.sleep(0.01)
        time.sleep(moment)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.killpg(process.pid, number)
    answers += [ask(process) for _ in range(9)]
    assert all(answer.startswith("[") for answer in answers), answers
    _, told = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in told


def test_a_worker_that_hangs_ends_the_run_with_an_error(program, folder):
    process = program(15)
    assert ask(process).startswith("[")
    for k in range(DAMAGED_LENGTH):
        pipe = folder / "images" / "train" / f"{k}.png"
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe)
    began = time.monotonic()
    answer = "["
    while answer.startswith("["):
        answer = ask(process)
    message = "TimeoutError: no data for 15 s (data.timeout_s) while reading some of "
    assert answer.startswith(message)
    assert str(folder / "images" / "train") in answer
    assert process.wait(30) == 2
    assert time.monotonic() - began < 40
