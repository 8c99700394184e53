"""What each kernel of a compiled step is for: its category, its layer, its bytes and FLOPs.

A kernel that holds several kinds of work has the first of `CATEGORIES` that it holds: a fusion that
normalises and sums is "statistics". A category comes from the source file that JAX traced; a matrix
product that stands for a 1x1 convolution is a convolution.
"""

import dataclasses
import re
from collections.abc import Iterable

from benchmarks.profiles.source import Frame, Frames
from segjax.accelerators import products, work
from segjax.accelerators.hlo import Instruction, Module, parse

FORWARD, INPUT, KERNEL = "convolution forward", "input gradient", "kernel gradient"
STATISTICS, ELEMENTWISE = "statistics", "elementwise"
POOLING, RESIZE, LOSS, OPTIMISER = "pooling", "resize", "loss", "optimiser"
COPIES, OTHER = "copies", "other"
CONVOLUTIONS = (FORWARD, INPUT, KERNEL)
CATEGORIES = (
    *CONVOLUTIONS, STATISTICS, POOLING, RESIZE, LOSS, OPTIMISER, ELEMENTWISE, COPIES, OTHER
)  # fmt: skip

# The innermost call in one of these files or functions tells what an instruction is for.
_LAYER = "layer"  # normalisation, ReLU, bias, sum of branches
_SCOPES = (
    (r"segjax/layers/(pooling|adaptive)\.py$", "", POOLING),
    (r"segjax/layers/resize\.py$", "", RESIZE),
    (r"segjax/layers/banded\.py$", "", None),  # of the layer that calls it
    (r"segjax/(layers|models)/", "", _LAYER),
    (r"segjax/(losses|metrics)/|segjax/training/(batch_loss|head)\.py$", "", LOSS),
    (r"/optax/|segjax/training/parts\.py$", "", OPTIMISER),
    (r"segjax/training/step\.py$", r"updated|<locals>\.<lambda>|microbatches", OPTIMISER),
    (r"segjax/transforms/", "", OTHER),
)  # fmt: skip
# Moving elements to another order, and to other places.
_ORDER = {"copy", "transpose", "copy-start", "copy-done"}
_PLACES = {
    "broadcast",
    "concatenate",
    "dynamic-slice",
    "dynamic-update-slice",
    "pad",
    "reshape",
    "reverse",
    "slice",
}
_SUMS = {"reduce", "reduce-window"}
_NOTHING = {"bitcast", "constant", "get-tuple-element", "parameter", "tuple"}


@dataclasses.dataclass(frozen=True)
class Work:
    """A kernel.

    Attributes:
      name: of the instruction.
      category: one of `CATEGORIES`.
      layer: the path of its module; or, outside of the network, the function.
      shape: of its largest result, as HLO writes it.
      bytes: that one run reads and writes.
      flops: of its convolutions and products, in one run.
      dtype: of their factors, as HLO writes it.
      times: that it runs in a step, as far as the compiler knows.
    """

    name: str
    category: str
    layer: str
    shape: str
    bytes: float
    flops: float
    dtype: str
    times: int


def read(text: str) -> dict[str, Work]:
    """The kernels of a compiled program (`compiled.as_text()`) by name, in its order."""
    module, frames = parse(text), Frames(text)
    reader = _Reader(module, frames)
    return {
        kernel.instruction.name: reader.of(kernel)
        for kernel in work.kernels(module)
        if not work.is_transfer(kernel)
    }


class _Reader:
    def __init__(self, module: Module, frames: Frames):
        self._module, self._frames = module, frames
        self._weights = {
            _sides(shape)
            for parameter in module.entry.parameters
            for array in parameter.results
            if len(array.shape) == 4 and array.dtype in ("f32", "bf16")
            for shape in _parts_and_merges(*array.shape)
        }

    def of(self, kernel: work.Kernel) -> Work:
        parts = [part for part, _ in work.inside(self._module, kernel)]
        found = products.products(self._module, kernel)
        largest = max(kernel.instruction.results, key=lambda array: array.bytes, default=None)
        return Work(
            name=kernel.instruction.name,
            category=self._category(kernel, parts, found),
            layer=self._layer(kernel, parts, found),
            shape=f"{largest.dtype}{list(largest.shape)}" if largest else "",
            bytes=work.kernel_bytes(self._module, kernel),
            flops=sum(product.flops for product in found),
            dtype=max(found, key=lambda product: product.flops).dtype if found else "",
            times=kernel.times,
        )

    def _category(
        self,
        kernel: work.Kernel,
        parts: Iterable[Instruction],
        found: list[products.Product],
    ) -> str:
        parts = [part for part in parts if part.opcode not in _NOTHING]
        opcodes = {part.opcode for part in parts}
        scopes = {scope for part in parts if (scope := self._scope(part))}
        if found:
            product = max(found, key=lambda product: product.flops)
            scope = self._scope_of_product(kernel, product)
            return scope if scope in (POOLING, RESIZE, LOSS, OTHER) else self._direction(product)
        if opcodes <= _ORDER or self._turns(kernel):
            return COPIES
        if any(self._is_pooling(part) for part in parts):
            return POOLING
        sums = {self._scope(part) for part in parts if part.opcode in _SUMS}
        if _LAYER in scopes and sums & {_LAYER, None}:
            return STATISTICS
        for category in (POOLING, RESIZE, LOSS, OPTIMISER):
            if category in scopes:
                return category
        if opcodes <= _ORDER | _PLACES:
            return COPIES
        return ELEMENTWISE if _LAYER in scopes else OTHER

    def _turns(self, kernel: work.Kernel) -> bool:
        """Whether a fusion writes its result in another order than it computes it."""
        if kernel.instruction.opcode != "fusion":
            return False
        fused = self._module.computations[kernel.instruction.called[0]]
        root = fused.root
        while root.opcode == "bitcast":
            root = fused.instructions[root.operands[0]]
        return root.opcode in _ORDER

    @staticmethod
    def _is_pooling(part: Instruction) -> bool:
        """Whether it reduces windows for JAX, rather than as XLA's way to add up a map."""
        return part.opcode in ("reduce-window", "select-and-scatter") and "window" in part.source

    def _scope(self, part: Instruction) -> str | None:
        return _scope_of(self._frames.of(part))

    def _scope_of_product(self, kernel: work.Kernel, product: products.Product) -> str | None:
        for part, _ in work.inside(self._module, kernel):
            if part.source == product.source and (scope := self._scope(part)):
                return scope
        return None

    def _direction(self, product: products.Product) -> str:
        if product.source and "transpose(" not in product.source:
            return FORWARD
        like_a_kernel = _sides(product.result.shape) in self._weights
        if product.kind == "filter gradient" or like_a_kernel:
            return KERNEL
        return INPUT if product.source else FORWARD

    def _layer(
        self,
        kernel: work.Kernel,
        parts: list[Instruction],
        found: list[products.Product],
    ) -> str:
        if found:
            names = [max(found, key=lambda product: product.flops).source]
        else:
            names = [kernel.instruction.source, *(part.source for part in reversed(parts))]
        names += _around(kernel)
        for name in names:
            if layer := layer_of(name):
                return layer
        for part in (kernel.instruction, *reversed(parts)):
            if frames := self._frames.of(part):
                return frames[0].function.split(".<locals>")[0]
        return ""


def _around(kernel: work.Kernel) -> list[str]:
    """Sources of what reads a kernel's result, and of what it reads: where XLA lost its own."""
    computation, readers = kernel.computation, [kernel.instruction]
    while found := computation.users.get(readers[-1].name):
        if found[0].opcode == "tuple":
            break  # a result of the program, or of a loop
        readers.append(found[0])
        if found[0].opcode not in _NOTHING | _ORDER:
            break
    operands = [computation.instructions[name] for each in readers[::-1] for name in each.operands]
    # A gradient's parameter has its size.
    sides = {_sides(array.shape) for array in kernel.instruction.results}
    parameters = [
        each
        for each in operands
        if each.opcode == "parameter" and _sides(each.results[0].shape) in sides
    ]
    return [each.source for each in (*parameters, *readers[1:], *operands)]


def _scope_of(frames: tuple[Frame, ...]) -> str | None:
    for frame in frames:
        for file, function, scope in _SCOPES:
            if re.search(file, frame.file) and re.search(function, frame.function):
                if scope is None:
                    break
                return scope
    return None


def _parts_and_merges(rows: int, columns: int, inputs: int, outputs: int):
    """The shapes in which a convolution's kernel, a row of its taps and one tap are computed."""
    yield rows, columns, inputs, outputs
    yield columns, inputs, outputs
    yield inputs, outputs
    yield rows * columns, inputs, outputs
    yield rows * columns * inputs, outputs
    yield columns * inputs, outputs
    yield rows, columns * inputs, outputs


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(side for side in shape if side > 1))


def layer_of(op_name: str) -> str:
    """The module's path in JAX's name of an operation or an argument; "" outside of the network.

    layer_of("jit(train_step)/transpose(jvp(SegNet))/encoder/conv5_3/conv/conv_general_dilated") is
    "encoder/conv5_3/conv".
    """
    # An argument, such as state.params['classifier']['bias'], whose quotes HLO escapes.
    if keys := re.findall(r"\[\\?'(\w+)\\?'\]", op_name):
        return "/".join(keys[:-1])
    *path, _ = op_name.split("/")
    control = (
        r"[(,]|->|^([A-Z][\w.]*|branch_\d+_fun|cond|while|body|closed_call|checkpoint|remat\d*)$"
    )
    return "/".join(name for name in path if name and not re.search(control, name))
