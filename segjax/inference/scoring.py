"""The complete evaluation of a split: a pass on the device, boundaries and objects on the host."""

import collections
import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Float, UInt8

from segjax.data.fitted import FittedDataset, fitted_size, resize_image
from segjax.data.scored import label_maps, nearest_pixels
from segjax.inference.crf import DenseCRF, dense_crf
from segjax.inference.options import InferenceOptions
from segjax.inference.tta import view_scores
from segjax.layers import resize_bilinear
from segjax.metrics.boundary import Boundaries, distance_to_boundary
from segjax.metrics.by_object import StratifiedIoU
from segjax.metrics.calibration import add_counts, calibration_counts, summarize_calibration
from segjax.metrics.confusion import ImageConfusions, confusion_matrix
from segjax.metrics.multilabel import best_thresholds, threshold_counts
from segjax.metrics.protocols import compare_protocols, find_protocol
from segjax.training.distributed import gather
from segjax.training.evaluation import Evaluation, ImageCounts, device_outputs
from segjax.training.forward import logits_fn
from segjax.training.head import SOFTMAX, Head
from segjax.training.mesh import Devices
from segjax.training.options import MEASURES
from segjax.training.step import Batch, make_eval_step
from segjax.transforms.normalize import Normalization

# Label maps that may wait per host thread; this bounds the memory if the device is faster than the
# host.
_WAITING_PER_THREAD = 4
_ONE_VIEW = InferenceOptions()


@dataclasses.dataclass(frozen=True)
class FullEvaluation(Evaluation):
    """An evaluation with all measures of the end of a run.

    Attributes:
      boundary: see `segjax.metrics.boundary.Boundaries.summary`.
      calibration: see `segjax.metrics.calibration.summarize_calibration`.
      by_object: see `segjax.metrics.by_object.StratifiedIoU.summary`. Each of the three is {} where
        it is not measured.
      protocol: name of the protocol by which `summary` divides the counts.
    """

    boundary: Mapping[str, Any]
    calibration: Mapping[str, Any]
    by_object: Mapping[str, Any]
    protocol: str = "segjax"

    def summary(self) -> dict[str, Any]:
        """As `Evaluation.summary`, by the chosen protocol, with more keys, all of plain types.

        Returns:
          Besides: `protocol`; `protocols`, the rows of `metrics.compare_protocols`; `boundary`,
          `calibration` and `by_object`; and their main numbers as `boundary_f1`, `boundary_iou`,
          `ece` and `brier`.
        """
        confusions = self.confusions
        assert isinstance(confusions, ImageConfusions)
        return {
            **super().summary(),
            **find_protocol(self.protocol).score(confusions),
            **{
                name: measured[key]
                for measured, key, name in (
                    (self.boundary, "bf", "boundary_f1"),
                    (self.boundary, "boundary_iou", "boundary_iou"),
                    (self.calibration, "ece", "ece"),
                    (self.calibration, "brier", "brier"),
                )
                if measured
            },
            "protocol": self.protocol,
            "protocols": compare_protocols(confusions),
            "boundary": dict(self.boundary),
            "calibration": dict(self.calibration),
            "by_object": dict(self.by_object),
        }


@dataclasses.dataclass(frozen=True)
class LabelEvaluation(Evaluation):
    """An evaluation of a sigmoid head at the end of a run.

    Attributes:
      best_threshold: see `segjax.metrics.multilabel.best_thresholds`.
      protocol: as of `FullEvaluation`; there is one.
    """

    best_threshold: Mapping[str, Any]
    protocol: str = "segjax"

    def summary(self) -> dict[str, Any]:
        """As `Evaluation.summary`, with `protocol` and, one per label, `best_threshold` and
        `best_threshold_iou`."""
        return {
            **super().summary(),
            "best_threshold": list(self.best_threshold["threshold"]),
            "best_threshold_iou": list(self.best_threshold["iou"]),
            "protocol": self.protocol,
        }


def make_scoring_step(
    model: nn.Module,
    normalization: Normalization,
    head: Head = SOFTMAX,
    measures: Collection[str] = MEASURES,
    options: InferenceOptions = _ONE_VIEW,
) -> Callable[[Any, Batch], tuple[dict[str, Any], dict[str, Any]]]:
    """Returns the step of `training.step.make_eval_step` with more outputs.

    With a softmax: `prediction`, uint8 of the labels' shape, per image, where boundaries or objects
    are measured, and `calibration`, sums over the batch, where that is. With a sigmoid head:
    `thresholds`, sums of `threshold_counts`.

    Args:
      model, normalization, head: as of that step.
      measures: of `MEASURES`.
      options: whose scales and flip are the views that are measured together, see
        `tta.view_scores`.
    """
    views = functools.partial(view_scores, options=options, head=head)

    def of_thresholds(logits, labels):
        return {}, {"thresholds": threshold_counts(logits, labels)}

    if head.name == "sigmoid":
        return make_eval_step(model, normalization, of_thresholds, head, views)

    def extra(logits, labels):
        maps, sums = {}, {}
        if _on_host(measures):
            maps["prediction"] = jnp.argmax(logits, -1).astype(jnp.uint8)
        if "calibration" in measures:
            sums["calibration"] = calibration_counts(logits, labels)
        return maps, sums

    return make_eval_step(model, normalization, extra, head, views)


def _on_host(measures: Collection[str]) -> bool:
    """Whether label maps are measured on the host."""
    return "boundary" in measures or "objects" in measures


def make_logits_step(
    model: nn.Module, normalization: Normalization, options: InferenceOptions = _ONE_VIEW
) -> Callable[[Any, Batch], tuple[dict[str, Any], dict[str, Any]]]:
    """As `make_scoring_step`, for `evaluate_fully` with a CRF: the only output is `logits`, float32
    [n, H, W, K] of each image's canvas, or the scores of its views."""
    forward = view_scores(logits_fn(model, normalization), options)

    def step(variables, batch):
        return {"logits": forward(variables, batch["image"])}, {}

    return step


def evaluate_fully(
    scoring_step: Callable,
    variables: Any,
    canvas: FittedDataset,
    batch_size: int,
    devices: Devices,
    num_classes: int,
    protocol: str = "segjax",
    threads: int | None = None,
    crf: DenseCRF | None = None,
    head: Head = SOFTMAX,
    measures: Collection[str] = MEASURES,
) -> FullEvaluation | LabelEvaluation:
    """Runs a compiled step of `make_scoring_step` over every sample of a split, once.

    Threads measure boundaries and objects of a batch's label maps while the device works on the
    next batches. Sizes in pixels (tolerances, distances, buckets) are those of the scored size.
    With several processes every one must call it. Each measures its own images, and all return the
    result for the whole split.

    Args:
      protocol: of `FullEvaluation.summary`.
      threads: one per core by default.
      crf: refines the probabilities before anything is measured; `scoring_step` is then one of
        `make_logits_step`.
      head: of the step. Boundaries, objects and calibration are measured of a softmax alone; of a
        sigmoid head thresholds are.
      measures: of `MEASURES`, as the step has them.

    Raises:
      ValueError: for an unknown protocol, or one that does not suit the head, before anything runs.
    """
    find_protocol(protocol)  # raises
    if protocol not in head.protocols:
        raise ValueError(
            f"protocol {protocol!r} divides the pixels of classes that exclude one another, unlike "
            f"the labels of model.head={head.name!r}; use {', '.join(head.protocols)}"
        )
    if head.name == "sigmoid":
        return _evaluate_labels(scoring_step, variables, canvas, batch_size, devices, head)
    threads = threads or os.cpu_count() or 1
    on_host = HostMeasures(num_classes, measures)
    images, loss_sum = ImageCounts(canvas.names), 0.0
    calibration: Any = None  # nothing counted yet
    waiting = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        outputs = device_outputs(scoring_step, variables, canvas, batch_size, devices)
        if crf is not None:
            outputs = _refined(outputs, canvas, crf, pool)
        for batch, rows, sums in outputs:
            images.add(batch["index"], rows["confusion"])
            loss_sum += float(sums["loss_sum"])
            if "calibration" in measures:
                calibration = add_counts(calibration, sums["calibration"])
            if not _on_host(measures):
                continue
            maps = (label_maps(batch, x) for x in (batch["label"], rows["prediction"]))
            pairs = zip(*maps, strict=True)
            waiting.extend(pool.submit(on_host.add, *pair) for pair in pairs)
            while len(waiting) > _WAITING_PER_THREAD * threads:
                waiting.popleft().result()
        for measured in waiting:
            measured.result()
    names, confusions = images.of_all_processes()
    on_host = _merged(gather(on_host))
    pixels = int(confusions.counts.sum())
    return FullEvaluation(
        names=names,
        confusions=confusions,
        loss=loss_sum / pixels if pixels else float("nan"),
        boundary=on_host.boundaries.summary() if "boundary" in measures else {},
        calibration=summarize_calibration(calibration) if "calibration" in measures else {},
        by_object=on_host.by_object.summary() if "objects" in measures else {},
        protocol=protocol,
    )


def _refined(
    outputs: Iterable[tuple[dict, dict, dict]],
    canvas: FittedDataset,
    crf: DenseCRF,
    pool: concurrent.futures.Executor,
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]]:
    """The outputs of `make_logits_step` as those of `make_scoring_step`, after the CRF."""

    def refine(index: np.integer, logits: np.ndarray, sizes: Any) -> np.ndarray:
        image = canvas.source[int(index)]["image"]
        return _refined_image(image, logits, None if sizes is None else sizes.tolist(), crf)

    for batch, rows, _ in outputs:
        sizes = batch.get("sizes", [None] * len(batch["index"]))
        after = list(pool.map(refine, batch["index"], rows["logits"], sizes))
        classes = rows["logits"].shape[-1]
        probabilities = np.zeros((*batch["label"].shape, classes), np.float32)
        for row, refined in zip(probabilities, after, strict=True):
            flat = refined.reshape(-1, classes)
            row.reshape(-1, classes)[: len(flat)] = flat
        rows, counts = jax.device_get(_score(probabilities, batch["label"]))
        total: Any = None
        for part in gather(counts):  # each process has refined its own images
            total = add_counts(total, part)
        yield batch, rows, {"loss_sum": total["nll"], "calibration": total}


def _refined_image(
    image: UInt8[np.ndarray, "_ _ c"],
    logits: Float[np.ndarray, "H W k"],
    sizes: Sequence[int] | None,
    crf: DenseCRF,
) -> Float[np.ndarray, "h w k"]:
    """The probabilities of one image after the CRF, at the scored size.

    On the canvas the CRF works where the image fills it, on the resized image (see `fit_image`).
    Scored at the label's own size, or at a stated one, it works at the label's own size.
    """
    if sizes is None:
        probabilities = scipy.special.softmax(logits, -1)
        height, width = fitted_size(image.shape[:2], logits.shape[:2])
        inside = probabilities[:height, :width]
        probabilities[:height, :width] = dense_crf(
            inside, resize_image(image, (height, width)), crf
        )
        return probabilities
    *scored, height, width, filled_height, filled_width = sizes
    inside = jnp.asarray(logits[None, :filled_height, :filled_width])
    at_own_size = np.asarray(resize_bilinear(inside, (height, width)))[0]
    refined = dense_crf(scipy.special.softmax(at_own_size, -1), image, crf)
    return refined[nearest_pixels((height, width), scored)]


@jax.jit
def _score(probabilities: Float[jax.Array, "n *shape k"], labels: UInt8[jax.Array, "n *shape"]):
    """What a scoring step measures, from probabilities: outputs per image, and calibration."""
    prediction = jnp.argmax(probabilities, -1).astype(jnp.uint8)
    confusion = jax.vmap(confusion_matrix, (0, 0, None))(
        labels, prediction, probabilities.shape[-1]
    )
    counts = calibration_counts(probabilities, labels, from_probabilities=True)
    return {"confusion": confusion, "prediction": prediction}, counts


def _evaluate_labels(
    scoring_step: Callable,
    variables: Any,
    canvas: FittedDataset,
    batch_size: int,
    devices: Devices,
    head: Head,
) -> LabelEvaluation:
    images, loss_sum, pixels, thresholds = ImageCounts(canvas.names, head), 0.0, 0, 0
    for batch, rows, sums in device_outputs(scoring_step, variables, canvas, batch_size, devices):
        images.add(batch["index"], rows["confusion"])
        loss_sum += float(sums["loss_sum"])
        pixels += int(sums["pixels"])
        thresholds = thresholds + np.asarray(sums["thresholds"], np.int64)
    names, confusions = images.of_all_processes()
    return LabelEvaluation(
        names=names,
        confusions=confusions,
        loss=loss_sum / pixels if pixels else float("nan"),
        best_threshold=best_thresholds(np.asarray(thresholds)),
    )


class HostMeasures:
    """Measures of label maps on the host; `add` may run in several threads at once."""

    def __init__(self, num_classes: int, measures: Collection[str] = MEASURES):
        self.boundaries, self.by_object = Boundaries(num_classes), StratifiedIoU(num_classes)
        self._measures = measures

    def add(self, label: UInt8[np.ndarray, "h w"], prediction: UInt8[np.ndarray, "h w"]) -> None:
        distance = distance_to_boundary(label)  # the costliest part, which both need
        if "boundary" in self._measures:
            self.boundaries.add(label, prediction, distance)
        if "objects" in self._measures:
            self.by_object.add(label, prediction, distance)

    def merge(self, other: "HostMeasures") -> None:
        self.boundaries.merge(other.boundaries)
        self.by_object.merge(other.by_object)


def _merged(parts: Sequence[HostMeasures]) -> HostMeasures:
    """The measures of all processes, each of which saw its own images."""
    first, *others = parts
    for other in others:
        first.merge(other)
    return first
