"""Runs of several real processes on loopback, two devices each: the numbers are those of one
process; all end together when one of them dies, fails, or is asked to stop."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from segjax import config as configs
from segjax.training.distributed import EXIT_LOST, EXIT_USER_ERROR
from segjax.training.evaluation import Evaluation, evaluation_path
from segjax.training.interruption import EXIT_INTERRUPTED
from segjax.training.metrics_file import read_metrics
from tests.training.processes import TINY_RUN, free_address, start, wait_for
from tests.training.runs import left_by
from tests.training.test_distributed import free_job, slurm

OPTIONS = (
    *TINY_RUN,
    "--config.train.eval_batch_size=3",
    "--config.train.log_every=1",
    "--config.optim.warmup_steps=3",
)
# Losses of more steps may differ by more than rounding now and then: it decides which of two values
# in a pooling window is larger, and SegNet puts that one back where it was.
STEPS = 20
LIMIT_S = 240  # on a busy machine
pytestmark = pytest.mark.slow


class Processes:
    """Starts `count` processes of launch.py, as a context that kills them at the end.

    Args:
      logs: folder for their output.
      own: options of single processes, by number.
    """

    def __init__(self, logs, count, *options, own=()):
        logs.mkdir(exist_ok=True)
        self.logs = [logs / f"{time.monotonic_ns()}_{number}.txt" for number in range(count)]
        self.running = []
        together = [f"--coordinator={free_address()}", f"--num_processes={count}"]
        devices = {"JAX_NUM_CPU_DEVICES": "2" if count > 1 else "1"}
        for number, log in enumerate(self.logs):
            command = ["launch.py", *options, *dict(own).get(number, ())]
            command += [*together, f"--process_id={number}"] if count > 1 else []
            with log.open("w") as file:
                process = start(
                    *command, environment=devices, stdout=file, stderr=subprocess.STDOUT
                )
            self.running.append(process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.kill()
            process.wait()

    def ended(self, limit=LIMIT_S) -> list[int]:
        """Exit codes; None for a process that still runs at the limit."""
        deadline = time.monotonic() + limit
        for process in self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0))
        return [process.poll() for process in self.running]

    def output(self, number) -> str:
        return self.logs[number].read_text()

    def assert_lost_another(self, number) -> None:
        """The process ended with a message because another one is gone. JAX aborts it unless a
        collective notices first."""
        output, code = self.output(number), self.running[number].poll()
        assert code in (EXIT_LOST, -signal.SIGABRT), output
        if code == EXIT_LOST:
            (error,) = re.findall("^error: .*", output, re.MULTILINE)
            assert error.startswith(f"error: process {number} of {len(self.running)} lost another")
            assert error.endswith("start all again: the run resumes from its last checkpoint")
        else:
            assert "This most likely indicates that another task died" in output
        assert "Traceback" not in output

    def until_step(self, workdir, step) -> None:
        def reached() -> bool:
            assert all(process.poll() is None for process in self.running), self.output(0)
            return any(row["step"] >= step for row in read_metrics(workdir))

        wait_for(reached, LIMIT_S)


def train(workdir, steps=STEPS, every=5) -> tuple[str, ...]:
    steps = (f"--config.train.steps={steps}", f"--config.train.eval_every={every}")
    return (*OPTIONS, *steps, f"--workdir={workdir}")


def run(logs, count, *options) -> None:
    with Processes(logs, count, *options) as processes:
        codes = processes.ended()
        assert codes == [0] * count, "\n".join(map(processes.output, range(count)))


def left(workdir):
    config = configs.load(workdir)
    config.parallel.mode = "jit"  # pmap would refuse the batch on the devices of this process
    return left_by(workdir, STEPS, config)


def assert_same_run(one, many):
    one, many = left(one), left(many)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), many.state, one.state)
    assert many.host["data"] == one.host["data"]
    for split in ("train", "val"):
        assert many.steps(split) == one.steps(split)
    for key in ("loss", "miou"):
        ours, theirs = ([row[key] for row in each.rows] for each in (many, one))
        np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=key)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The workdir of the run of one process with one device."""
    folder = tmp_path_factory.mktemp("one")
    run(folder / "logs", 1, *train(folder / "run"))
    return folder / "run"


@pytest.mark.parametrize(
    "count, options",
    [
        (2, ()),
        (4, ()),
        (3, ("mode=pmap",)),  # 6 images on 6 devices
        (2, ("space=4", "shard_optimizer=True")),  # the rows of an image in both processes
    ],
)
def test_run_is_that_of_one_process(one, count, options, tmp_path):
    options = (f"--config.parallel.{option}" for option in options)
    run(tmp_path / "logs", count, *train(tmp_path / "run"), *options)
    assert_same_run(one, tmp_path / "run")


@pytest.mark.parametrize("count", [2, 4])
def test_evaluation_is_that_of_one_process(one, count, tmp_path):
    """Of the same weights: every image once, in order, with the same counts."""
    before = {split: Evaluation.load(evaluation_path(one, split)) for split in ("val", "test")}
    report = (one / "report.html").stat().st_mtime_ns
    run(tmp_path / "logs", count, "--mode=evaluate", f"--workdir={one}")
    assert (one / "report.html").stat().st_mtime_ns > report
    for split, expected in before.items():
        result = Evaluation.load(evaluation_path(one, split))
        assert result.names == expected.names
        assert len(result.names) == 5
        for ours, theirs in zip(result.confusions, expected.confusions, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert result.loss == pytest.approx(expected.loss, rel=1e-6)


@pytest.mark.parametrize("count, victim, then", [(2, 0, 1), (2, 1, 4), (3, 1, 2)])
def test_one_is_killed(one, count, victim, then, tmp_path):
    """The others end within a minute and say why; any number of processes resumes the run."""
    options = train(tmp_path / "run")
    with Processes(tmp_path / "logs", count, *options) as processes:
        processes.until_step(tmp_path / "run", 7)
        processes.running[victim].kill()
        codes = processes.ended(60)
    assert codes[victim] == -signal.SIGKILL
    for number in {*range(count)} - {victim}:
        processes.assert_lost_another(number)
    run(tmp_path / "logs", then, *options)
    assert_same_run(one, tmp_path / "run")


def workers_of(process: subprocess.Popen) -> list[int]:
    """The processes that it spawned to read data."""
    tasks = pathlib.Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    command = "multiprocessing.spawn"
    return [p for p in children if command in pathlib.Path(f"/proc/{p}/cmdline").read_text()]


@pytest.mark.parametrize("count, failing", [(2, 0), (3, 1)])
def test_one_fails(count, failing, tmp_path):
    """An error in one process ends all; here a reader of data dies."""
    own_worker = {failing: ("--config.data.workers=1",)}
    options = train(tmp_path / "run", steps=2000, every=500)
    with Processes(tmp_path / "logs", count, *options, own=own_worker) as processes:
        processes.until_step(tmp_path / "run", 7)
        (worker,) = workers_of(processes.running[failing])
        os.kill(worker, signal.SIGKILL)
        codes = processes.ended(60)
    output = processes.output(failing)
    assert codes[failing] == EXIT_USER_ERROR, output
    assert re.search("^error: .*worker", output, re.MULTILINE)
    assert "Traceback" not in output
    for number in {*range(count)} - {failing}:
        processes.assert_lost_another(number)


def test_all_fail_alike(tmp_path):
    """Every process reports an error that all of them have, and exits with its code."""
    options = [option for option in train(tmp_path / "run") if "warmup_steps" not in option]
    options.append("--config.optim.warmup_steps=1000")
    with Processes(tmp_path / "logs", 2, *options) as processes:
        assert processes.ended(60) == [EXIT_USER_ERROR] * 2
    for number in range(2):
        assert "error: optim.warmup_steps=1000" in processes.output(number)


def test_one_is_asked_to_stop(one, tmp_path):
    """All save and stop at the same step; the same command resumes."""
    options = train(tmp_path / "run")
    with Processes(tmp_path / "logs", 2, *options) as processes:
        processes.until_step(tmp_path / "run", 7)
        processes.running[1].terminate()
        began = time.monotonic()
        assert processes.ended() == [EXIT_INTERRUPTED] * 2, processes.output(0)
        assert time.monotonic() - began < 30
    ends = [processes.output(number).splitlines()[-1] for number in range(2)]
    assert ends[0] == ends[1]
    assert "saved at step" in ends[0]
    run(tmp_path / "logs", 2, *options)
    assert_same_run(one, tmp_path / "run")


def test_a_mode_for_one_process_is_refused():
    """A scheduler has started it in two; tests/test_cli.py refuses the flags."""
    command, job = ("launch.py", "--mode=plan", "--config=configs/segnet.py"), free_job()
    for process in [start(*command, environment=slurm(job, number, 2)) for number in range(2)]:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == EXIT_USER_ERROR
        assert "only train and evaluate can be shared" in output + errors


def test_a_process_without_the_others_gives_up():
    script = (
        "from segjax.training import distributed as d; d.start('127.0.0.1:1', 2, 1, timeout_s=3)"
    )
    process = start("-c", script)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGABRT
    assert "waiting up to 3 s for the other processes at 127.0.0.1:1; see" in errors
