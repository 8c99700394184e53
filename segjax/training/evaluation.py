"""Evaluation of a split: one pass, one confusion matrix."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from segjax import metrics
from segjax.data.pipeline import Canvas, eval_batches
from segjax.training.parallel import put_batch


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What one pass over a split counted.

    Attributes:
      confusion: int64 [K, K] pixels, row = label, column = prediction.
      loss: mean cross-entropy over the labelled pixels, unweighted.
      image_miou: float64 [n], the mIoU of each image by itself; NaN if nothing in it is labelled.
    """

    confusion: np.ndarray
    loss: float
    image_miou: np.ndarray

    def summary(self) -> dict[str, Any]:
        """`metrics.summarize` with `loss` and the number of `images`."""
        return {
            **metrics.summarize(self.confusion),
            "loss": self.loss,
            "images": len(self.image_miou),
        }


def evaluate(
    eval_step: Callable, variables: Any, canvas: Canvas, batch_size: int, mesh: Mesh
) -> Evaluation:
    """Runs a jitted `eval_step` over every sample of a split, once."""
    confusion, loss_sum, pixels, image_miou = 0, 0.0, 0, []

    def count(outputs, images):
        nonlocal confusion, loss_sum, pixels
        outputs = jax.device_get(outputs)
        per_image = outputs["confusion"][:images].astype(np.int64)
        confusion += per_image.sum(0)
        loss_sum += float(outputs["loss_sum"])
        pixels += int(outputs["pixels"])
        image_miou.extend(metrics.mean_iou(c)[0] for c in per_image)

    running = None
    for batch in eval_batches(canvas, batch_size):
        images = int(np.sum(batch.pop("index") >= 0))
        outputs = eval_step(variables, put_batch(mesh, batch))
        if running:  # read a batch's counts only when the next one is under way
            count(*running)
        running = outputs, images
    count(*running)
    return Evaluation(
        np.asarray(confusion), loss_sum / pixels if pixels else float("nan"), np.array(image_miou)
    )
