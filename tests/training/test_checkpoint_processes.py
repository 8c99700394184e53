"""Checkpoints of several processes: written by all, the same in all, read by any number."""

import contextlib
import pathlib
import socket
import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from segjax.training.checkpoint import CheckpointStore
from tests.training.test_checkpoint_faults import content, files_of_at_most, names, run


def global_array(array, mesh, *axes):
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def shared_state(step, mesh):
    """Sharded over all devices, over some, and not; and an array of NumPy's."""
    a, b, c, d = content(step).values()
    wide, square = a.reshape(200, 125), b.reshape(500, 50)
    return {
        "all": global_array(wide, mesh, ("x", "y")),
        "one axis": global_array(square, mesh, None, "y"),
        "replicated": global_array(c, mesh),
        "numpy": d,
    }


def assert_shared_state(state, step):
    a, b, c, d = content(step).values()
    wanted = {"all": a.reshape(200, 125), "one axis": b.reshape(500, 50), "replicated": c}
    for name, array in {**wanted, "numpy": d}.items():
        for shard in getattr(state[name], "addressable_shards", ()):
            np.testing.assert_array_equal(shard.data, array[shard.index])
        if isinstance(state[name], np.ndarray) or state[name].is_fully_addressable:
            np.testing.assert_array_equal(state[name], array)


def one_of_two(folder, port, process):
    """Process 0 or 1 of two with two devices each."""
    workdir, process = pathlib.Path(folder), int(process)
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)
    mesh = jax.make_mesh((2, 2), ("x", "y"))
    with warnings.catch_warnings(record=True) as said, CheckpointStore(workdir) as store:
        warnings.simplefilter("always")
        # A checkpoint that lacks its index was put there: both pass it over, one says so.
        assert store.steps() == []
        assert len(said) == (process == 0), said
        for step in (2, 4):
            store.save(step, shared_state(step, mesh), {"note": step}, step / 10)
        store.save(4, shared_state(5, mesh), {"note": 5}, 0.1, replace=True)
        assert (store.steps(), store.best_step()) == ([2, 4], 2)
        before = len(said)
        for refused in (0, 1):  # the disk of one of the two is full
            with files_of_at_most(20_000) if process == refused else contextlib.nullcontext():
                store.save(6 + refused, shared_state(6, mesh), {}, None)
                store.wait()
            assert store.failures == refused + 1
            cause = f"File too large (process {refused})"
            assert store.finish().endswith(cause), store.finish()
            assert (store.steps(), store.best_step()) == ([2, 4], 2)
        assert len(said) - before == (2 if process == 0 else 0)
        store.save(8, shared_state(8, mesh), {"note": 8}, None)
        assert store.finish() == ""
        # Into other shardings.
        turned = jax.make_mesh((4,), ("z",))
        wanted = shared_state(0, mesh)
        wanted["all"] = global_array(np.zeros((200, 125), np.float32), turned, None)
        wanted["one axis"] = global_array(np.zeros((500, 50), np.float32), turned, "z")
        for step, held in ((2, 2), (4, 5), (8, 8)):
            state, host = store.restore(step, wanted)
            assert_shared_state(state, held)
            assert host == {"note": held}
            assert state["one axis"].sharding == wanted["one axis"].sharding


def one_of_two_again(folder, port, process):
    """Other processes go on with what one process has written, each alone and together."""
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(process))
    mesh = jax.make_mesh((2, 2), ("x", "y"))
    with CheckpointStore(folder) as store:
        state, _ = store.restore(store.latest_step(), shared_state(0, mesh))
        assert_shared_state(state, 10)
    with CheckpointStore(folder, read_only=True) as store:
        variables = store.restore_variables(12)
    assert variables["params"]["a"].devices() == {jax.local_devices()[0]}
    np.testing.assert_array_equal(variables["params"]["a"], content(12)["a"])


def run_two(function, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [run(function, folder, port, i, stderr=subprocess.PIPE) for i in (0, 1)]
    ends = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(ends)


@pytest.mark.slow
def test_two_processes(tmp_path):
    broken = tmp_path / "checkpoints" / "3"
    broken.mkdir(parents=True)
    run_two(one_of_two, tmp_path)
    assert names(tmp_path) == ["2", "3.damaged", "4", "8"]
    mesh = jax.make_mesh((4, 2), ("x", "y"))
    with CheckpointStore(tmp_path) as store:
        for step, held in ((2, 2), (4, 5), (8, 8)):
            state, host = store.restore(step, shared_state(0, mesh))
            assert_shared_state(state, held)
            assert host == {"note": held}
        store.save(12, {"params": content(12), "batch_stats": {"n": np.ones(1)}}, {}, None)
        store.save(14, shared_state(10, mesh), {}, None)
    run_two(one_of_two_again, tmp_path)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
