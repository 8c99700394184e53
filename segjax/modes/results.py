"""Modes that use a finished run: predict, export."""

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image
from rich.console import Console

from segjax import weights
from segjax.data.classes import ClassTable
from segjax.data.images import (
    ARRAY_SUFFIX,
    IMAGE_SUFFIXES,
    list_images,
    read_image,
    rgb_view,
)
from segjax.inference.predictor import Predictor
from segjax.reporting.plots import overlay


def predict(
    workdir: str | pathlib.Path,
    input: str | pathlib.Path,
    output: str | pathlib.Path | None = None,
    console: Console | None = None,
) -> list[pathlib.Path]:
    """Predicts an image or every image of a folder, at its own size.

    Writes into `output` (WORKDIR/predictions by default), under each image's name: `NAME.png` in
    `masks/` (class ids), in `colors/` (the palette) and in `overlays/` (palette over image).

    Returns:
      The paths of the index masks.
    """
    console = console or Console()
    output = pathlib.Path(output or pathlib.Path(workdir) / "predictions")
    predictor = Predictor.from_workdir(workdir)
    channels = predictor.config["data"]["channels"]
    arrays = () if channels == 3 else (ARRAY_SUFFIX,)
    images = list_images(input, (*IMAGE_SUFFIXES, *arrays))
    names = _output_names(images, pathlib.Path(input))
    masks = []
    for path, name in zip(images, names, strict=True):
        image = read_image(path, channels, exif=True)
        label = predictor.predict(image)
        pictures = {
            "masks": label,
            "colors": predictor.classes.colorize(label),
            "overlays": overlay(rgb_view(image), label, predictor.classes),
        }
        for kind, picture in pictures.items():
            file = output / kind / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(file)
        masks.append(output / "masks" / f"{name}.png")
        console.print(_shares(path, label, predictor.classes), highlight=False, soft_wrap=True)
    console.print(f"{len(masks)} image(s): masks, colors and overlays in {output}", highlight=False)
    return masks


def _output_names(images: Sequence[pathlib.Path], root: pathlib.Path) -> list[str]:
    """Each image's path under `root` without its suffix; with it where two would collide."""
    paths = [p.relative_to(root) if root.is_dir() else pathlib.Path(p.name) for p in images]
    stems = [str(p.with_suffix("")) for p in paths]
    return [s if stems.count(s) == 1 else str(p) for s, p in zip(stems, paths, strict=True)]


def _shares(path: pathlib.Path, label: np.ndarray, classes: ClassTable) -> str:
    """One line: the file, its size and its most frequent classes."""
    counts = np.bincount(label.reshape(-1), minlength=len(classes))
    top = np.argsort(-counts)[:3]
    shares = ", ".join(f"{classes.names[k]} {counts[k] / label.size:.0%}" for k in top if counts[k])
    return f"{path} ({label.shape[0]}x{label.shape[1]}): {shares}"


def export(
    workdir: str | pathlib.Path,
    output: str | pathlib.Path | None = None,
    format: str | None = None,
    console: Console | None = None,
) -> pathlib.Path:
    """Writes the best checkpoint of a run as a safetensors file; see `segjax.weights.save`.

    Args:
      workdir: of a training run.
      output: the file; WORKDIR/model.safetensors by default.
      format: "safetensors" is the only one.

    Returns:
      The file's path.

    Raises:
      ValueError: for another format.
    """
    if format not in (None, "safetensors"):
        raise ValueError(f"--format={format}; export has safetensors")
    console, predictor = console or Console(), Predictor.from_workdir(workdir)
    output = pathlib.Path(output or pathlib.Path(workdir) / "model.safetensors")
    data = predictor.config["data"]
    text = weights.save(
        output,
        predictor.model,
        predictor.variables,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )
    console.print(text, highlight=False, soft_wrap=True, markup=False)
    return output
