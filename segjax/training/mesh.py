"""Devices: what lies where on them, and how a step becomes a program for all of them.

One mesh ("data", "space"): `data` devices share the batch, `space` devices the rows of an image.
The same step functions run in two ways. `jit` compiles one program over global arrays, which XLA
divides; `pmap` compiles one program per device, which sums over the axis "data" itself. A batch
that does not divide over the devices is filled up with rows that count for nothing.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

MODES = ("jit", "pmap")
AXIS = "data"  # of the mesh and of pmap


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
    def axis_name(self) -> str | None:
        """The axis that a step must sum over by itself; None where XLA does it."""
        return AXIS if self.mode == "pmap" else None

    def padded(self, batch_size: int, parts: int = 1) -> int:
        """The rows that a batch has on the devices: `batch_size`, rounded up so that each of
        `parts` micro-batches divides over `data`."""
        multiple = self.mesh.shape["data"] * parts
        return -(-batch_size // multiple) * multiple

    def rows(self, batch_size: int, parts: int = 1) -> slice:
        """The rows of the padded batch that this process reads."""
        share = self.padded(batch_size, parts) // self.mesh.shape["data"]
        own = self._own_shards()
        return slice(own.start * share, own.stop * share)

    def _own_shards(self) -> range:
        """The places along `data` that this process has devices of; they are neighbours."""
        here = jax.process_index()
        own = [
            place
            for place, devices in enumerate(self.mesh.devices)
            if any(device.process_index == here for device in devices)
        ]
        return range(own[0], own[-1] + 1)

    def put(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Moves this process's rows of a batch (see `rows`) to the devices: axis 0 over `data`,
        image rows over `space`."""
        own = self._own_shards()
        if self.mode == "pmap":
            shares = {k: v.reshape(len(own), -1, *v.shape[1:]) for k, v in batch.items()}
            return shares if jax.process_count() > 1 else self._put(shares, range(len(own)), 1)
        return self._put(batch, own, len(next(iter(batch.values()))) // len(own))

    def abstract(
        self, batch: Mapping[str, jax.ShapeDtypeStruct]
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """A padded batch's shapes as `put` would lay it out over all processes, without any array:
        devices that are compiled for hold none."""

        def placed(rows):
            shape = rows.shape
            if self.mode == "pmap":
                parts = self.mesh.shape["data"]
                shape = (parts, shape[0] // parts, *shape[1:])
            sharding = self._batch_sharding(rows.ndim)
            return jax.ShapeDtypeStruct(shape, rows.dtype, sharding=sharding)

        return {name: placed(rows) for name, rows in batch.items()}

    def _batch_sharding(self, ndim: int) -> NamedSharding:
        space = ("space",) if ndim > 1 and self.mode == "jit" else ()
        return NamedSharding(self.mesh, PartitionSpec("data", *space))

    def _put(self, batch, own: range, share: int) -> dict[str, jax.Array]:
        first, total = own.start * share, self.mesh.shape["data"] * share

        def put(rows):
            sharding = self._batch_sharding(rows.ndim)

            def part(index):
                start, stop, _ = index[0].indices(total)
                return rows[(slice(start - first, stop - first), *index[1:])]

            return jax.make_array_from_callback((total, *rows.shape[1:]), sharding, part)

        return {name: put(rows) for name, rows in batch.items()}

    def replicate(self, tree: Any) -> Any:
        """Moves host arrays, or arrays of one device, to every device whole."""

        def put(array):
            array = np.asarray(array)
            return jax.make_array_from_callback(array.shape, self.replicated(), array.__getitem__)

        return jax.tree.map(put, tree)

    def replicated(self) -> NamedSharding:
        """The sharding of what every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    def state_shardings(self, state: Any) -> Any:
        """Where a TrainState's arrays lie, given it or its shapes: every device holds all, but for
        the optimiser's state if that is sharded: there each array is divided along its first axis
        that divides over `data`, and whole where none does."""
        whole = jax.tree.map(lambda _: self.replicated(), state)
        if not self.shard_optimizer:
            return whole
        return whole.replace(opt_state=jax.tree.map(self._divided, state.opt_state))

    def _divided(self, array) -> NamedSharding:
        parts = self.mesh.shape["data"]
        for axis, size in enumerate(array.shape):
            if size % parts == 0:
                return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, "data"))
        return self.replicated()

    def rows_apart(self, x: jax.Array) -> jax.Array:
        """Inside a jitted step: divides [n, rows, ...] over both axes of the mesh. XLA spreads this
        from the images to all that is computed from them."""
        return self._constrained(x, "data", "space")

    def rows_together(self, x: jax.Array) -> jax.Array:
        """Inside a jitted step: divides [n, ...] over `data` alone. To be said of bytes: what XLA
        would gather by itself are the floats that are made of them."""
        return self._constrained(x, "data")

    def _constrained(self, x: jax.Array, *axes: str) -> jax.Array:
        if self.mode == "pmap" or self.mesh.shape["space"] == 1:
            return x
        sharding = NamedSharding(self.mesh, PartitionSpec(*axes))
        return jax.lax.with_sharding_constraint(x, sharding)

    def compile_train(self, step: Callable, state: Any) -> Callable:
        """`step(state, batch) -> (state, metrics)` as a program; the state given is used up.

        Args:
          step: with `axis_name=self.axis_name`.
          state: a TrainState, or its shapes.
        """
        if self.mode == "jit":
            shardings = self.state_shardings(state)
            return jax.jit(step, donate_argnums=0, out_shardings=(shardings, self.replicated()))
        return self._pmapped(step, out_axes=None, donate=(0,))

    def compile_eval(self, step: Callable) -> Callable:
        """`step(variables, batch) -> (rows, sums)` as a program; `rows` are outputs per image, see
        `own_rows`, and `sums` over the batch, which every process can read."""
        if self.mode == "jit":
            rows = NamedSharding(self.mesh, PartitionSpec("data"))
            return jax.jit(step, out_shardings=(rows, self.replicated()))

        def summed(variables, batch):
            rows, sums = step(variables, batch)
            return rows, jax.lax.psum(sums, AXIS)

        return self._pmapped(summed, out_axes=(0, None))

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
        # Among several processes pmap takes and gives arrays of the own devices; the state is one
        # array over all of them everywhere else.
        whole = PartitionSpec()

        def call(first, batch):
            local = multihost_utils.global_array_to_host_local_array(first, self.mesh, whole)
            out, rest = mapped(local, batch)
            if not donate:
                return out, rest
            return multihost_utils.host_local_array_to_global_array(out, self.mesh, whole), rest

        return call

    def own_rows(self, rows: jax.Array) -> np.ndarray:
        """This process's rows of an output that is divided over `data`: the inverse of `put`."""
        if self.mode == "pmap":
            return np.asarray(rows).reshape(-1, *rows.shape[2:])
        parts = {part.index[0].start or 0: part.data for part in rows.addressable_shards}
        return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])


def devices_here(config: Mapping[str, Any]) -> Devices:
    """The devices to evaluate a run with: as `config.parallel` says where there are so many, else
    all that are here, on which it may not have been trained."""
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
      devices: to choose from; None = those that JAX finds. Others can be compiled for, not used.

    Raises:
      ValueError: if the mode is unknown or cannot do what is asked, the devices do not fill the
        mesh or leave a process without one, or the image rows do not divide over it.
    """
    mode, space, shard_optimizer = config["mode"], config["space"], config["shard_optimizer"]
    if mode not in MODES:
        raise ValueError(f"parallel.mode={mode!r}; use {' or '.join(MODES)}")
    if mode == "pmap" and (space != 1 or shard_optimizer):
        raise ValueError(
            f"parallel.mode=pmap with parallel.space={space}, parallel.shard_optimizer="
            f"{shard_optimizer}; these want parallel.mode=jit"
        )
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    data = config["data"] or count // max(space, 1)
    if space < 1 or data < 1 or data * space > count:
        raise ValueError(
            f"parallel.data={config['data']} x parallel.space={space} wants {data * space} "
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
    # By process, which JAX's own order is not on every TPU: a process reads neighbouring rows.
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    grid = np.array(devices[: data * space]).reshape(data, space)
    mesh = Mesh(grid, ("data", "space"), axis_types=(AxisType.Auto,) * 2)
    return Devices(mesh, mode, shard_optimizer)
