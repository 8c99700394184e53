"""How processes find each other and exchange values, in real processes where it takes several.

test_many_processes.py shows how they end together.
"""

import os
import pickle
import socket

import jax
import numpy as np
import pytest

from segjax.training import distributed
from segjax.training.interruption import Interrupted
from tests.training import share_evaluation
from tests.training.processes import assert_end_well, start

ONE = {**share_evaluation.PLACES, "data": 1}


def free_job() -> int:
    """A job number whose port is free; JAX derives the port from it."""
    for job in range(os.getpid() % 4096, 3 * 4096):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 65535 - 2**12 + 1 + job % 2**12)):
                return job
    raise AssertionError("no free port")


def slurm(job, number, count) -> dict[str, str]:
    """SLURM's variables for a task of a step on one node."""
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
    """The variables that mpirun of Open MPI 4 sets."""
    return {
        "OMPI_MCA_orte_hnp_uri": f"{job * 4096}.0;tcp://127.0.0.1:1",
        "OMPI_COMM_WORLD_SIZE": str(count),
        "OMPI_COMM_WORLD_RANK": str(number),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(number),
    }


@pytest.mark.parametrize(
    "scheduler",
    [
        pytest.param(slurm, marks=pytest.mark.versions),
        pytest.param(open_mpi, marks=pytest.mark.slow),
    ],
)
def test_two_processes_that_a_scheduler_starts(scheduler, tmp_path):
    """They find each other through the environment, and evaluate as one process does."""
    job, files = free_job(), [tmp_path / "0", tmp_path / "1"]
    script = "tests/training/share_evaluation.py"
    devices = {"JAX_NUM_CPU_DEVICES": "2"}
    assert_end_well(
        [
            start(script, file, environment={**scheduler(job, i, 2), **devices})
            for i, file in enumerate(files)
        ]
    )
    quick, full = share_evaluation.quick(ONE), share_evaluation.full(ONE)
    for number, file in enumerate(files):
        result = pickle.loads(file.read_bytes())
        assert result["processes"] == 2
        assert result["first"] == (number == 0)
        assert result["gathered"] == [{"number": i, "long": "x" * 1000 * i} for i in range(2)]
        for evaluation in result["quick"]:
            assert_same(evaluation, quick)
        for evaluation in result["full"]:
            assert_same(evaluation, full)
            np.testing.assert_equal(evaluation.boundary, full.boundary)
            np.testing.assert_equal(evaluation.by_object, full.by_object)
            for key in ("ece", "mce", "brier", "nll", "pixels"):
                expected = pytest.approx(full.calibration[key], rel=1e-5)
                assert evaluation.calibration[key] == expected, key


def assert_same(result, expected):
    assert result.names == list(expected.names)
    for ours, theirs in zip(result.confusions, expected.confusions, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert result.loss == pytest.approx(expected.loss, rel=1e-6)


ALONE = """
import jax
from segjax.training import distributed
assert distributed.start() == 1
assert not jax.distributed.is_initialized()
assert distributed.gather("x") == ["x"] and distributed.is_first()
distributed.barrier("nobody to wait for")
"""


@pytest.mark.parametrize(
    "environment",
    [
        slurm(1, 0, 1),  # the only task gets all GPUs of the node
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},  # a pod outside of an Indexed Job
    ],
    ids=["slurm", "pod"],
)
def test_one_process_by_itself(environment):
    assert_end_well([start("-W", "error", "-c", ALONE, environment=environment)], 60)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("a:1", 2, None), r"--coordinator=a:1 --num_processes=2 alone; give .* to each process"),
        ((None, None, 0), "--process_id=0 alone"),
        (("a", 2, 0), "--coordinator=a; use HOST:PORT, such as node0:1234"),
        ((":1234", 2, 0), "--coordinator=:1234; use HOST:PORT"),
        (("a:70000", 2, 0), "--coordinator=a:70000; use HOST:PORT"),
        (("a:1", 2, 2), "--process_id=2; number the processes from 0 to 1"),
        (("a:1", 2, -1), "--process_id=-1; number the processes from 0 to 1"),
        (("a:1", 0, 0), "--process_id=0; number the processes from 0"),
    ],
)
def test_arguments_that_do_not_go_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        distributed.start(*arguments)


def test_one_process_by_flags():
    assert distributed.start(None, 1) == distributed.start("nowhere:1", 1, 0) == 1


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    """The tests may run within a cluster."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "KUBERNETES_", "JOB_COMPLETION", "JAX_COORDINATOR")):
            monkeypatch.delenv(name)


NO_CLUSTER = ValueError("coordinator_address should be defined.")


def joining_raises(monkeypatch, error) -> list[dict]:
    """Has JAX raise an error when it is asked to join processes; the options that it was given."""
    given = []

    def initialize(**options):
        given.append(options)
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    return given


GPUS = {"CUDA_VISIBLE_DEVICES": "4,5,6,7", "SLURM_STEP_NUM_NODES": "2"}


@pytest.mark.parametrize(
    "environment, expected",
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
def test_gpus_that_jax_is_told_to_use(environment, expected, monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "JAX_LOCAL_DEVICE_IDS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    given = joining_raises(monkeypatch, NO_CLUSTER)
    assert distributed.start() == 1
    assert [options["local_device_ids"] for options in given] == [expected]


def test_a_cluster_that_jax_does_not_know(monkeypatch):
    """JAX 0.10 does not know Open MPI 5. Its processes must not run the same thing side by side."""
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")  # mpirun's own
    joining_raises(monkeypatch, NO_CLUSTER)
    with pytest.raises(ValueError, match=r"4 processes were started together, but .* give --coord"):
        distributed.start()
    monkeypatch.delenv("OMPI_COMM_WORLD_SIZE")
    assert distributed.start() == 1


def test_a_cluster_that_cannot_be_joined(monkeypatch):
    joining_raises(monkeypatch, RuntimeError("UNKNOWN: Failed to start RPC server\nmore"))
    message = "cannot be joined at a:1: UNKNOWN: Failed to start RPC server; --num_processes=1 runs"
    with pytest.raises(OSError, match=message):
        distributed.start("a:1", 2, 0)
    with pytest.raises(OSError, match="cannot be joined: UNKNOWN"):
        distributed.start()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert distributed.start() == 1  # a pod that no job has numbered, so JAX does not know its job
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    with pytest.raises(OSError, match="cannot be joined: UNKNOWN"):
        distributed.start()


@pytest.mark.parametrize("kind", [ValueError, KeyError, Interrupted, KeyboardInterrupt])
def test_errors_pass_in_a_run_of_one_process(kind):
    with pytest.raises(kind, match="mine"), distributed.fail_together((ValueError, OSError)):
        raise kind("mine")


def error_from(cause):
    try:
        raise OSError("no checkpoint") from cause
    except OSError as error:
        return error


GLOO = ValueError("UNKNOWN: Gloo AllGather failed: [pair.cc:538] Read error: Connection reset")


@pytest.mark.parametrize(
    "error, code, output",
    [
        (ValueError("data.root='x'; use a folder"), distributed.EXIT_USER_ERROR, "error: data.ro"),
        (GLOO, distributed.EXIT_LOST, "error: process 0 of 1 lost another one (UNKNOWN: Gloo"),
        (error_from(GLOO), distributed.EXIT_LOST, "error: process 0 of 1 lost another one"),
        (
            jax.errors.JaxRuntimeError("INTERNAL: NCCL operation failed: remote process exited"),
            distributed.EXIT_LOST,
            "error: process 0 of 1 lost another one (INTERNAL: NCCL",
        ),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
            distributed.EXIT_USER_ERROR,
            "error: the memory of the device ran out (RESOURCE_EXHAUSTED",
        ),
        (KeyError("mine"), distributed.EXIT_BUG, "KeyError: 'mine'"),
        (KeyboardInterrupt(), distributed.EXIT_SIGINT, ""),
    ],
    ids=str,
)
def test_report_of_an_error(error, code, output, capsys):
    assert distributed._report(error, (ValueError, OSError)) == code
    assert output in capsys.readouterr().err
