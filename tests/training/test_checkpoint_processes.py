"""Checkpoints of several processes: written by all, read by any number of them."""

import contextlib
import os
import pathlib
import shutil
import warnings

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from segjax.training import checkpoint
from segjax.training.checkpoint import CheckpointStore
from segjax.training.distributed import barrier
from tests.training.processes import assert_end_well, call, free_address
from tests.training.test_checkpoint import names
from tests.training.test_checkpoint_faults import content, files_of_at_most


def global_array(array, mesh, *axes):
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def shared_state(step, mesh):
    """Sharded over all devices, over some, and not."""
    a, b, c, _ = content(step).values()
    wide, square = a.reshape(200, 125), b.reshape(500, 50)
    return {
        "all": global_array(wide, mesh, ("x", "y")),
        "one axis": global_array(square, mesh, None, "y"),
        "replicated": global_array(c, mesh),
    }


def assert_shared_state(state, step):
    a, b, c, _ = content(step).values()
    expected = {"all": a.reshape(200, 125), "one axis": b.reshape(500, 50), "replicated": c}
    for name, array in expected.items():
        for shard in state[name].addressable_shards:
            np.testing.assert_array_equal(shard.data, array[shard.index])


def join(address, process):
    """Process 0 or 1 of two with two devices each; their mesh."""
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(address, 2, int(process))
    return jax.make_mesh((2, 2), ("x", "y"))


def one_of_two(folder, address, process):
    mesh = join(address, process)
    with warnings.catch_warnings(record=True) as warned, CheckpointStore(folder) as store:
        warnings.simplefilter("always")
        assert store.restore_latest(shared_state(0, mesh)) is None
        for step in (2, 4, 6):
            variables = {"params": shared_state(step, mesh), "batch_stats": {}}
            store.save_best(step, variables, 1 / step)
            store.save(step, shared_state(step, mesh), {"note": step})
        assert (store.best_step(), store.latest_step()) == (2, 6)
    # The part of one process is damaged: both pass it over, and one says so.
    if process == "1":
        (part,) = pathlib.Path(folder).glob("checkpoints/latest/6/state/ocdbt.process_1/d")
        shutil.rmtree(part.parent.parent / "d")
    barrier("damaged")
    with warnings.catch_warnings(record=True) as warned, CheckpointStore(folder) as store:
        warnings.simplefilter("always")
        # Into other shardings.
        turned = jax.make_mesh((4,), ("z",))
        like = shared_state(0, mesh)
        like["all"] = global_array(np.zeros((200, 125), np.float32), turned, None)
        like["one axis"] = global_array(np.zeros((500, 50), np.float32), turned, "z")
        step, state, host = store.restore_latest(like)
        assert (step, host) == (4, {"note": 4})
        assert_shared_state(state, 4)
        assert state["one axis"].sharding == like["one axis"].sharding
        assert len(warned) == (process == "0"), warned
        store.save(6, shared_state(6, mesh), {"note": 6})


def one_of_two_with_a_full_disk(folder, address, process):
    """The disk of process 1 is full: both end with an error, after a wait for each other."""
    mesh = join(address, process)
    checkpoint._TIMEOUT_S = 5
    store = CheckpointStore(folder)
    store.save(2, shared_state(2, mesh), {"note": 2})
    store.wait()
    with files_of_at_most(20_000) if process == "1" else contextlib.nullcontext():
        store.save(4, shared_state(4, mesh), {"note": 4})
        with pytest.raises(OSError, match="step 4 was not written") as error:
            store.wait()
    reason = "File too large" if process == "1" else "a process did not write its part"
    assert reason in str(error.value), error.value
    os._exit(0)  # as a run does: what is left of Orbax's threads waits for each other


def run_two(function, folder):
    address = free_address()
    assert_end_well([call(function, folder, address, number) for number in (0, 1)])


def one_of_two_whose_checkpoints_go(folder, address, process):
    """Something removes them; both processes begin a new folder, and one says so."""
    mesh = join(address, process)
    with warnings.catch_warnings(record=True) as warned, CheckpointStore(folder) as store:
        warnings.simplefilter("always")
        for step in (2, 4, 6):
            store.save_best(step, {"params": shared_state(step, mesh), "batch_stats": {}}, 1 / step)
            store.save(step, shared_state(step, mesh), {"note": step})
            if step == 4:
                store.wait()
                barrier("written")
                if process == "1":
                    shutil.rmtree(pathlib.Path(folder, "checkpoints", "latest", "2"))
                    shutil.rmtree(pathlib.Path(folder, "checkpoints", "best"))
                barrier("removed")
        assert (store.best_step(), store.latest_step()) == (6, 6)
    texts = [str(warning.message) for warning in warned]
    assert len(texts) == (process == "0"), texts
    assert all("has lost best, best/2, latest/2: something" in text for text in texts), texts


@pytest.mark.slow
@pytest.mark.fault(
    "two processes write to a workdir with brackets in its name; the part of one is damaged",
    "both read the checkpoint before, and one warns",
)
def test_two_processes(tmp_path):
    tmp_path = tmp_path / "exp[1]*"
    run_two(one_of_two, tmp_path)
    assert names(tmp_path) == (["2"], ["4", "6", "6.damaged"])
    mesh = jax.make_mesh((4, 2), ("x", "y"))
    with CheckpointStore(tmp_path) as store:
        for step in (4, 6):
            state, host = store.restore(step, shared_state(0, mesh))
            assert_shared_state(state, step)
            assert host == {"note": step}


@pytest.mark.slow
@pytest.mark.fault(
    "checkpoints of two processes are removed under the run", "one warns, and both write again"
)
def test_two_processes_whose_checkpoints_go(tmp_path):
    run_two(one_of_two_whose_checkpoints_go, tmp_path)
    assert names(tmp_path) == (["6"], ["4", "6"])


@pytest.mark.slow
def test_a_full_disk_ends_two_processes(tmp_path):
    run_two(one_of_two_with_a_full_disk, tmp_path)
    with CheckpointStore(tmp_path, read_only=True) as store:
        assert store.steps() == [2]
