"""The report on a load: what was taken, what stays as it was, and why."""

import dataclasses
from collections.abc import Iterable, Mapping

SHOWN = 6  # names in one printed line; the lists themselves hold all


@dataclasses.dataclass
class Report:
    """The fate of every array of a model and of a file; `str` of it is for people.

    Attributes:
      source: the file, and the family of networks that it belongs to.
      loaded: from our leaf ("params/encoder/stem/conv/kernel") to the number of its values.
      fresh: from our leaf to the reason why it keeps its initial value.
      left_over: from the file's name of an array to the reason why it was not taken.
      notes: changes on the way, and options that differ from the file's network.
      mean, std: of the RGB images in [0, 1] that the file's network reads; None: unknown.
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
        if self.mean and self.std:
            mean, std = ([round(float(v), 4) for v in values] for values in (self.mean, self.std))
            lines.append(f"  images: RGB in [0, 1], mean {mean}, std {std}")
        lines += _by_reason("kept fresh", self.fresh)
        lines += _by_reason("left over", self.left_over)
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def part_of(leaf: str) -> str:
    """The top module of a leaf, without its numbers: "decoder" for decoder5_1."""
    return leaf.split("/")[1].rstrip("0123456789_")


def _parts(leaves: Iterable[str]) -> dict[str, list[int]]:
    """The parts that leaves belong to, each with [number of leaves, 0]."""
    parts: dict[str, list[int]] = {}
    for leaf in leaves:
        parts.setdefault(part_of(leaf), [0, 0])[0] += 1
    return parts


def _by_reason(title: str, reasons: Mapping[str, str]) -> list[str]:
    """One line per reason with its names; many of our leaves are summed up by their parts."""
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
