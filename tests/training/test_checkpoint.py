"""Checkpoints: which are kept and read back, and which one is read instead of a damaged one."""

import contextlib
import shutil
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from segjax.training.checkpoint import CheckpointStore, has_checkpoint

pytestmark = [
    pytest.mark.versions,
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:checkpoint:UserWarning"),
]


def variables(step):
    # Noise, so that the arrays are files of their own rather than a few bytes in an index.
    kernel = np.random.default_rng(step).normal(size=(40, 50)).astype(np.float32)
    params = {"conv": {"kernel": kernel}}
    return {"params": params, "batch_stats": {"norm": {"mean": np.full(3, step, np.float32)}}}


def state(step):
    return {**variables(step), "opt_state": {"count": np.array(step)}}


def save(store, step, miou=None):
    if miou is not None:
        store.save_best(step, variables(step), miou)
    store.save(step, state(step), {"note": step})


def assert_equal(tree, expected):
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


def names(workdir):
    """What lies in best/ and in latest/."""
    folders = [workdir / "checkpoints" / part for part in ("best", "latest")]
    return tuple(sorted(path.name for path in folder.iterdir()) for folder in folders)


@pytest.fixture(scope="session")
def stored(tmp_path_factory):
    """Checkpoints 2, the best, and 4 and 6, the latest."""
    folder = tmp_path_factory.mktemp("stored")
    with CheckpointStore(folder) as store:
        for step, miou in ((2, 0.9), (4, 0.1), (6, 0.2)):
            save(store, step, miou)
    return folder


@pytest.fixture
def workdir(stored, tmp_path):
    return shutil.copytree(stored, tmp_path / "run")


def test_the_best_and_the_latest_two_are_kept(workdir):
    """And Orbax alone reads them."""
    assert names(workdir) == (["2"], ["4", "6"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with CheckpointStore(workdir, read_only=True) as store:
            assert (store.steps(), store.best_step(), store.latest_step()) == ([2, 4, 6], 2, 6)
            assert_equal(store.restore_variables(), variables(2))
            assert_equal(store.restore_variables(4), variables(4))
            restored, host = store.restore(6, state(0))
    assert_equal(restored, state(6))
    assert host == {"note": 6}
    with ocp.CheckpointManager(workdir / "checkpoints" / "latest") as manager:
        assert list(manager.all_steps()) == [4, 6]
        restored = manager.restore(4)
    assert restored["host"] == {"note": 4}
    assert_equal(restored["state"], state(4))
    with ocp.CheckpointManager(workdir / "checkpoints" / "best") as manager:
        assert manager.restore(2)["host"] == {"val_miou": 0.9}


@pytest.mark.parametrize("miou, best", [(0.8, 2), (0.9, 8), (0.95, 8), (0.1, 8)])
def test_a_resumed_run_knows_the_best_one(workdir, miou, best):
    """The later one of equals; the next one if the best is damaged."""
    if miou == 0.1:
        (workdir / "checkpoints" / "best" / "2" / "host" / "metadata").write_text("{")
    damaged = pytest.warns(UserWarning, match="best/2 cannot be read: .*the next evaluations takes")
    with damaged if miou == 0.1 else contextlib.nullcontext():
        store = CheckpointStore(workdir)
    with store:
        save(store, 8, miou)
    assert names(workdir) == ([str(best)], ["6", "8"])


def test_without_evaluations_the_latest_is_the_best(tmp_path):
    with CheckpointStore(tmp_path) as store:
        assert (store.latest_step(), store.best_step()) == (None, None)
        assert store.restore_latest(state(0)) is None
        save(store, 4)
        save(store, 5)
    with CheckpointStore(tmp_path, read_only=True) as store:
        assert store.best_step() == 5
        assert_equal(store.restore_variables(), variables(5))
        with pytest.raises(ValueError, match=r"no checkpoint of step 6; there are \[4, 5\]"):
            store.restore_variables(6)


def test_nothing_there(tmp_path):
    with pytest.raises(ValueError, match="has no checkpoints yet"):
        CheckpointStore(tmp_path, read_only=True)
    assert not has_checkpoint(tmp_path)
    CheckpointStore(tmp_path).close()
    assert not has_checkpoint(tmp_path)
    with (
        CheckpointStore(tmp_path, read_only=True) as store,
        pytest.raises(ValueError, match="checkpoints is empty; train first"),
    ):
        store.restore_variables()


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
def test_the_latest_is_read_instead_of_a_damaged_best(workdir, damage):
    DAMAGES[damage](workdir / "checkpoints" / "best" / "2")
    message = r"best/2 cannot be read.*that of step 6 is used"
    with CheckpointStore(workdir, read_only=True) as store:
        with pytest.warns(UserWarning, match=message):
            assert_equal(store.restore_variables(), variables(6))
        with pytest.raises(ValueError, match=r"best/2 cannot be read.*another step: \[4, 6\]"):
            store.restore_variables(2)


@pytest.mark.parametrize("damage", [*DAMAGES, "host state cut off"])
def test_training_goes_on_before_a_damaged_one(workdir, damage):
    """It is renamed, so that its step can be written again."""
    latest = workdir / "checkpoints" / "latest"
    if damage == "host state cut off":
        (latest / "6" / "host" / "metadata").write_text('{"note')
    else:
        DAMAGES[damage](latest / "6")
    with CheckpointStore(workdir) as store:
        with pytest.warns(UserWarning, match=r"latest/6 cannot be read.*renamed to 6.damaged,"):
            step, restored, host = store.restore_latest(state(0))
        assert (step, host) == (4, {"note": 4})
        assert_equal(restored, state(4))
        save(store, 6, 0.95)
    assert names(workdir) == (["6"], ["4", "6", "6.damaged"])
    with CheckpointStore(workdir) as store, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.restore_latest(state(0))[0] == 6


def test_all_are_damaged(workdir):
    for path in (workdir / "checkpoints").glob("*/?"):
        cut_all_arrays(path)
    assert has_checkpoint(workdir)
    before = names(workdir)
    with CheckpointStore(workdir) as store:
        with pytest.raises(ValueError, match=r"latest/6 .*latest/4 .*there is no other checkpoint"):
            store.restore_latest(state(0))
        with pytest.raises(ValueError, match=r"best/2 .*latest/6 .*latest/4 .*train anew"):
            store.restore_variables()
    assert names(workdir) == before


def test_another_structure_is_no_damage(workdir):
    """Another model's checkpoints are left as they are."""
    before = names(workdir)
    with CheckpointStore(workdir) as store, pytest.raises(ValueError, match="the model that wrote"):
        store.restore_latest({**state(0), "ema": np.zeros(3)})
    assert names(workdir) == before


def test_what_a_killed_run_left_is_removed(workdir):
    for part in ("best", "latest"):
        folder = workdir / "checkpoints" / part
        for name in ("8.orbax-checkpoint-tmp", "8.orbax-checkpoint-tmp-3"):
            shutil.copytree(workdir / "checkpoints" / "best" / "2", folder / name)
    with CheckpointStore(workdir) as store:
        assert store.steps() == [2, 4, 6]
        assert names(workdir) == (["2"], ["4", "6"])


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(OSError, match=r"checkpoints cannot be written to: .*(exists|directory)"):
        CheckpointStore(tmp_path)


def test_the_state_may_change_once_it_is_given(tmp_path):
    """A training step takes the buffers over."""
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    given = {"a": jax.numpy.zeros((500, 400)), "b": jax.numpy.zeros(400_000)}
    like = jax.tree.map(np.ones_like, given)
    with CheckpointStore(tmp_path) as store:
        store.save(1, given, {})
        jax.block_until_ready(step(given))
        _, restored, _ = store.restore_latest(like)
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
        store.save(1, jax.tree.map(jax.device_put, arrays, shardings), {})
    for sharding in (over(2, "data"), over(4, None, "data"), over(1), over(8)):
        like = {
            "sharded": jax.ShapeDtypeStruct((16, 40), np.float32, sharding=sharding),
            "replicated": jax.ShapeDtypeStruct(
                (7, 3), np.float32, sharding=over(sharding.num_devices)
            ),
        }
        with CheckpointStore(tmp_path, read_only=True) as store:
            restored, _ = store.restore(1, like)
        assert_equal(restored, arrays)
        assert restored["sharded"].sharding == sharding


@pytest.mark.parametrize("origin", ["recalibrated", "killed", ""])
def test_a_recalibrated_run_is_not_resumed(workdir, origin):
    """It holds the best checkpoint alone; so does a run that was killed before its first other."""
    shutil.rmtree(workdir / "checkpoints" / "latest")
    if origin == "recalibrated":
        (workdir / "run.json").write_text('{"environment": {"batch_stats": "recomputed"}}')
        with pytest.raises(ValueError, match=r"by --mode=recalibrate .*cannot be trained further"):
            has_checkpoint(workdir)
    else:
        (workdir / "run.json").write_text('{"environment": {}}' if origin else "")
        assert not has_checkpoint(workdir)


def test_a_run_of_an_earlier_version_is_read_and_not_resumed(tmp_path):
    """It had all its checkpoints in one folder, each with its val mIoU."""
    with ocp.CheckpointManager(
        tmp_path / "checkpoints",
        options=ocp.CheckpointManagerOptions(best_fn=lambda metrics: metrics["val_miou"]),
    ) as manager:
        for step, miou in ((2, 0.1), (4, 0.9), (6, 0.2)):
            items = ocp.args.Composite(state=ocp.args.StandardSave(state(step)))
            manager.save(step, args=items, metrics={"val_miou": miou})
    with CheckpointStore(tmp_path, read_only=True) as store:
        assert (store.steps(), store.best_step()) == ([2, 4, 6], 4)
        assert_equal(store.restore_variables(), variables(4))
        assert_equal(store.restore_variables(6), variables(6))
    with pytest.raises(ValueError, match="from an earlier version of segjax: evaluate, predict"):
        has_checkpoint(tmp_path)
