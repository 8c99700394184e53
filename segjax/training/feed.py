"""From the training split to batches on the devices."""

from collections.abc import Callable
from typing import Any

import grain
import jax
from jax.sharding import NamedSharding, PartitionSpec

from segjax.data.device import DeviceData
from segjax.data.pipeline import train_iterator
from segjax.training.parallel import put_batch
from segjax.training.setup import Setup


def training_feed(setup: Setup) -> tuple[grain.DatasetIterator, Callable[[Any], Any]]:
    """The iterator of training batches, and what puts one of them on the devices.

    With `data.on_device` the split is decoded and put there now, and the iterator yields indices;
    the batches are the same.

    Raises:
      ValueError: if the split does not fit the device.
    """
    config, data = setup.config, setup.config["data"]
    batches = train_iterator(
        setup.train,
        config["train"]["batch_size"],
        seed=config["seed"],
        workers=data["workers"],
        order=setup.order,
        indices_only=data["on_device"],
    )
    if not data["on_device"]:
        return batches, lambda batch: put_batch(setup.mesh, batch)
    rows_apart = NamedSharding(setup.mesh, PartitionSpec(None, "space"))
    split = DeviceData.from_canvas(setup.train, rows_apart)
    gather = jax.jit(DeviceData.batch)
    return batches, lambda batch: gather(split, put_batch(setup.mesh, batch)["index"])
