"""The costs of a compiled program on a device: memory, kernels, bytes, products, messages.

    program = read(step.lower(state, batch).compile())
    bound(program, DEVICES["h200"])

Costs are read from the program's text, which is that of one device. XLA's own cost analysis needs a
device for CUDA programs. On TPUs it gives estimates of bytes, which are no lower bound, so
`work.kernel_bytes` counts them on all platforms.

A *map* is an array of `MAP_BYTES` or more that has not the size of a weight. Sizes of weights are
those of the program's floating-point arguments and, of a convolution's kernel, of a row of taps and
of one tap; gradients and an optimiser's state have the same sizes.
"""

import collections
import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from segjax.accelerators import products, work
from segjax.accelerators.collectives import collectives_among
from segjax.accelerators.devices import Device
from segjax.accelerators.hlo import Array, Instruction, Module, parse

MAP_BYTES = 2**18
# Share of a device's memory that a program may use. A GPU needs the rest for the driver, scratch of
# libraries and losses of allocation. A TPU's compiler refuses programs above this share.
USABLE = {"cuda": 0.9, "tpu": 0.98}
_FLOATS = ("f64", "f32", "bf16", "f16")
_NAMES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32", "f64": "float64"}


@dataclasses.dataclass(frozen=True)
class Convolutions:
    """Convolutions of one kind, see `products.Product`: their number, the sum of their FLOPs, and
    the operations that they come from."""

    kind: str
    dtype: str
    layout: str
    count: int
    flops: float
    sources: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Moves:
    """Maps of one dtype whose layout changes ("transpose") or that are copied ("copy"): their
    number, the sum of their bytes, and the operations that they come from."""

    kind: str
    dtype: str
    count: int
    bytes: float
    sources: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Messages:
    """Collectives of one kind: their number, and the sum of their bytes on one device."""

    kind: str
    count: int
    bytes: float


@dataclasses.dataclass(frozen=True)
class Program:
    """One program on one device; sizes in bytes.

    Attributes:
      arguments, temporaries, outputs: in XLA's layout.
      peak: their sum, without outputs that overwrite arguments.
      kernels: instructions that start work on the device; one inside a loop counts once.
      transfers: copies between a TPU's memories, which are not among the kernels.
      moved: bytes that kernels read and write.
      flops: of convolutions and matrix products, by dtype of the factors.
      convolutions, moves, messages: by kind, see their classes.
      products: number of matrix products, by dtype.
      custom_calls: number of calls of libraries, by name.
      gathers, scatters: the operations that make a map by gathering or scattering.
      open_loops: loops of unknown length, whose work counts once.
      kernel_work: for each kernel its bytes, its FLOPs by dtype, and how often it runs.
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
        """The attributes for JSON, without `kernel_work`."""
        plain = dataclasses.asdict(dataclasses.replace(self, kernel_work=()))
        del plain["kernel_work"]
        return json.loads(json.dumps(plain))


@dataclasses.dataclass(frozen=True)
class Bound:
    """Lower bounds of a program's time in seconds.

    Attributes:
      seconds: the longer of `compute` and `memory`.
      compute: FLOPs over the device's peak.
      memory: bytes over its bandwidth.
      in_turn: the sum over the kernels of the bound of each: a bound for kernels that run one after
        another.
    """

    seconds: float
    compute: float
    memory: float
    in_turn: float


def _summed(
    make: Callable[..., Any], groups: Mapping[tuple[str, ...], list[tuple[float, str]]]
) -> Iterator[Any]:
    """One `make(*key, count, sum of amounts, sources)` for each group of (amount, source)."""
    for key, each in sorted(groups.items()):
        sources = dict.fromkeys(source for _, source in each)
        yield make(*key, len(each), sum(amount for amount, _ in each), tuple(sources))


class TooLargeError(Exception):
    """The compiler refused a program that needs `needed` bytes of a device with `limit` bytes."""

    def __init__(self, needed: float, limit: float):
        super().__init__(needed, limit)
        self.needed, self.limit = needed, limit


def compile_and_read(lowered: jax.stages.Lowered) -> Program:
    """Compiles a program and reads its costs on one device.

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
    """The costs of a compiled program on one device."""
    memory = compiled.memory_analysis()
    arguments, outputs = memory.argument_size_in_bytes, memory.output_size_in_bytes
    temporaries = memory.temp_size_in_bytes
    peak = arguments + temporaries + outputs - memory.alias_size_in_bytes
    return read_text(compiled.as_text(), (arguments, temporaries, outputs, peak))


def read_text(text: str, sizes: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Program:
    """As `read`, from the program's text and its sizes: arguments, temporaries, outputs, peak."""
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
        convolutions=tuple(_summed(Convolutions, convolutions)),
        products=dict(matrices),
        moves=tuple(_summed(Moves, moves)),
        custom_calls=dict(sorted(calls.items())),
        gathers=tuple(gathers),
        scatters=tuple(scatters),
        messages=tuple(Messages(kind, len(each), sum(each)) for kind, each in sorted(sent.items())),
        open_loops=work.loops_of_unknown_length(module),
        kernel_work=tuple(kernel_work),
    )


def bound(program: Program, device: Device) -> Bound:
    """The lower bounds of a program's time, from the published numbers of a device."""

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
    )


def usable_memory(device: Device) -> float:
    """Bytes that a program may use on one device: the share `USABLE` of its memory."""
    return USABLE[device.platform] * device.memory / device.per_chip


def peak_of(device: Device, dtype: str) -> float:
    """FLOP/s of a device for factors of this dtype; the peak of float32 if the table lacks it."""
    dtype = "bfloat16" if dtype == "float16" else dtype
    return device.peak.get(dtype, device.peak["float32"]) / device.per_chip


def _map_test(module: Module) -> Callable[[Array], bool]:
    weights = {
        math.prod(array.shape[first:])
        for parameter in module.entry.parameters
        for array in parameter.results
        if array.dtype in _FLOATS
        # A convolution's kernel counts with its rows of taps and its taps.
        for first in (range(3) if len(array.shape) == 4 else (0,))
    }

    def is_map(array: Array) -> bool:
        return array.bytes >= MAP_BYTES and array.elements not in weights

    return is_map


def _moved_maps(
    module: Module, kernel: work.Kernel, is_map: Callable[[Array], bool]
) -> Iterator[tuple[tuple[str, str], float, str]]:
    """((kind, dtype), bytes, source) for each map that a kernel copies or transposes."""
    parts = list(work.inside(module, kernel))
    if any(part.opcode in ("dot", "convolution") for part, _ in parts):
        return  # it reads its operands in any order and writes no map anew
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
    """Whether the order of the elements in memory changes."""
    result = part.results[0]
    places = range(len(result.shape))
    if part.opcode == "transpose":
        names = part.attributes.split("dimensions={")[1].split("}")[0]
        places = [int(n) for n in names.split(",") if n]
    before = [axis for axis in source.layout if source.shape[axis] > 1]
    after = [places[axis] for axis in result.layout if result.shape[axis] > 1]
    return before != after
