"""The command predict: label maps of images, folders, lists and videos."""

import collections
import concurrent.futures
import contextlib
import csv
import dataclasses
import itertools
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from segjax import config as configs
from segjax.console import Console
from segjax.data.classes import IGNORE, ClassTable, in_words
from segjax.data.errors import DataError
from segjax.data.files.atomic import replacing
from segjax.data.files.images import rgb_view
from segjax.data.files.windowed import WindowedImage
from segjax.data.image_options import ranges_of
from segjax.data.parallel import TIMEOUT_S
from segjax.destinations import check_folder
from segjax.inference.crf import DenseCRF
from segjax.inference.inputs import Input, Inputs, open_inputs
from segjax.inference.masks_out import Rows, mark_void, void_id, write_picture
from segjax.inference.options import InferenceOptions
from segjax.inference.predictor import Predictor
from segjax.inference.video import VideoWriter
from segjax.report.pictures import overlay
from segjax.training.progress import print_line, progress_bar
from segjax.weights.folder import is_model_folder

OVERLAY_VIDEO = "overlays.mp4"
LEGEND = "legend.csv"
IDS = ("raw", "train")


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
    crf: Mapping[str, float] | None = None,
    ids: str = "raw",
    overrides: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> list[pathlib.Path]:
    """Predicts images, or the frames of a video, each at its own size.

    Writes into `output` (WORKDIR/predictions by default), under each image's name: `NAME.png` in
    `masks/` (class ids), in `colors/` (the palette) and in `overlays/` (palette over image). Of a
    video: `masks/frame_000000.png` and so on, and `overlays.mp4`. With a sigmoid head `masks/` has
    bits (as data.mask_format=bits reads them), and `labels/CLASS/` a mask of 0 and 255 for each
    class. Of a GeoTIFF all are GeoTIFFs of the same place; pixels without data become 255.

    `legend.csv` says which id each class has in the masks, with its colour and train id;
    `classes.json` is the same as a class list (data.classes), with which the masks can be read.

    Args:
      workdir: of a training run, or the folder of an exported model (--format=huggingface).
      input: see `segjax.inference.inputs.open_inputs`.
      inference, window, overlap, blend, scales, flip, batch_size: how images are taken, see
        `InferenceOptions`.
      ids: what `masks/` holds, as one-channel PNG of 8 bits, or 16 if an id is above 255: "raw" is
        the data set's own ids, see `ClassTable.raw_ids`; "train" is 0..K-1.
      crf: options of `segjax.inference.crf.DenseCRF`, {} for its defaults; None for no CRF.
      overrides: of the run's config, see `config.with_overrides`; {"model.threshold": 0.4}.

    Returns:
      The paths of the index masks.

    Raises:
      ValueError: if there is no run, `input` names no images and no video, or `output` is a run.
      UnreadableInputs: at the end, listing the inputs that were skipped, if there were any.
    """
    console = console or Console()
    output = pathlib.Path(output or pathlib.Path(workdir) / "predictions")
    refined = None if crf is None else DenseCRF.from_options(crf)
    options = InferenceOptions(
        inference, window, overlap, blend, tuple(scales), flip, batch_size, refined
    )
    if ids not in IDS:
        raise ValueError(f"--ids={ids}; use {' or '.join(IDS)}")
    if (output / configs.CONFIG_FILE).is_file():
        raise ValueError(f"--output={output} is the folder of a run; use another one")
    check_folder(output, "--output", folders=("masks", "colors", "overlays"))
    exported = is_model_folder(workdir)
    load = Predictor.from_pretrained if exported else Predictor.from_workdir
    predictor = load(workdir, options=options, overrides=overrides)
    classes = predictor.classes
    data = predictor.config["data"]
    written = classes if ids == "raw" else dataclasses.replace(classes, ids=())
    nodata = None if classes.multilabel else void_id(written.raw_ids)
    exif, timeout_s = data.get("exif", "auto"), data.get("timeout_s", TIMEOUT_S)
    inputs = open_inputs(input, data["channels"], ranges_of(data), exif, timeout_s)
    if inputs.note:
        print_line(console, inputs.note)
    pictures = Pictures(output, classes, written, nodata)
    masks, unreadable, film = write_predictions(predictor, inputs, pictures, console)
    if film:
        more = f"and {OVERLAY_VIDEO}" if film.works else f"(this opencv wrote no {OVERLAY_VIDEO})"
        print_line(console, f"{len(masks)} frame(s): masks {more} in {output}")
    else:
        kinds = "masks, labels, colors" if classes.multilabel else "masks, colors"
        print_line(console, f"{len(masks)} image(s): {kinds} and overlays in {output}")
    _write_legend(written, output)
    values = "bits" if classes.multilabel else "ids"
    merged = ", as data.class_map merges classes" if predictor.config["data"]["class_map"] else ""
    why = merged * (ids == "raw" and not classes.ids)
    print_line(console, f"masks hold {values} {in_words(written.raw_ids)}{why}: {output / LEGEND}")
    if unreadable:
        problems = "\n".join(f"  {item.problem}" for item in unreadable)
        raise UnreadableInputs(
            f"{len(unreadable)} of {len(unreadable) + len(masks)} images could not be read and "
            f"were skipped:\n{problems}"
        )
    return masks


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The pictures of predictions, as files.

    Attributes:
      output: their folder.
      classes: of the label maps.
      written: as the masks have them.
      nodata: the id of pixels without data in the masks; None where there is none.
    """

    output: pathlib.Path
    classes: ClassTable
    written: ClassTable
    nodata: int | None

    def write(
        self, item: Input, label: np.ndarray, film: VideoWriter | None = None
    ) -> tuple[pathlib.Path, str]:
        """Writes the pictures of an input.

        Args:
          film: takes the overlay, of a video.

        Returns:
          The path of the mask, and a line for the user.
        """
        if self.nodata is not None:
            mark_void(item, label)
        mask = self.written.to_raw_ids(label)
        if self.nodata not in (None, IGNORE):  # 255 is a class in the data set's own masks
            mark_void(item, mask, self.nodata)
        path = write_picture(self.output / "masks", item, mask, nodata=self.nodata)
        for kind, mask in _label_masks(label, self.classes):
            write_picture(self.output / kind, item, mask)
        tinted = _overlay(item.image, label, self.classes)
        if film:
            film.add(np.concatenate(list(tinted.blocks())))
        else:
            write_picture(self.output / "colors", item, _colors(label, self.classes))
            write_picture(self.output / "overlays", item, tinted)
        return path, _shares(item.origin, label, self.classes)


def write_predictions(
    predictor: Predictor, inputs: Inputs, pictures: Pictures, console: Console
) -> tuple[list[pathlib.Path], list[Input], VideoWriter | None]:
    """Predicts all inputs and writes their pictures, in threads beside the network.

    Returns:
      The paths of the masks, the inputs that could not be read, and the writer of a video.
    """
    masks, unreadable, waiting = [], [], collections.deque()
    with (
        progress_bar(console, "predict") as progress,
        _film(inputs, pictures.output) as film,
        # A video's frames are in order.
        concurrent.futures.ThreadPoolExecutor(1 if film else min(4, os.cpu_count() or 1)) as pool,
    ):

        def finish(count: int) -> None:
            """Waits until at most so many inputs are still to be written."""
            while len(waiting) > count:
                path, line = waiting.popleft().result()
                masks.append(path)
                if not film:
                    print_line(console, line)
                progress(len(masks) + len(unreadable), inputs.total)

        for item, label in _predictions(predictor, inputs):
            if label is None:
                unreadable.append(item)
                progress(len(masks) + len(unreadable), inputs.total)
                continue
            waiting.append(pool.submit(pictures.write, item, label, film))
            # An image of which only windows are read is closed after this.
            finish(0 if isinstance(item.image, WindowedImage) else predictor.options.batch_size)
        finish(0)
    return masks, unreadable, film


def _film(
    inputs: Inputs, output: pathlib.Path
) -> contextlib.AbstractContextManager[VideoWriter | None]:
    """The writer of the overlays of a video; None for images."""
    if inputs.frames_per_second is None:
        return contextlib.nullcontext()
    return VideoWriter(output / OVERLAY_VIDEO, inputs.frames_per_second)


def _predictions(predictor: Predictor, inputs: Inputs) -> Iterator[tuple[Input, np.ndarray | None]]:
    """Yields each input with its label map; None if it could not be read."""
    options = predictor.options
    # A batch keeps all its images in memory; windows need only one.
    one_by_one = options.inference == "slide" or inputs.total == 1
    items = inputs.read(1 if one_by_one else options.batch_size)
    while batch := list(itertools.islice(items, 1 if one_by_one else options.batch_size)):
        if options.inference != "slide" or options.crf:
            batch = [_whole(item) for item in batch]
        images = [item.image for item in batch if item.image is not None]
        if one_by_one:
            labels = map(predictor.predict, images)
        else:
            labels = iter(predictor.predict_batch(images))
        for item in batch:
            label = None
            try:
                label = None if item.image is None else next(labels)
            except DataError as error:  # a window of a file that is damaged inside
                item = dataclasses.replace(item, image=None, problem=str(error))
            yield item, label
            if isinstance(item.image, WindowedImage):
                item.image.close()


def _whole(item: Input) -> Input:
    """The input with all of its image in memory."""
    if not isinstance(item.image, WindowedImage):
        return item
    try:
        return dataclasses.replace(item, image=np.asarray(item.image))
    except DataError as error:
        return dataclasses.replace(item, image=None, problem=str(error))


def _write_legend(classes: ClassTable, output: pathlib.Path) -> None:
    """Writes legend.csv and classes.json: what the masks hold."""
    output.mkdir(parents=True, exist_ok=True)
    configs.save_classes(classes, output)
    path = output / LEGEND
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["bit" if classes.multilabel else "id", "name", "r", "g", "b", "train_id"])
        rows = zip(classes.raw_ids, classes.names, classes.palette, strict=True)
        writer.writerows((id_, name, *color, k) for k, (id_, name, color) in enumerate(rows))


def _label_masks(label: np.ndarray, classes: ClassTable) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (folder, mask of 0 and 255) for each class, where a pixel may have several."""
    names = classes.names if classes.multilabel else ()
    folders = [re.sub(r"[^\w.-]+", "_", name)[:60] for name in names]
    for k, folder in enumerate(folders):
        if folders.count(folder) > 1 or not folder.strip("."):
            folder = f"{k}_{folder}"
        yield f"labels/{folder}", np.where(classes.classes_of[:, k], 255, 0).astype(np.uint8)[label]


def _colors(label: np.ndarray, classes: ClassTable) -> Rows:
    return Rows((*label.shape, 3), lambda rows: classes.colorize(label[rows]))


def _overlay(image: Any, label: np.ndarray, classes: ClassTable) -> Rows:
    """The overlay of an image, some rows at a time: blending needs 16 bytes a colour."""
    return Rows(
        (*label.shape, 3), lambda rows: overlay(rgb_view(image[rows]), label[rows], classes)
    )


def _shares(origin: str, label: np.ndarray, classes: ClassTable) -> str:
    """One line: the file, its size and its most frequent classes."""
    counts = sum(np.bincount(row, minlength=256) for row in label) @ classes.classes_of
    top = np.argsort(-counts)[:3]
    shares = ", ".join(f"{classes.names[k]} {counts[k] / label.size:.0%}" for k in top if counts[k])
    return f"{origin} ({label.shape[0]}x{label.shape[1]}): {shares}"
