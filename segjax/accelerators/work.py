"""The kernels of a compiled program, and the bytes that they read and write."""

import dataclasses
import math
from collections.abc import Iterator

from segjax.accelerators.hlo import Array, Computation, Instruction, Module

# Instructions that are no kernels: they move nothing and start nothing.
_FREE = {
    "add-dependency",
    "after-all",
    "bitcast",
    "constant",
    "domain",
    "get-tuple-element",
    "opt-barrier",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
}
# Custom calls that are only hints for a TPU's compiler.
_FREE_CALLS = {"AllocateBuffer", "ConcatBitcast", "GatherScatterIndicesBitpacked"}
_SLICES = {"slice", "dynamic-slice", "gather"}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """An instruction that the device starts on its own.

    Attributes:
      instruction: a fusion, or a single operation.
      computation: the computation that holds it.
      times: how often it runs in one call of the program; 1 if unknown.
    """

    instruction: Instruction
    computation: Computation
    times: int = 1


def kernels(module: Module) -> Iterator[Kernel]:
    """The kernels of a program in order, including those in loops, calls and all branches of
    conditions."""
    yield from _kernels(module, module.entry, 1)


def _kernels(module: Module, computation: Computation, times: int) -> Iterator[Kernel]:
    for instruction in computation.instructions.values():
        opcode = instruction.opcode
        if opcode in _FREE or opcode.endswith(("-done", "-update")):
            continue
        if instruction.target in _FREE_CALLS:
            continue
        if opcode in ("while", "call", "conditional", "async-start"):
            for name in instruction.called:
                yield from _kernels(module, module.computations[name], times * instruction.trips)
        else:
            yield Kernel(instruction, computation, times)


def is_transfer(kernel: Kernel) -> bool:
    """Whether the kernel only starts a copy between the memories of a TPU."""
    return kernel.instruction.opcode in ("copy-start", "slice-start")


def loops_of_unknown_length(module: Module) -> int:
    """The number of loops whose length the compiler does not know."""
    return sum(
        i.opcode == "while" and "known_trip_count" not in i.attributes
        for computation in module.computations.values()
        for i in computation.instructions.values()
    )


def inside(module: Module, kernel: Kernel) -> Iterator[tuple[Instruction, Computation]]:
    """The instructions of a kernel (itself, or those of a fusion) and their computations."""
    yield from _inside(module, kernel.instruction, kernel.computation)


def _inside(module: Module, instruction: Instruction, computation: Computation):
    if instruction.opcode != "fusion":
        yield instruction, computation
        return
    for name in instruction.called:
        fused = module.computations[name]
        for part in fused.instructions.values():
            yield from _inside(module, part, fused)


def kernel_bytes(module: Module, kernel: Kernel) -> float:
    """Bytes that one run of a kernel reads and writes in the device's main memory.

    A kernel reads each operand once, or only the slices that it takes of it, and writes each result
    once, or only the part that it updates in place. On TPUs arrays are padded to whole tiles, and
    arrays on the chip cost nothing.
    """
    instruction, computation = kernel.instruction, kernel.computation
    results = instruction.results
    if instruction.target.startswith("__cu") and len(results) > 1:
        results = results[:-1]  # the last is the library's scratch
    if instruction.opcode == "copy-start":  # (target, source, ...)
        return sum(_sizes(results[:2]))
    if instruction.opcode == "slice-start":  # (source, target, ...)
        source, target = results[:2]
        return target.memory_bytes + (0 if source.space else target.bytes)
    if instruction.opcode.endswith("-start") and len(results) > 1:
        results = results[1:2]
    operands = [
        computation.instructions[name]
        for name in dict.fromkeys(instruction.operands)
        if name in computation.instructions
    ]
    if instruction.opcode == "fusion":
        fused = module.computations[instruction.called[0]]
        read = sum(
            _read(module, fused, parameter, array)
            for parameter, name in zip(fused.parameters, instruction.operands, strict=False)
            for array in computation.instructions[name].results[:1]
        )
        return read + sum(_written(fused, results))
    if instruction.opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * sum(_sizes(results))
    if instruction.opcode == "dynamic-update-slice":
        return 2 * sum(_sizes(operands[1].results))
    return sum(_sizes(results)) + sum(sum(_sizes(operand.results)) for operand in operands)


def _sizes(arrays: tuple[Array, ...]) -> list[float]:
    return [array.memory_bytes for array in arrays]


def _read(module: Module, fused: Computation, parameter: Instruction, array: Array) -> float:
    """Bytes that a fusion reads of its parameter, whose value is `array`."""
    if not array.memory_bytes:
        return 0.0
    share = _used(module, fused, parameter.name) / max(array.elements, 1)
    return array.memory_bytes * min(share, 1.0)


def _used(module: Module, fused: Computation, name: str) -> float:
    """Number of elements that a fusion reads of an instruction; infinite = all."""
    total = 0.0
    for user in fused.users.get(name, ()):
        first = user.operands[:1] == (name,)
        if user.opcode in _SLICES and first and name not in user.operands[1:]:
            total += sum(array.elements for array in user.results)
        elif user.opcode == "bitcast":
            total += _used(module, fused, user.name)
        elif user.opcode == "dynamic-update-slice" and first:
            continue  # overwritten in place
        elif user.opcode == "fusion":
            inner = module.computations[user.called[0]]
            for parameter, operand in zip(inner.parameters, user.operands, strict=False):
                if operand == name:
                    total += _used(module, inner, parameter.name)
        else:
            return math.inf
    return total


def _written(fused: Computation, results: tuple[Array, ...]) -> list[float]:
    """Bytes that a fusion writes of each result: all, or the part that it updates in place."""
    root = fused.root
    roots = [fused.instructions[n] for n in root.operands] if root.opcode == "tuple" else [root]
    if len(roots) != len(results):
        return _sizes(results)
    written = []
    for part, array in zip(roots, results, strict=True):
        while part.opcode == "bitcast":
            part = fused.instructions[part.operands[0]]
        share = 1.0
        if part.opcode == "dynamic-update-slice":
            update = fused.instructions[part.operands[1]].results[0]
            share = update.elements / max(array.elements, 1)
        written.append(array.memory_bytes * share)
    return written
