"""Evaluation of a split: one pass, one confusion matrix per image, stored in the workdir."""

import dataclasses
import functools
import itertools
import pathlib
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from segjax import metrics
from segjax.data.batches import eval_batches
from segjax.data.classes import IGNORE
from segjax.data.files.atomic import replacing
from segjax.data.files.npy import array_of
from segjax.data.files.reading import words_of
from segjax.data.fitted import FittedDataset
from segjax.metrics.confusion import ImageConfusions
from segjax.metrics.multilabel import LabelConfusions
from segjax.training.distributed import gather
from segjax.training.head import SOFTMAX, Head
from segjax.training.mesh import Devices
from segjax.weights.reading import member_bytes, members


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The counts of one pass over a split.

    Attributes:
      names: of the images, in the order of the split.
      confusions: pixels per image, by label and prediction.
      loss: mean cross-entropy of the head over the labelled pixels, unweighted; NaN if there are
        none.
    """

    names: Sequence[str]
    confusions: ImageConfusions | LabelConfusions
    loss: float

    def __post_init__(self):
        if len(self.names) != len(self.confusions):
            raise ValueError(f"{len(self.names)} names for {len(self.confusions)} images")

    @functools.cached_property
    def confusion(self) -> Int[np.ndarray, "k ..."]:
        """int64 pixels of the whole split: [k, k], or of a sigmoid head [k, 2, 2]."""
        return self.confusions.total()

    @functools.cached_property
    def image_miou(self) -> Float[np.ndarray, "n"]:
        """The mIoU of each image on its own; NaN where no pixel is labelled, or of a sigmoid head
        no label is present or predicted."""
        if isinstance(self.confusions, LabelConfusions):
            return self.confusions.mean_iou_by_image()
        return metrics.mean_iou_by_image(self.confusions)

    @property
    def class_pixels(self) -> Int[np.ndarray, "n k"]:
        """The pixels of each image that have each class."""
        if isinstance(self.confusions, LabelConfusions):
            return self.confusions.label_pixels()
        return self.confusions.class_pixels()[1]

    def summary(self) -> dict[str, Any]:
        """`metrics.summarize`, of a sigmoid head `metrics.summarize_labels`, with `loss` and the
        number of `images`."""
        multilabel = isinstance(self.confusions, LabelConfusions)
        summarize = metrics.summarize_labels if multilabel else metrics.summarize
        return {**summarize(self.confusion), "loss": self.loss, "images": len(self.names)}

    def save(self, path: str | pathlib.Path) -> None:
        """Writes names, confusion matrices and loss as one .npz file, atomically."""
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                names=np.array(self.names, np.str_),
                **dataclasses.asdict(self.confusions),
                loss=self.loss,
            )

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "Evaluation":
        """Reads a file that `save` wrote.

        Raises:
          ValueError: if the file is missing, damaged or not an evaluation.
        """
        remedy = "write it with --mode=evaluate --workdir=RUN"
        if not pathlib.Path(path).is_file():
            raise ValueError(f"there is no evaluation {path}; {remedy}")
        try:
            arrays = _arrays(path)
            names, loss = arrays["names"].tolist(), float(arrays["loss"])
            if "num_classes" in arrays:
                confusions = ImageConfusions(
                    int(arrays["num_classes"]),
                    *(arrays[name] for name in ("starts", "cells", "counts")),
                    void=bool(arrays.get("void", False)),
                )
                _check(confusions, names)
            else:
                _check_labels(arrays["counts"], names)
                confusions = LabelConfusions(arrays["counts"])
        except Exception as error:  # zipfile, zlib and numpy raise many kinds for a damaged file
            problem = words_of(error)
            raise ValueError(f"evaluation {path} cannot be read ({problem}); {remedy}") from error
        return cls(names, confusions, loss)


def _arrays(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, whose sizes are looked at before they are read."""
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for name, entry in members(archive, pathlib.Path(path).stat().st_size).items():
            arrays[name.removesuffix(".npy")] = array_of(member_bytes(archive, entry))
    return arrays


def _check(confusions: ImageConfusions, names: list) -> None:
    """Raises ValueError for the first inconsistency of arrays from a file."""
    starts, size = confusions.starts, confusions.num_classes * confusions.columns
    cells, counts = confusions.cells, confusions.counts
    if not 1 <= confusions.num_classes <= IGNORE:
        raise ValueError(f"it has {confusions.num_classes} classes")
    if not isinstance(names, list) or any(a.ndim != 1 for a in (starts, cells, counts)):
        raise ValueError("an array has another number of dimensions")
    if any(a.dtype.kind not in "iu" for a in (starts, cells, counts)):
        raise ValueError("counts are not integers")
    if len(starts) != len(names) + 1 or len(cells) != len(counts):
        raise ValueError(
            f"{len(names)} names, {len(starts)} starts, {len(cells)} cells, {len(counts)} counts"
        )
    if starts[0] != 0 or starts[-1] != len(cells) or np.any(np.diff(starts) < 0):
        raise ValueError("the images' cells do not follow one another")
    if np.any((cells < 0) | (cells >= size)):
        raise ValueError(f"a cell lies outside {confusions.num_classes} x {confusions.columns}")
    if np.any(counts <= 0):
        raise ValueError("a stored cell holds no pixel")


def _check_labels(counts: np.ndarray, names: list) -> None:
    """Raises ValueError if counts from a file are not those of a sigmoid head."""
    if counts.dtype.kind not in "iu" or counts.ndim != 4 or counts.shape[2:] != (2, 2):
        raise ValueError(f"counts are {counts.dtype} {counts.shape}, not integers [n, k, 2, 2]")
    if not isinstance(names, list) or len(names) != len(counts):
        raise ValueError(f"names are not those of {len(counts)} images")
    if np.any(counts < 0):
        raise ValueError("a count is negative")


def eval_batch_size(config: Mapping[str, Any]) -> int:
    """Images per evaluation batch: `train.eval_batch_size`, or `train.batch_size` where it is 0."""
    train = config["train"]
    return train["eval_batch_size"] or train["batch_size"]


def evaluation_path(workdir: str | pathlib.Path, split: str) -> pathlib.Path:
    """The file of a split's evaluation in a run: evaluations/SPLIT.npz, with the split's name
    quoted as in URLs ("[" becomes %5B)."""
    return pathlib.Path(workdir) / "evaluations" / f"{urllib.parse.quote(split, safe='')}.npz"


def evaluated_splits(workdir: str | pathlib.Path) -> list[str]:
    """The splits whose evaluation is stored in a run, in alphabetical order."""
    files = (pathlib.Path(workdir) / "evaluations").glob("*.npz")
    return sorted(urllib.parse.unquote(file.stem) for file in files)


def evaluate(
    eval_step: Callable,
    variables: Any,
    canvas: FittedDataset,
    batch_size: int,
    devices: Devices,
    stop: Callable[[], str] = lambda: "",
    head: Head = SOFTMAX,
    look: Callable[[], None] = lambda: None,
) -> Evaluation | None:
    """Runs a compiled `eval_step` over every sample of a split, once.

    With several processes every one must call it. Each reads and counts its own images, and all
    return the counts of the whole split.

    Args:
      stop: called after each batch, in every process; a text that is not empty ends the evaluation.
      head: of the step.
      look: called about once a second while samples are awaited; may raise.

    Returns:
      The evaluation, or None if `stop` ended it.
    """
    images, loss_sum, pixels = ImageCounts(canvas.names, head), 0.0, 0
    outputs = device_outputs(eval_step, variables, canvas, batch_size, devices, look)
    for batch, rows, sums in outputs:
        images.add(batch["index"], rows["confusion"])
        loss_sum += float(sums["loss_sum"])
        pixels += int(sums["pixels"])
        if stop():
            return None
    loss = loss_sum / pixels if pixels else float("nan")
    return Evaluation(*images.of_all_processes(), loss)


class ImageCounts:
    """Collects the confusion matrices of images in any order and from all processes.

    Args:
      names: name by index, of each image that this process reads.
      head: whose `counts` are added.
    """

    def __init__(self, names: Mapping[int, str], head: Head = SOFTMAX):
        self._names, self._kind = names, head.confusions
        self._indices: list[int] = []
        self._confusions: list[Any] = []

    def add(self, indices: Int[np.ndarray, "n"], confusions: Int[np.ndarray, "n k ..."]) -> None:
        self._indices += indices.tolist()
        self._confusions.append(self._kind.from_dense(confusions))

    def of_all_processes(self) -> tuple[list[str], Any]:
        """Names and matrices of the whole split, in its order; every process must call it."""
        names = [self._names[index] for index in self._indices]
        own = self._indices, names, self._kind.joined(self._confusions)
        indices, names, confusions = zip(*gather(own), strict=True)
        order = np.argsort(list(itertools.chain(*indices)))
        names = list(itertools.chain(*names))
        return [names[i] for i in order], self._kind.joined(confusions).take(order)


def device_outputs(
    step: Callable,
    variables: Any,
    canvas: FittedDataset,
    batch_size: int,
    devices: Devices,
    look: Callable[[], None] = lambda: None,
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]]:
    """Runs `step(variables, batch) -> (rows, sums)` over a split and reads its outputs.

    A batch's outputs are read only when the next one is running, so the device never waits for the
    host.

    Yields:
      (batch, rows, sums) on the host. `batch` and `rows` hold the images that this process counts:
      over all processes each image comes once, padding never. `sums` are over the whole batch.
    """
    counted = _counted_rows(devices, batch_size)

    def on_host(batch, outputs):
        rows, sums = outputs
        kept = counted & (batch["index"] >= 0)
        rows = {name: devices.local_shard(array)[kept] for name, array in rows.items()}
        return {name: array[kept] for name, array in batch.items()}, rows, jax.device_get(sums)

    running = None
    for batch in eval_batches(canvas, batch_size, rows=devices.local_rows(batch_size), look=look):
        inputs = {name: array for name, array in batch.items() if name != "index"}
        if "sizes" in batch:  # flat labels, as long as the longest of all processes
            length = max(gather(batch["label"].shape[1]))
            more = [(0, 0), (0, length - batch["label"].shape[1])]
            inputs["label"] = np.pad(batch["label"], more, constant_values=IGNORE)
        outputs = step(variables, devices.put(inputs))
        if running:
            yield on_host(*running)
        running = batch, outputs
    if running:
        yield on_host(*running)


def _counted_rows(devices: Devices, batch_size: int) -> Bool[np.ndarray, "n"]:
    """Mask of the rows that this process reads and counts. Where devices of several processes share
    an image, the process of the first device counts it."""
    rows = devices.local_rows(batch_size)
    shard = devices.padded_size(batch_size) // devices.mesh.shape["data"]
    first = np.array([device.process_index for device in devices.mesh.devices[:, 0]])
    return first[np.arange(rows.start, rows.stop) // shard] == jax.process_index()
