"""The batches of the training split, on the devices."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from segjax.data.batches import train_iterator
from segjax.data.device import DeviceData
from segjax.training.setup import Setup


class DeviceIterator:
    """Endless training batches on the devices: `next(batches)` has image, label and index.

    With `data.on_device` the constructor decodes the split and moves it to the devices; after that
    only indices are sent. The batches are the same.

    Args:
      setup: of the run.
      look: see `prefetch.PrefetchIterator`.

    Raises:
      ValueError: if the split does not fit the device with `data.on_device`, or a sample cannot be
        read.
      TimeoutError, ChildProcessError: see `prefetch.PrefetchIterator`; both are OSErrors.
    """

    def __init__(self, setup: Setup, look: Callable[[], None] = lambda: None):
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
            look=look,
        )
        if data["on_device"]:
            sharding = NamedSharding(setup.devices.mesh, PartitionSpec(None, "space"))
            self._split = DeviceData.from_dataset(setup.train, sharding)
            self._gather = jax.jit(DeviceData.batch)

    def __next__(self) -> dict[str, jax.Array]:
        batch = self._devices.put(next(self._batches))
        return batch if self._split is None else self._gather(self._split, batch["index"])

    @property
    def skipped(self) -> dict[int, str]:
        """The problem of each sample that could not be read, by index; empty unless
        `data.on_unreadable` is "skip"."""
        return dict((self._batches if self._split is None else self._canvas).skipped)

    def get_state(self) -> dict[str, Any]:
        """The position after the last batch, to be saved with a checkpoint."""
        return self._batches.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position, forward or back."""
        self._batches.set_state(state)

    def close(self) -> None:
        """Ends the threads and processes that read samples."""
        self._batches.close()

    def __enter__(self) -> "DeviceIterator":
        return self

    def __exit__(self, *_) -> None:
        self.close()
