"""Damaged checkpoints: another one is used, and said so."""

import shutil
import warnings

import numpy as np
import pytest

from segjax.training.checkpoint import CheckpointStore
from segjax.training.pretrained import has_checkpoint

# Orbax leaves coroutines behind when arrays cannot be read; several checkpoints warn one by one.
pytestmark = [
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
    metrics = workdir / "checkpoints" / "2" / "metrics" / "metrics"
    metrics.write_text("{")
    with pytest.raises(ValueError, match=r"remove the damaged checkpoints: \[2, 4, 6\]"):
        CheckpointStore(workdir, read_only=True)
