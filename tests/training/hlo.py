"""What devices send each other, read from the text of a compiled program.

collectives(jax.jit(f).lower(x).compile().as_text())
"""

import dataclasses
import math
import re
from collections.abc import Iterator

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
class Array:
    """dtype as HLO spells it ("f32", "bf16", "u8", "pred"), and the shape on one device."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> float:
        bits = re.search(r"\d+", self.dtype)
        return self.elements * (int(bits[0]) if bits else 8) / 8


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


# %name = type kind(operands), attributes; the type of several results is (type, type).
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?(\S+) = (\(.*?\)|\S+) ([a-z][a-z0-9-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,<= ]*)\]")
_OPERAND = re.compile(r"%([^\s,()]+)")


def collectives(hlo_text: str) -> list[Collective]:
    """The collectives of a compiled program (`compiled.as_text()`), in the order of the text.

    A collective that is split in two counts once, where it starts.
    """
    return list(_collectives(hlo_text))


def _collectives(hlo_text: str) -> Iterator[Collective]:
    types = {}
    for line in hlo_text.splitlines():
        match = _INSTRUCTION.match(_without_layouts(line))
        if not match:
            continue
        name, kind_type, kind, rest = match.groups()
        types[name] = kind_type
        started = kind.endswith("-start")
        kind = kind.removesuffix("-start")
        if kind not in KINDS:
            continue
        results = _arrays(kind_type)
        operands = _OPERAND.findall(rest.split("), ")[0])
        if kind == "reduce-scatter":
            results = [array for operand in operands for array in _arrays(types[operand])]
        elif started and kind in ("all-gather", "collective-permute"):
            # (operands, results, and for a permute two counters)
            results = results[len(operands) : 2 * len(operands)]
        op_name = re.search(r'op_name="([^"]*)"', line)
        yield Collective(kind, tuple(results), op_name[1] if op_name else "")


def _without_layouts(line: str) -> str:
    """Without {1,0:T(8,128)} after shapes and without comments, whose brackets are in the way."""
    return re.sub(r"\]\{[^}]*\}", "]", re.sub(r"/\*.*?\*/", "", line))


def _arrays(hlo_type: str) -> list[Array]:
    return [
        Array(dtype, tuple(int(n.strip(" <=")) for n in shape.split(",") if n.strip()))
        for dtype, shape in _ARRAY.findall(hlo_type)
    ]
