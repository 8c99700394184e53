"""What the kernels of a compiled program do: multiplications, and bytes read and written."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

from segjax.accelerators.hlo import Array, Computation, Instruction, Module

# Names in the place of kernels: they move nothing and start nothing.
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
# Custom calls that only tell a TPU's compiler something.
_FREE_CALLS = {"AllocateBuffer", "ConcatBitcast", "GatherScatterIndicesBitpacked"}
_SLICES = {"slice", "dynamic-slice", "gather"}
_CUDNN = {
    "__cudnn$convForward": "forward",
    "__cudnn$convBiasActivationForward": "forward",
    "__cudnn$convForwardGraph": "forward",
    "__cudnn$convBackwardInput": "input gradient",
    "__cudnn$convBackwardFilter": "filter gradient",
}
_LETTERS = str.maketrans("bf012", "NCHWD")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """An instruction that the device runs by itself.

    Attributes:
      computation: where it stands.
      times: how often it runs in one call of the program, as far as that is known; else 1.
    """

    instruction: Instruction
    computation: Computation
    times: int = 1


@dataclasses.dataclass(frozen=True)
class Product:
    """A convolution, or a product of matrices.

    Attributes:
      kind: "forward", "input gradient" or "filter gradient" where cuDNN is called; "convolution",
        "product" (a convolution without a window is one).
      dtype: as HLO spells it, of what is multiplied.
      layout: of a convolution's input in memory, from major to minor, as "NHWC"; with "->" the
        output's, where it is another.
      flops: two for each multiplication with what is inside the map; padding counts for nothing.
    """

    kind: str
    dtype: str
    layout: str
    flops: float


def kernels(module: Module) -> Iterator[Kernel]:
    """The kernels of a program in its order, those inside loops and calls too. Of a condition all
    branches count."""
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
    """Whether it only starts a copy between the memories of a TPU."""
    return kernel.instruction.opcode in ("copy-start", "slice-start")


def loops_of_unknown_length(module: Module) -> int:
    """How many loops run a number of times that the compiler does not know."""
    return sum(
        i.opcode == "while" and "known_trip_count" not in i.attributes
        for computation in module.computations.values()
        for i in computation.instructions.values()
    )


def inside(module: Module, kernel: Kernel) -> Iterator[tuple[Instruction, Computation]]:
    """The instructions that a kernel is made of, with where they stand: itself, or a fusion's."""
    yield from _inside(module, kernel.instruction, kernel.computation)


def _inside(module: Module, instruction: Instruction, computation: Computation):
    if instruction.opcode != "fusion":
        yield instruction, computation
        return
    for name in instruction.called:
        fused = module.computations[name]
        for part in fused.instructions.values():
            yield from _inside(module, part, fused)


# Bytes.


def kernel_bytes(module: Module, kernel: Kernel) -> float:
    """Bytes that one run of a kernel reads and writes in the device's main memory.

    Each operand is read once and each result written once; of an operand of which a fusion takes
    slices, the slices; of a result that is updated in place, the update. On TPUs arrays are filled
    up to whole tiles, and what lies on the chip costs nothing.
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
    """Bytes that a fusion reads of one of its parameters, which is `array` outside of it."""
    whole = array.memory_bytes
    if not whole:
        return 0.0
    share = _used(module, fused, parameter.name) / max(array.elements, 1)
    return whole * min(share, 1.0)


def _used(module: Module, fused: Computation, name: str) -> float:
    """Elements that are read of it; infinite for all."""
    total = 0.0
    for user in fused.users.get(name, ()):
        first = user.operands[:1] == (name,)
        if user.opcode in _SLICES and first and name not in user.operands[1:]:
            total += sum(array.elements for array in user.results)
        elif user.opcode == "bitcast":
            total += _used(module, fused, user.name)
        elif user.opcode == "dynamic-update-slice" and first:
            continue  # written over in place
        elif user.opcode == "fusion":
            inner = module.computations[user.called[0]]
            for parameter, operand in zip(inner.parameters, user.operands, strict=False):
                if operand == name:
                    total += _used(module, inner, parameter.name)
        else:
            return math.inf
    return total


def _written(fused: Computation, results: tuple[Array, ...]) -> list[float]:
    """Bytes that a fusion writes: of each result all, or what it updates in place."""
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


# Multiplications.


def products(module: Module, kernel: Kernel) -> list[Product]:
    """The convolutions and matrix products of a kernel."""
    return [
        product
        for instruction, computation in inside(module, kernel)
        if (product := _product(instruction, computation))
    ]


def _product(instruction: Instruction, computation: Computation) -> Product | None:
    def operand(place: int) -> Array:
        return computation.instructions[instruction.operands[place]].results[0]

    if instruction.target in _CUDNN:
        return _convolution(
            instruction,
            _CUDNN[instruction.target],
            *_by_role(_CUDNN[instruction.target], operand(0), operand(1), instruction.results[0]),
        )
    if instruction.opcode == "convolution":
        return _convolution(
            instruction, "convolution", operand(0), operand(1), instruction.results[0]
        )
    if instruction.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    elif instruction.target.startswith(("__cublas", "__triton$gemm")):
        contracted = re.search(r'lhs_contracting_dimensions":\[([\d",]*)\]', instruction.attributes)
    else:
        return None
    axes = [int(n) for n in re.findall(r"\d+", contracted[1])] if contracted else []
    lhs = operand(0)
    flops = 2.0 * instruction.results[0].elements * math.prod(lhs.shape[a] for a in axes)
    return Product("product", lhs.dtype, "", flops)


def _by_role(kind: str, first: Array, second: Array, result: Array) -> tuple[Array, Array, Array]:
    """(input, filter, output) of the convolution that cuDNN is asked for, forwards or backwards."""
    if kind == "input gradient":
        return result, second, first
    if kind == "filter gradient":
        return first, result, second
    return first, second, result


def _convolution(
    instruction: Instruction, kind: str, image: Array, kernel: Array, out: Array
) -> Product:
    labels = re.search(r"dim_labels=([\w?]+)_([\w?]+)->([\w?]+)", instruction.attributes)
    of_image, of_kernel, of_out = labels.groups()
    multiplied = kernel if kind == "input gradient" else image
    spatial = [label for label in of_image if label.isdigit()]
    window = _window(instruction.attributes, len(spatial))
    pairs = 1
    for axis, (size, stride, low, spread, dilation, _) in zip(sorted(spatial), window, strict=True):
        pairs *= _inside_pairs(
            image.shape[of_image.index(axis)],
            out.shape[of_out.index(axis)],
            size or kernel.shape[of_kernel.index(axis)],
            stride,
            low,
            spread,
            dilation,
        )
    batch_groups = re.search(r"batch_group_count=(\d+)", instruction.attributes)
    batch = image.shape[of_image.index("b")] // (int(batch_groups[1]) if batch_groups else 1)
    features = kernel.shape[of_kernel.index("i")] * out.shape[of_out.index("f")]
    flops = 2.0 * batch * features * pairs
    if not spatial:
        return Product("product", multiplied.dtype, "", flops)
    layout = _layout(of_image, image)
    if (other := _layout(of_out, out)) != layout:
        layout = f"{layout}->{other}"
    return Product(kind, multiplied.dtype, layout, flops)


def _layout(labels: str, array: Array) -> str:
    axes = reversed(array.layout) if array.layout else range(len(labels))
    return "".join(labels[axis] for axis in axes).translate(_LETTERS)


def _window(attributes: str, axes: int) -> list[tuple[int, ...]]:
    """Per axis: size (0 = not given), stride, padding before, dilation of the map, of the kernel,
    reversed."""
    text = re.search(r"window=\{([^}]*)\}", attributes)
    fields = dict(part.split("=") for part in text[1].split()) if text else {}

    def numbers(name: str, default: int) -> list[int]:
        given = fields.get(name)
        if given is None:
            return [default] * axes
        return [int(part.split("_")[0]) for part in given.split("x")]

    names = (("size", 0), ("stride", 1), ("pad", 0), ("lhs_dilate", 1), ("rhs_dilate", 1))
    columns = [numbers(name, default) for name, default in (*names, ("rhs_reversal", 0))]
    return list(zip(*columns, strict=True))


@functools.cache
def _inside_pairs(
    image: int, out: int, size: int, stride: int, low: int, spread: int, dilation: int
) -> int:
    """Pairs of an output and a tap along one axis that fall on an element of the image: not on
    padding, nor between the elements of a map that is spread out."""
    extent = (image - 1) * spread + 1
    if spread == 1 and stride == 1:  # as many outputs for each tap as there are
        return sum(
            max(0, min(out, extent + low - tap * dilation) - max(0, low - tap * dilation))
            for tap in range(size)
        )
    return sum(
        0 <= place < extent and place % spread == 0
        for tap in range(size)
        for place in range(tap * dilation - low, tap * dilation - low + out * stride, stride)
    )
