"""From the training split to batches on the devices."""

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from segjax.data.batches import train_iterator
from segjax.data.device import DeviceData
from segjax.training.setup import Setup


class DeviceIterator:
    """The endless batches of a run on its devices: `next(feed)`, with image, label and index.

    With `data.on_device` the split is decoded and put there now, and only indices are sent; the
    batches are the same.

    Raises:
      ValueError: if the split is to stay on the device and does not fit, or a sample cannot be
        read.
      TimeoutError, ChildProcessError: see `prefetch.PrefetchIterator`; both are OSErrors.
    """

    def __init__(self, setup: Setup):
        config, data = setup.config, setup.config["data"]
        self._devices, self._canvas, self._split = setup.devices, setup.train, None
        self._batches = train_iterator(
            setup.train,
            config["train"]["batch_size"],
            seed=config["seed"],
            workers=data["workers"],
            order=setup.order,
            rows=setup.rows,
            indices_only=data["on_device"],
        )
        if data["on_device"]:
            rows_apart = NamedSharding(setup.devices.mesh, PartitionSpec(None, "space"))
            self._split = DeviceData.from_dataset(setup.train, rows_apart)
            self._gather = jax.jit(DeviceData.batch)

    def __next__(self) -> dict[str, jax.Array]:
        batch = self._devices.put(next(self._batches))
        return batch if self._split is None else self._gather(self._split, batch["index"])

    @property
    def skipped(self) -> dict[int, str]:
        """What was wrong with the samples that could not be read, by their index; empty unless
        `data.on_unreadable` is "skip"."""
        return dict((self._batches if self._split is None else self._canvas).skipped)

    def get_state(self) -> dict[str, Any]:
        """The position after the last batch."""
        return self._batches.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position, forwards or back."""
        self._batches.set_state(state)

    def close(self) -> None:
        """Ends the threads and processes that read."""
        self._batches.close()

    def __enter__(self) -> "DeviceIterator":
        return self

    def __exit__(self, *_) -> None:
        self.close()
