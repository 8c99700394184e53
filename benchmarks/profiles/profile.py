"""The profile of a network's program: measured on this CPU, or bounded from a device's numbers."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.profiles import categories, necessary, programs, trace
from benchmarks.profiles.categories import Work
from benchmarks.profiles.networks import Network
from benchmarks.scaling import estimate
from segjax.accelerators import Device, parse, peak_of
from segjax.training.setup import Setup, setup_programs

_NAMES = {"bf16": "bfloat16", "f32": "float32"}


@dataclasses.dataclass(frozen=True)
class Operation:
    """One kernel of a step: its work, and the milliseconds that it takes a step."""

    work: Work
    calls: float
    ms: float

    @property
    def bytes(self) -> float:
        return self.work.bytes * self.calls

    @property
    def flops(self) -> float:
        return self.work.flops * self.calls


@dataclasses.dataclass(frozen=True)
class Profile:
    """A program's operations.

    Attributes:
      network, target, work: names.
      batch: in words.
      wall: milliseconds of a step; on a CPU the median of steps that are not traced, on an
        accelerator the sum over the kernels of the least time of each.
      notes: further numbers by name.
      operations: by falling time.
      necessary: bytes by category, see `necessary`; {} on a CPU.
    """

    network: str
    work: str
    target: str
    batch: str
    wall: float
    notes: Mapping[str, float]
    operations: tuple[Operation, ...]
    necessary: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def by_category(self, amount: Callable[[Operation], float]) -> dict[str, float]:
        """The sum of an amount for each category."""
        sums = dict.fromkeys(categories.CATEGORIES, 0.0)
        for operation in self.operations:
            sums[operation.work.category] += amount(operation)
        return sums

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def from_dict(plain: Mapping[str, Any]) -> Profile:
    """The profile that `as_dict` wrote."""
    operations = tuple(
        Operation(Work(**each["work"]), each["calls"], each["ms"]) for each in plain["operations"]
    )
    return Profile(**{**plain, "operations": operations})


def on_cpu(name: str, network: Network, work: str, steps: int) -> Profile:
    """Runs and traces a program on this machine's CPU."""
    setup = setup_programs(network.config("float32"), jax.devices("cpu")[:1])
    program = programs.lowered(setup, work).compile()
    step = programs.runner(setup, work, program)
    step()
    walls = [_seconds(step) * 1e3 for _ in range(steps)]
    text = program.as_text() or ""
    times = trace.traced(step, steps, module=text.split(",", 1)[0].removeprefix("HloModule "))
    found = categories.read(text)
    operations = [
        Operation(found.get(name) or _unknown(name), times.calls[name], ms)
        for name, ms in times.operations.items()
    ]
    notes = {"traced_wall": times.wall, "idle": times.idle, "threads": times.threads}
    wall = statistics.median(walls)
    return Profile(
        name, work, "cpu", _batch(setup, "float32"), wall, notes, _by_time(operations)
    )  # fmt: skip


def on_accelerator(name: str, network: Network, work: str, target: str) -> Profile:
    """Compiles a program for an accelerator that need not be there, in bfloat16. The time of a
    kernel is the longer of its bytes over the bandwidth and its FLOPs over the peak."""
    parsed = parse(target)
    setup = setup_programs(network.config("bfloat16"), parsed.devices())
    program = programs.lowered(setup, work).compile()
    kernels = list(categories.read(program.as_text() or "").values())
    moving = [_moving(each, parsed.device) * each.times * 1e3 for each in kernels]
    computing = [_computing(each, parsed.device) * each.times * 1e3 for each in kernels]
    least = [max(pair) for pair in zip(moving, computing, strict=True)]
    operations = [Operation(each, each.times, ms) for each, ms in zip(kernels, least, strict=True)]
    return Profile(
        network=name,
        work=work,
        target=target,
        batch=_batch(setup, "bfloat16"),
        wall=sum(least),
        notes={
            "kernels": float(len(kernels)),
            "by_bytes": sum(moving),
            "by_flops": sum(computing),
        },
        operations=_by_time(operations),
        necessary=_necessary(setup, work),
    )


def _necessary(setup: Setup, work: str) -> dict[str, float]:
    train = work == "train"
    state = setup.abstract_state()
    layers = estimate.convolutions(
        lambda variables, image: setup.model.apply(
            variables,
            image,
            train=train,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        ),
        {"params": state.params, "batch_stats": state.batch_stats},
        jnp.zeros((1, *setup.crop_size, 3)),
    )
    images = setup.padded_batch_size
    if not train:
        return necessary.inference(layers, images)
    heads = 2 if setup.config["model"].get("aux") else 1
    logits = heads * len(setup.classes) * math.prod(setup.crop_size)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return necessary.training(layers, logits, parameters, images)


def _moving(work: Work, device: Device) -> float:
    return work.bytes / (device.bandwidth / device.per_chip)


def _computing(work: Work, device: Device) -> float:
    return work.flops / peak_of(device, _NAMES.get(work.dtype, work.dtype))


def _by_time(operations) -> tuple[Operation, ...]:
    return tuple(sorted(operations, key=lambda operation: -operation.ms))


def _unknown(name: str) -> Work:
    return Work(name, categories.OTHER, "", "", 0.0, 0.0, "", 1)


def _seconds(step: Callable[[], Any]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def _batch(setup: Setup, dtype: str) -> str:
    shape = setup.abstract_batch()["image"].shape
    return f"{shape[0]} x {shape[1]}x{shape[2]}, {len(setup.classes)} classes, {dtype}"
