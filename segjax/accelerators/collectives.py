"""Messages between devices, read from the text of a compiled program.

collectives(jax.jit(f).lower(x).compile().as_text())
"""

import dataclasses
from collections.abc import Iterable, Iterator

from segjax.accelerators.hlo import Array, Instruction, parse_instruction

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction. Inside a loop it counts once, however often it runs.

    Attributes:
      kind: one of `KINDS`.
      arrays: the larger side of the exchange on one device: the results, or the operands of a
        reduce-scatter.
      op_name: the operation of the traced program that it comes from.
    """

    kind: str
    arrays: tuple[Array, ...]
    op_name: str

    @property
    def bytes(self) -> float:
        return sum(array.bytes for array in self.arrays)


def collectives(hlo_text: str) -> list[Collective]:
    """The collectives of a compiled program (`compiled.as_text()`), in the order of the text.

    A collective that is split into start and end counts once, where it starts.
    """
    return list(collectives_among(filter(None, map(parse_instruction, hlo_text.splitlines()))))


def collectives_among(instructions: Iterable[Instruction]) -> Iterator[Collective]:
    """As `collectives`, from instructions in the order of the program."""
    results = {}
    for instruction in instructions:
        results[instruction.name] = instruction.results
        is_start = instruction.opcode.endswith("-start")
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        arrays = instruction.results
        if kind == "reduce-scatter":
            arrays = tuple(array for name in instruction.operands for array in results[name])
        elif is_start and kind in ("all-gather", "collective-permute"):
            # The results are (operands, results), and two counters in a permute.
            count = len(instruction.operands)
            arrays = arrays[count : 2 * count]
        yield Collective(kind, arrays, instruction.source)
