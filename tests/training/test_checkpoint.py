"""Checkpoints: what is kept, replaced and read back, and which one is used instead of a damaged."""

import shutil
import threading
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from segjax.training.checkpoint import CheckpointStore
from segjax.training.pretrained import has_checkpoint

# Orbax leaves coroutines behind when arrays cannot be read; several checkpoints warn one by one.
pytestmark = [
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:checkpoint:UserWarning"),
]


def state(step):
    # Noise, so that the arrays are files of their own rather than a few bytes in an index.
    kernel = np.random.default_rng(step).normal(size=(40, 50)).astype(np.float32)
    params = {"conv": {"kernel": kernel}}
    return {"params": params, "batch_stats": {"norm": {"mean": np.full(3, step, np.float32)}}}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Checkpoints 2 (best), 4 and 6."""
    folder = tmp_path_factory.mktemp("stored")
    with CheckpointStore(folder) as store:
        for step, miou in ((2, 0.9), (4, 0.1), (6, 0.2)):
            store.save(step, state(step), {"note": step}, miou)
    return folder


@pytest.fixture
def workdir(stored, tmp_path):
    return shutil.copytree(stored, tmp_path / "run")


def cut_all_arrays(checkpoint):
    for path in (checkpoint / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "no state": lambda checkpoint: shutil.rmtree(checkpoint / "state"),
    "no index": lambda checkpoint: (checkpoint / "state" / "manifest.ocdbt").unlink(),
    "index cut off": lambda checkpoint: (checkpoint / "state" / "_METADATA").write_text('{"a'),
    "arrays cut off": cut_all_arrays,
    "empty": lambda checkpoint: (shutil.rmtree(checkpoint), checkpoint.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_newest_intact_one_is_used(workdir, damage):
    DAMAGES[damage](workdir / "checkpoints" / "2")
    said = r"checkpoints/2 (is damaged|cannot be read).*that of step 6 is used"
    with pytest.warns(UserWarning, match=said), CheckpointStore(workdir, read_only=True) as store:
        variables = store.restore_variables()
    np.testing.assert_array_equal(
        variables["params"]["conv"]["kernel"], state(6)["params"]["conv"]["kernel"]
    )


def test_nothing_is_said_of_intact_ones(workdir):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with CheckpointStore(workdir, read_only=True) as store:
            assert store.restore_variables()["batch_stats"]["norm"]["mean"][0] == 2
            assert store.steps() == [2, 4, 6]


def test_training_goes_on_before_the_damaged_one(workdir):
    """It is set aside, so that its step can be written again."""
    (workdir / "checkpoints" / "6" / "state" / "manifest.ocdbt").unlink()
    with pytest.warns(UserWarning, match="set aside as 6.damaged"):
        store = CheckpointStore(workdir)
    with store:
        assert store.latest_step() == 4
        restored, host = store.restore(4, state(0))
        assert host == {"note": 4}
        assert restored["batch_stats"]["norm"]["mean"][0] == 4
        store.save(6, state(7), {"note": 7}, 0.95)
    with CheckpointStore(workdir, read_only=True) as store:
        assert store.restore_variables()["batch_stats"]["norm"]["mean"][0] == 7
    assert (workdir / "checkpoints" / "6.damaged").is_dir()


def test_the_wanted_one_is_damaged(workdir):
    (workdir / "checkpoints" / "2" / "state" / "_METADATA").unlink()
    cut_all_arrays(workdir / "checkpoints" / "6")
    with CheckpointStore(workdir, read_only=True) as store:
        with pytest.raises(ValueError, match=r"checkpoints/6 cannot be read.*step: \[4\]"):
            store.restore_variables(6)
        with pytest.raises(ValueError, match=r"step 2 \(.*no state/_METADATA\); there are \[4, 6"):
            store.restore_variables(2)
        with pytest.raises(ValueError, match=r"remove it to go on from step 4"):
            store.restore(6, state(0))


def test_all_damaged(workdir):
    assert has_checkpoint(workdir)
    for step in (2, 4, 6):
        (workdir / "checkpoints" / str(step) / "host" / "metadata").unlink()
    assert not has_checkpoint(workdir)
    with CheckpointStore(workdir, read_only=True) as store:
        with pytest.raises(
            ValueError, match=r"checkpoints/2 is damaged: there is no host/metadata"
        ):
            store.restore_variables()
        assert store.latest_step() is None
    (workdir / "checkpoints" / "2" / "metrics" / "metrics").write_text("{")
    with CheckpointStore(workdir, read_only=True) as store:
        assert store.steps() == []


def mean_of(store, step):
    return store.restore(step, state(0))[0]["batch_stats"]["norm"]["mean"][0]


class TestReplace:
    def test_the_newer_one_counts(self, workdir):
        with CheckpointStore(workdir) as store:
            with pytest.raises(ValueError, match=r"is a checkpoint of step 6 in .* already"):
                store.save(6, state(60), {"note": 60}, 0.95)
            store.save(6, state(60), {"note": 60}, 0.95, replace=True)
            assert (store.steps(), store.best_step()) == ([4, 6], 6)
            store.save(8, state(8), {"note": 8}, None)
        with CheckpointStore(workdir, read_only=True) as store:
            assert (store.steps(), store.best_step(), mean_of(store, 6)) == ([6, 8], 6, 60)
            assert store.restore(6, state(0))[1] == {"note": 60}
        assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["6", "8"]

    def test_the_older_one_stays_until_the_newer_is_complete(self, workdir, monkeypatch):
        """The write is held up just before its end, where all files are written."""
        goes_on = threading.Event()
        finalize = ocp.StandardCheckpointHandler.finalize

        def held_up(handler, directory):
            goes_on.wait(30)
            finalize(handler, directory)

        monkeypatch.setattr(ocp.StandardCheckpointHandler, "finalize", held_up)
        with CheckpointStore(workdir) as store:
            store.save(6, state(60), {}, 0.95, replace=True)
            assert store.busy
            with CheckpointStore(workdir, read_only=True) as reader:
                assert (reader.steps(), mean_of(reader, 6)) == ([2, 4, 6], 6)
            goes_on.set()
            store.wait()
            assert not store.busy
            assert mean_of(store, 6) == 60

    @pytest.mark.parametrize("newer", ["absent", "damaged", "complete"])
    def test_a_replacement_that_was_broken_off(self, workdir, newer):
        """Killed between the renames; a damaged one in place; killed after the renames."""
        folder = workdir / "checkpoints"
        shutil.copytree(folder / "4", folder / "6.replaced")
        if newer == "absent":
            shutil.rmtree(folder / "6")
        elif newer == "damaged":
            shutil.rmtree(folder / "6" / "state")
        expected = 6 if newer == "complete" else 4
        for step in ("2", "4"):
            shutil.rmtree(folder / step)
        assert has_checkpoint(workdir)
        with CheckpointStore(workdir, read_only=True) as store:
            assert (store.steps(), mean_of(store, 6)) == ([6], expected)
        with CheckpointStore(workdir) as store:
            assert (store.steps(), mean_of(store, 6)) == ([6], expected)
        aside = {"6.damaged"} if newer == "damaged" else set()
        assert {p.name for p in folder.iterdir()} == {"6"} | aside


def test_what_a_killed_run_left_is_removed(workdir):
    folder = workdir / "checkpoints"
    for name in ("8.orbax-checkpoint-tmp", "8.orbax-checkpoint-tmp-3", "1.deleted"):
        shutil.copytree(folder / "2", folder / name)
    with CheckpointStore(workdir) as store:
        assert store.steps() == [2, 4, 6]
    assert sorted(p.name for p in folder.iterdir()) == ["2", "4", "6"]


def save_and_wait(store, step):
    store.save(step, state(step), {"note": step}, None)
    store.wait()


def test_a_checkpoint_that_cannot_be_deleted_stays(workdir, monkeypatch):
    """It is said, and does no harm to the one that is written."""

    def refuse(path, ignore_errors=False):
        if not ignore_errors:
            raise PermissionError(1, "Operation not permitted", str(path))

    with CheckpointStore(workdir) as store:
        monkeypatch.setattr(shutil, "rmtree", refuse)
        with pytest.warns(UserWarning, match=r"checkpoint .*/4 could not be deleted: Operation"):
            save_and_wait(store, 8)
        monkeypatch.undo()
        assert (store.steps(), store.failures, store.finish()) == ([2, 6, 8], 0, "")


def test_mistakes_are_raised(tmp_path):
    """What no disk could write; the store is as good as before."""
    with CheckpointStore(tmp_path) as store:
        with pytest.raises(TypeError, match="not JSON serializable"):
            store.save(2, state(2), {"note": object()}, None)
        with pytest.raises(ValueError, match="Unsupported type"):
            store.save(2, {"params": object()}, {}, None)
        store.save(2, state(2), {}, None)
        assert (store.steps(), store.failures) == ([2], 0)


def test_the_state_may_change_once_it_is_given(tmp_path):
    """A training step takes the buffers over; NumPy arrays are written in place."""
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    given = {"device": jax.numpy.zeros((500, 400)), "host": np.zeros(400_000)}
    with CheckpointStore(tmp_path) as store:
        store.save(1, given, {}, None)
        given["host"] += 1
        jax.block_until_ready(step(given["device"]))
        restored, _ = store.restore(
            1, {"device": np.ones((500, 400), np.float32), "host": np.ones(400_000)}
        )
    assert not any(np.any(array) for array in restored.values())


def over(devices, *axes):
    """An array's sharding over the first devices."""
    mesh = jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices])
    return NamedSharding(mesh, PartitionSpec(*axes))


def test_any_number_of_devices(tmp_path):
    """Saved by 8 devices, sharded and replicated; restored over others, bit for bit."""
    arrays = {
        "sharded": np.random.default_rng(0).normal(size=(16, 40)).astype(np.float32),
        "replicated": np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32),
    }
    shardings = {"sharded": over(8, "data"), "replicated": over(8)}
    with CheckpointStore(tmp_path) as store:
        store.save(1, jax.tree.map(jax.device_put, arrays, shardings), {}, None)
    for sharding in (over(2, "data"), over(4, None, "data"), over(1), over(8)):
        wanted = {
            "sharded": jax.ShapeDtypeStruct((16, 40), np.float32, sharding=sharding),
            "replicated": jax.ShapeDtypeStruct(
                (7, 3), np.float32, sharding=over(sharding.num_devices)
            ),
        }
        with CheckpointStore(tmp_path, read_only=True) as store:
            restored, _ = store.restore(1, wanted)
        jax.tree.map(np.testing.assert_array_equal, restored, arrays)
        assert restored["sharded"].sharding == sharding


class TestOrbaxsOwnManager:
    """The format is Orbax's: its manager reads ours, and we read what it wrote."""

    def test_reads_ours(self, workdir):
        options = ocp.CheckpointManagerOptions(best_fn=lambda metrics: metrics["val_miou"])
        with ocp.CheckpointManager(workdir / "checkpoints", options=options) as manager:
            assert (list(manager.all_steps()), manager.best_step()) == ([2, 4, 6], 2)
            restored = manager.restore(2)
        assert restored["host"] == {"note": 2}
        jax.tree.map(np.testing.assert_array_equal, restored["state"], state(2))

    def test_is_read_by_us(self, tmp_path):
        with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
            for step, miou in ((2, 0.9), (4, 0.1)):
                items = {
                    "state": ocp.args.StandardSave(state(step)),
                    "host": ocp.args.JsonSave({"note": step}),
                    "metrics": ocp.args.JsonSave({"val_miou": miou}),
                }
                manager.save(step, args=ocp.args.Composite(**items))
        with CheckpointStore(tmp_path) as store:
            assert (store.steps(), store.best_step()) == ([2, 4], 2)
            assert (mean_of(store, 2), store.restore(2, state(0))[1]) == (2, {"note": 2})
