"""Profiles as Markdown tables."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from benchmarks.profiles.categories import CATEGORIES, CONVOLUTIONS
from benchmarks.profiles.profile import Operation, Profile


def page(profiles: Sequence[Profile], before: Sequence[Profile] = (), costliest: int = 10) -> str:
    """Tables of shares, of bytes for accelerators, and the costliest operations of each program.

    Args:
      profiles: all of one target.
      before: profiles to compare with, in any order.
      costliest: operations of each program.
    """
    on_cpu = profiles[0].target == "cpu"
    tables = [_shares(profiles, _CPU if on_cpu else _ACCELERATOR)]
    if not on_cpu:
        tables.append(_bytes(profiles))
    if before:
        tables.append(_changes(profiles, before))
    if costliest:
        tables += [_costliest(profile, costliest) for profile in profiles]
    return "\n\n".join("\n".join(table) for table in tables) + "\n"


_CPU: Mapping[str, Callable[[Profile], str]] = {
    "ms": lambda profile: f"{profile.ms:,.0f}",
    "traced ms": lambda profile: f"{profile.notes['traced']:,.0f}",
    "threads": lambda profile: f"{profile.notes['threads']:.2f}",
    "product GFLOP/s": lambda profile: f"{profile.notes['product']:.0f}",
    "idle %": lambda profile: _percent(profile.notes["idle"], profile),
}
_ACCELERATOR: Mapping[str, Callable[[Profile], str]] = {
    "least ms": lambda profile: f"{profile.ms:.2f}",
    "by bytes": lambda profile: f"{profile.notes['by_bytes']:.2f}",
    "by FLOPs": lambda profile: f"{profile.notes['by_flops']:.2f}",
    "kernels": lambda profile: f"{profile.notes['kernels']:,.0f}",
}


def _shares(
    profiles: Sequence[Profile], measures: Mapping[str, Callable[[Profile], str]]
) -> Iterator[str]:
    names = (f"{name} %" for name in CATEGORIES)
    yield from _table(("network", "work", "batch", *measures, *names))
    for profile in profiles:
        numbers = (measure(profile) for measure in measures.values())
        percents = (_percent(profile.times[name], profile) for name in CATEGORIES)
        yield _row((profile.network, profile.work, profile.batch, *numbers, *percents))


def _percent(ms: float, profile: Profile) -> str:
    return f"{100 * ms / profile.notes.get('traced', profile.ms):.1f}"


def _bytes(profiles: Sequence[Profile]) -> Iterator[str]:
    yield from _table(("network", "work", "GiB", *CATEGORIES))
    for profile in profiles:
        total = _gib(sum(profile.bytes.values()), sum(profile.necessary.values()))
        cells = (_gib(profile.bytes[name], profile.necessary.get(name)) for name in CATEGORIES)
        yield _row((profile.network, profile.work, total, *cells))


def _gib(size: float, necessary: float | None) -> str:
    return f"{size / 2**30:.2f}" + (f" ({necessary / 2**30:.2f})" if necessary else "")


def _changes(profiles: Sequence[Profile], before: Sequence[Profile]) -> Iterator[str]:
    """Milliseconds before and now."""
    earlier = {profile.key: profile for profile in before}
    yield from _table(("network", "work", "ms before, now", *CATEGORIES))
    for profile in profiles:
        if old := earlier.get(profile.key):
            cells = (f"{old.times[name]:.1f}, **{profile.times[name]:.1f}**" for name in CATEGORIES)
            total = f"{old.ms:.1f}, **{profile.ms:.1f}**"
            yield _row((profile.network, profile.work, total, *cells))


def _costliest(profile: Profile, count: int) -> Iterator[str]:
    yield f"{profile.network}, {profile.work}, {profile.target}:"
    yield ""
    yield from _table(("category", "layer", "result", "ms", "rate", "operation"))
    for operation in profile.costliest[:count]:
        result, name = f"`{operation.shape}`", f"`{operation.name}`"
        ms = f"{operation.ms:.3g}" if operation.ms < 1 else f"{operation.ms:.1f}"
        yield _row((operation.category, operation.layer, result, ms, _rate(operation), name))


def _rate(operation: Operation) -> str:
    seconds = operation.ms / 1e3
    if not seconds:
        return ""
    if operation.category in CONVOLUTIONS:
        return f"{operation.flops / 1e9 / seconds:,.0f} GFLOP/s"
    return f"{operation.bytes / 1e9 / seconds:,.1f} GB/s"


def _table(names: Sequence[str]) -> Iterator[str]:
    yield _row(names)
    yield _row(["---"] * len(names))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
