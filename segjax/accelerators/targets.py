"""Targets: accelerators to compile for, which need not be present.

    parse("h100x8").devices()         8 devices for a mesh
    parse("tpu:v5e:4x4").devices()

The devices hold no arrays and run nothing, but programs can be lowered and compiled for them. XLA
compiles in full; where it would time alternatives on the device (algorithms of a convolution, tiles
of a product) it uses its heuristics.
"""

import dataclasses
import importlib.metadata
import importlib.util
import math
import os
import re

import jax
from jax.experimental import topologies

from segjax.accelerators.devices import DEVICES, Device, xla_target_config

# Environment for compiling without a device. Otherwise the TPU library asks a metadata server about
# the machine and logs errors about the answer.
_ENVIRONMENT = {
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",  # errors are raised, too
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is claimed
}
FORMS = "a100, h100, h200, b200, with xN for N of them, as h100x8; tpu:v5e:4x4, tpu:v4:2x2x2, ..."


@dataclasses.dataclass(frozen=True)
class Target:
    """A number of accelerators of one kind.

    Attributes:
      name: as the user wrote it.
      device: the kind.
      topology: chips along each axis of a TPU slice; (N,) for N GPUs in one machine.
    """

    name: str
    device: Device
    topology: tuple[int, ...]

    @property
    def chips(self) -> int:
        return math.prod(self.topology)

    @property
    def count(self) -> int:
        """XLA's number of devices."""
        return self.chips * self.device.per_chip

    def devices(self) -> list[jax.Device]:
        """The devices to compile for. The first call of a process should come before JAX looks for
        real devices, see `without_devices`.

        Raises:
          ValueError: if XLA's compiler for them is not installed (the message says how to install
            it), or if the topology does not exist.
        """
        if missing := missing_plugin(self.device):
            raise ValueError(f"target {self.name}: {missing}")
        without_devices()
        devices = _gpus(self) if self.device.gpu else _tpus(self)
        return sorted(devices, key=lambda device: (device.process_index, device.id))


def parse(name: str) -> Target:
    """The target of a name, see `FORMS`.

    Raises:
      ValueError: for an unknown name; the message lists the known ones.
    """
    if match := re.fullmatch(r"tpu:(\w+):(\d+(?:x\d+)*)", name):
        kind, shape = match[1], tuple(int(n) for n in match[2].split("x"))
        known = [d.name for d in DEVICES.values() if not d.gpu]
        if kind not in known:
            raise ValueError(f"--target={name}: TPU {kind!r} is unknown; known: {', '.join(known)}")
        device = DEVICES[kind]
        if len(shape) != device.dimensions or min(shape) < 1:
            like = "x".join("4" * device.dimensions)
            raise ValueError(
                f"--target={name}: {kind} slices have {device.dimensions} sides of 1 or more "
                f"chips; use one such as tpu:{kind}:{like}"
            )
        return Target(name, device, shape)
    match = re.fullmatch(r"([a-z]+\d+)(?:x([1-9]\d*))?", name)
    if not match or match[1] not in DEVICES or not DEVICES[match[1]].gpu:
        raise ValueError(f"--target={name} is unknown; known: {FORMS}")
    return Target(name, DEVICES[match[1]], (int(match[2] or 1),))


def without_devices() -> None:
    """Prepares this process to compile for absent devices: JAX itself runs on the CPU and claims no
    accelerator. It has no effect on devices that JAX has already found."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")
    # The cache of compiled programs can neither store nor load such a program.
    jax.config.update("jax_enable_compilation_cache", False)


def missing_plugin(device: Device) -> str:
    """How to install the compiler for a device, in words; "" if it is installed."""
    version = importlib.metadata.version("jax")
    if device.gpu:
        if any(importlib.util.find_spec(f"jax_cuda{n}_plugin") for n in (12, 13)):
            return ""
        return (
            "XLA's CUDA compiler is not installed; use pip install "
            f'"jax-cuda12-plugin[with-cuda]=={version}" (or jax-cuda13-plugin); no GPU is needed'
        )
    if importlib.util.find_spec("libtpu") or os.environ.get("TPU_LIBRARY_PATH"):
        return ""
    return (
        "XLA's TPU compiler is not installed; use pip install "
        f'"jax[tpu]=={version}", which adds libtpu; no TPU is needed'
    )


def _gpus(target: Target) -> list[jax.Device]:
    # The name of a CUDA topology is partitions x hosts x devices.
    shape = f"1x1x{target.chips}"
    description = topologies.get_topology_desc(
        shape, "cuda", target_config=xla_target_config(target.device), topology=shape
    )
    return list(description.devices)


def _tpus(target: Target) -> list[jax.Device]:
    shape = target.topology
    hosts = (*(min(2, side) for side in shape[:2]), 1)  # chips on one host
    try:
        description = topologies.get_topology_desc(
            f"{target.device.name}:{'x'.join(map(str, shape))}",
            "tpu",
            chips_per_host_bounds=hosts,
        )
    except jax.errors.JaxRuntimeError as error:
        even = [str(side + side % 2 if place < 2 and side > 2 else side)
                for place, side in enumerate(shape)]  # fmt: skip
        raise ValueError(
            f"--target={target.name}: the TPU library knows no such slice of {target.device.kind}; "
            f"the first two sides are 1 or even: tpu:{target.device.name}:{'x'.join(even)} "
            f"({str(error).splitlines()[0][:200]})"
        ) from error
    return list(description.devices)
