"""What a load did, in words."""

import dataclasses
from collections.abc import Iterable, Mapping

SHOWN = 6  # names in one printed line; the lists themselves are whole


@dataclasses.dataclass
class Report:
    """What became of every array of a model and of a file.

    Attributes:
      source: the file, and what it looks like.
      loaded: our leaf ("params/encoder/stem/conv/kernel") to the number of its values.
      fresh: our leaf to why it keeps its initial value.
      left_over: the file's name to why nothing took it.
      notes: what was changed on the way, and options that differ from the file's network.
      mean, std: of RGB images in [0, 1], as the file's network was trained; None: not known.
    """

    source: str
    loaded: dict[str, int] = dataclasses.field(default_factory=dict)
    fresh: dict[str, str] = dataclasses.field(default_factory=dict)
    left_over: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __str__(self) -> str:
        loaded = _parts(self.loaded)
        for leaf, size in self.loaded.items():
            loaded[part_of(leaf)][1] += size
        texts = [f"{part} ({n} arrays, {size:,} values)" for part, (n, size) in loaded.items()]
        lines = [f"weights: {self.source}", f"  loaded: {', '.join(texts) or 'nothing'}"]
        if self.mean:
            mean, std = ([round(float(v), 4) for v in values] for values in (self.mean, self.std))
            lines.append(f"  images: RGB in [0, 1], mean {mean}, std {std}")
        lines += _by_reason("kept fresh", self.fresh)
        lines += _by_reason("left over", self.left_over)
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def part_of(leaf: str) -> str:
    """The module at the top that a leaf is in, without its numbers: "decoder" of decoder5_1."""
    return leaf.split("/")[1].rstrip("0123456789_")


def _parts(leaves: Iterable[str]) -> dict[str, list[int]]:
    """The parts that leaves are in, each with [how many, 0]."""
    parts: dict[str, list[int]] = {}
    for leaf in leaves:
        parts.setdefault(part_of(leaf), [0, 0])[0] += 1
    return parts


def _by_reason(title: str, reasons: Mapping[str, str]) -> list[str]:
    """One line per reason, with the names it holds for; many of our leaves by their parts."""
    groups: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        groups.setdefault(reason, []).append(name)
    lines = []
    for reason, names in groups.items():
        ours = names[0].startswith(("params/", "batch_stats/"))
        if len(names) <= SHOWN:
            shown = [name.removeprefix("params/") for name in names]
        elif ours:
            shown = [f"{part} ({n} arrays)" for part, (n, _) in _parts(names).items()]
        else:
            shown = [*names[:SHOWN], f"{len(names) - SHOWN} more"]
        lines.append(f"  {title}: {', '.join(shown)}: {reason}")
    return lines
