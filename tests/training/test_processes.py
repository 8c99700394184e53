"""How processes find each other and what they exchange; real ones where it takes more than one."""

import os
import pathlib
import pickle
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from segjax.training import processes
from tests.training import share_evaluation

ROOT = pathlib.Path(__file__).parents[2]
ONE = {**share_evaluation.PLACES, "data": 1}


def free_job() -> int:
    """A job number whose port, which JAX makes of it, is free."""
    for job in range(os.getpid() % 4096, 3 * 4096):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 65535 - 2**12 + 1 + job % 2**12)):
                return job
    raise AssertionError("no free port")


def slurm(job, number, count) -> dict[str, str]:
    """What SLURM tells the tasks of a step on one node."""
    return {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_NTASKS": str(count),
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
    }


def open_mpi(job, number, count) -> dict[str, str]:
    """What mpirun of Open MPI 4 tells its processes."""
    return {
        "OMPI_MCA_orte_hnp_uri": f"{job * 4096}.0;tcp://127.0.0.1:1",
        "OMPI_COMM_WORLD_SIZE": str(count),
        "OMPI_COMM_WORLD_RANK": str(number),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(number),
    }


def start(*arguments, environment=()) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **dict(environment)}
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True
    )


@pytest.mark.parametrize(
    "scheduler",
    [
        pytest.param(slurm, marks=pytest.mark.versions),
        pytest.param(open_mpi, marks=pytest.mark.slow),
    ],
)
def test_two_processes_that_a_scheduler_starts(scheduler, tmp_path):
    """They find each other by the environment alone, and evaluate as one process does."""
    job, files = free_job(), [tmp_path / "0", tmp_path / "1"]
    script = "tests/training/share_evaluation.py"
    running = [
        start(script, str(file), environment={**scheduler(job, i, 2), "JAX_NUM_CPU_DEVICES": "2"})
        for i, file in enumerate(files)
    ]
    ends = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], ends
    quick, full = share_evaluation.quick(ONE), share_evaluation.full(ONE)
    for number, file in enumerate(files):
        found = pickle.loads(file.read_bytes())
        assert found["processes"] == 2
        assert found["first"] == (number == 0)
        assert found["gathered"] == [{"number": i, "long": "x" * 1000 * i} for i in range(2)]
        for evaluation in found["quick"]:
            assert_same(evaluation, quick)
        for evaluation in found["full"]:
            assert_same(evaluation, full)
            np.testing.assert_equal(evaluation.boundary, full.boundary)
            np.testing.assert_equal(evaluation.by_object, full.by_object)
            for key in ("ece", "mce", "brier", "nll", "pixels"):
                wanted = pytest.approx(full.calibration[key], rel=1e-5)
                assert evaluation.calibration[key] == wanted, key


def assert_same(found, wanted):
    assert found.names == list(wanted.names)
    for ours, theirs in zip(found.confusions, wanted.confusions, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert found.loss == pytest.approx(wanted.loss, rel=1e-6)


ALONE = """
import jax
from segjax.training import processes
assert processes.start() == 1
assert not jax.distributed.is_initialized()
assert processes.gather("x") == ["x"] and processes.is_first()
processes.barrier("nobody to wait for")
"""


@pytest.mark.parametrize(
    "environment",
    [
        slurm(1, 0, 1),  # whose one task is to have all GPUs of the node
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},  # any pod
    ],
    ids=["slurm", "pod"],
)
def test_one_process_by_itself(environment):
    process = start("-W", "error", "-c", ALONE, environment=environment)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("a:1", 2, None), r"--coordinator=a:1 --num_processes=2 alone; give .* to each process"),
        ((None, 2, None), "--num_processes=2 alone"),
        ((None, None, 0), "--process_id=0 alone"),
        (("a", 2, 0), "--coordinator=a; use HOST:PORT, such as node0:1234"),
        (("a:b", 2, 0), "--coordinator=a:b; use HOST:PORT"),
        ((":1234", 2, 0), "--coordinator=:1234; use HOST:PORT"),
        (("a:70000", 2, 0), "--coordinator=a:70000; use HOST:PORT"),
        (("a:1", 2, 2), "--process_id=2; number the processes from 0 to 1"),
        (("a:1", 2, -1), "--process_id=-1; number the processes from 0 to 1"),
        (("a:1", 0, 0), "--process_id=0; number the processes from 0"),
    ],
)
def test_arguments_that_do_not_go_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        processes.start(*arguments)


def test_one_process_by_hand():
    assert processes.start(None, 1) == processes.start("nowhere:1", 1, 0) == 1


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    """Wherever the tests run."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "KUBERNETES_", "JOB_COMPLETION", "JAX_COORDINATOR")):
            monkeypatch.delenv(name)


GPUS = {"CUDA_VISIBLE_DEVICES": "4,5,6,7", "SLURM_STEP_NUM_NODES": "2"}


@pytest.mark.parametrize(
    "environment, wanted",
    [
        ({}, None),
        ({**GPUS, "SLURM_NTASKS": "8"}, None),  # JAX's choice: the n-th GPU for the n-th task
        ({**GPUS, "SLURM_NTASKS": "2"}, [0, 1, 2, 3]),  # a task per node has all of them
        ({**GPUS, "SLURM_NTASKS": "8", "CUDA_VISIBLE_DEVICES": "5"}, [0]),  # bound by SLURM
        ({"CUDA_VISIBLE_DEVICES": "0,1", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, [0, 1]),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, None),
        ({**GPUS, "SLURM_NTASKS": "2", "JAX_LOCAL_DEVICE_IDS": "1"}, None),  # as the user says
    ],
)
def test_gpus_that_jax_is_told_to_use(environment, wanted, monkeypatch):
    """What `jax.distributed.initialize` is given, which finds no cluster here."""
    for name in ("CUDA_VISIBLE_DEVICES", "JAX_LOCAL_DEVICE_IDS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    given = []

    def initialize(**options):
        given.append(options["local_device_ids"])
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    assert processes.start() == 1
    assert given == [wanted]


def test_a_cluster_that_jax_does_not_know(monkeypatch):
    """Such as Open MPI 5 is to JAX 0.10: its processes do not run the same thing side by side."""
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")  # mpirun's own

    def initialize(**options):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=r"4 processes were started together, but .* give --coord"):
        processes.start()
    monkeypatch.delenv("OMPI_COMM_WORLD_SIZE")
    assert processes.start() == 1


def test_a_cluster_that_cannot_be_joined(monkeypatch):
    def initialize(**options):
        raise RuntimeError("UNKNOWN: Failed to start RPC server\nmore")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    message = (
        r"cannot be joined at a:1: UNKNOWN: Failed to start RPC server; --num_processes=1 runs"
    )
    with pytest.raises(OSError, match=message):
        processes.start("a:1", 2, 0)
    with pytest.raises(OSError, match="cannot be joined: UNKNOWN"):
        processes.start()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert processes.start() == 1  # a pod that no job has numbered, so JAX does not know its job
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    with pytest.raises(OSError, match="cannot be joined: UNKNOWN"):
        processes.start()
