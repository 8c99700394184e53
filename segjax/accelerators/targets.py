"""Targets: accelerators that are not here, which XLA compiles for all the same.

    parse("h100x8").devices()         the 8 devices, to make a mesh of
    parse("tpu:v5e:4x4").devices()

They hold no arrays and run nothing: a program can be lowered and compiled for them. XLA compiles
in full; what it would measure on the device (which algorithm of a convolution is the fastest, which
tiles of a product) it chooses by rule instead.
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

# What compiling without a device wants of the process. The TPU library would ask a metadata server
# what machine this is, and would complain of the answer.
_ENVIRONMENT = {
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",  # what goes wrong is raised as well
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing is taken that another process might want
}
FORMS = "a100, h100, h200, b200, with xN for N of them, as h100x8; tpu:v5e:4x4, tpu:v4:2x2x2, ..."


@dataclasses.dataclass(frozen=True)
class Target:
    """So many accelerators of one kind.

    Attributes:
      name: as the user gave it.
      device: the kind.
      topology: of a TPU, chips along each axis; (N,) for N GPUs, in one machine.
    """

    name: str
    device: Device
    topology: tuple[int, ...]

    @property
    def chips(self) -> int:
        return math.prod(self.topology)

    @property
    def count(self) -> int:
        """Of devices, as XLA counts."""
        return self.chips * self.device.per_chip

    def devices(self) -> list[jax.Device]:
        """The devices for XLA to compile for. The first call of a process should come before JAX
        looks for real devices, see `without_devices`.

        Raises:
          ValueError: if what compiles for them is not installed (the message is the line that
            installs it), or there is no such topology.
        """
        if missing := missing_plugin(self.device):
            raise ValueError(f"target {self.name}: {missing}")
        without_devices()
        found = _gpus(self) if self.device.gpu else _tpus(self)
        return sorted(found, key=lambda device: (device.process_index, device.id))


def parse(name: str) -> Target:
    """The target that a name stands for.

    Raises:
      ValueError: for one that is not known, with those that are.
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
    """Readies this process to compile for devices that it has not, and to touch none that it has:
    JAX itself runs on the CPU. It has no effect on devices that JAX has already found."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")
    # Such a program can be neither written to the cache of compiled programs nor read from it.
    jax.config.update("jax_enable_compilation_cache", False)


def missing_plugin(device: Device) -> str:
    """What to install, in words, to compile for the device; "" if it is there."""
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
    # On CUDA the topology's name is partitions x hosts x devices.
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
