"""Sheets of what augmentation does to an image and its label map."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray, UInt8

from segjax.data.classes import ClassTable
from segjax.data.files.images import rgb_view
from segjax.data.fitted import fit_image, fit_label
from segjax.report.figures import Target
from segjax.report.pictures import classes_shown, overlay, write_sheet
from segjax.transforms.augment import Augmentation, augment_batch
from segjax.transforms.normalize import Normalization

VIEWS = 3  # of a row
_DRAWN = 12  # draws of which a row shows those that differ the most

View = tuple[UInt8[np.ndarray, "_ _ 3"], UInt8[np.ndarray, "_ _"]]


def augmentation_sheet(
    image: UInt8[np.ndarray, "h w c"],
    label: UInt8[np.ndarray, "h w"],
    classes: ClassTable,
    config: Mapping[str, Any],
    key: PRNGKeyArray,
    target: Target,
    max_bytes: int = 300_000,
    others: Sequence[View] = (),
) -> None:
    """Writes a PNG: a row for each augmentation by itself, and two of all together.

    Each view is shown as the network gets it and as overlay. Rows of one augmentation show the 3 of
    12 draws that differ the most; the last two rows show the first 6. Outside the image is the
    colour `data.mean`.

    Args:
      image, label: a training sample, at any size.
      classes: the class table.
      config: of a run, with `data.mean` and `data.std` resolved (as in `Setup.config`).
      key: of the draws.
      target: PNG file to write.
      max_bytes: the pictures get smaller until the file is as small.
      others: further samples, from which CutMix and class-mix take pixels.

    Raises:
      ValueError: for a wrong option of `config.augment`.
    """
    canvas = tuple(config["data"]["image_size"])
    batch = [
        (fit_image(rgb_view(image), canvas), fit_label(label, canvas))
        for image, label in ((image, label), *others)
    ]
    image, label = batch[0]
    rows = [
        (title, [picture for view in views for picture in (view[0], overlay(*view, classes))])
        for title, views in _rows(batch, config, key)
    ]
    widest = min(240, 2 * max(picture.shape[1] for _, row in rows for picture in row))
    # A palette of 256 colours is a third of the bytes, and looks the same.
    mixes = Augmentation.from_config(config).mixes
    legend = classes_shown([label for _, label in batch] if mixes else [label], classes)
    write_sheet(rows, legend, target, widest, max_bytes, colors=256)


def _rows(batch: Sequence[View], config, key) -> list[tuple[str, list[View]]]:
    """(title, views) from top to bottom, of the first image of a batch."""
    (image, label), index = batch[0], np.arange(len(batch), dtype=np.int32)
    images, labels = (np.stack(part) for part in zip(*batch, strict=True))
    recipe = Augmentation.from_config(config)
    normalization = Normalization.from_config(config["data"])
    standardized = dataclasses.replace(normalization, local_contrast=0)

    def views(options: Augmentation, normalization: Normalization, count: int) -> list[View]:
        used = slice(None) if options.mixes else slice(1)

        def view(key):
            views = augment_batch(key, images[used], labels[used], index[used], options)
            pixels, label, inside = (x[0] for x in views)
            return _shown(pixels, inside, normalization), label

        pictures, drawn = jax.jit(jax.vmap(view))(jax.random.split(key, count))
        return list(zip(np.asarray(pictures), np.asarray(drawn, np.uint8), strict=True))

    rows = [("the image and its labels", [(image, label)])]
    for title, options in _one_by_one(recipe, image.shape[:2]):
        rows.append((title, _most_different(views(options, standardized, _DRAWN), VIEWS)))
    if side := normalization.local_contrast:
        identity = dataclasses.replace(_identity(recipe), crop_size=image.shape[:2])
        title = f"local contrast normalisation, window {side}x{side}"
        rows.append((title, views(identity, normalization, 1)))
    together = views(recipe, normalization, 2 * VIEWS)
    rows.append(("all together, as the network gets them", together[:VIEWS]))
    rows.append(("", together[VIEWS:]))
    return rows


def _shown(pixels, inside, normalization: Normalization):
    """A view in uint8; after contrast normalisation 5 standard deviations span black to white."""
    normal = normalization(pixels, inside)
    if normalization.local_contrast:
        pixels = 0.5 + normal / 5
    else:
        pixels = normal * jax.numpy.array(normalization.std) + jax.numpy.array(normalization.mean)
    return jax.numpy.round(255 * jax.numpy.clip(pixels, 0, 1)).astype(np.uint8)


def _identity(recipe: Augmentation) -> Augmentation:
    """The recipe's crop size and nothing drawn."""
    return Augmentation(recipe.crop_size, scale=(1.0, 1.0), flip=False)


def _one_by_one(recipe: Augmentation, canvas: tuple[int, int]) -> list[tuple[str, Augmentation]]:
    """Each augmentation that is on, in words and alone."""
    rows, (height, width), (low, high) = [], recipe.crop_size, recipe.scale

    def add(title: str, crop_size: tuple[int, int], *fields: str) -> None:
        options = {name: getattr(recipe, name) for name in fields}
        rows.append((title, dataclasses.replace(_identity(recipe), crop_size=crop_size, **options)))

    if recipe.scale != (1.0, 1.0) or recipe.crop_size != canvas:
        zoom = f"zoom {low:g} to {high:g}, " if recipe.scale != (1.0, 1.0) else ""
        add(f"{zoom}crop {height}x{width}", recipe.crop_size, "scale", "antialias", "padding")
    if recipe.aspect != (1.0, 1.0):
        narrow, wide = recipe.aspect
        add(f"aspect {narrow:g} to {wide:g}", canvas, "aspect")
    if recipe.max_class_share < 1:
        share = f"no class over {recipe.max_class_share:.0%} of a crop, where one of 10 will do"
        add(share, recipe.crop_size, "scale", "antialias", "padding", "max_class_share")
    if recipe.rotate and recipe.rotate_probability:
        title = f"turn by up to {recipe.rotate:g} degrees"
        often = _often(recipe.rotate_probability)
        add(title + often, canvas, "rotate", "rotate_probability", "padding")
    if recipe.flip and recipe.flip_probability:
        often = _often(recipe.flip_probability)
        add(f"mirror{often}", canvas, "flip", "flip_probability")
    if recipe.flip_vertical:
        add(f"mirror top-bottom{_often(recipe.flip_vertical)}", canvas, "flip_vertical")
    if recipe.quarter_turns:
        add(f"quarter turns{_often(recipe.quarter_turns)}", canvas, "quarter_turns")
    if recipe.blur:
        add(f"5x5 Gaussian blur{_often(recipe.blur)}", canvas, "blur")
    colours = [
        name
        for name in ("brightness", "contrast", "saturation", "hue")
        if getattr(recipe, name) and getattr(recipe, f"{name}_probability")
    ]
    if colours:
        probabilities = [f"{name}_probability" for name in colours]
        title = _colours(recipe, colours, [getattr(recipe, name) for name in probabilities])
        add(title, canvas, *colours, *probabilities, "colour_model")
    if recipe.noise and recipe.noise_probability:
        title = f"noise {recipe.noise:g}{_often(recipe.noise_probability)}"
        add(title, canvas, "noise", "noise_probability")
    if recipe.cutout and recipe.cutout_probability:
        squares = "a square" if recipe.cutout == 1 else f"{recipe.cutout} squares"
        often = _often(recipe.cutout_probability)
        fields = ("cutout", "cutout_size", "cutout_probability", "cutout_labels")
        add(f"cutout of {squares}{often}, labels {recipe.cutout_labels}", canvas, *fields)
    if recipe.cutmix:
        add(f"CutMix{_often(recipe.cutmix)}", canvas, "cutmix")
    if recipe.classmix:
        add(f"class-mix{_often(recipe.classmix)}", canvas, "classmix")
    return rows


def _colours(recipe: Augmentation, names: Sequence[str], probabilities: Sequence[float]) -> str:
    values = [f"{name} {getattr(recipe, name):.3g}" for name in names]
    if len(set(probabilities)) == 1:
        often = _often(probabilities[0])
        often = often.replace(", ", ", each ") if len(names) > 1 else often
    else:
        values = [f"{value} ({p:.0%})" for value, p in zip(values, probabilities, strict=True)]
        often = ""
    return ", ".join(values) + often + (", in HSV" if recipe.colour_model == "hsv" else "")


def _often(probability: float) -> str:
    """The probability in words; nothing for 1."""
    if probability == 1:
        return ""
    return ", half of the time" if probability == 0.5 else f", {probability:.0%} of the time"


def _most_different(views: Sequence[View], count: int) -> list[View]:
    """The first view, then repeatedly the one that is farthest from all chosen before."""
    pictures = np.stack([picture for picture, _ in views]).astype(np.float32)
    chosen, nearest = [0], np.full(len(views), np.inf)
    while len(chosen) < count:
        distance = np.abs(pictures - pictures[chosen[-1]]).mean((1, 2, 3))
        nearest = np.minimum(nearest, distance)
        chosen.append(int(np.argmax(nearest)))
    return [views[k] for k in chosen]
