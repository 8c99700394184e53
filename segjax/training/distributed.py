"""The processes of a run on several hosts: how they start, exchange values and end together.

`jax.distributed` carries all of it. Its coordination service in process 0 expects a heartbeat from
every process, and ends the others when one dies.
"""

import contextlib
import errno
import os
import pickle
import re
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from segjax.failures import explained
from segjax.terminal import say
from segjax.training.interruption import Interrupted

EXIT_BUG, EXIT_USER_ERROR, EXIT_SIGINT = 1, 2, 128 + signal.SIGINT
# Exit code of a process that lost another one and did nothing wrong itself.
EXIT_LOST = 76
# Seconds without a heartbeat after which JAX takes a process for dead.
HEARTBEAT_S = 30
# Seconds after which a process that waits for the others at the start says so.
_PATIENCE_S = 15
# Seconds that a failing process gives the others to fail for the same reason.
_SAME_ERROR_S = 5
_FLAGS = (
    "give --coordinator=HOST:PORT, --num_processes and --process_id to each process, or none of "
    "them; --num_processes=1 is one process by itself"
)
# Errors of XLA and JAX about the connection to another process.
_LOST = re.compile(
    r"(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED): |[A-Z_]+: .*(Gloo|NCCL|RCCL)", re.DOTALL
)


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout_s: int = 300,
) -> int:
    """Joins the other processes of the run, if there are any. Call once, before JAX uses a device.

    Without arguments JAX detects SLURM, Open MPI, Kubernetes and TPU pods. The process runs alone,
    with all devices of its host, where a scheduler started only this one, and with
    `num_processes=1`.

    Args:
      coordinator: HOST:PORT of process 0, which listens there.
      num_processes: number of processes.
      process_id: number of this process, from 0.
      timeout_s: seconds that the processes wait for each other; then JAX ends them.

    Returns:
      The number of processes.

    Raises:
      ValueError: if the arguments do not fit together.
      OSError: if there is a cluster that cannot be joined.
    """
    options = _options(coordinator, num_processes, process_id)
    if num_processes == 1 or (options is None and _num_tasks() == 1):
        return 1
    place = f" at {coordinator}" if coordinator else ""
    _check_port(options)
    try:
        _initialize(options, place, timeout_s)
    except ValueError as error:
        if options or os.environ.get("JAX_COORDINATOR_ADDRESS"):
            raise ValueError(f"{error} {_FLAGS}") from error
        if _num_tasks():
            raise ValueError(
                f"{_num_tasks()} processes were started together, but JAX does not know this "
                f"scheduler; {_FLAGS}"
            ) from error
        return 1  # JAX detected no cluster
    except (RuntimeError, LookupError) as error:
        if options is None and _is_lone_pod():
            return 1
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"the other processes cannot be joined{place}: {reason}; --num_processes=1 runs this "
            "one alone"
        ) from error
    # JAX aborts a process that lost another one. absl's handler of SIGABRT would bury the message
    # under the stacks of all threads.
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    _connect_devices()
    return jax.process_count()


def is_first() -> bool:
    """Whether this is process 0, which prints, and writes everything but checkpoints."""
    return jax.process_index() == 0


def gather(value: Any) -> list[Any]:
    """The values of all processes, ordered by process. All processes must call it.

    Args:
      value: any object that pickles; sizes may differ between processes.
    """
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(pickle.dumps((jax.process_index(), value)), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(len(data), np.int32))
    # Padding to powers of two compiles few programs.
    padded = np.zeros(1 << int(sizes.max() - 1).bit_length(), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    parts = [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]
    return [value for _, value in sorted(parts, key=lambda part: part[0])]


def barrier(name: str) -> None:
    """Waits until all processes call it with the same name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def fail_together(explain: bool = False) -> Iterator[None]:
    """A context in which an error of one process ends all processes; none waits for a lost one.

    The process that fails prints its error and exits. The others then lose it. A collective that
    notices raises, and the process exits with a message and `EXIT_LOST`; in a collective that
    hangs, JAX's coordination service aborts the process within about `HEARTBEAT_S`.

    `Interrupted` passes, since all processes raise it together. In a run of one process every
    exception passes.

    Args:
      explain: prints a user's error as `failures.explained` does, without a traceback; the exit
        code is 2.
    """
    if not jax.distributed.is_initialized():
        yield
        return
    try:
        yield
        barrier("end")  # JAX's own wait at exit is limited, and process 0 may write for long
    except Interrupted:
        raise
    except BaseException as error:
        _exit(_report(error, explain))


def _report(error: BaseException, explain: bool) -> int:
    """Prints an error that ends this process; returns the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return EXIT_SIGINT
    cause: BaseException | None = error
    while cause is not None:  # a lost connection may have led to other errors
        if isinstance(cause, ValueError | RuntimeError) and _LOST.match(str(cause)):
            say(
                f"error: process {jax.process_index()} of {jax.process_count()} lost another one "
                f"({str(cause).splitlines()[0]}); see the output of that one, then start all "
                "again: the run resumes from its last checkpoint"
            )
            return EXIT_LOST
        cause = cause.__cause__ or cause.__context__
    if explain and (message := explained(error)) is not None:
        say(f"error: {message}")
        return EXIT_USER_ERROR
    traceback.print_exception(error)
    return EXIT_BUG


def _exit(code: int) -> NoReturn:
    """Ends this process; waits only for others that are ending too.

    `sys.exit` would let JAX wait for the others at exit, and abort this process in the end.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    leaving = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    leaving.start()
    leaving.join(_SAME_ERROR_S)
    os._exit(code)


def _options(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> dict[str, Any] | None:
    """The arguments of `start` as `jax.distributed.initialize` takes them; None if there are none.

    Raises:
      ValueError: if they do not fit together.
    """
    given = dict(coordinator=coordinator, num_processes=num_processes, process_id=process_id)
    given = {name: value for name, value in given.items() if value is not None}
    if not given or given == {"num_processes": 1}:
        return None
    flags = " ".join(f"--{name}={value}" for name, value in given.items())
    if coordinator is None or num_processes is None or process_id is None:
        raise ValueError(f"{flags} alone; {_FLAGS}")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(f"--coordinator={coordinator}; use HOST:PORT, such as node0:1234")
    if not 0 <= process_id < num_processes:
        raise ValueError(f"{flags}; number the processes from 0 to {max(num_processes - 1, 0)}")
    return {
        "coordinator_address": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
        "cluster_detection_method": "deactivate",
    }


def _check_port(options: dict[str, Any] | None) -> None:
    """Looks whether the coordinator's port is free for process 0, and is its for the others: JAX
    would crash on an occupied port, and the others wait.

    Raises:
      OSError: if another program has it.
    """
    environment = os.environ.get
    address = (options or {}).get("coordinator_address") or environment("JAX_COORDINATOR_ADDRESS")
    number = (options or {}).get("process_id", environment("JAX_PROCESS_ID"))
    host, _, port = (address or "").rpartition(":")
    if not host or not port.isdigit() or number is None:
        return  # JAX chooses
    remedy = "use a free port of process 0's host, the same for all processes"
    if int(number) == 0:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        try:  # as JAX does, for all addresses of the host
            socket.create_server(("", int(port)), family=family, dualstack_ipv6=both).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise OSError(
                    f"--coordinator={address}: another program has this port; {remedy}"
                ) from error
        return
    try:
        probe = socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE_S)
    except OSError:
        return  # process 0 is not there yet
    with probe, contextlib.suppress(OSError):
        greeting = b""
        with contextlib.suppress(TimeoutError):
            greeting = probe.recv(9)
        if greeting[3:4] == b"\x04":  # HTTP/2 begins with a frame of settings
            return
    raise OSError(
        f"--coordinator={address}: what listens there is another program, no coordinator of a "
        f"run; {remedy}"
    )


def _num_tasks() -> int | None:
    """Number of processes that a scheduler started together. JAX would give a lone one a single
    GPU."""
    for name in ("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):  # mpirun may be a SLURM task
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return None


def _is_lone_pod() -> bool:
    """Whether this is a Kubernetes pod outside of an Indexed Job."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and "JOB_COMPLETION_INDEX" not in os.environ


def _local_gpus() -> list[int] | None:
    """This process's GPUs, as indices into CUDA_VISIBLE_DEVICES; None leaves the choice to JAX.

    Under SLURM and Open MPI JAX takes the n-th GPU for the n-th process of a host. That is wrong if
    the scheduler shows each process only its own GPUs, or if a host has one process.
    """
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    nodes, tasks = (os.environ.get(f"SLURM_{name}") for name in ("STEP_NUM_NODES", "NTASKS"))
    alone = (nodes and nodes == tasks) or os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"
    if not visible or "JAX_LOCAL_DEVICE_IDS" in os.environ:
        return None
    return list(range(len(visible))) if alone or len(visible) == 1 else None


def _initialize(options: dict[str, Any] | None, place: str, timeout_s: int) -> None:
    """Connects the processes; after a while it tells the user what it waits for."""
    message = (
        f"waiting up to {timeout_s} s for the other processes{place}; see that all are started, "
        "each with its own number, and that all reach the host of process 0"
    )
    timer = threading.Timer(min(_PATIENCE_S, timeout_s / 2), say, [message])
    timer.daemon = True
    timer.start()
    try:
        with warnings.catch_warnings():
            if _is_lone_pod():  # needs no package of Kubernetes
                warnings.filterwarnings("ignore", "\\s*Kubernetes environment detected")
            jax.distributed.initialize(
                **(options or {"local_device_ids": _local_gpus()}),
                initialization_timeout=timeout_s,
                heartbeat_timeout_seconds=HEARTBEAT_S,
            )
    finally:
        timer.cancel()


def _connect_devices() -> None:
    """Lets all devices exchange something while all processes are at the start.

    CPU devices connect in the first program that they share. A process that reaches it half a
    minute late, after a longer compilation say, finds that the others gave up. Devices that are
    connected wait.
    """
    barrier("start")
    count = jax.device_count()
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,))
    ones = jax.make_array_from_callback(
        (count,), NamedSharding(mesh, PartitionSpec("data")), np.ones(count).__getitem__
    )
    jax.jit(jnp.sum)(ones).block_until_ready()
