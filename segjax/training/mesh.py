"""The mesh of devices: where arrays lie on it, and how a step becomes a program for all of it.

One mesh ("data", "space"): `data` devices share the batch, `space` devices the rows of an image.
The same step functions run in two modes. "jit" compiles one program over global arrays, which XLA
divides; a batch that does not divide over the devices is padded with rows that count for nothing.
"pmap" compiles one program per device, which sums over the axis "data" itself; a training batch
must divide.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from segjax.training.compiler_options import for_training

MODES = ("jit", "pmap")
AXIS = "data"  # of the mesh and of pmap


@dataclasses.dataclass(frozen=True)
class BatchPlacement:
    """How a training step's batch lies on the devices; by default all of it on one.

    Attributes:
      axis_name: pmap's axis, over which the step sums by itself; None under jit, where XLA does.
      padded: whether the batch may hold padding rows.
      shard_batch_only: constrains [n, ...] to be divided over `data` alone.
      shard_batch_and_rows: constrains [n, rows, ...] to be divided over `data` and `space`.
    """

    axis_name: str | None = None
    padded: bool = False
    shard_batch_only: Callable[[jax.Array], jax.Array] = lambda x: x
    shard_batch_and_rows: Callable[[jax.Array], jax.Array] = lambda x: x

    def sum_over_devices(self, tree: Any) -> Any:
        """The sum of what each device's program has; under jit the program has it all."""
        return jax.lax.psum(tree, self.axis_name) if self.axis_name else tree


ON_ONE_DEVICE = BatchPlacement()


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices of a run, see `make_devices`.

    Attributes:
      mesh: ("data", "space").
      mode: "jit" or "pmap".
      shard_optimizer: whether each device of `data` keeps only a part of the optimiser's state.
    """

    mesh: Mesh
    mode: str = "jit"
    shard_optimizer: bool = False

    @property
    def platform(self) -> str:
        """Of the devices: "cpu", "gpu", "tpu"."""
        return self.mesh.devices.flat[0].platform

    def check_batch_size(self, batch_size: int, accumulate: int = 1) -> None:
        """Raises ValueError for a training batch that pmap cannot divide over its devices."""
        count = self.mesh.shape["data"]
        unit = count * accumulate
        if self.mode != "pmap" or batch_size % unit == 0:
            return
        below = batch_size // unit * unit
        sizes = f"{below} or {below + unit}" if below else f"{unit}"
        parts = f" and train.accumulate={accumulate} micro-batches" if accumulate > 1 else ""
        raise ValueError(
            f"train.batch_size={batch_size} does not divide over the {count} devices of "
            f"parallel.mode=pmap{parts}; use train.batch_size={sizes}, fewer devices "
            "(parallel.data), or parallel.mode=jit, which pads the batch"
        )

    def padded_size(self, batch_size: int, accumulate: int = 1) -> int:
        """The rows of a batch with its padding: `batch_size`, rounded up so that each of
        `accumulate` micro-batches divides over `data`."""
        unit = self.mesh.shape["data"] * accumulate
        return -(-batch_size // unit) * unit

    def local_rows(self, batch_size: int, accumulate: int = 1) -> slice:
        """The rows of the padded batch that this process reads."""
        shard = self.padded_size(batch_size, accumulate) // self.mesh.shape["data"]
        own = self._local_shards()
        return slice(own.start * shard, own.stop * shard)

    def _local_shards(self) -> range:
        """The positions along `data` whose devices this process has; they are neighbours."""
        process = jax.process_index()
        own = [
            position
            for position, devices in enumerate(self.mesh.devices)
            if any(device.process_index == process for device in devices)
        ]
        return range(own[0], own[-1] + 1)

    def put(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, jax.Array | np.ndarray]:
        """Moves this process's rows of a batch (see `local_rows`) to the devices: axis 0 over
        `data`, image rows over `space`."""
        own = self._local_shards()
        if self.mode == "pmap":
            shards = {k: v.reshape(len(own), -1, *v.shape[1:]) for k, v in batch.items()}
            return shards if jax.process_count() > 1 else self._put(shards, range(len(own)), 1)
        return self._put(batch, own, len(next(iter(batch.values()))) // len(own))

    def abstract(
        self, batch: Mapping[str, jax.ShapeDtypeStruct]
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes and shardings that `put` would give a padded batch of all processes. Makes no
        array, so it works for devices that are compiled for and not there."""

        def placed(rows):
            shape = rows.shape
            if self.mode == "pmap":
                parts = self.mesh.shape["data"]
                shape = (parts, shape[0] // parts, *shape[1:])
            sharding = self._batch_sharding(rows.ndim)
            return jax.ShapeDtypeStruct(shape, rows.dtype, sharding=sharding)

        return {name: placed(rows) for name, rows in batch.items()}

    def _batch_sharding(self, ndim: int) -> NamedSharding:
        space = ("space",) if ndim > 2 and self.mode == "jit" else ()  # of maps, not of flat labels
        return NamedSharding(self.mesh, PartitionSpec("data", *space))

    def _put(self, batch: Mapping[str, np.ndarray], own: range, shard: int) -> dict[str, jax.Array]:
        """Places the positions `own` of a batch that has `shard` rows per position."""
        first, total = own.start * shard, self.mesh.shape["data"] * shard

        def put(rows):
            sharding = self._batch_sharding(rows.ndim)

            def part(index):
                start, stop, _ = index[0].indices(total)
                return rows[(slice(start - first, stop - first), *index[1:])]

            return jax.make_array_from_callback((total, *rows.shape[1:]), sharding, part)

        arrays = {name: put(rows) for name, rows in batch.items()}
        if self.platform == "cpu":
            # A program whose inputs are still being copied runs in another thread, and so does each
            # step after it, whose input it makes. What that thread frees goes back to the kernel,
            # see `runtime.keep_freed_memory`.
            jax.block_until_ready(arrays)
        return arrays

    def replicate(self, tree: Any) -> Any:
        """Copies host arrays, or arrays of one device, to every device."""

        def put(array):
            array = np.asarray(array)
            return jax.make_array_from_callback(array.shape, self.replicated(), array.__getitem__)

        return jax.tree.map(put, tree)

    def replicated(self) -> NamedSharding:
        """The sharding of arrays of which every device holds a copy."""
        return NamedSharding(self.mesh, PartitionSpec())

    def state_shardings(self, state: Any) -> Any:
        """The shardings of a TrainState's arrays, given it or its shapes.

        Every device holds a copy. With `shard_optimizer` each array of the optimiser's state is
        divided along its first axis that divides over `data`; where none does, it is copied.
        """
        shardings = jax.tree.map(lambda _: self.replicated(), state)
        if not self.shard_optimizer:
            return shardings
        return shardings.replace(opt_state=jax.tree.map(self._divided, state.opt_state))

    def _divided(self, array: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
        parts = self.mesh.shape["data"]
        for axis, size in enumerate(array.shape):
            if size % parts == 0:
                return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, "data"))
        return self.replicated()

    def batch_placement(self, batch_size: int, accumulate: int = 1) -> BatchPlacement:
        """How a training step finds its batch of `batch_size` examples on these devices."""
        return BatchPlacement(
            axis_name=AXIS if self.mode == "pmap" else None,
            padded=self.padded_size(batch_size, accumulate) > batch_size,
            shard_batch_only=self.shard_batch_only,
            shard_batch_and_rows=self.shard_batch_and_rows,
        )

    def shard_batch_and_rows(self, x: jax.Array) -> jax.Array:
        """Inside a jitted step: divides [n, rows, ...] over both axes of the mesh. XLA carries the
        sharding of the images on to all that is computed from them."""
        return self._constrained(x, "data", "space")

    def shard_batch_only(self, x: jax.Array) -> jax.Array:
        """Inside a jitted step: divides [n, ...] over `data` alone, as augmentation needs it, which
        moves rows about. Apply it to the uint8 batch: otherwise XLA gathers the float images."""
        return self._constrained(x, "data")

    def _constrained(self, x: jax.Array, *axes: str) -> jax.Array:
        if self.mode == "pmap" or self.mesh.shape["space"] == 1:
            return x
        sharding = NamedSharding(self.mesh, PartitionSpec(*axes))
        return jax.lax.with_sharding_constraint(x, sharding)

    def compile_train(self, step: Callable, state: Any) -> Callable:
        """`step(state, batch) -> (state, metrics)` as a program; it donates the state it is given.

        Args:
          step: from `make_train_step` with this object's `batch_placement`.
          state: a TrainState, or its shapes.
        """
        if self.mode == "jit":
            shardings = self.state_shardings(state)
            return jax.jit(
                self.within_mesh(step),
                donate_argnums=0,
                out_shardings=(shardings, self.replicated()),
                compiler_options=for_training(self.platform),
            )
        return self._pmapped(step, out_axes=None, donate=(0,))

    def compile_eval(self, step: Callable) -> Callable:
        """`step(variables, batch) -> (rows, sums)` as a program: `rows` are outputs per image, see
        `local_shard`; `sums` are over the whole batch, and every process can read them."""
        if self.mode == "jit":
            rows = NamedSharding(self.mesh, PartitionSpec("data"))
            return jax.jit(self.within_mesh(step), out_shardings=(rows, self.replicated()))

        def summed(variables, batch):
            rows, sums = step(variables, batch)
            return rows, jax.lax.psum(sums, AXIS)

        return self._pmapped(summed, out_axes=(0, None))

    def within_mesh(self, step: Callable) -> Callable:
        """The step, whose layers find the mesh, see `segjax.layers.sharing`."""

        @functools.wraps(step)
        def within(*args):
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                return step(*args)

        return within

    def _pmapped(self, step: Callable, out_axes: Any, donate: tuple[int, ...] = ()) -> Callable:
        mapped = jax.pmap(
            step,
            axis_name=AXIS,
            in_axes=(None, 0),
            out_axes=out_axes,
            donate_argnums=donate,
            devices=None if jax.process_count() > 1 else self.mesh.devices.reshape(-1).tolist(),
        )
        if jax.process_count() == 1:
            return mapped
        # In several processes pmap takes and returns arrays of the process's own devices. Elsewhere
        # the state is one array over all devices.
        spec = PartitionSpec()

        def call(first, batch):
            local = multihost_utils.global_array_to_host_local_array(first, self.mesh, spec)
            out, rest = mapped(local, batch)
            if not donate:
                return out, rest
            return multihost_utils.host_local_array_to_global_array(out, self.mesh, spec), rest

        return call

    def local_shard(self, rows: jax.Array) -> np.ndarray:
        """This process's rows of an output that is divided over `data`: the inverse of `put`."""
        if self.mode == "pmap":
            return np.asarray(rows).reshape(-1, *rows.shape[2:])
        parts = {part.index[0].start or 0: part.data for part in rows.addressable_shards}
        return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])


def evaluation_devices(config: Mapping[str, Any]) -> Devices:
    """The devices to evaluate a run on: those of `config.parallel` if this machine has as many,
    else all that it has."""
    count, space = jax.device_count(), config["space"]
    space = space if count % space == 0 else 1
    data = config["data"] if config["data"] * space <= count else 0
    data = 0 if jax.process_count() > 1 else data
    return make_devices({**config, "data": data, "space": space, "shard_optimizer": False})


def make_devices(
    config: Mapping[str, Any],
    rows: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Devices:
    """The devices that `config.parallel` asks for.

    Args:
      config: `mode`, `data`, `space`, `shard_optimizer`, see configs/base.py.
      rows: of the images, if they are to be divided over `space`.
      devices: to choose from; None = those that JAX finds. For others programs can be compiled,
        not run.

    Raises:
      ValueError: if the mode is unknown or lacks an option, the devices do not fill the mesh or
        leave a process without one, or the image rows do not divide over the mesh.
    """
    mode, space, shard_optimizer = config["mode"], config["space"], config["shard_optimizer"]
    if mode not in MODES:
        raise ValueError(f"parallel.mode={mode!r}; use {' or '.join(MODES)}")
    if mode == "pmap" and (space != 1 or shard_optimizer):
        raise ValueError(
            f"parallel.mode=pmap with parallel.space={space}, parallel.shard_optimizer="
            f"{shard_optimizer}; use parallel.mode=jit for these"
        )
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    data = config["data"] or count // max(space, 1)
    if space < 1 or data < 1 or data * space > count:
        raise ValueError(
            f"parallel.data={config['data']} x parallel.space={space} needs {data * space} "
            f"devices, there are {count}; use 0 for all of them, or fewer"
        )
    if jax.process_count() > 1 and data * space != count:
        raise ValueError(
            f"parallel.data={config['data']} x parallel.space={space} uses {data * space} of the "
            f"{count} devices of {jax.process_count()} processes; use all of them: parallel.data=0"
        )
    if rows is not None and rows % space:
        nearest = next(d for d in range(space, 0, -1) if rows % d == 0)
        raise ValueError(
            f"data.image_size with {rows} rows does not divide over parallel.space={space} "
            f"devices; use a multiple of {space}, or parallel.space={nearest}"
        )
    # Sorted by process, unlike JAX's own order on some TPUs: a process reads neighbouring rows.
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    grid = np.array(devices[: data * space]).reshape(data, space)
    mesh = Mesh(grid, ("data", "space"), axis_types=(AxisType.Auto,) * 2)
    return Devices(mesh, mode, shard_optimizer)
