"""A split on the device gives the batches that the host would have sent."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from segjax.data.batches import train_iterator
from segjax.data.device import DeviceData
from segjax.data.fitted import FittedDataset
from segjax.data.streets.dataset import Streets

pytestmark = pytest.mark.versions

SIZE = (16, 24)


def canvas(length=10, **options):
    return FittedDataset(Streets("train", SIZE, length=length), SIZE, **options)


def one_device():
    return SingleDeviceSharding(jax.devices()[0])


@pytest.mark.parametrize("seed", [0, 7])
def test_batches_are_those_of_the_host(seed):
    split = canvas(label_size=(32, 48))
    device = DeviceData.from_dataset(split, one_device())
    gather = jax.jit(DeviceData.batch)
    whole = train_iterator(split, 4, seed=seed)
    bare = train_iterator(split, 4, seed=seed, indices_only=True)
    for _ in range(5):
        wanted, found = next(whole), gather(device, next(bare)["index"])
        assert set(found) == set(wanted)
        for name in wanted:
            assert found[name].dtype == wanted[name].dtype
            np.testing.assert_array_equal(found[name], wanted[name])


def test_it_is_an_argument_of_a_program_and_not_a_constant_in_it():
    device = DeviceData.from_dataset(canvas(), one_device())
    program = jax.jit(DeviceData.batch).lower(device, np.zeros(4, np.int32)).as_text()
    assert "main(%arg0: tensor<10x16x24x3xui8>" in program


def test_rows_of_images_may_lie_on_several_devices():
    mesh = jax.make_mesh((1,), ("space",), devices=jax.devices()[:1])
    sharding = NamedSharding(mesh, PartitionSpec(None, "space"))
    device = DeviceData.from_dataset(canvas(), sharding)
    assert device.images.sharding.is_equivalent_to(sharding, 4)
    found = jax.jit(DeviceData.batch)(device, np.array([3, 3, 9], np.int32))
    np.testing.assert_array_equal(found["label"][2], canvas()[9]["label"])


def test_decoding_for_the_device_keeps_nothing_on_the_host():
    split = canvas(cache_mb=100)
    DeviceData.from_dataset(split, one_device(), threads=1)
    assert not split._cache


class Counting:
    def __init__(self, length):
        self.length, self.reads = length, []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.reads.append(index)
        return {"image": np.zeros((*SIZE, 3), np.uint8), "label": np.zeros(SIZE, np.uint8)}


def test_a_split_that_does_not_fit_is_refused_before_it_is_read():
    source = Counting(1000)
    each = 16 * 24 * 4 / 1e6
    message = (
        r"data\.on_device: 1000 samples of 16x24 take 2 MB on each device, and 1 MB .*"
        r"use data\.on_device=False, or a smaller data\.image_size"
    )
    with pytest.raises(ValueError, match=message):
        DeviceData.from_dataset(FittedDataset(source, SIZE), one_device(), limit_mb=1.4)
    assert source.reads == []
    fits = FittedDataset(Counting(10), SIZE)
    DeviceData.from_dataset(fits, one_device(), limit_mb=10 * each)
    with pytest.raises(ValueError, match=r"data\.on_device"):
        DeviceData.from_dataset(fits, one_device(), limit_mb=10 * each - 1e-6)


def test_half_of_the_memory_is_the_limit_that_nobody_set():
    # 10**9 samples of 1536 bytes: more than half of any machine's memory.
    with pytest.raises(ValueError, match=r"take 1,536,000 MB .*\(50% of the memory of"):
        DeviceData.from_dataset(FittedDataset(Counting(10**9), SIZE), one_device())
