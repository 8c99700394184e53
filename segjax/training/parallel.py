"""Devices: the mesh, what lies where on it, and the process-wide settings of a run."""

import ctypes
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

MODES = ("jit",)


def make_mesh(config: Mapping[str, Any], batch_size: int, rows: int | None = None) -> Mesh:
    """A ("data", "space") mesh from `config.parallel`: `data` devices share the batch, `space`
    devices the rows of an image.

    Raises:
      ValueError: if the mode is unknown, the devices do not fill the mesh, or the batch (of
        training or of evaluation) or the image rows do not divide over it.
    """
    if config["mode"] not in MODES:
        raise ValueError(f"parallel.mode={config['mode']!r}; use {' or '.join(MODES)}")
    devices, space = jax.device_count(), config["space"]
    data = config["data"] or devices // max(space, 1)
    if space < 1 or data < 1 or data * space > devices:
        raise ValueError(
            f"parallel.data={config['data']} x parallel.space={space} wants {data * space} "
            f"devices, there are {devices}; use 0 for all of them, or fewer"
        )
    if batch_size % data:
        raise ValueError(
            f"a batch of {batch_size} (train.batch_size, train.eval_batch_size) does not divide "
            f"over parallel.data={data} devices; use a multiple of {data}, or "
            f"parallel.data={_largest_divisor(batch_size, data)}"
        )
    if rows is not None and rows % space:
        raise ValueError(
            f"data.image_size with {rows} rows does not divide over parallel.space={space} "
            f"devices; use a multiple of {space}, or parallel.space={_largest_divisor(rows, space)}"
        )
    return jax.make_mesh(
        (data, space),
        ("data", "space"),
        axis_types=(AxisType.Auto,) * 2,
        devices=jax.devices()[: data * space],
    )


def _largest_divisor(n: int, most: int) -> int:
    return next(d for d in range(most, 0, -1) if n % d == 0)


def put_batch(mesh: Mesh, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Moves a host batch to the devices: axis 0 over `data`, image rows over `space`."""

    def put(rows):
        axes = ("data", "space") if rows.ndim > 1 else ("data",)
        return jax.device_put(rows, NamedSharding(mesh, PartitionSpec(*axes)))

    return {name: put(rows) for name, rows in batch.items()}


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in $JAX_COMPILATION_CACHE_DIR or ~/.cache/segjax."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(home) / "segjax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def keep_freed_memory() -> None:
    """Has glibc's malloc keep freed memory instead of returning every large block to the system.

    On the CPU a step's arrays are allocated anew each time, and the kernel's clearing of fresh
    pages costs more than writing them (2x240x320x64 floats: 10 ms fresh, 2 ms kept). Does nothing
    where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 * 2**20)
