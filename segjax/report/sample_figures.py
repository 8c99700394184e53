"""The report's pictures of single images, within a bound of bytes."""

from collections.abc import Mapping, Sequence
from html import escape

from PIL import Image

from segjax.data.classes import ClassTable
from segjax.report import page, plots, tables

_LONGEST_SIDES = (720, 560, 440, 340, 260, 200, 150, 100)  # pixels, tried in this order
_QUALITY = 84  # of JPEG
_TINT = 0.6  # of the overlays: the colours are read off the legend, the image still shows


def figures(
    samples: Mapping[str, Sequence[Mapping]], classes: ClassTable, max_bytes: int = 2_000_000
) -> str:
    """A legend, then under each heading one row of four pictures a sample.

    The image, truth and prediction drawn over it, and the errors; all smaller until they take at
    most `max_bytes` of text.

    Args:
      samples: heading -> samples (see `plots.sample_grid`); "samples" is no heading to be shown.
      classes: the class table.

    Raises:
      ValueError: if a sample's arrays differ in height or width.
    """
    everything = [sample for group in samples.values() for sample in group]
    shown = plots.classes_shown(everything, classes)
    entries = [(classes.names[k], classes.palette[k]) for k in shown]
    entries += [("wrong", plots.WRONG), ("ignored", (0, 0, 0))]
    legend = "".join(page.swatch(*entry) for entry in entries)
    for side in _LONGEST_SIDES:
        body = "".join(_group(heading, group, classes, side) for heading, group in samples.items())
        if len(body) <= max_bytes:
            break
    return f'<div class="legend">{legend}</div>{body}'


def _group(heading: str, group: Sequence[Mapping], classes: ClassTable, side: int) -> str:
    body = f"<h3>{escape(heading.capitalize())}</h3>" if heading != "samples" else ""
    return body + "".join(_figure(sample, classes, side) for sample in group)


def _figure(sample: Mapping, classes: ClassTable, side: int) -> str:
    name, small = escape(sample["name"]), sample["label"].shape[1] < 300
    pictures = ""
    for panel, uri in _panel_uris(sample, classes, side):
        mark = ' class="small"' if small else ""
        picture = f'<img{mark} src="{uri}" alt="{panel} of {name}">'
        pictures += f"<div>{picture}<span>{panel}</span></div>"
    caption = f"<b>{name}</b> mIoU {tables.format_number(sample['miou'])}"
    return f'<figure><figcaption>{caption}</figcaption><div class="quad">{pictures}</div></figure>'


def _panel_uris(sample: Mapping, classes: ClassTable, side: int) -> list[tuple[str, str]]:
    """(panel, data URI) of a sample's pictures."""
    image, label, prediction = sample["image"], sample["label"], sample["prediction"]
    panels = (
        image,
        plots.overlay(image, label, classes, _TINT),
        plots.overlay(image, prediction, classes, _TINT),
        plots.error_map(image, label, prediction),
    )
    zoom = min(1, side / max(image.shape[:2]))
    return [
        # Full colour resolution: at 4:2:0 the red of single wrong pixels would bleed.
        (
            panel,
            page.picture_uri(
                Image.fromarray(plots.resize(picture, zoom, smooth=True)),
                "jpeg",
                quality=_QUALITY,
                subsampling=0,
            ),
        )
        for panel, picture in zip(plots.PANELS, panels, strict=True)
    ]
