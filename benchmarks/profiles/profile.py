"""The profile of a network's program: measured on this CPU, or bounded from a device's numbers."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.profiles import categories, necessary, programs, trace
from benchmarks.profiles.categories import Work
from benchmarks.profiles.networks import Network
from benchmarks.scaling import estimate
from segjax.accelerators import Device, parse, peak_of
from segjax.training import runtime
from segjax.training.setup import Setup, setup_programs

_NAMES = {"bf16": "bfloat16", "f32": "float32"}


COSTLIEST = 30  # operations that a profile keeps


@dataclasses.dataclass(frozen=True)
class Operation:
    """One kernel of a step.

    Attributes:
      name, category, layer, shape: see `categories.Work`.
      ms, bytes, flops: of a step.
    """

    name: str
    category: str
    layer: str
    shape: str
    ms: float
    bytes: float
    flops: float


@dataclasses.dataclass(frozen=True)
class Profile:
    """A program by kinds of work.

    Attributes:
      network, work, target: names.
      batch: in words.
      ms: of a step; on a CPU the median of steps that are not traced, on an accelerator the sum
        over the kernels of the least time of each.
      notes: further numbers by name.
      times, bytes: of a step, by category; milliseconds and bytes. On a CPU the times are those of
        traced steps.
      necessary: bytes by category, see `necessary`; {} on a CPU.
      costliest: operations by falling time.
    """

    network: str
    work: str
    target: str
    batch: str
    ms: float
    notes: Mapping[str, float]
    times: Mapping[str, float]
    bytes: Mapping[str, float]
    necessary: Mapping[str, float]
    costliest: tuple[Operation, ...]

    @property
    def key(self) -> tuple[str, str, str]:
        return self.target, self.network, self.work

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def from_dict(plain: Mapping[str, Any]) -> Profile:
    """The profile that `as_dict` wrote."""
    return Profile(**{**plain, "costliest": tuple(Operation(**o) for o in plain["costliest"])})


def _profile(
    of: tuple[str, str, str],
    batch: str,
    ms: float,
    notes: Mapping[str, float],
    kernels: Iterable[tuple[Work, float, float]],
    necessary: Mapping[str, float],
) -> Profile:
    """From (work, runs a step, milliseconds a step) of each kernel."""
    operations = [
        Operation(w.name, w.category, w.layer, w.shape, time, w.bytes * runs, w.flops * runs)
        for w, runs, time in kernels
    ]
    times = dict.fromkeys(categories.CATEGORIES, 0.0)
    moved = dict(times)
    for operation in operations:
        times[operation.category] += operation.ms
        moved[operation.category] += operation.bytes
    costliest = sorted(operations, key=lambda operation: -operation.ms)[:COSTLIEST]
    return Profile(*of, batch, ms, notes, times, moved, necessary, tuple(costliest))


def on_cpu(name: str, network: Network, work: str, steps: int) -> Profile:
    """Runs and traces a program on this machine's CPU, in float32."""
    runtime.keep_freed_memory()
    setup = setup_programs(network.config("float32"), jax.devices("cpu")[:1])
    program = programs.lowered(setup, work).compile()
    step = programs.runner(setup, work, program)
    step()
    product = _product_rate()
    walls = [_seconds(step) * 1e3 for _ in range(steps)]
    text = program.as_text() or ""
    times = trace.traced(step, steps, module=text.split(",", 1)[0].removeprefix("HloModule "))
    found = categories.read(text)
    return _profile(
        (name, work, "cpu"),
        _batch(setup, "float32"),
        statistics.median(walls),
        {
            "traced": times.wall,
            "idle": times.idle,
            "threads": times.threads,
            "product": product,
        },
        [
            (found.get(operation) or _unknown(operation), times.calls[operation], ms)
            for operation, ms in times.operations.items()
        ],
        {},
    )


def on_accelerator(name: str, network: Network, work: str, target: str) -> Profile:
    """Compiles a program for an accelerator that need not be there, in bfloat16. The time of a
    kernel is the longer of its bytes over the bandwidth and its FLOPs over the peak."""
    parsed = parse(target)
    setup = setup_programs(network.config("bfloat16"), parsed.devices())
    text = programs.lowered(setup, work).compile().as_text() or ""
    kernels = [
        (each, _moving(each, parsed.device) * 1e3, _computing(each, parsed.device) * 1e3)
        for each in categories.read(text).values()
    ]
    least = [(each, each.times, each.times * max(*times)) for each, *times in kernels]
    return _profile(
        (name, work, target),
        _batch(setup, "bfloat16"),
        sum(ms for *_, ms in least),
        {
            "kernels": float(len(kernels)),
            "by_bytes": sum(each.times * moving for each, moving, _ in kernels),
            "by_flops": sum(each.times * computing for each, _, computing in kernels),
        },
        least,
        _necessary(setup, work),
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
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return necessary.training(layers, parameters, images)


def _moving(work: Work, device: Device) -> float:
    return work.bytes / (device.bandwidth / device.per_chip)


def _computing(work: Work, device: Device) -> float:
    return work.flops / peak_of(device, _NAMES.get(work.dtype, work.dtype))


def _unknown(name: str) -> Work:
    return Work(name, categories.OTHER, "", "", 0.0, 0.0, "", 1)


def _product_rate(side: int = 1536, runs: int = 8) -> float:
    """GFLOP/s of a large float32 matrix product, which the rates of convolutions compare with: a
    shared machine is not always as fast."""
    matrix = jnp.ones((side, side))
    multiply = jax.jit(jnp.matmul)

    def run():
        jax.block_until_ready(multiply(matrix, matrix))

    run()
    return 2 * side**3 / 1e9 / min(_seconds(run) for _ in range(runs))


def _seconds(step: Callable[[], Any]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def _batch(setup: Setup, dtype: str) -> str:
    shape = setup.abstract_batch()["image"].shape
    return f"{shape[0]} x {shape[1]}x{shape[2]}, {len(setup.classes)} classes, {dtype}"
