"""Parses the text of a compiled program into computations, instructions and arrays.

module = parse(jax.jit(f).lower(x).compile().as_text())
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of the program, on one device.

    Attributes:
      dtype: as HLO spells it: "f32", "bf16", "u8", "pred".
      shape: logical sizes.
      layout: axes from minor to major, () where the text has none.
      tile: of a TPU's layout: the minor axes are padded in memory to multiples of these sizes.
      space: 0 = the device's main memory; a TPU keeps some arrays in memory on the chip.
    """

    dtype: str
    shape: tuple[int, ...]
    layout: tuple[int, ...] = dataclasses.field(default=(), compare=False)
    tile: tuple[int, ...] = dataclasses.field(default=(), compare=False)
    space: int = dataclasses.field(default=0, compare=False)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> float:
        """Bytes of the elements, without the padding of tiles."""
        return self.elements * self._bytes_each

    @property
    def _bytes_each(self) -> float:
        bits = re.search(r"\d+", self.dtype)
        return (int(bits[0]) if bits else 8) / 8

    @property
    def memory_bytes(self) -> float:
        """Bytes in the device's main memory: padded to whole tiles, 0 for an array on the chip."""
        if self.space:
            return 0.0
        sizes = [self.shape[axis] for axis in self.layout] if self.layout else [*self.shape[::-1]]
        for place, side in enumerate(reversed(self.tile)):
            if place < len(sizes):
                sizes[place] = -(-sizes[place] // side) * side
        return math.prod(sizes) * self._bytes_each


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`name = results opcode(operands), attributes`.

    Attributes:
      results: one array, or the arrays of a tuple in order, flattened.
      operands: names of instructions of the same computation.
      text: the text between the parentheses of the operands.
      attributes: the rest of the line.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    text: str
    attributes: str
    is_root: bool = False

    @property
    def called(self) -> tuple[str, ...]:
        """The computations that it calls, as a fusion, loop, call or condition does."""
        named = re.findall(
            r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)",
            self.attributes,
        )
        listed = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        return (*named, *(re.findall(r"%?([\w.\-]+)", listed[1]) if listed else ()))

    @property
    def target(self) -> str:
        """The target of a custom call, else ""."""
        match = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return match[1] if match else ""

    @property
    def source(self) -> str:
        """JAX's name of the operation that it comes from; "" if the name is lost."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match[1] if match else ""

    @property
    def trips(self) -> int:
        """How often a loop's body runs; 1 if the compiler does not know."""
        match = re.search(r'known_trip_count":\{"n":"(\d+)"', self.attributes)
        return int(match[1]) if match else 1


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in the order of the program."""

    name: str
    instructions: Mapping[str, Instruction]

    @functools.cached_property
    def parameters(self) -> tuple[Instruction, ...]:
        """The parameters, in the order of the arguments."""
        parameters = [i for i in self.instructions.values() if i.opcode == "parameter"]
        return tuple(sorted(parameters, key=lambda i: int(i.text)))

    @functools.cached_property
    def users(self) -> Mapping[str, list[Instruction]]:
        """The instructions that read each instruction, by the latter's name."""
        users = {}
        for instruction in self.instructions.values():
            for name in dict.fromkeys(instruction.operands):
                users.setdefault(name, []).append(instruction)
        return users

    @functools.cached_property
    def root(self) -> Instruction:
        return next(i for i in self.instructions.values() if i.is_root)


@dataclasses.dataclass(frozen=True)
class Module:
    """A program: `entry` and all its computations by name."""

    entry: Computation
    computations: Mapping[str, Computation]


_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_START = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,<= ]*)\](?:\{([^}]*)\})?")
_OPERAND = re.compile(r"%([\w.\-]+)")


def parse(text: str) -> Module:
    """Reads a compiled program (`compiled.as_text()`).

    Raises:
      ValueError: if the text has no ENTRY.
    """
    computations, entry, instructions = {}, None, None
    for line in text.splitlines():
        if not line.startswith(" "):
            if header := _HEADER.match(line):
                instructions = {}
                computation = Computation(header[2], instructions)
                computations[header[2]] = computation
                entry = computation if header[1] else entry
        elif instructions is not None and (instruction := parse_instruction(line)):
            instructions[instruction.name] = instruction
    if entry is None:
        raise ValueError("the text is no compiled program: it has no ENTRY")
    return Module(entry, computations)


def parse_instruction(line: str) -> Instruction | None:
    """Reads one line; None if it holds no instruction."""
    line = re.sub(r"/\*.*?\*/", "", line)
    start = _START.match(line)
    if not start:
        return None
    begin = start.end()
    end = _closing(line, begin) if line[begin] == "(" else line.find(" ", begin)
    opened = line.find("(", end)
    if end < 0 or opened < 0:
        return None
    closed = _closing(line, opened)
    text = line[opened + 1 : closed - 1]
    return Instruction(
        name=start[2],
        opcode=line[end:opened].strip(),
        results=tuple(arrays(line[begin:end])),
        operands=tuple(_OPERAND.findall(text)),
        text=text,
        attributes=line[closed:],
        is_root=bool(start[1]),
    )


def _closing(line: str, opened: int) -> int:
    """The position after the parenthesis that closes the one at `opened`."""
    depth = 0
    for bracket in re.compile(r"[()]").finditer(line, opened):
        depth += 1 if bracket[0] == "(" else -1
        if depth == 0:
            return bracket.end()
    return len(line)


def arrays(hlo_type: str) -> list[Array]:
    """The arrays of a type; those of a tuple in order."""
    return [_array(*match.groups()) for match in _ARRAY.finditer(hlo_type)]


def _array(dtype: str, shape: str, layout: str | None) -> Array:
    sizes = tuple(int(n.strip(" <=")) for n in shape.split(",") if n.strip())
    axes, _, tiles = (layout or "").partition(":")
    order = tuple(int(n) for n in axes.split(",") if n)
    tile = re.match(r"T\(([\d,]+)\)", tiles)
    space = re.search(r"S\((\d+)\)", tiles)
    return Array(
        dtype,
        sizes,
        order,
        tuple(int(n) for n in tile[1].split(",")) if tile else (),
        int(space[1]) if space else 0,
    )
