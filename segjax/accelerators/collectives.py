"""What devices send each other, read from the text of a compiled program.

collectives(jax.jit(f).lower(x).compile().as_text())
"""

import dataclasses
from collections.abc import Iterable, Iterator

from segjax.accelerators.hlo import Array, Instruction, instruction

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
    """One instruction of the program; inside a loop it stands once, however often it runs.

    Attributes:
      kind: one of `KINDS`.
      arrays: that one device holds of what is exchanged, where that is most: the results, or for a
        reduce-scatter the operands.
      op_name: where in the source it comes from.
    """

    kind: str
    arrays: tuple[Array, ...]
    op_name: str

    @property
    def bytes(self) -> float:
        return sum(array.bytes for array in self.arrays)


def collectives(hlo_text: str) -> list[Collective]:
    """The collectives of a compiled program (`compiled.as_text()`), in the order of the text.

    A collective that is split in two counts once, where it starts.
    """
    return list(collectives_among(filter(None, map(instruction, hlo_text.splitlines()))))


def collectives_among(instructions: Iterable[Instruction]) -> Iterator[Collective]:
    """As `collectives`, of a program's instructions in order."""
    results = {}
    for found in instructions:
        results[found.name] = found.results
        started = found.opcode.endswith("-start")
        kind = found.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        arrays = found.results
        if kind == "reduce-scatter":
            arrays = tuple(array for operand in found.operands for array in results[operand])
        elif started and kind in ("all-gather", "collective-permute"):
            # (operands, results, and for a permute two counters)
            count = len(found.operands)
            arrays = arrays[count : 2 * count]
        yield Collective(kind, arrays, found.source)
