"""The command weights: what is known by name, what of it is here, and whether it is sound."""

from collections.abc import Sequence

from segjax.console import Console
from segjax.training.progress import print_line
from segjax.weights import download, hub
from segjax.weights.hub_rows import ROWS, Row


def weights(
    fetch: Sequence[str] = (), verify: bool = False, console: Console | None = None
) -> None:
    """Prints the table of names; or fetches some; or compares the cached files with their digests.

    Args:
      fetch: names that need no model beside them, such as "imagenet/torchvision_v1/resnet50".
      verify: of every file that is in the cache.

    Raises:
      ValueError: for an unknown name, and for cached files that are not the published ones.
      OSError: if a file cannot be fetched or stored.
    """
    console = console or Console()
    for row in [_row(name) for name in fetch]:  # all names are looked up before any is fetched
        print_line(console, f"{row.full_name}: {hub.fetch(row)}")
    if verify:
        _verify(console)
    if not fetch and not verify:
        for line in table():
            print_line(console, line)


def _row(name: str) -> Row:
    row = hub.find(name)
    if row is None:
        raise ValueError(hub.unknown(name))
    return row


def table() -> list[str]:
    """The names, a line each, under a line of titles; * marks what a collection's name means."""
    titles = ("name", "network", "MB", "accuracy", "licence", "from", "")
    folder = hub.cache_folder()
    rows = [titles]
    for row in ROWS:
        source = row.source if isinstance(row.source, str) else "pip"
        rows.append(
            (
                row.name + "*" * row.default,
                row.network,
                f"{row.megabytes:.0f}",
                row.accuracy or "-",
                row.licence,
                source.removeprefix("https://").partition("/")[0],
                "cached" if (folder / row.file).is_file() else "",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            text.rjust(width) if i == 2 else text.ljust(width)
            for i, (text, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in rows
    ]
    return [
        *lines,
        "",
        "* is what the first part of the name means for that network. top-1 is in per cent on "
        "ImageNet's",
        "validation images, mIoU on those images of COCO 2017's that show Pascal VOC's classes, as "
        "published",
        f"for these files. Cache: {folder}",
    ]


def _verify(console: Console) -> None:
    folder, wrong = hub.cache_folder(), 0
    here = [row for row in ROWS if (folder / row.file).is_file()]
    for row in here:
        right, found = download.agrees(folder / row.file, row.digest)
        wrong += not right
        text = (
            f"is what was published ({_known(row)})" if right else f"has {found}, not {row.digest}"
        )
        print_line(console, f"{folder / row.file} {text}")
    print_line(console, f"{len(here)} cached files, {len(here) - wrong} as published")
    if wrong:
        raise ValueError(f"{wrong} cached file(s) are not the published ones: remove them")


def _known(row: Row) -> str:
    algorithm, _, digits = row.digest.partition(":")
    short = ", its first 8 digits: no more is published" if len(digits) == 8 else ""
    return f"{algorithm} {digits}{short}"
