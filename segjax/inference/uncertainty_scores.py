"""Scores of uncertainty over a split: does it point at the errors, are the probabilities right."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int, UInt8

from segjax import metrics
from segjax.data.classes import IGNORE
from segjax.data.pipeline import Batch
from segjax.inference.uncertainty import MEASURES, Samples, Uncertainty, mc_dropout
from segjax.layers import resize_bilinear
from segjax.metrics.calibration import (
    add_counts,
    calibration_counts,
    summarize_risk,
    uncertainty_counts,
)
from segjax.training.mesh import Devices
from segjax.transforms.normalize import normalize


@dataclasses.dataclass(frozen=True)
class Member:
    """A network and how it takes images.

    Attributes:
      model, variables: as trained.
      data: the run's `config.data`.
    """

    model: nn.Module
    variables: Any
    data: Mapping[str, Any]

    def normalize(self, images: UInt8[Array, "n H W c"]) -> Float[Array, "n H W c"]:
        mean, std = tuple(self.data["mean"]), tuple(self.data["std"])
        window = self.data.get("local_contrast", 0)  # older runs have no such option
        return normalize(images.astype(jnp.float32) / 255, mean, std, window)


def make_step(members: Sequence[Member], samples: int, key: jax.Array) -> Callable:
    """Returns `step(variables, batch) -> (counts, maps)`, to be jitted.

    With one member the samples are those of Monte Carlo dropout, with several each is one sample.
    `variables` is the list of theirs; a batch has uint8 `image` [n, H, W, c] and `label` [n, h, w]
    and int32 `index` [n]. `counts` holds those of the mean prediction and, under `alone0`, ..., of
    each member by itself, without dropout; `maps` the mean's `prediction` uint8 [n, h, w] and each
    of `MEASURES`, float32 [n, h, w].
    """

    def step(variables, batch):
        labels = batch["label"].astype(jnp.int32)
        size = labels.shape[1:3]
        counts, sums = {}, Samples.none((*labels.shape, members[0].model.num_classes))
        for i, (member, own) in enumerate(zip(members, variables, strict=True)):
            images = member.normalize(batch["image"])
            logits = member.model.apply(own, images, train=False)["logits"]
            logits = resize_bilinear(logits, size)
            alone = Samples.none(logits.shape).add(logits).summary()
            counts[f"alone{i}"] = prediction_counts(alone, labels, ("entropy",))
            sums = sums.add(logits)
        if len(members) > 1:
            result = sums.summary()
        else:
            model, ids = members[0].model, batch["index"]
            result = mc_dropout(model, variables[0], images, key, samples, ids=ids, size=size)
        counts["mean"] = prediction_counts(result, labels, MEASURES)
        prediction = jnp.argmax(result.probabilities, -1).astype(jnp.uint8)
        maps = {name: getattr(result, name) for name in MEASURES}
        return counts, {"prediction": prediction, **maps}

    return step


def prediction_counts(
    result: Uncertainty, labels: Int[Array, "n h w"], measures: Sequence[str]
) -> dict[str, Any]:
    """What `prediction_scores` needs of one batch; ignored pixels are in none of it. Jittable."""
    k = result.probabilities.shape[-1]
    predictions = jnp.argmax(result.probabilities, -1)
    scores, correct, labelled = result.scores(), predictions == labels, labels != IGNORE
    return {
        "confusion": metrics.confusion_matrix(labels, predictions, k),
        "calibration": calibration_counts(result.probabilities, labels, from_probabilities=True),
        "risk": {name: uncertainty_counts(scores[name], correct, labelled) for name in measures},
    }


def prediction_scores(counts: Mapping[str, Any]) -> dict[str, Any]:
    """From counts, summed over a split: `metrics.summarize`, with `calibration`
    (`calibration.summarize_calibration`) and `risk` (per measure `calibration.summarize_risk`)."""
    return {
        **metrics.summarize(counts["confusion"]),
        "calibration": summarize_calibration(counts["calibration"]),
        "risk": {name: summarize_risk(c) for name, c in counts["risk"].items()},
    }


def score_split(
    members: Sequence[Member],
    batches: Iterable[Batch],
    devices: Devices,
    *,
    samples: int = 50,
    seed: int = 0,
    shown: Sequence[int] = (),
) -> tuple[dict[str, dict[str, Any]], dict[int, dict[str, np.ndarray]]]:
    """One pass over a split.

    Args:
      members: one for Monte Carlo dropout, several for an ensemble.
      batches: those of `pipeline.eval_batches`.
      samples, seed: of dropout. An image's masks depend on the seed and its index alone.
      shown: indices of the images whose maps are wanted.

    Returns:
      `prediction_scores` of `mean` and of `alone0`, ...; and the maps of `make_step` by index.
    """
    step = jax.jit(make_step(members, samples, jax.random.key(seed)))
    variables = devices.replicate([member.variables for member in members])
    total, maps = None, {}
    for batch in batches:
        counts, batch_maps = step(variables, devices.put(batch))
        total = add_counts(total, flatten_dict(counts, sep="/"))
        for row, index in enumerate(batch["index"].tolist()):
            if index in shown:
                maps[index] = {name: np.asarray(values[row]) for name, values in batch_maps.items()}
    counts = unflatten_dict(total, sep="/")
    return {name: prediction_scores(c) for name, c in counts.items()}, maps
