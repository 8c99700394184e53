"""The page of profiles, as Markdown."""

from collections.abc import Iterator, Sequence

from benchmarks.profiles.categories import CATEGORIES, CONVOLUTIONS
from benchmarks.profiles.profile import Operation, Profile

TOP = 10


def page(profiles: Sequence[Profile], before: Sequence[Profile] = ()) -> str:
    """Tables of shares, then the costliest operations of each program.

    Args:
      before: profiles to compare with, in any order.
    """
    earlier = {(each.network, each.work, each.target): each for each in before}
    lines = []
    for target in dict.fromkeys(profile.target for profile in profiles):
        of_target = [profile for profile in profiles if profile.target == target]
        lines += [*_shares(of_target), ""]
        if any(key[2] == target for key in earlier):
            lines += [*_changes(of_target, earlier), ""]
        for profile in of_target:
            lines += [*_costliest(profile), ""]
    return "\n".join(lines)


def _shares(profiles: Sequence[Profile]) -> Iterator[str]:
    on_cpu = profiles[0].target == "cpu"
    measures = ("ms", "traced ms", "idle %", "threads") if on_cpu else (
        "least ms", "by bytes ms", "by FLOPs ms", "kernels", "GiB"
    )  # fmt: skip
    yield f"### {profiles[0].target}"
    yield ""
    yield from _table(("network", "work", "batch", *measures, *(f"{c} %" for c in CATEGORIES)))
    for profile in profiles:
        notes = profile.notes
        if on_cpu:
            numbers = (
                f"{profile.wall:,.0f}",
                f"{notes['traced_wall']:,.0f}",
                f"{100 * notes['idle'] / notes['traced_wall']:.1f}",
                f"{notes['threads']:.2f}",
            )
            whole = notes["traced_wall"]
        else:
            moved = sum(operation.bytes for operation in profile.operations)
            numbers = (
                f"{profile.wall:.2f}",
                f"{notes['by_bytes']:.2f}",
                f"{notes['by_flops']:.2f}",
                f"{notes['kernels']:,.0f}",
                f"{moved / 2**30:.2f}",
            )
            whole = profile.wall
        shares = profile.by_category(lambda operation: operation.ms).values()
        percent = (f"{100 * share / whole:.1f}" for share in shares)
        yield _row((profile.network, profile.work, profile.batch, *numbers, *percent))


def _changes(profiles: Sequence[Profile], earlier) -> Iterator[str]:
    yield "Milliseconds before and now:"
    yield ""
    yield from _table(("network", "work", "all", *CATEGORIES))
    for profile in profiles:
        old = earlier.get((profile.network, profile.work, profile.target))
        if old is None:
            continue
        then, now = (each.by_category(lambda operation: operation.ms) for each in (old, profile))
        cells = (f"{then[name]:.1f}, **{now[name]:.1f}**" for name in CATEGORIES)
        yield _row(
            (profile.network, profile.work, f"{old.wall:.1f}, **{profile.wall:.1f}**", *cells)
        )


def _costliest(profile: Profile) -> Iterator[str]:
    yield f"{profile.network}, {profile.work}, {profile.target}: the costliest operations."
    yield ""
    yield from _table(("category", "layer", "result", "ms", "rate", "operation"))
    for operation in profile.operations[:TOP]:
        work = operation.work
        yield _row(
            (work.category, work.layer, f"`{work.shape}`", f"{operation.ms:.2f}",
             _rate(operation), f"`{work.name}`")
        )  # fmt: skip


def _rate(operation: Operation) -> str:
    seconds = operation.ms / 1e3
    if operation.work.category in CONVOLUTIONS:
        return f"{operation.flops / 1e9 / seconds:,.0f} GFLOP/s"
    return f"{operation.bytes / 1e9 / seconds:,.1f} GB/s"


def _table(names: Sequence[str]) -> Iterator[str]:
    yield _row(names)
    yield _row(["---"] * len(names))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
