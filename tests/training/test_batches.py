"""The batches of `train_iterator`, on the devices."""

import dataclasses
import multiprocessing

import jax
import numpy as np
import pytest

from segjax.data.batches import train_iterator
from segjax.data.fitted import FittedDataset, UnreadableSample
from segjax.training.batches import DeviceIterator
from segjax.training.setup import setup_run
from tests.conftest import make_tiny_config

BATCH = 4


class Damaged:
    """Ten images, each of its own grey; two of them cannot be read."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index in (3, 8):
            raise ValueError(f"{index}.png cannot be read")
        image = np.full((32, 48, 3), 20 * index, np.uint8)
        return {"image": image, "label": image[..., 0] // 20 % 7, "name": str(index)}


@pytest.fixture
def make_setup(toy):
    tiny_config = make_tiny_config("toy")

    def make(train=None, **options):
        tiny_config.train.batch_size = BATCH
        with tiny_config.unlocked():
            tiny_config.update_from_flattened_dict(options)
        setup = setup_run(tiny_config)
        return setup if train is None else dataclasses.replace(setup, train=train)

    return make


def take(feed, count):
    return [jax.device_get(next(feed)) for _ in range(count)]


def assert_equal(result, expected):
    for one, other in zip(result, expected, strict=True):
        assert set(one) == set(other) == {"image", "label", "index"}
        for name, rows in other.items():
            assert one[name].dtype == rows.dtype
            np.testing.assert_array_equal(one[name].reshape(rows.shape), rows)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("mode, devices", [("jit", 1), ("jit", 3), ("pmap", 2)])
def test_batches_are_those_of_the_iterator_padded_for_the_devices(
    make_setup, mode, devices, on_device
):
    options = {"parallel.mode": mode, "parallel.data": devices, "data.on_device": on_device}
    setup = make_setup(**options)
    plain = train_iterator(setup.train, BATCH, seed=0, rows=slice(0, 6 if devices == 3 else 4))
    with DeviceIterator(setup) as feed:
        result, expected = take(feed, 4), [next(plain) for _ in range(4)]
    real = expected[0]["index"] >= 0
    assert real.sum() == BATCH
    for batch, rows in zip(result, expected, strict=True):
        # The image of a padding row may be anything.
        shown = batch["image"].reshape(rows["image"].shape)
        batch["image"] = np.where(real[:, None, None, None], shown, 0)
    assert_equal(result, expected)


@pytest.mark.parametrize("on_device", [False, True])
def test_the_state_is_that_of_the_batches_taken(make_setup, on_device):
    setup = make_setup(**{"data.on_device": on_device})
    with DeviceIterator(setup) as feed, DeviceIterator(setup) as other:
        start = feed.get_state()
        take(feed, 2)
        state = feed.get_state()
        rest = take(feed, 3)
        other.set_state(state)
        assert_equal(take(other, 3), rest)
        assert other.get_state() == feed.get_state() != state
        feed.set_state(start)
        assert_equal(take(feed, 5)[2:], rest)


@pytest.mark.parametrize("on_device", [False, True])
def test_samples_that_cannot_be_read(make_setup, on_device):
    """They end the run with an error, or are replaced by the next one and told."""
    on_device = {"data.on_device": on_device}
    setup = make_setup(FittedDataset(Damaged(), (32, 48)), **on_device)
    with (
        pytest.raises(UnreadableSample, match=r"[38]\.png cannot be read"),
        DeviceIterator(setup) as feed,
    ):
        take(feed, 5)
    split = FittedDataset(Damaged(), (32, 48), on_unreadable="skip")
    with DeviceIterator(make_setup(split, **on_device)) as feed:
        batches = take(feed, 5)
        assert sorted(feed.skipped) == [3, 8]
        assert all(f"{i}.png cannot be read" in message for i, message in feed.skipped.items())
    indices, images = (np.concatenate([b[name] for b in batches]) for name in ("index", "image"))
    assert sorted(set(indices.tolist())) == list(range(10))
    replaced = np.where(np.isin(indices, (3, 8)), indices + 1, indices)
    np.testing.assert_array_equal(images[:, 0, 0, 0], 20 * replaced)


def test_its_workers_end_when_it_is_closed(make_setup):
    before = set(multiprocessing.active_children())
    with DeviceIterator(make_setup(**{"data.workers": 1})) as feed:
        take(feed, 1)
        workers = set(multiprocessing.active_children()) - before
        assert workers
    for worker in workers:
        worker.join(5)
        assert worker.exitcode is not None
