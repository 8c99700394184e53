"""Scores of uncertainty over a split: how well it ranks errors, how calibrated the mean is."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Int

from segjax import metrics
from segjax.data.classes import IGNORE
from segjax.data.fitted import Batch
from segjax.data.scored import label_maps
from segjax.inference.predictor import Predictor
from segjax.inference.uncertainty import MEASURES, Samples, Uncertainty, mc_dropout
from segjax.metrics.calibration import (
    add_counts,
    calibration_counts,
    summarize_calibration,
    summarize_risk,
    uncertainty_counts,
)
from segjax.training.evaluation import Evaluation, ImageCounts
from segjax.training.forward import Forward
from segjax.training.mesh import Devices
from segjax.training.scored_pixels import logits_at_all


def make_step(forwards: Sequence[Forward], samples: int, key: jax.Array) -> Callable:
    """Returns `step(variables, batch) -> (counts, confusions, maps)`, to be jitted.

    One network is sampled by Monte Carlo dropout; of several networks each is one sample.
    `variables` is the list of theirs; a batch has uint8 `image` [n, H, W, c] and `label` [n, h, w]
    (or flat ones with their sizes, see `scored.ScoredDataset`) and int32 `index` [n]. `counts`
    holds the `prediction_counts` of the mean prediction (`mean`), and of each network alone without
    dropout (`alone0`, ...). `confusions` are the mean's, int32 [n, K, K]. `maps` holds the mean's
    `prediction`, uint8, and each of `MEASURES`, float32, of the labels' shape.

    Args:
      forwards: see `segjax.training.forward.logits_fn`, with train=False.
      samples, key: of dropout.
    """

    def step(variables, batch):
        images, labels = batch["image"], batch["label"].astype(jnp.int32)
        shape = labels.shape
        resize = _not_resized
        if "sizes" in batch:
            labels = labels[:, None]  # a row of pixels
            resize = functools.partial(logits_at_all, sizes=batch["sizes"], length=shape[1])
        counts: dict[str, Any] = {}
        sums: Any = None
        for i, (forward, own) in enumerate(zip(forwards, variables, strict=True)):
            logits = resize(forward(own, images))
            alone = Samples.none((*labels.shape, logits.shape[-1])).add(logits)
            counts[f"alone{i}"] = prediction_counts(alone.summary(), labels, ("entropy",))
            sums = alone if sums is None else sums.add(logits)
        if len(forwards) > 1:
            result = sums.summary()
        else:
            result = mc_dropout(
                forwards[0], variables[0], images, key, samples, index=batch["index"], resize=resize
            )
        counts["mean"] = prediction_counts(result, labels, MEASURES)
        prediction = jnp.argmax(result.probabilities, -1).astype(jnp.uint8)
        classes = result.probabilities.shape[-1]
        confusions = jax.vmap(metrics.confusion_matrix, (0, 0, None))(labels, prediction, classes)
        maps = {"prediction": prediction, **{name: getattr(result, name) for name in MEASURES}}
        return counts, confusions, {name: values.reshape(shape) for name, values in maps.items()}

    return step


def _not_resized(logits: Array) -> Array:
    return logits


def prediction_counts(
    result: Uncertainty, labels: Int[Array, "n h w"], measures: Sequence[str]
) -> dict[str, Any]:
    """The counts of one batch for `prediction_scores`, without ignored pixels. Jittable."""
    k = result.probabilities.shape[-1]
    predictions = jnp.argmax(result.probabilities, -1)
    scores, correct, labelled = result.scores(), predictions == labels, labels != IGNORE
    return {
        "confusion": metrics.confusion_matrix(labels, predictions, k),
        "calibration": calibration_counts(result.probabilities, labels, from_probabilities=True),
        "risk": {name: uncertainty_counts(scores[name], correct, labelled) for name in measures},
    }


def prediction_scores(counts: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of counts that are summed over a split.

    Returns:
      Those of `metrics.summarize`; `calibration`, of `metrics.summarize_calibration`; and `risk`,
      of `metrics.summarize_risk` per measure.
    """
    return {
        **metrics.summarize(counts["confusion"]),
        "calibration": summarize_calibration(counts["calibration"]),
        "risk": {name: summarize_risk(c) for name, c in counts["risk"].items()},
    }


def score_split(
    predictors: Sequence[Predictor],
    batches: Iterable[Batch],
    devices: Devices,
    names: Mapping[int, str],
    *,
    samples: int = 50,
    seed: int = 0,
    shown: Sequence[int] = (),
) -> tuple[dict[str, dict[str, Any]], Evaluation, dict[int, dict[str, np.ndarray]]]:
    """Scores one pass over a split.

    Args:
      predictors: one for Monte Carlo dropout, several for an ensemble.
      batches: of `batches.eval_batches`.
      names: of the images, by index.
      samples, seed: of dropout. The masks of an image depend on the seed and its index alone.
      shown: indices of the images whose maps are returned.

    Returns:
      `prediction_scores` of `mean` and of `alone0`, ...; the evaluation of `mean`; and the maps of
      `make_step` by index.
    """
    forwards = [predictor.forward for predictor in predictors]
    step = jax.jit(make_step(forwards, samples, jax.random.key(seed)))
    variables = devices.replicate([predictor.variables for predictor in predictors])
    total, images, maps = None, ImageCounts(names), {}
    for batch in batches:
        counts, confusions, batch_maps = step(variables, devices.put(batch))
        real = batch["index"] >= 0
        images.add(batch["index"][real], np.asarray(confusions)[real])
        total = add_counts(total, dict(flatten_dict(counts, sep="/")))
        places = {i: row for row, i in enumerate(batch["index"].tolist()) if i in shown}
        if places:
            by_name = {n: label_maps(batch, np.asarray(x)) for n, x in batch_maps.items()}
            maps |= {i: {n: x[row] for n, x in by_name.items()} for i, row in places.items()}
    counts: dict[str, Any] = dict(unflatten_dict(total, sep="/"))
    scores = {name: prediction_scores(c) for name, c in counts.items()}
    evaluation = Evaluation(*images.of_all_processes(), scores["mean"]["calibration"]["nll"])
    return scores, evaluation, maps
