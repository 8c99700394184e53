"""Pictures of what augmentation does to an image and its label map."""

import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray, UInt8
from matplotlib.figure import Figure
from PIL import Image

from segjax.data.classes import ClassTable
from segjax.data.files.images import rgb_view
from segjax.data.pipeline import fit_image, fit_label
from segjax.report.plots import Target, classes_shown, overlay
from segjax.transforms.augment import Augmentation, augment
from segjax.transforms.normalize import Normalization

VIEWS = 3  # a row
_DRAWN = 12  # of which a row shows those that differ the most
_INK = "#24292f"
_GAP, _LINE, _MARGIN = 6, 22, 10  # pixels

View = tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]


def augmentation_sheet(
    image: UInt8[np.ndarray, "h w c"],
    label: UInt8[np.ndarray, "h w"],
    classes: ClassTable,
    config: Mapping[str, Any],
    key: PRNGKeyArray,
    path: Target,
    max_bytes: int = 300_000,
) -> None:
    """A row for each augmentation that is on, by itself, and two of all together, as the network
    gets them; each view as image and as overlay.

    Rows of one augmentation show those 3 of 12 draws that differ the most; the last two rows show
    the first 6. What lies outside the image has the colour `data.mean`.

    Args:
      image, label: a training sample, at any size.
      classes: the class table.
      config: of a run, `data.mean` and `data.std` written out (as in `Setup.config`).
      key: of the draws.
      path: PNG file to write.
      max_bytes: bound of the file size; the pictures get smaller until it holds.

    Raises:
      ValueError: for an option of `config.augment` that is wrong.
    """
    canvas = tuple(config["data"]["image_size"])
    image, label = fit_image(rgb_view(image), canvas), fit_label(label, canvas)
    rows = _rows(image, label, config, key)
    labels = [{"label": label, "prediction": label}]
    legend = [(classes.names[k], classes.palette[k]) for k in classes_shown(labels, classes)]
    width = max(64, min(240, 2 * canvas[1]))
    while True:
        buffer = io.BytesIO()
        _draw(rows, classes, legend, width, canvas[0] / canvas[1]).savefig(buffer, format="png")
        # A palette of 256 colours is a third of the bytes, and shows what is to be seen.
        picture = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        picture.save(buffer, format="png", optimize=True)
        if buffer.tell() <= max_bytes or width <= 64:
            break
        width = round(0.9 * width)
    if hasattr(path, "write"):
        path.write(buffer.getvalue())
    else:
        pathlib.Path(path).write_bytes(buffer.getvalue())


def _rows(image, label, config, key) -> list[tuple[str, list[View]]]:
    """(title, views) from top to bottom."""
    recipe = Augmentation.from_config(config)
    normalization = Normalization.from_config(config["data"])
    standardized = dataclasses.replace(normalization, local_contrast=0)

    def views(options: Augmentation, normalization: Normalization, count: int) -> list[View]:
        def view(key):
            pixels, labels, inside = augment(key, image, label, options)
            return _shown(pixels, inside, normalization), labels

        pictures, labels = jax.jit(jax.vmap(view))(jax.random.split(key, count))
        return list(zip(np.asarray(pictures), np.asarray(labels, np.uint8), strict=True))

    rows = [("the image and its labels", [(image, label)])]
    for title, options in _one_by_one(recipe, image.shape[:2]):
        rows.append((title, _most_different(views(options, standardized, _DRAWN), VIEWS)))
    if side := normalization.local_contrast:
        still = dataclasses.replace(_still(recipe), crop_size=image.shape[:2])
        title = f"local contrast normalisation, window {side}x{side}"
        rows.append((title, views(still, normalization, 1)))
    together = views(recipe, normalization, 2 * VIEWS)
    rows.append(("all together, as the network gets them", together[:VIEWS]))
    rows.append(("", together[VIEWS:]))
    return rows


def _shown(pixels, inside, normalization: Normalization):
    """A view in uint8; of normalised contrast, 5 standard deviations from black to white."""
    normal = normalization(pixels, inside)
    if normalization.local_contrast:
        pixels = 0.5 + normal / 5
    else:
        pixels = normal * jax.numpy.array(normalization.std) + jax.numpy.array(normalization.mean)
    return jax.numpy.round(255 * jax.numpy.clip(pixels, 0, 1)).astype(np.uint8)


def _still(recipe: Augmentation) -> Augmentation:
    """Nothing drawn."""
    return Augmentation(recipe.crop_size, scale=(1.0, 1.0), flip=False)


def _one_by_one(recipe: Augmentation, canvas: tuple[int, int]) -> list[tuple[str, Augmentation]]:
    """Each augmentation that is on, in words and alone."""
    rows, (height, width), (low, high) = [], recipe.crop_size, recipe.scale

    def add(title: str, crop_size: tuple[int, int], *fields: str) -> None:
        options = {name: getattr(recipe, name) for name in fields}
        rows.append((title, dataclasses.replace(_still(recipe), crop_size=crop_size, **options)))

    if recipe.scale != (1.0, 1.0) or recipe.crop_size != canvas:
        zoom = f"zoom {low:g} to {high:g}, " if recipe.scale != (1.0, 1.0) else ""
        add(f"{zoom}crop {height}x{width}", recipe.crop_size, "scale")
    if recipe.max_class_share < 1:
        share = f"no class over {recipe.max_class_share:.0%} of a crop, where one of 10 will do"
        add(share, recipe.crop_size, "scale", "max_class_share")
    if recipe.rotate:
        add(f"turn by up to {recipe.rotate:g} degrees", canvas, "rotate")
    if recipe.flip:
        add("mirror, half of the time", canvas, "flip")
    if recipe.blur:
        add(f"5x5 Gaussian blur, with probability {recipe.blur:g}", canvas, "blur")
    colours = [n for n in ("brightness", "contrast", "saturation", "hue") if getattr(recipe, n)]
    if colours:
        values = ", ".join(f"{name} {getattr(recipe, name):.3g}" for name in colours)
        add(values, canvas, *colours)
    return rows


def _most_different(views: Sequence[View], count: int) -> list[View]:
    """The first view, then each time the one that is farthest from all that were taken."""
    pictures = np.stack([picture for picture, _ in views]).astype(np.float32)
    taken, nearest = [0], np.full(len(views), np.inf)
    while len(taken) < count:
        distance = np.abs(pictures - pictures[taken[-1]]).mean((1, 2, 3))
        nearest = np.minimum(nearest, distance)
        taken.append(int(np.argmax(nearest)))
    return [views[k] for k in taken]


def _draw(rows, classes: ClassTable, legend, width: int, shape: float) -> Figure:
    """The sheet as a figure of 100 dots an inch; panels `width` pixels wide at most."""
    height = round(width * shape)
    across = 2 * _MARGIN + VIEWS * (2 * width + 3 * _GAP) - 2 * _GAP
    cell = 34 + 7 * max(len(name) for name, _ in legend)
    columns = max(1, (across - 2 * _MARGIN) // cell)
    lines = -(-len(legend) // columns)
    titles = sum(_LINE for title, _ in rows if title)
    down = 2 * _MARGIN + titles + len(rows) * (height + _GAP) + lines * _LINE
    # The hundredth keeps 1.15 * 100 from being cut to 114 pixels.
    figure = Figure(((across + 0.01) / 100, (down + 0.01) / 100), dpi=100, facecolor="white")
    top = down - _MARGIN
    for title, views in rows:
        if title:
            top -= _LINE
            where = (_MARGIN / across, (top + 6) / down)
            figure.text(*where, title, fontsize=9, fontweight="bold", color=_INK, parse_math=False)
        for i, (picture, labels) in enumerate(views):
            for j, panel in enumerate((picture, overlay(picture, labels, classes))):
                panel = _fitted(panel, height, width)
                left = _MARGIN + i * (2 * width + 3 * _GAP) + j * (width + _GAP)
                figure.figimage(panel, left, top - panel.shape[0], origin="upper")
        top -= height + _GAP
    for i, (name, color) in enumerate(legend):
        left, low = _MARGIN + i % columns * cell, top - (i // columns + 1) * _LINE
        figure.figimage(np.full((12, 20, 3), color, np.uint8), left, low + 4)
        where = ((left + 26) / across, (low + 6) / down)
        figure.text(*where, name, fontsize=8, color=_INK, parse_math=False)
    return figure


def _fitted(panel: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> np.ndarray:
    """The largest picture of the same shape that fits."""
    zoom = min(height / panel.shape[0], width / panel.shape[1])
    size = max(1, round(zoom * panel.shape[1])), max(1, round(zoom * panel.shape[0]))
    return np.asarray(Image.fromarray(panel).resize(size, Image.Resampling.LANCZOS))
