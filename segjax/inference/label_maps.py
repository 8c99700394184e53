"""The evaluation of label maps that some program predicted, on the host."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from segjax.data.classes import IGNORE, ClassTable
from segjax.data.errors import DataError
from segjax.data.files.predictions import PredictedFiles, described_ids, read_prediction
from segjax.data.parallel import TIMEOUT_S, in_threads
from segjax.data.scored import described_size, label_size, resize_label
from segjax.data.source import Samples, file_names
from segjax.inference.scoring import FullEvaluation, HostMeasures, LabelEvaluation
from segjax.metrics.confusion import ImageConfusions
from segjax.metrics.multilabel import LabelConfusions
from segjax.metrics.protocols import DEFAULT_PROTOCOL, find_protocol

VOID = ("error", "wrong")  # what a predicted id of no class is on a labelled pixel


@dataclasses.dataclass(frozen=True)
class LabelMaps:
    """Predicted label maps, and the rules by which they are compared with labels.

    Attributes:
      files: of each sample.
      classes: of the data.
      labels: the label of each id in the files, see `predictions.label_of_ids`.
      size: (H, W) to which prediction and label are resized, by nearest neighbour; None = the
        label's own size, to which a prediction of another one is resized.
      void: one of `VOID`.
    """

    files: PredictedFiles
    classes: ClassTable
    labels: Mapping[int, int]
    size: tuple[int, int] | None = None
    void: str = "error"

    def compared(
        self, index: int, label: UInt8[np.ndarray, "h w"]
    ) -> tuple[UInt8[np.ndarray, "H W"], UInt8[np.ndarray, "H W"], bool]:
        """Label and prediction of a sample at the scored size, and whether the file has another
        size than the label. The prediction is 255 where it is of no class.

        Raises:
          DataError: if the file cannot be read, or predicts no class on a labelled pixel.
        """
        path = self.files.paths[index]
        ids, prediction = read_prediction(path, self.classes, self.labels)
        size = self.size or label.shape
        resized = prediction.shape != label.shape
        label, prediction = resize_label(label, size), resize_label(prediction, size)
        if self.void == "error":
            self._check(path, label, prediction, resize_label(ids, size))
        return label, prediction, resized

    def _check(self, path, label: np.ndarray, prediction: np.ndarray, ids: np.ndarray) -> None:
        void = (prediction == IGNORE) & (label != IGNORE)
        if not void.any():
            return
        known, classes = sorted(self.labels), range(len(self.classes))
        train = known != [*classes] and int(ids[void].max()) in classes
        more = ", --ids=train if the ids are 0..K-1" * train
        raise DataError(
            f"{path}: ids of no class on labelled pixels: {described_ids(ids[void])}; classes "
            f"have {', '.join(map(str, known[:40]))}{', ...' * (len(known) > 40)}",
            f"use predictions of a class on each labelled pixel{more}, or --void=wrong, which "
            "counts these pixels as wrong",
        )


def describe_label_maps(config: Mapping[str, Any], protocol: str = DEFAULT_PROTOCOL.name) -> str:
    """How the numbers of label maps are made, in words.

    Args:
      config: with `scored`, as --mode=score saves it.
      protocol: its name.
    """
    scored, size = config["scored"], label_size(config["data"])
    void = "; predicted pixels of no class count as wrong" * (scored["void"] == "wrong")
    return (
        f"{find_protocol(protocol).description}; label maps of {scored['predictions']}, scored at "
        f"{described_size(size)}{void}"
    )


def score_label_maps(
    source: Samples,
    maps: LabelMaps,
    protocol: str = DEFAULT_PROTOCOL.name,
    threads: int | None = None,
    timeout_s: float = TIMEOUT_S,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[FullEvaluation | LabelEvaluation, int]:
    """Compares label maps with the labels of a split.

    Boundaries and objects are measured unless a prediction is of no class on a labelled pixel, or
    classes may overlap. Probabilities are not known, so loss and calibration are not either.

    Args:
      source: the split.
      maps: a prediction for each of its samples.
      protocol: of `FullEvaluation.summary`.
      threads: one per core by default.
      timeout_s: the longest wait for the files of a sample.
      progress: called with the number of images done, and of all.

    Returns:
      The evaluation, and the number of predictions whose size is not the label's.

    Raises:
      DataError: for a sample or prediction that cannot be read or compared.
      TimeoutError: naming the files of a sample that are not read in time.
    """
    find_protocol(protocol)  # raises
    classes, measures = maps.classes, HostMeasures(len(maps.classes))

    def count(index: int) -> tuple[str, np.ndarray, bool, bool]:
        sample = source[index]
        label, prediction, resized = maps.compared(index, sample["label"])
        name, void = str(sample.get("name", index)), False
        if classes.multilabel:
            counts = _label_counts(label, prediction, classes)
        else:
            counts = _counts(label, prediction, len(classes))
            void = bool(counts[:, -1].any())
            if not void:
                measures.add(label, prediction)
        return name, counts, resized, void

    def reading(index: int) -> str:
        return " with ".join([*file_names(source, index), str(maps.files.paths[index])])

    rows, threads, indices = [], threads or os.cpu_count() or 1, range(len(source))
    for row in in_threads(count, indices, threads, reading=reading, timeout_s=timeout_s):
        rows.append(row)
        progress(len(rows), len(source))
    names, confusions, resized, voids = zip(*rows, strict=True)
    loss, counts = float("nan"), np.stack(confusions)
    if classes.multilabel:
        unknown = {"threshold": [loss] * len(classes), "iou": [loss] * len(classes)}
        evaluation = LabelEvaluation(names, LabelConfusions(counts), loss, unknown)
        return evaluation, sum(resized)
    has_void = any(voids)
    evaluation = FullEvaluation(
        names=names,
        confusions=ImageConfusions.from_dense(counts if has_void else counts[..., :-1]),
        loss=loss,
        boundary={} if has_void else measures.boundaries.summary(),
        calibration={},
        by_object={} if has_void else measures.by_object.summary(),
        protocol=protocol,
    )
    return evaluation, sum(resized)


def _counts(
    label: UInt8[np.ndarray, "h w"], prediction: UInt8[np.ndarray, "h w"], num_classes: int
) -> Int[np.ndarray, "k k1"]:
    """Labelled pixels by label and prediction; the last column is of no class."""
    kept, columns = label != IGNORE, num_classes + 1
    cells = label[kept].astype(np.int64) * columns + np.minimum(prediction[kept], num_classes)
    counts = np.bincount(cells, minlength=num_classes * columns)
    return counts.reshape(num_classes, columns)


def _label_counts(
    label: UInt8[np.ndarray, "h w"], prediction: UInt8[np.ndarray, "h w"], classes: ClassTable
) -> Int[np.ndarray, "k 2 2"]:
    """Labelled pixels of each class by presence and prediction; no class where none is known."""
    kept = label != IGNORE
    pairs = np.bincount(
        label[kept].astype(np.int64) * 256 + prediction[kept], minlength=256 * 256
    ).reshape(256, 256)
    shown = classes.classes_of.astype(np.int64)  # [256, k]
    masks = np.stack([1 - shown, shown])  # absent, present
    return np.einsum("ixk,xy,jyk->kij", masks, pairs, masks, optimize=True)
