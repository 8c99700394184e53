"""The convolutions and matrix products in the kernels of a compiled program."""

import dataclasses
import functools
import math
import re

from segjax.accelerators.hlo import Array, Computation, Instruction, Module
from segjax.accelerators.work import Kernel, inside

_CUDNN = {
    "__cudnn$convForward": "forward",
    "__cudnn$convBiasActivationForward": "forward",
    "__cudnn$convForwardGraph": "forward",
    "__cudnn$convBackwardInput": "input gradient",
    "__cudnn$convBackwardFilter": "filter gradient",
}
_LETTERS = str.maketrans("bf012", "NCHWD")


@dataclasses.dataclass(frozen=True)
class Product:
    """A convolution or a matrix product.

    Attributes:
      kind: "forward", "input gradient" or "filter gradient" of a call of cuDNN, else "convolution";
        or "product", which a convolution without a window is too.
      dtype: of the factors, as HLO spells it.
      layout: of a convolution's input in memory, from major to minor, as "NHWC"; followed by "->"
        and the output's where that differs.
      flops: two for each multiplication with an element inside the map; none for padding.
      source: JAX's name of the operation that it comes from.
      result: the array that it computes.
    """

    kind: str
    dtype: str
    layout: str
    flops: float
    source: str
    result: Array


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
    return Product("product", lhs.dtype, "", flops, instruction.source, instruction.results[0])


def _by_role(kind: str, first: Array, second: Array, result: Array) -> tuple[Array, Array, Array]:
    """(input, filter, output) of the convolution that a call of cuDNN computes or derives."""
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
        return Product(
            "product", multiplied.dtype, "", flops, instruction.source, instruction.results[0]
        )
    layout = _layout(of_image, image)
    if (other := _layout(of_out, out)) != layout:
        layout = f"{layout}->{other}"
    return Product(
        kind, multiplied.dtype, layout, flops, instruction.source, instruction.results[0]
    )


def _layout(labels: str, array: Array) -> str:
    axes = reversed(array.layout) if array.layout else range(len(labels))
    return "".join(labels[axis] for axis in axes).translate(_LETTERS)


def _window(attributes: str, axes: int) -> list[tuple[int, ...]]:
    """Per axis: size (0 = not given), stride, padding before, dilation of the map, dilation of the
    kernel, whether reversed."""
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
    """Pairs of an output and a tap along one axis that read an element of the image, rather than
    padding or the zeros between the elements of a dilated map."""
    extent = (image - 1) * spread + 1
    if spread == 1 and stride == 1:  # each tap reads one interval
        return sum(
            max(0, min(out, extent + low - tap * dilation) - max(0, low - tap * dilation))
            for tap in range(size)
        )
    return sum(
        0 <= place < extent and place % spread == 0
        for tap in range(size)
        for place in range(tap * dilation - low, tap * dilation - low + out * stride, stride)
    )
