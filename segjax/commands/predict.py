"""The mode predict: label maps of images, folders, lists and videos."""

import contextlib
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image
from rich.console import Console

from segjax.data.classes import ClassTable
from segjax.data.files.images import rgb_view
from segjax.inference.inputs import Input, open_inputs
from segjax.inference.options import InferenceOptions
from segjax.inference.predictor import Predictor
from segjax.inference.video import VideoWriter
from segjax.report.pictures import overlay
from segjax.training.progress import print_line, progress_bar

OVERLAY_VIDEO = "overlays.mp4"


class UnreadableInputs(ValueError):
    """Some inputs could not be read; the others are predicted and written."""


def predict(
    workdir: str | pathlib.Path,
    input: str | pathlib.Path,
    output: str | pathlib.Path | None = None,
    *,
    inference: str = "resize",
    window: tuple[int, int] | None = None,
    overlap: float = 0.5,
    blend: str = "gaussian",
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    batch_size: int = 4,
    console: Console | None = None,
) -> list[pathlib.Path]:
    """Predicts an image, every image of a folder or of a list, or every frame of a video, each at
    its own size.

    Writes into `output` (WORKDIR/predictions by default), under each image's name: `NAME.png` in
    `masks/` (class ids), in `colors/` (the palette) and in `overlays/` (palette over image). Of a
    video: `masks/frame_000000.png` and so on, and `overlays.mp4`.

    Args:
      workdir: of a training run.
      input: see `segjax.inference.inputs.open_inputs`.
      inference, window, overlap, blend, scales, flip, batch_size: how images are taken, see
        `InferenceOptions`.

    Returns:
      The paths of the index masks.

    Raises:
      ValueError: if there is no run or nothing to predict on.
      UnreadableInputs: at the end, listing the inputs that were skipped, if there were any.
    """
    console = console or Console()
    output = pathlib.Path(output or pathlib.Path(workdir) / "predictions")
    options = InferenceOptions(inference, window, overlap, blend, tuple(scales), flip, batch_size)
    predictor = Predictor.from_workdir(workdir, options=options)
    classes = predictor.classes
    inputs = open_inputs(input, predictor.config["data"]["channels"])
    of_video = inputs.frames_per_second is not None
    masks, unreadable, used = [], [], predictor.options
    # Batches want their images at once, windows need one image only.
    together = 1 if used.inference == "slide" or inputs.total == 1 else used.batch_size
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(progress_bar(console, "predict"))
        film = None
        if of_video:
            film = stack.enter_context(
                VideoWriter(output / OVERLAY_VIDEO, inputs.frames_per_second)
            )
        for batch in _batches(inputs.read(), together):
            unreadable += [item for item in batch if item.image is None]
            readable = [item for item in batch if item.image is not None]
            for item, label in zip(readable, _labels(predictor, readable, together), strict=True):
                masks.append(_save(output, "masks", item.name, label))
                tinted = _overlay(item.image, label, classes)
                if film:
                    film.add(tinted)
                else:
                    _save(output, "colors", item.name, classes.colorize(label))
                    _save(output, "overlays", item.name, tinted)
                    text = _shares(item.origin, label, classes)
                    print_line(console, text)
            progress(len(masks) + len(unreadable), inputs.total)
    if film:
        there = f"and {OVERLAY_VIDEO}" if film.works else f"(this opencv wrote no {OVERLAY_VIDEO})"
        text = f"{len(masks)} frame(s): masks {there} in {output}"
    else:
        text = f"{len(masks)} image(s): masks, colors and overlays in {output}"
    print_line(console, text)
    if unreadable:
        problems = "\n".join(f"  {item.problem}" for item in unreadable)
        raise UnreadableInputs(
            f"{len(unreadable)} of {len(unreadable) + len(masks)} images could not be read and "
            f"were skipped:\n{problems}"
        )
    return masks


def _labels(predictor: Predictor, items: list[Input], together: int) -> list[np.ndarray]:
    images = [item.image for item in items]
    if together == 1:
        return [predictor.predict(image) for image in images]
    return predictor.predict_batch(images)


def _batches(items: Iterable[Input], size: int) -> Iterator[list[Input]]:
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


def _save(output: pathlib.Path, kind: str, name: str, picture: np.ndarray) -> pathlib.Path:
    file = output / kind / f"{name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(file)
    return file


def _overlay(image: np.ndarray, label: np.ndarray, classes: ClassTable) -> np.ndarray:
    """Some rows at a time: blending takes 16 bytes a colour meanwhile."""
    out = np.empty((*label.shape, 3), np.uint8)
    for top in range(0, len(label), 256):
        rows = slice(top, top + 256)
        out[rows] = overlay(rgb_view(image[rows]), label[rows], classes)
    return out


def _shares(origin: str, label: np.ndarray, classes: ClassTable) -> str:
    """One line: the file, its size and its most frequent classes."""
    counts = sum(np.bincount(row, minlength=len(classes)) for row in label)
    top = np.argsort(-counts)[:3]
    shares = ", ".join(f"{classes.names[k]} {counts[k] / label.size:.0%}" for k in top if counts[k])
    return f"{origin} ({label.shape[0]}x{label.shape[1]}): {shares}"
