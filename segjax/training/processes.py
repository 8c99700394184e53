"""The processes of a run on several hosts: how they find each other, and what they exchange.

`jax.distributed` carries all of it; for how they end together see `training.ending`.
"""

import os
import pickle
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from segjax.training import ending

_BY_HAND = (
    "give --coordinator=HOST:PORT, --num_processes and --process_id to each process, or none of "
    "them; --num_processes=1 is one process by itself"
)


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout_s: int = 300,
) -> int:
    """Joins the other processes of the run, if there are any; once, before JAX uses a device.

    Without arguments JAX finds SLURM, Open MPI, Kubernetes and TPU pods by itself. A process is by
    itself, with all devices of its host, where the scheduler says that it is the only one, and with
    `num_processes=1`.

    Args:
      coordinator: HOST:PORT of process 0, which listens there.
      num_processes, process_id: how many there are, and which this is, from 0.
      timeout_s: how long they wait for each other; then the process ends, with a message.

    Returns:
      The number of processes.

    Raises:
      ValueError: for arguments that do not go together.
      OSError: if a cluster is there and cannot be joined.
    """
    options = check_by_hand(coordinator, num_processes, process_id)
    if num_processes == 1 or (options is None and _tasks() == 1):
        return 1
    abort = ending.OnAbort(
        f"the processes did not find each other within {timeout_s} s; see that all are started, "
        "each with a number of its own, and that all can reach the coordinator"
        f"{f' ({coordinator})' if coordinator else ''}, which is process 0"
    )
    try:
        _initialize(options, timeout_s)
    except ValueError as error:
        abort.restore()
        if options or os.environ.get("JAX_COORDINATOR_ADDRESS"):
            raise ValueError(f"{error} {_BY_HAND}") from error
        if _tasks():
            raise ValueError(
                f"{_tasks()} processes were started together, but JAX cannot tell how they find "
                f"each other; {_BY_HAND}"
            ) from error
        return 1  # JAX knows of no cluster here
    except (RuntimeError, LookupError) as error:
        abort.restore()
        if options is None and _is_lone_pod():
            return 1
        reason = str(error).strip().splitlines()[0]
        where = f" at {coordinator}" if coordinator else ""
        raise OSError(
            f"the other processes cannot be joined{where}: {reason}; --num_processes=1 runs this "
            "one by itself"
        ) from error
    ending.with_others(jax.process_index(), jax.process_count(), abort)
    _connect_devices()
    return jax.process_count()


def check_by_hand(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> dict[str, Any] | None:
    """The arguments of `start` as `jax.distributed.initialize` takes them; None if there are none.

    Raises:
      ValueError: if they do not go together.
    """
    given = dict(coordinator=coordinator, num_processes=num_processes, process_id=process_id)
    given = {name: value for name, value in given.items() if value is not None}
    if not given or given == {"num_processes": 1}:
        return None
    found = " ".join(f"--{name}={value}" for name, value in given.items())
    if len(given) < 3:
        raise ValueError(f"{found} alone; {_BY_HAND}")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(f"--coordinator={coordinator}; use HOST:PORT, such as node0:1234")
    if not 0 <= process_id < num_processes:
        raise ValueError(f"{found}; number the processes from 0 to {max(num_processes - 1, 0)}")
    return {
        "coordinator_address": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
        "cluster_detection_method": "deactivate",
    }


def _tasks() -> int | None:
    """How many processes a scheduler started together, as it says; JAX would give one that is alone
    a single GPU."""
    for name in ("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):  # mpirun may be a task of SLURM's
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return None


def _is_lone_pod() -> bool:
    """Whether this is a pod of Kubernetes that no job has numbered."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and "JOB_COMPLETION_INDEX" not in os.environ


def _own_gpus() -> list[int] | None:
    """This process's GPUs, as numbers within CUDA_VISIBLE_DEVICES; None for what JAX chooses.

    Under SLURM and Open MPI that is the n-th one for the n-th process of a host, which is wrong
    where the scheduler has left each process its own ones, or where a host has one process.
    """
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    nodes, tasks = (os.environ.get(f"SLURM_{name}") for name in ("STEP_NUM_NODES", "NTASKS"))
    alone = (nodes and nodes == tasks) or os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"
    if not visible or "JAX_LOCAL_DEVICE_IDS" in os.environ:
        return None
    return list(range(len(visible))) if alone or len(visible) == 1 else None


def _initialize(options: dict[str, Any] | None, timeout_s: int) -> None:
    with warnings.catch_warnings():
        if _is_lone_pod():  # which needs no package of Kubernetes
            warnings.filterwarnings("ignore", "\\s*Kubernetes environment detected")
        jax.distributed.initialize(
            **(options or {"local_device_ids": _own_gpus()}),
            initialization_timeout=timeout_s,
            heartbeat_timeout_seconds=ending.HEARTBEAT_S,
        )


def _connect_devices() -> None:
    """Has all devices exchange something now, when all processes are here.

    On CPUs devices connect when they first meet in a program, and one that comes half a minute
    late, from a longer compilation say, finds that the others have given up. Once connected they
    wait.
    """
    barrier("start")
    count = jax.device_count()
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,))
    ones = jax.make_array_from_callback(
        (count,), NamedSharding(mesh, PartitionSpec("data")), np.ones(count).__getitem__
    )
    jax.jit(jnp.sum)(ones).block_until_ready()


def is_first() -> bool:
    """Whether this is process 0, which prints and writes what is not a checkpoint."""
    return jax.process_index() == 0


def gather(value: Any) -> list[Any]:
    """The values of all processes, in their order; to be called by all of them alike.

    Args:
      value: what pickle takes; of another size in each process if need be.
    """
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(pickle.dumps((jax.process_index(), value)), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(len(data), np.int32))
    # Powers of two: few programs are compiled.
    padded = np.zeros(1 << int(sizes.max() - 1).bit_length(), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    parts = [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]
    return [value for _, value in sorted(parts, key=lambda part: part[0])]


def barrier(name: str) -> None:
    """Waits until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
