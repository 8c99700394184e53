"""The text of a compiled program, taken apart: computations, instructions, arrays.

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
      tile: of a TPU's layout: to what the minor axes are filled up in memory.
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
        """Of the elements; what tiles fill up is not counted."""
        return self.elements * self._bytes_each

    @property
    def _bytes_each(self) -> float:
        bits = re.search(r"\d+", self.dtype)
        return (int(bits[0]) if bits else 8) / 8

    @property
    def memory_bytes(self) -> float:
        """In the device's main memory: filled up to whole tiles, 0 for what lies on the chip."""
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
      results: one array, or those of a tuple, in order and without its nesting.
      operands: names of instructions of the same computation.
      text: between the brackets of the operands.
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
        """The computations that it calls: a fusion's, a loop's, a call's, a condition's."""
        named = re.findall(
            r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)",
            self.attributes,
        )
        listed = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        return (*named, *(re.findall(r"%?([\w.\-]+)", listed[1]) if listed else ()))

    @property
    def target(self) -> str:
        """Of a custom call, else ""."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def source(self) -> str:
        """Where in the traced program it comes from, as JAX names it; "" where that is lost."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def trips(self) -> int:
        """How often a loop's body runs, as far as the compiler knows; else 1."""
        found = re.search(r'known_trip_count":\{"n":"(\d+)"', self.attributes)
        return int(found[1]) if found else 1


@dataclasses.dataclass(frozen=True)
class Computation:
    """A list of instructions by name, in the order of the program."""

    name: str
    instructions: Mapping[str, Instruction]

    @functools.cached_property
    def parameters(self) -> tuple[Instruction, ...]:
        """In the order of the arguments."""
        found = [i for i in self.instructions.values() if i.opcode == "parameter"]
        return tuple(sorted(found, key=lambda i: int(i.text)))

    @functools.cached_property
    def users(self) -> Mapping[str, list[Instruction]]:
        """By name, the instructions that read it."""
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
        elif instructions is not None and (found := instruction(line)):
            instructions[found.name] = found
    if entry is None:
        raise ValueError("this is no compiled program: it has no ENTRY")
    return Module(entry, computations)


def instruction(line: str) -> Instruction | None:
    """Reads one line; None if it is no instruction."""
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
    """The place after the bracket that closes the one at `opened`."""
    depth = 0
    for found in re.compile(r"[()]").finditer(line, opened):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.end()
    return len(line)


def arrays(hlo_type: str) -> list[Array]:
    """The arrays of a type, a tuple's in order."""
    return [_array(*found.groups()) for found in _ARRAY.finditer(hlo_type)]


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
