"""A split on the device gives the batches that the host would have sent."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from segjax.data.batches import train_iterator
from segjax.data.device import DeviceData
from segjax.data.fitted import FittedDataset
from segjax.data.streets.dataset import Streets
from tests.data.drawn import Numbered

pytestmark = pytest.mark.versions

SIZE = (16, 24)


def streets(**options):
    return FittedDataset(Streets("train", SIZE, length=10), SIZE, **options)


def on_device(dataset, **options):
    return DeviceData.from_dataset(dataset, SingleDeviceSharding(jax.devices()[0]), **options)


def test_batches_are_those_of_the_host():
    split = streets()
    device, gather = on_device(split), jax.jit(DeviceData.batch)
    complete = train_iterator(split, 4, seed=7)
    bare = train_iterator(split, 4, seed=7, indices_only=True)
    for _ in range(5):
        expected, batch = next(complete), gather(device, next(bare)["index"])
        assert set(batch) == set(expected)
        for name in expected:
            assert batch[name].dtype == expected[name].dtype
            np.testing.assert_array_equal(batch[name], expected[name])


def test_it_is_an_argument_of_a_program_and_not_a_constant_in_it():
    program = jax.jit(DeviceData.batch).lower(on_device(streets()), np.zeros(4, np.int32))
    assert "main(%arg0: tensor<10x16x24x3xui8>" in program.as_text()


def test_rows_of_images_may_lie_on_several_devices():
    mesh = jax.make_mesh((1,), ("space",), devices=jax.devices()[:1])
    sharding = NamedSharding(mesh, PartitionSpec(None, "space"))
    device = DeviceData.from_dataset(streets(), sharding)
    assert device.images.sharding.is_equivalent_to(sharding, 4)
    batch = jax.jit(DeviceData.batch)(device, np.array([3, 3, 9], np.int32))
    np.testing.assert_array_equal(batch["label"][2], streets()[9]["label"])


def test_decoding_for_the_device_keeps_nothing_on_the_host():
    split = FittedDataset(Numbered(10), SIZE, cache_mb=100)
    on_device(split, threads=1)
    split[3]
    assert split.source.reads == [*range(10), 3]


def test_a_split_that_does_not_fit_is_refused_before_it_is_read():
    source = Numbered(1000)
    message = (
        r"data\.on_device: 1000 samples of 16x24 take 2 MB on each device, and 1 MB .*"
        r"use data\.on_device=False, or a smaller data\.image_size"
    )
    with pytest.raises(ValueError, match=message):
        on_device(FittedDataset(source, SIZE), limit_mb=1.4)
    assert source.reads == []
    fits, megabytes = FittedDataset(Numbered(10), SIZE), 10 * 16 * 24 * 4 / 1e6
    on_device(fits, limit_mb=megabytes)
    with pytest.raises(ValueError, match=r"data\.on_device"):
        on_device(fits, limit_mb=megabytes - 1e-6)
    # 10**9 samples of 1536 bytes: more than half of any machine's memory.
    with pytest.raises(ValueError, match=r"take 1,536,000 MB .*\(50% of the memory of"):
        on_device(FittedDataset(Numbered(10**9), SIZE))
