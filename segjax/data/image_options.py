"""The options of reading images: as given, and as found over the training split."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from segjax.data import depth
from segjax.data.errors import DataError
from segjax.data.files.orientation import EXIF
from segjax.data.files.paired import PairedFiles
from segjax.data.files.values import AUTO, Range, option_text, parse_range
from segjax.data.prepared import manifest


class ImageOptions(NamedTuple):
    """`data.value_range` and `data.exif` as found, and lines that say so."""

    value_range: tuple[Range, ...]
    exif: str
    notes: tuple[str, ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """As options of `config.data`."""
        ranges = self.value_range[0] if len(self.value_range) == 1 else self.value_range
        return {"value_range": ranges, "exif": self.exif}


def ranges_of(data: Mapping[str, Any]) -> tuple[Range, ...]:
    """`data.value_range` of a config whose `auto` has been resolved, or is to be yet: ()."""
    ranges = parse_range(data.get("value_range", ()), data["channels"])
    return () if isinstance(ranges, str) else ranges


def resolve(
    data: Mapping[str, Any], training: Callable[[Mapping[str, Any]], PairedFiles | None]
) -> ImageOptions:
    """The options of a config, with what is `auto` found over the training split of own files, and
    the range that prepared data were written with.

    `data.exif` stays "auto" where no image of the training split tells.

    Args:
      data: `config.data`.
      training: opens the files of the training split of such a config.

    Raises:
      DataError: for an option that is wrong, or a training split without files to find a range.
    """
    ranges = parse_range(data.get("value_range", ()), data["channels"])
    exif = data.get("exif", "auto")
    if exif not in EXIF:
        raise DataError(f"data.exif={exif!r} is unknown", f"use {', '.join(EXIF)}")
    if data["name"] == "prepared":
        return ImageOptions(_prepared_with(data, ranges), exif)
    if ranges and data["name"] != "folder":
        raise DataError(
            f"data.value_range={data['value_range']}, but images of {data['name']} have 8 bits",
            "leave it (), or use data.name=folder",
        )
    if data["name"] != "folder" or (ranges != AUTO and exif != "auto"):
        return ImageOptions(ranges_of(data), exif)
    try:
        files = training({**data, "value_range": (), "exif": "ignore"})
    except DataError:
        if ranges == AUTO:
            raise
        files = None  # other splits may be all that is asked for
    if files is None:
        return ImageOptions(ranges_of(data), exif)
    notes = []
    if exif == "auto":
        exif = depth.exif_evidence(files, data["timeout_s"])
        if exif != "auto":
            how = "turned" if exif == "apply" else "not turned"
            notes.append(
                f"data.exif={exif}: images are {how} by their EXIF orientation, as the sizes of "
                "the masks tell"
            )
    if ranges == AUTO:
        ranges, count = depth.value_range(files, data["timeout_s"])
        found = f"={option_text(ranges)}" if ranges else "=(): files have 8 bits,"
        notes.append(f"data.value_range{found} found over {count} training images")
    return ImageOptions(tuple(r for r in ranges if not isinstance(r, str)), exif, tuple(notes))


def _prepared_with(data: Mapping[str, Any], ranges: tuple[Range, ...] | str) -> tuple[Range, ...]:
    if not data["root"]:
        return ()
    written = manifest.find(data["root"]).value_range
    if ranges and ranges not in (AUTO, written):
        raise DataError(
            f"data.value_range={data['value_range']}, but the images in {data['root']} were "
            f"prepared with {option_text(written) if written else '()'}",
            "leave it (), or prepare them again with that range",
        )
    return written
