"""A split that stays on the device, decoded: the host sends indices, the device gathers."""

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32

from segjax.data.classes import IGNORE
from segjax.data.errors import DataError
from segjax.data.fitted import FittedDataset
from segjax.data.prefetch import PrefetchIterator

# Share of a device's memory for data: model, gradients and activations need the rest.
_SHARE = 0.5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DeviceData:
    """All samples of a split as device arrays; a pytree, so that jit takes it as an argument.

    Give it to the jitted function: arrays that a function closes over become constants of the
    program.
    """

    # Any, as JAX puts placeholders into pytrees.
    images: Any  # uint8 [samples, H, W, c]
    labels: Any  # uint8 [samples, h, w]

    @classmethod
    def from_dataset(
        cls,
        dataset: FittedDataset,
        sharding: jax.sharding.Sharding,
        *,
        limit_mb: float | None = None,
        threads: int | None = None,
    ) -> "DeviceData":
        """Decodes a split once and moves it to the devices.

        Args:
          dataset: the split.
          sharding: of the arrays: P() for all samples on each device, P(None, "space") for its
            rows of all; either way a batch is gathered without communication.
          limit_mb: memory that the samples may take on each device, in 10**6 bytes; None = half of
            the device's.
          threads: that decode; None = one per core.

        Raises:
          DataError: if the samples take more, before any is decoded; or if one cannot be read.
          TimeoutError: if reading hangs for `dataset.timeout_s`.
        """
        shapes = {
            "image": (len(dataset), *dataset.size, dataset.channels),
            "label": (len(dataset), *dataset.label_shape),
        }
        needed = sum(int(np.prod(sharding.shard_shape(shape))) for shape in shapes.values()) / 1e6
        device = min(sharding.addressable_devices, key=lambda device: device.id)
        limit = _half_of_memory(device) if limit_mb is None else limit_mb
        if needed > limit:
            height, width = dataset.size
            raise DataError(
                f"data.on_device: {len(dataset)} samples of {height}x{width} take {needed:,.0f} MB "
                f"on each device, and {limit:,.0f} MB are for them ({_SHARE:.0%} of the memory of "
                f"{device.device_kind} where no limit is set)",
                "use data.on_device=False, or a smaller data.image_size",
            )
        arrays = {name: np.empty(shape, np.uint8) for name, shape in shapes.items()}

        def read(index: int) -> dict:
            sample = dataset.decode(index)  # not kept on the host too
            for name, array in arrays.items():
                array[index] = sample[name]
            return {}

        for _ in PrefetchIterator(
            range(len(dataset)),
            read,
            ahead=threads or os.cpu_count() or 1,
            timeout_s=dataset.timeout_s,
            reading=lambda index: dataset.being_read([index]),
        ):
            pass
        return cls(
            *(
                jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
                for array in arrays.values()
            )
        )

    def batch(self, indices: Int32[jax.Array, "*n"]) -> dict[str, jax.Array]:
        """The samples at `indices`, as `batches.train_iterator` gives them; pure, for jit.

        Indices below 0 are padding: nothing in them is labelled.
        """
        labels = jnp.take(self.labels, indices, axis=0, mode="clip")
        return {
            "image": jnp.take(self.images, indices, axis=0, mode="clip"),
            "label": jnp.where((indices < 0)[..., None, None], IGNORE, labels),
            "index": indices,
        }


def _half_of_memory(device: jax.Device) -> float:
    """In 10**6 bytes; of the host's memory if the device does not report its own."""
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return _SHARE * ((device.memory_stats() or {}).get("bytes_limit") or host) / 1e6
