"""What a compiled program costs on a device: memory, kernels, bytes, multiplications, messages.

    program = read(step.lower(state, batch).compile())
    bound(program, DEVICES["h200"])

It is read from the program's text, which holds for one device of all. XLA's own cost analysis knows
no CUDA program without a device. On TPUs it counts its own estimates of bytes, which are no bound:
they are counted here by the rule of `work.kernel_bytes` too.

A *map* is an array of `MAP_BYTES` or more that has other than as many elements as one of the
program's floating-point arguments, or as a row or one of their taps: those are weights, and their
gradients and an optimiser's state have their sizes.
"""

import collections
import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import jax

from segjax.accelerators import products, work
from segjax.accelerators.collectives import collectives_among
from segjax.accelerators.devices import Device
from segjax.accelerators.hlo import Array, Instruction, Module, parse

MAP_BYTES = 2**18
# Of a device's memory, by platform. On GPUs the rest is for the driver, the scratch of libraries,
# and what allocation loses. A TPU's compiler knows its device, leaves as much out, and refuses what
# is above.
USABLE = {"cuda": 0.9, "tpu": 0.98}
_FLOATS = ("f64", "f32", "bf16", "f16")
_NAMES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32", "f64": "float64"}


@dataclasses.dataclass(frozen=True)
class Convolutions:
    """Convolutions of one kind, see `products.Product`: how many there are, the FLOPs of all, and
    where in the source they come from."""

    kind: str
    dtype: str
    layout: str
    count: int
    flops: float
    sources: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Moves:
    """Maps of one dtype that are laid out anew ("transpose") or only copied ("copy"): how often,
    the bytes of the maps, and where in the source that comes from."""

    kind: str
    dtype: str
    count: int
    bytes: float
    sources: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Messages:
    """Collectives of one kind: how many, and bytes on one device."""

    kind: str
    count: int
    bytes: float


@dataclasses.dataclass(frozen=True)
class Program:
    """One program on one device; sizes in bytes.

    Attributes:
      arguments, temporaries, outputs: as XLA has laid them out.
      peak: their sum, less what is updated in place.
      kernels: instructions that start something, those of loops once; without `transfers`, copies
        between a TPU's memories.
      moved: bytes that kernels read and write.
      flops: of convolutions and matrix products, by the dtype that is multiplied.
      convolutions, moves, messages: see there.
      products: matrix products, by dtype.
      custom_calls: calls of libraries, by name.
      gathers, scatters: instructions that make a map by gathering, or by scattering; where in the
        source each comes from.
      kernel_work: per kernel and run, its bytes and FLOPs by dtype, and how often it runs.
      open_loops: loops of unknown length, whose work counts once.
    """

    arguments: int
    temporaries: int
    outputs: int
    peak: int
    kernels: int
    transfers: int
    moved: float
    flops: Mapping[str, float]
    convolutions: tuple[Convolutions, ...]
    products: Mapping[str, int]
    moves: tuple[Moves, ...]
    custom_calls: Mapping[str, int]
    gathers: tuple[str, ...]
    scatters: tuple[str, ...]
    messages: tuple[Messages, ...]
    open_loops: int = 0
    kernel_work: tuple[tuple[float, Mapping[str, float], int], ...] = ()

    @property
    def total_flops(self) -> float:
        return sum(self.flops.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain numbers, names and lists, without the list of kernels."""
        plain = dataclasses.asdict(dataclasses.replace(self, kernel_work=()))
        del plain["kernel_work"]
        return json.loads(json.dumps(plain))


@dataclasses.dataclass(frozen=True)
class Bound:
    """No run of a program is faster than this.

    Attributes:
      seconds: the longer of `compute` and `memory`.
      compute: FLOPs over the device's peak.
      memory: bytes over its bandwidth.
      in_turn: the same for each kernel by itself, added up: what it takes if kernels run one after
        another and none shares its wait with another.
      share_of_peak: of the peak of what is multiplied, in a run that takes `seconds`.
    """

    seconds: float
    compute: float
    memory: float
    in_turn: float
    share_of_peak: float


def _together(make, groups: Mapping[tuple[str, ...], list[tuple[float, str]]]):
    """For each group, what it is of, how many there are, the sum of what they have, and whence."""
    for key, each in sorted(groups.items()):
        sources = dict.fromkeys(source for _, source in each)
        yield make(*key, len(each), sum(amount for amount, _ in each), tuple(sources))


class TooLargeError(Exception):
    """The compiler has refused a program: it needs `needed` bytes of a device, and has `limit`."""

    def __init__(self, needed: float, limit: float):
        super().__init__(needed, limit)
        self.needed, self.limit = needed, limit


def compile_and_read(lowered: jax.stages.Lowered) -> Program:
    """Compiles a program and counts what it costs on one device.

    Raises:
      TooLargeError: if the compiler knows the device's memory, as a TPU's does, and the program
        does not fit.
    """
    try:
        return read(lowered.compile())
    except jax.errors.JaxRuntimeError as error:
        sizes = re.search(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm", str(error))
        if "RESOURCE_EXHAUSTED" not in str(error) or not sizes:
            raise
        units = {letter: 2.0 ** (10 * power) for power, letter in enumerate("KMGT", 1)}
        needed, limit = float(sizes[1]) * units[sizes[2]], float(sizes[3]) * units[sizes[4]]
        raise TooLargeError(needed, limit) from error


def read(compiled: jax.stages.Compiled) -> Program:
    """What a compiled program costs on one device."""
    memory = compiled.memory_analysis()
    arguments, outputs = memory.argument_size_in_bytes, memory.output_size_in_bytes
    temporaries = memory.temp_size_in_bytes
    peak = arguments + temporaries + outputs - memory.alias_size_in_bytes
    return read_text(compiled.as_text(), (arguments, temporaries, outputs, peak))


def read_text(text: str, sizes: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Program:
    """As `read`, from the program's text and the sizes of arguments, temporaries, outputs and all
    together."""
    module = parse(text)
    is_map = _map_test(module)
    kernels = list(work.kernels(module))
    convolutions, matrices = collections.defaultdict(list), collections.Counter()
    moves, flops, kernel_work = collections.defaultdict(list), collections.Counter(), []
    gathers, scatters = [], []
    for kernel in kernels:
        of_kernel = collections.Counter()
        for product in products.products(module, kernel):
            dtype = _NAMES.get(product.dtype, product.dtype)
            of_kernel[dtype] += product.flops
            if product.layout:
                key = (product.kind, dtype, product.layout)
                convolutions[key].append((product.flops * kernel.times, product.source))
            else:
                matrices[dtype] += 1
        for key, size, source in _moved_maps(module, kernel, is_map):
            moves[key].append((size, source))
        for part, _ in work.inside(module, kernel):
            if any(map(is_map, part.results)):
                if part.opcode == "gather":
                    gathers.append(part.source)
                elif part.opcode in ("scatter", "select-and-scatter"):
                    scatters.append(part.source)
        kernel_work.append((work.kernel_bytes(module, kernel), dict(of_kernel), kernel.times))
        for dtype, count in of_kernel.items():
            flops[dtype] += count * kernel.times
    sent = collections.defaultdict(list)
    instructions = (i for c in module.computations.values() for i in c.instructions.values())
    for collective in collectives_among(instructions):
        sent[collective.kind].append(collective.bytes)
    transfers = sum(map(work.is_transfer, kernels))
    calls = collections.Counter(k.instruction.target for k in kernels if k.instruction.target)
    return Program(
        *sizes,
        kernels=len(kernels) - transfers,
        transfers=transfers,
        moved=sum(size * times for size, _, times in kernel_work),
        flops=dict(flops),
        convolutions=tuple(_together(Convolutions, convolutions)),
        products=dict(matrices),
        moves=tuple(_together(Moves, moves)),
        custom_calls=dict(sorted(calls.items())),
        gathers=tuple(gathers),
        scatters=tuple(scatters),
        messages=tuple(Messages(kind, len(each), sum(each)) for kind, each in sorted(sent.items())),
        open_loops=work.loops_of_unknown_length(module),
        kernel_work=tuple(kernel_work),
    )


def bound(program: Program, device: Device) -> Bound:
    """The least time of a program on a device of the table, by its published numbers."""

    def compute(flops: Mapping[str, float]) -> float:
        return sum(count / peak_of(device, dtype) for dtype, count in flops.items())

    bandwidth = device.bandwidth / device.per_chip
    computing, moving = compute(program.flops), program.moved / bandwidth
    seconds = max(computing, moving)
    return Bound(
        seconds,
        computing,
        moving,
        sum(
            max(size / bandwidth, compute(flops)) * times
            for size, flops, times in program.kernel_work
        ),
        computing / seconds if seconds else 0.0,
    )


def usable_memory(device: Device) -> float:
    """Bytes that a program may need on one device of the table: `USABLE` of all."""
    return USABLE[device.platform] * device.memory / device.per_chip


def peak_of(device: Device, dtype: str) -> float:
    """FLOP/s of a device that multiplies this dtype; of one that the table lacks, float32's."""
    dtype = "bfloat16" if dtype == "float16" else dtype
    return device.peak.get(dtype, device.peak["float32"]) / device.per_chip


def _map_test(module: Module):
    weights = {
        math.prod(array.shape[first:])
        for parameter in module.entry.parameters
        for array in parameter.results
        if array.dtype in _FLOATS
        # Of a convolution's kernel also a row of taps, and a tap.
        for first in (range(3) if len(array.shape) == 4 else (0,))
    }

    def is_map(array: Array) -> bool:
        return array.bytes >= MAP_BYTES and array.elements not in weights

    return is_map


def _moved_maps(module: Module, kernel: work.Kernel, is_map):
    """((kind, dtype), bytes, source) for each map that a kernel copies or lays out anew."""
    parts = list(work.inside(module, kernel))
    if any(part.opcode in ("dot", "convolution") for part, _ in parts):
        return  # it reads its operands in any order: no map is written anew
    for part, computation in parts:
        if part.opcode not in ("copy", "transpose") or not is_map(part.results[0]):
            continue
        source = computation.instructions[part.operands[0]].results[0]
        kind = "transpose" if _is_turned(part, source) else "copy"
        if kind == "copy" and part.opcode == "transpose":
            continue  # only the names of the axes change
        dtype = _NAMES.get(source.dtype, source.dtype)
        yield (kind, dtype), part.results[0].bytes, part.source


def _is_turned(part: Instruction, source: Array) -> bool:
    """Whether the elements' order in memory changes."""
    result = part.results[0]
    places = range(len(result.shape))
    if part.opcode == "transpose":
        names = part.attributes.split("dimensions={")[1].split("}")[0]
        places = [int(n) for n in names.split(",") if n]
    before = [axis for axis in source.layout if source.shape[axis] > 1]
    after = [places[axis] for axis in result.layout if result.shape[axis] > 1]
    return before != after
